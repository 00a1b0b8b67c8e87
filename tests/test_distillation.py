from dataclasses import replace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from compression.distillation import Distill
from compression.distillation_parts import AttentionTransfer, FeatureHint, Relational, SoftTargets
from compression.feature_maps import Answer, Tap, find_layer, to_map
from compression.recipe import ExportSpec, Tools, apply_steps, weights_digest
from compression.teachers import BatchView, LateView, RecordView, look_at_records
from lightning_modules.nets.ensemble import Ensemble
from tests.configs import CLASSIFIERS, compose_config, names_of
from tests.tiny import TinyDataModule, tiny_module, tiny_trainer

HERE = {"start": "here", "max_epochs": 2, "learning_rate": 0.01}


def teacher(widths=(6,), **options):
    return tiny_module(widths, seed=1, **options).eval()


def make_tools(fit=None, **options):
    """Tools whose fit does nothing, unless one is given."""
    given = {"datamodule": TinyDataModule(), "rebuild": tiny_module, "teacher": teacher()}
    return Tools(fit=fit or (lambda module, about, **options: module), **{**given, **options})


def distill(step, tools=None, module=None):
    student, _ = step(module or tiny_module(), ExportSpec(), tools or make_tools())
    return student


def batch(data, index=(5, 2, 9)):
    rows = torch.tensor(index)
    return torch.from_numpy(data.signals)[rows], torch.from_numpy(data.all_targets)[rows], rows


def first_loss(step, tools, **options):
    """Loss of one batch as the fit would see it, with the module that is fitted."""
    seen = []

    def fit(module, about, **ignored):
        items = batch(tools.datamodule)
        seen.append((module.criterion(module(items[0]), items), module, items))
        return module

    distill(step, replace(tools, fit=fit, **options))
    return seen[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_weight": -1}, "label_weight is -1"),
        ({"view": "epoch"}, "view is 'epoch'"),
        ({"start": "there"}, "start is 'there'"),
        ({"parts": {}}, "parts is empty"),
        ({"start": "here"}, "give both"),
        ({"start": "here", "max_epochs": 3}, "give both"),
        ({"learning_rate": 0.1}, "start=fresh trains as the student's own fit does"),
        ({"parts": {"at": AttentionTransfer()}}, "part 'at' compares maps over time, but view=record"),
    ],
)
def test_distill_refuses_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        Distill(**options)


def test_distill_refuses_a_teacher_with_other_classes():
    other = teacher()
    other.class_names = ("a", "c")
    with pytest.raises(ValueError, match=r"the teacher knows \('a', 'c'\)"):
        distill(Distill(), make_tools(teacher=other))


def test_distill_without_a_teacher_says_where_to_get_one():
    with pytest.raises(ValueError, match="needs a teacher"):
        distill(Distill(), make_tools(teacher=None))


def test_a_fresh_student_after_another_step_is_refused():
    with pytest.raises(ValueError, match=r"comes after 'prune_structured': a fresh student would throw away"):
        distill(Distill(), make_tools(history=("prune_structured",)))


def test_distilling_further_keeps_the_structure_and_leaves_the_given_module_alone():
    shaped = tiny_module((3,), seed=7)
    before = weights_digest(shaped)
    seen = []

    def fit(module, about, *, max_epochs, datamodule=None):
        seen.append((about, max_epochs, weights_digest(module)))
        for value in module.net.parameters():
            value.data.zero_()
        return module

    student = distill(Distill(**HERE), make_tools(fit, history=("prune_structured",)), shaped)
    about, max_epochs, start = seen[0]
    assert (about["start"], about["learning_rate"], max_epochs, start) == (before, 0.01, 2, before)
    assert student.net.head.in_features == 3
    assert weights_digest(shaped) == before


