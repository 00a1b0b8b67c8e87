import pytest

from compression.distillation import Distill
from compression.pruning import PruneStructured
from compression.quantization import PtqInt8
from compression.recipe import ExportSpec, Tools, apply_steps, check_order, fine_tune
from compression.rewriting import BnFold, LowRank
from compression.sparsity import PruneNM, PruneUnstructured
from tests.tiny import TinyDataModule, tiny_module


def tools(teacher=None, fit=None):
    return Tools(
        datamodule=TinyDataModule(),
        fit=fit or (lambda module, about, **options: module),
        rebuild=tiny_module,
        teacher=teacher,
    )


def test_steps_yield_a_stage_each_with_a_joined_name():
    stages = list(apply_steps(tiny_module(), [Distill(), PtqInt8(8)], tools(tiny_module(seed=1))))
    assert [stage.recipe for stage in stages] == ["distill", "distill_ptq_int8"]
    assert [stage.spec.precision for stage in stages] == ["float32", "int8"]
    assert stages[0].module is stages[1].module


def test_steps_refuse_training_after_quantization():
    with pytest.raises(ValueError, match="'distill' comes after 'ptq_int8', which makes the file int8; put it before"):
        list(apply_steps(tiny_module(), [PtqInt8(8), Distill()], tools(tiny_module(seed=1))))


def test_steps_know_what_came_before_them():
    seen = []

    class Look:
        name, claims = "look", {}

        def __call__(self, module, spec, tools):
            seen.append(tools.history)
            return module, spec

    list(apply_steps(tiny_module(), [Look(), Look()], tools()))
    assert seen == [(), ("look",)]


def test_fine_tuning_depends_on_the_weights_that_it_starts_from():
    seen = []

    def fit(module, about, *, max_epochs):
        seen.append((about, max_epochs))
        return module

    for seed in (0, 1):
        fine_tune(tiny_module(seed=seed), tools(fit=fit), {"step": "x"}, max_epochs=3, learning_rate=1e-4)
    (first, epochs), (second, _) = seen
    assert epochs == 3
    assert first["step"] == "x"
    assert first["start"] != second["start"]


def test_ptq_calibrates_on_training_windows_only():
    data = TinyDataModule()
    _, spec = PtqInt8(32)(tiny_module(), ExportSpec(), tools())
    assert set(spec.calibration_positions) <= set(data.splits["train"].tolist())
    assert len(spec.calibration_positions) == 32


def test_ptq_refuses_an_empty_calibration_set():
    with pytest.raises(ValueError, match="n_calibration is 0"):
        PtqInt8(0)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 11, 40])
def test_fine_tuning_runs_through_one_cycle_however_short(steps):
    module = fine_tune(tiny_module(), tools(), {}, max_epochs=1, learning_rate=1e-4)
    optimizer = module.optimizer(module.parameters())
    scheduler = module.scheduler(optimizer, total_steps=steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step() if len(rates) < steps else None
    assert 0 < max(rates) <= 1e-4


PRUNE, ZERO, FOLD, FACTORISE = PruneStructured(target_macs=0.5), PruneUnstructured(), BnFold(), LowRank(energy=0.9)
HERE = Distill(start="here", max_epochs=1, learning_rate=1e-3, name="distill_here")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((PtqInt8(8), PRUNE), "'prune_structured' comes after 'ptq_int8', which makes the file int8; put it before"),
        ((PRUNE, PtqInt8(8), HERE), "'distill_here' comes after 'ptq_int8'"),
        ((PRUNE, Distill()), "'distill' comes after 'prune_structured': a fresh student would throw away"),
        ((HERE, Distill()), "'distill' comes after 'distill_here': a fresh student"),
        ((ZERO, PRUNE), "'prune_structured' comes after 'prune_unstructured': .*prune whole channels first"),
        ((ZERO, HERE), "'distill_here' comes after 'prune_unstructured': training does not hold the zeros"),
        ((PruneNM(), FACTORISE), "'low_rank' comes after 'prune_n_m': .*factorise first"),
        ((FOLD, PRUNE), "'prune_structured' comes after 'bn_fold': a net trains worse without its norms"),
        ((FOLD, ZERO), "'prune_unstructured' comes after 'bn_fold'"),
        ((FOLD, HERE), "'distill_here' comes after 'bn_fold'"),
        ((FOLD, FOLD), "'bn_fold' comes after 'bn_fold': there is no norm left"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_before_anything_is_trained(steps, message):
    def fit(module, about, **options):
        raise AssertionError("trained")

    with pytest.raises(ValueError, match=message):
        next(apply_steps(tiny_module(), steps, tools(tiny_module(seed=1), fit)))


@pytest.mark.parametrize(
    "steps",
    [
        (PRUNE, HERE, PtqInt8(8)),
        (Distill(), PRUNE, HERE, FOLD, PtqInt8(8)),
        (PRUNE, FACTORISE, ZERO, PtqInt8(8)),
        (FACTORISE, PRUNE, PruneNM(), FOLD),
    ],
)
def test_orders_that_make_sense_are_let_through(steps):
    check_order(steps)
