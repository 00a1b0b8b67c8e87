import numpy as np
import pytest
import torch

from compression.distillation import BatchView, Distill, RecordView, SoftTargetLoss, record_logits
from compression.quantization import PtqInt8
from compression.recipe import ExportSpec, Tools, apply_steps, fine_tune, weights_digest
from lightning_modules.classifier import bce_loss, softmax_loss
from tests.tiny import TinyDataModule, tiny_module


def tools(teacher=None, fit=None):
    return Tools(
        datamodule=TinyDataModule(),
        fit=fit or (lambda module, about: module),
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "temperature is 0"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"view": "epoch"}, "view is 'epoch'"),
    ],
)
def test_distill_refuses_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Distill(**options)


def test_distill_refuses_a_teacher_with_other_classes():
    teacher = tiny_module()
    teacher.class_names = ("a", "c")
    with pytest.raises(ValueError, match=r"the teacher knows \('a', 'c'\)"):
        list(apply_steps(tiny_module(), [Distill()], tools(teacher)))


def test_distill_names_the_teachers_weights_in_what_the_fit_depends_on():
    seen = []
    teacher = tiny_module(seed=3)
    list(apply_steps(tiny_module(), [Distill()], tools(teacher, lambda module, about: seen.append(about) or module)))
    assert seen[0]["teacher"] == weights_digest(teacher) != weights_digest(tiny_module(seed=4))


def batch():
    data = TinyDataModule()
    index = torch.tensor([5, 2, 9])
    return torch.from_numpy(data.signals)[index], torch.from_numpy(data.all_targets)[index], index


def test_soft_targets_with_alpha_zero_are_the_labels():
    logits = torch.randn(3, 2)
    loss = SoftTargetLoss(RecordView(torch.randn(10, 2)), 3.0, 0.0)
    assert loss(logits, batch()) == pytest.approx(float(bce_loss(logits, batch())))


def test_soft_targets_pull_the_student_to_the_teacher():
    teacher_logits = torch.randn(10, 2)
    loss = SoftTargetLoss(RecordView(teacher_logits), 2.0, 1.0)
    logits = torch.zeros(3, 2, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.1)
    for _ in range(400):
        optimizer.zero_grad()
        loss(logits, batch()).backward()
        optimizer.step()
    torch.testing.assert_close(logits.detach(), teacher_logits[[5, 2, 9]], atol=1e-2, rtol=0)


def test_soft_targets_of_exclusive_classes_follow_hinton():
    torch.manual_seed(0)
    teacher_logits, logits, labels = torch.randn(10, 2), torch.randn(3, 2), batch()
    teacher, student = (values.div(3.0).softmax(dim=1) for values in (teacher_logits[[5, 2, 9]], logits))
    divergence = (teacher * (teacher / student).log()).sum(dim=1).mean()
    expected = 0.3 * softmax_loss(logits, labels) + 0.7 * 9 * divergence
    loss = SoftTargetLoss(RecordView(teacher_logits), 3.0, 0.7, exclusive=True)
    assert loss(logits, labels) == pytest.approx(float(expected), rel=1e-5)


def test_distill_gives_the_student_the_loss_of_its_classes():
    made = []
    options = Tools(
        TinyDataModule(exclusive=True),
        fit=lambda module, about: made.append(module) or module,
        rebuild=lambda: tiny_module(exclusive=True),
        teacher=tiny_module(seed=1, exclusive=True),
    )
    list(apply_steps(tiny_module(exclusive=True), [Distill()], options))
    assert made[0].criterion.exclusive


def test_both_views_agree_where_nothing_is_augmented():
    teacher, data = tiny_module(seed=1).eval(), TinyDataModule()
    by_record = RecordView(record_logits(teacher, data))(batch())
    torch.testing.assert_close(by_record, BatchView(teacher)(batch()), atol=1e-5, rtol=1e-5)


def test_record_logits_leave_other_positions_unusable():
    data = TinyDataModule()
    data.splits["train"] = np.array([1, 4])
    logits = record_logits(tiny_module().eval(), data)
    assert torch.isnan(logits[[0, 2, 3]]).all()
    assert torch.isfinite(logits[[1, 4]]).all()


def test_distill_without_a_teacher_says_where_to_get_one():
    with pytest.raises(ValueError, match="needs a teacher"):
        list(apply_steps(tiny_module(), [Distill()], tools()))