def test_the_loss_is_the_weighted_sum_of_its_parts():
    parts = {"soft": SoftTargets(weight=0.5), "hint": FeatureHint(weight=0.2), "rkd": Relational(weight=0.1)}
    tools = make_tools()
    loss, student, items = first_loss(Distill(parts, label_weight=0.6, view="batch"), tools)
    with Tap(student.net, ["features"]) as ours, Tap(tools.teacher.net, ["features"]) as theirs, torch.no_grad():
        logits, answers = student(items[0]), tools.teacher(items[0])
        own, taught = ours.take()["features"], theirs.take()["features"]
    # The student was in training mode: its norms used the batch, so the maps are those of the same mode here.
    torch.manual_seed(0)
    projection = nn.Conv1d(4, 6, 1)
    expected = (
        0.6 * student.label_loss(logits, items)
        + 0.5 * parts["soft"](Answer(logits), Answer(answers))
        + 0.2 * parts["hint"](Answer(logits, projection(own)), Answer(answers, taught))
        + 0.1 * parts["rkd"](Answer(logits, own), Answer(answers, taught))
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_distill_gives_the_student_the_loss_of_its_classes():
    tools = make_tools(
        datamodule=TinyDataModule(exclusive=True),
        rebuild=lambda: tiny_module(exclusive=True),
        teacher=teacher(exclusive=True),
    )
    loss, student, items = first_loss(Distill({"soft": SoftTargets(weight=1.0)}, 0.0), tools)
    logits, answers = student(items[0]).detach(), tools.teacher(items[0]).detach()
    expected = SoftTargets()(Answer(logits, exclusive=True), Answer(answers, exclusive=True))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("part", [FeatureHint(), AttentionTransfer(), Relational()])
def test_a_fit_leaves_no_trace_of_teacher_or_projection_in_the_student(part, tmp_path):
    fitted = []

    def fit(module, about, *, max_epochs=None, datamodule=None):
        before = [value.clone() for value in module.criterion.parameters()]
        tiny_trainer(tmp_path, epochs=1).fit(module, datamodule=TinyDataModule())
        moved = [not torch.equal(a, b) for a, b in zip(before, module.criterion.parameters(), strict=True)]
        fitted.append((moved, set(module.state_dict())))
        return module

    tools = make_tools(fit)
    taught = weights_digest(tools.teacher)
    student = distill(Distill({"part": part}, view="batch"), tools)
    moved, during = fitted[0]
    assert moved == ([True, True] if part.learns else [])
    assert any(name.startswith("criterion.") for name in during) is part.learns
    assert not any("teacher" in name for name in during)
    assert set(student.state_dict()) == set(tiny_module().state_dict())
    assert sum(value.numel() for value in student.parameters()) == sum(x.numel() for x in tiny_module().parameters())
    assert student.criterion is student.label_loss
    assert not any(module._forward_hooks for module in [*student.net.modules(), *tools.teacher.net.modules()])
    assert weights_digest(tools.teacher) == taught
    torch.export.export(student.net.eval(), (torch.zeros(2, 2, 64),))


def test_hints_between_maps_of_other_lengths_and_widths():
    deep = teacher((6, 8))
    part = FeatureHint(layer="features.0", teacher_layer="features.5")
    loss, student, _ = first_loss(Distill({"hint": part}, view="batch"), make_tools(teacher=deep))
    assert loss.isfinite()
    assert student.net.features[0].out_channels == 4


def test_a_layer_that_does_not_exist_is_named():
    part = FeatureHint(teacher_layer="trunk")
    with pytest.raises(ValueError, match=r"parts.hint.teacher_layer is 'trunk', not a layer of Cnn1d"):
        distill(Distill({"hint": part}, view="batch"))


def test_an_ensemble_has_no_map_of_its_own_but_its_members_do():
    many = teacher()
    many.net = Ensemble([teacher().net, teacher().net]).eval()
    tools = make_tools(teacher=many)
    assert distill(Distill(), tools).net is not None
    with pytest.raises(ValueError, match="no child of Ensemble puts out a map"):
        distill(Distill({"hint": FeatureHint()}), tools)
    distill(Distill({"hint": FeatureHint(teacher_layer="members.1.features")}), tools)


def test_an_ensemble_answers_with_the_mean_of_its_members():
    members = [teacher().net, tiny_module((6,), seed=2).net.eval()]
    signal = torch.randn(3, 2, 64)
    expected = (members[0](signal) + members[1](signal)) / 2
    torch.testing.assert_close(Ensemble(members)(signal), expected)


@pytest.mark.parametrize("name", [name for name in names_of("compression") if name.startswith("distill")])
def test_every_recipe_makes_its_parts(name):
    step = instantiate(compose_config(f"compression={name}").compression.steps.distill)
    assert all(part.weight > 0 for part in step.parts.values())
    assert step.name == name.removesuffix("_ptq_int8").removesuffix("_qat_int8")
    assert len(step.parts) == (2 if name in ("distill_feature", "distill_attention", "distill_relational") else 1)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_net_has_a_last_map_before_pooling(name):
    net = instantiate(compose_config(f"model={name}").model.module.net)
    signal = torch.randn(2, 12, 1000)
    layer, channels = find_layer(net, None, signal, "layer")
    assert layer == {"cnn_vit": "blocks"}.get(name, "features")
    with Tap(net, [layer]) as tap, torch.no_grad():
        net(signal)
        value = tap.take()[layer]
    assert value.shape[:2] == (2, channels)
    assert value.shape[2] > 1
    assert net.training


def test_what_the_weights_depend_on_is_told():
    def about_of(step, **options):
        seen = []
        distill(step, make_tools(lambda module, about, **ignored: seen.append(about) or module, **options))
        return seen[0]

    base = about_of(Distill())
    assert base["teacher"] == weights_digest(teacher())
    others = [
        about_of(Distill(), teacher=tiny_module((6,), seed=9).eval()),
        about_of(Distill(label_weight=0.5)),
        about_of(Distill(view="batch")),
        about_of(Distill({"soft": SoftTargets(temperature=3.0)})),
        about_of(Distill({"soft": SoftTargets(weight=0.2)})),
        about_of(Distill({"hint": FeatureHint()})),
        about_of(Distill({"hint": FeatureHint(layer="features.0")})),
        about_of(Distill(**HERE)),
    ]
    assert all(other != base for other in others)
    assert len({str(other) for other in others}) == len(others)


def test_both_views_agree_where_nothing_is_augmented():
    data, module = TinyDataModule(), teacher()
    items = batch(data)
    by_record = look_at_records(module, data, ["features"])(items)
    with Tap(module.net, ["features"]) as tap:
        logits, maps = BatchView(module, tap)(items)
    torch.testing.assert_close(by_record[0], logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(by_record[1]["features"], maps["features"].mean(2, keepdim=True), atol=1e-5, rtol=1e-5)


def test_records_outside_training_stay_unusable():
    data = TinyDataModule()
    data.splits["train"] = np.array([1, 4])
    view = look_at_records(teacher(), data, ["features"])
    for value in (view.logits, view.maps["features"]):
        assert torch.isnan(value[[0, 2, 3]]).all()
        assert torch.isfinite(value[[1, 4]]).all()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_teacher_is_asked_once_at_the_first_batch_in_its_own_precision(precision):
    data, module = TinyDataModule(), teacher()
    asked = []

    def look():
        asked.append(True)
        return look_at_records(module, data)

    view = LateView(look)
    assert not asked
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        answers = [view(batch(data))[0] for _ in range(2)]
    assert len(asked) == 1
    for answer in answers:
        torch.testing.assert_close(answer, look_at_records(module, data)(batch(data))[0], atol=0, rtol=0)


def test_a_student_that_is_found_again_asks_no_teacher(monkeypatch):
    monkeypatch.setattr("compression.distillation.look_at_records", lambda *_: pytest.fail("the teacher was asked"))
    distill(Distill(), make_tools(fit=lambda module, about, **options: module))


def test_a_record_view_looks_windows_up_by_index():
    logits, maps = RecordView(torch.arange(10.0).reshape(10, 1))(batch(TinyDataModule()))
    assert logits.flatten().tolist() == [5, 2, 9]
    assert maps == {}


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 7), (2, 3, 1, 7)])
def test_every_output_is_laid_out_over_time(shape):
    assert to_map(torch.zeros(shape)).shape == (2, 3, shape[-1] if len(shape) > 2 else 1)


def test_a_tap_forgets_what_was_taken():
    net = tiny_module().net
    with Tap(net, ["features"]) as tap:
        net(torch.zeros(2, 2, 64))
        assert set(tap.take()) == {"features"}
        assert tap.take() == {}


def test_a_student_distilled_on_its_own_answers_follows_its_teacher(tmp_path):
    """Without labels, a student that is trained long enough answers as its teacher does."""
    data = TinyDataModule()

    def fit(module, about, **options):
        trainer = tiny_trainer(tmp_path, epochs=12)
        trainer.fit(module, datamodule=data)
        return module.eval()

    good = tiny_module((6,), seed=1)
    tiny_trainer(tmp_path / "teacher", epochs=4).fit(good, datamodule=data)
    tools = make_tools(fit, datamodule=data, teacher=good.eval())
    windows = torch.from_numpy(data.windows("val"))
    step = Distill({"soft": SoftTargets(weight=1.0, temperature=1.0)}, label_weight=0.0)
    untaught = tiny_module().eval()
    with torch.no_grad():
        answers = good(windows)
        gaps = [(net(windows) - answers).abs().mean() for net in (distill(step, tools), untaught)]
    assert gaps[0] < 0.5 * gaps[1]


def test_steps_that_follow_find_a_student_that_trains_on_its_labels():
    class Look:
        name, claims = "look", {}

        def __call__(self, module, spec, tools):
            assert module.criterion is module.label_loss
            return module, spec

    stages = list(apply_steps(tiny_module(), [Distill({"hint": FeatureHint()}), Look()], make_tools()))
    assert [stage.recipe for stage in stages] == ["distill", "distill_look"]
