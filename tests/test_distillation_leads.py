"""A student of few leads under a teacher of twelve: the same windows for both, and the whole job."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import train
from compression.distillation import Distill
from compression.distillation_parts import AttentionTransfer, SoftTargets
from compression.recipe import ExportSpec, Tools
from compression.teachers import PairedData, check_same_windows
from datamodules.augment import EcgAugment
from datamodules.ecg import EcgDataModule
from datamodules.ptbxl import load_ptbxl
from lightning_modules.classifier import Classifier
from lightning_modules.nets.cnn1d import Cnn1d
from tests.configs import compose_config
from tests.mlflow_template import template_database
from tests.ptbxl_files import CLASSES, LEADS, write_ptbxl
from tracking.store import initialise


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Folds 1-5 with five labelled records each."""
    return write_ptbxl(tmp_path_factory.mktemp("ptbxl"), folds=(1, 2, 3, 4, 5))


@pytest.fixture(scope="module")
def make(original, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def make_data(*lead_names, **options):
        names = lead_names or LEADS
        defaults = {
            "source": partial(load_ptbxl, cache_dir=cache),
            "name": "ptbxl",
            "kind": "real",
            "root": original,
            "n_leads": len(names),
            "lead_names": names,
            "n_classes": 5,
            "class_names": CLASSES,
            "fs": 100,
            "n_samples": 1000,
            "folds": {"train": [1, 2], "val": [3], "test": [4]},
            "batch_size": 4,
            "seed": 0,
            "augment": EcgAugment(100, crop_s=2.5),
        }
        data = EcgDataModule(**{**defaults, **options})
        data.setup()
        return data

    return make_data


def make_module(n_leads, seed=0):
    torch.manual_seed(seed)
    net = Cnn1d(n_leads, 5, 1000, (4,), 5, dropout=0.0)
    return Classifier(net, CLASSES, partial(torch.optim.Adam, lr=0.01))


def fit_nothing(seen):
    def fit(module, about, *, max_epochs=None, datamodule=None):
        seen.append((about, datamodule, module.criterion))
        return module

    return fit


def test_all_leads_and_one_lead_are_the_same_windows(make):
    check_same_windows(make("I"), make())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": {"train": [1, 2], "val": [3], "test": [5]}}, "window 0 of the side 'test' is of record '17'"),
        ({"folds": {"train": [1], "val": [3], "test": [4]}}, "have 5 windows on the side 'train', the student's 10"),
        ({"class_names": CLASSES[::-1]}, "class_names is .* in the teacher's data"),
    ],
)
def test_other_windows_or_classes_for_the_teacher_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        check_same_windows(make("I"), make(**options))


def test_windows_at_another_time_are_refused(make):
    student, teacher = make("I"), make()
    moved = (np.arange(len(data._data)) + shift for shift, data in ((0.0, student), (1.0, teacher)))
    for data, times_s in zip((student, teacher), moved, strict=True):
        data._data = dataclasses.replace(data._data, times_s=times_s)
    with pytest.raises(ValueError, match="or lies elsewhere"):
        check_same_windows(student, teacher)


@pytest.mark.parametrize("leads", [("I",), ("V5", "II")])
def test_paired_batches_are_those_of_each_alone(make, leads):
    """Two epochs: the student's signals are the ones of its own loader, the teacher's those of its own."""
    student, teacher = make(*leads), make()
    paired = PairedData(student, teacher)
    loader, own, taught = paired.train_dataloader(), make(*leads).train_dataloader(), make().train_dataloader()
    assert len(loader) == len(own) == 2
    for _ in range(2):
        for both, one, other in zip(loader, own, taught, strict=True):
            assert both[0].shape == (4, len(leads), 250)
            torch.testing.assert_close(both[0], one[0], atol=1e-5, rtol=1e-5)
            assert all(torch.equal(both[at], one[at]) for at in (1, 2))
            assert torch.equal(both[3], other[0])
    assert next(iter(paired.val_dataloader()))[0].shape[1] == len(leads)


def test_paired_batches_are_told_from_the_students_own(make):
    student, teacher = make("I"), make()
    paired = PairedData(student, teacher)
    assert paired.preprocessing_digest == student.preprocessing_digest
    assert paired.training_settings != student.training_settings
    assert PairedData(student, make(augment=None)).training_settings != paired.training_settings


def test_a_lead_that_the_teacher_lacks_has_no_common_crop(make):
    with pytest.raises(ValueError, match=r"leads \['I'\] of the student are not among the teacher's \['II', 'V1'\]"):
        PairedData(make("I"), make("II", "V1"))


def test_another_rate_has_no_common_crop(make):
    teacher = make()
    teacher.fs = 500
    with pytest.raises(ValueError, match=r"1000 samples at 500 Hz, the student's 1000 at 100: .*view=record"):
        PairedData(make("I"), teacher)


def test_a_lead_that_the_data_lack_is_named(make):
    with pytest.raises(ValueError, match=r"datamodule\.lead_names.*missing: \['V7'\]"):
        make("V7")


@pytest.mark.parametrize("view", ["record", "batch"])
def test_the_teacher_answers_to_its_own_leads(make, view):
    student, teacher, seen = make("I", augment=None), make(augment=None), []
    taught = make_module(12, seed=1).eval()
    options = {"rebuild": lambda: make_module(1), "teacher": taught, "teacher_data": teacher}
    Distill({"soft": SoftTargets()}, view=view)(
        make_module(1), ExportSpec(), Tools(student, fit_nothing(seen), **options)
    )
    about, datamodule, criterion = seen[0]
    assert about["teacher_data"] == teacher.preprocessing_digest
    assert isinstance(datamodule, PairedData) is (view == "batch")
    batch = next(iter((datamodule or student).train_dataloader()))
    logits, _ = criterion.teacher(batch)
    positions = batch[2].numpy()
    expected = taught(torch.from_numpy(teacher.windows("train", positions)))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_the_step_refuses_other_windows_for_the_teacher(make):
    options = {"rebuild": lambda: make_module(1), "teacher": make_module(12).eval()}
    other = make(folds={"train": [1, 2], "val": [3], "test": [5]})
    with pytest.raises(ValueError, match="both must be the same records"):
        Distill()(make_module(1), ExportSpec(), Tools(make("I"), fit_nothing([]), teacher_data=other, **options))


SMALL = (
    "datamodule.source.n_patients=120",
    "model=cnn1d_57k",
    "model@compression.teacher=cnn1d_57k",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
    "callbacks=quiet",
    "bootstrap.n_resamples=100",
    "latency_window_s.synthetic=0.05",
    "gate=report",
)
LEAD_I = ("datamodule.lead_names=[I]", "datamodule.n_leads=1")


def run_job(folder: Path, name: str, *overrides: str):
    small = [item for item in SMALL if "compression=none" not in overrides or "compression.teacher" not in item]
    config = compose_config(*small, *overrides, f"group={name}")
    config.paths.update(
        synthetic=str(folder / "data"),
        cache=str(folder / "cache"),
        floats=str(folder / "floats"),
        output=str(folder / name),
    )
    config.tracking.update(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_location=str(folder / "mlruns"))
    return train.run(config)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """12 leads teach lead I, on the same crops and with attention: its folder and rows."""
    folder = tmp_path_factory.mktemp("leads")
    (folder / "mlflow.db").write_bytes(template_database())
    attention = "{_target_:compression.distillation_parts.AttentionTransfer,weight:0.1}"
    options = ("steps.distill.view=batch", f"+compression.steps.distill.parts.attention={attention}")
    rows = run_job(folder, "leads", "compression=distill_leads", *LEAD_I, f"compression.{options[0]}", options[1])
    return folder, rows


def test_the_job_on_lead_i_has_the_teacher_the_student_alone_and_the_distilled(job):
    _, rows = job
    assert [(row.role, row.recipe) for row in rows] == [
        ("teacher", "none"),
        ("student", "none"),
        ("student", "distill_leads"),
    ]
    assert [row.reference for row in rows] == [None, rows[0].name, rows[1].name]
    assert all("test/auroc_macro" in row.delta for row in rows[1:])
    assert len({row.split_digest for row in rows}) == 1
    assert rows[0].preprocessing_digest != rows[1].preprocessing_digest == rows[2].preprocessing_digest
    # 11 leads more, each with 50 kernels of 10 samples; neither projection nor teacher counts.
    assert rows[0].params - 11 * 500 == rows[1].params == rows[2].params


def test_files_of_the_job_say_which_leads_they_take(job):
    folder, _ = job
    found = {}
    for path in (folder / "leads").glob("*.onnx"):
        facts = {item.key: item.value for item in onnx.load(path).metadata_props}
        found[path.name.split("-")[0], facts["recipe"]] = json.loads(facts["lead_names"])
    assert found == {
        ("teacher", "none"): list(LEADS),
        ("student", "none"): ["I"],
        ("student", "distill_leads"): ["I"],
    }


def test_teacher_and_undistilled_student_are_those_of_other_jobs(job, monkeypatch):
    folder, rows = job
    monkeypatch.setattr("pytorch_lightning.Trainer.fit", None)
    (alone,) = run_job(folder, "alone", "compression=none", *LEAD_I)
    (twelve,) = run_job(folder, "twelve", "compression=none")
    assert alone.metrics["test/auroc_macro"].value == rows[1].metrics["test/auroc_macro"].value
    assert twelve.metrics["test/auroc_macro"].value == rows[0].metrics["test/auroc_macro"].value


def test_weights_of_an_ensemble_are_one_teacher_in_one_row(job):
    folder, rows = job
    client = initialise(f"sqlite:///{folder / 'mlflow.db'}").client
    assert client.get_run(rows[0].run_id).data.params["fit.reused"] == "False"
    weights = f"compression.teacher.weights=['runs:/{rows[0].run_id}','runs:/{rows[0].run_id}']"
    taught = run_job(folder, "twins", "compression=distill_leads", *LEAD_I, weights, "compression.teacher.members=2")
    assert [row.recipe for row in taught] == ["none", "none", "distill_leads"]
    assert taught[0].params == 2 * rows[0].params
    # The mean of two equal answers is that answer.
    assert taught[0].metrics["test/auroc_macro"].value == pytest.approx(
        rows[0].metrics["test/auroc_macro"].value, abs=1e-6
    )


def test_members_are_fitted_from_different_seeds(job):
    folder, rows = job
    taught = run_job(folder, "members", "compression=distill", *LEAD_I, "compression.teacher.members=2")
    assert taught[0].params == 2 * rows[1].params
    state = torch.load(folder / "members" / "teacher" / "net.pt", weights_only=True)
    assert not torch.equal(state["members.0.head.weight"], state["members.1.head.weight"])
    # The first of them is the teacher that stands alone: here the student's twin.
    assert torch.equal(
        state["members.0.head.weight"],
        torch.load(folder / "floats" / fit_of(folder, rows[1]) / "net.pt", weights_only=True)["head.weight"],
    )


def fit_of(folder: Path, row) -> str:
    client = initialise(f"sqlite:///{folder / 'mlflow.db'}").client
    return client.get_run(row.run_id).data.params["fit.digest"]


@pytest.mark.parametrize("members", ["0", "3"])
def test_members_and_weights_must_agree(job, members):
    folder, rows = job
    weights = f"compression.teacher.weights=['runs:/{rows[0].run_id}','runs:/{rows[0].run_id}']"
    with pytest.raises(ValueError, match=f"compression.teacher.members={members} and"):
        run_job(folder, "odd", "compression=distill_leads", *LEAD_I, weights, f"compression.teacher.members={members}")


def test_weights_of_other_leads_than_the_teachers_are_refused(job):
    folder, rows = job
    weights = f"compression.teacher.weights='runs:/{rows[1].run_id}'"
    with pytest.raises(ValueError, match=r"do not fit Cnn1d.*compression\.teacher\.data"):
        run_job(folder, "fewer", "compression=distill_leads", *LEAD_I, weights)


def test_a_teacher_of_other_folds_is_refused_before_anything_is_fitted(job):
    folder, _ = job
    folds = "+compression.teacher.data.folds={train:[1,2,3,4,5,6,7],val:[9],test:[10]}"
    with pytest.raises(ValueError, match="both must be the same records"):
        run_job(folder, "folds", "compression=distill_leads", *LEAD_I, folds)


def test_attention_needs_the_same_crop():
    with pytest.raises(ValueError, match="set view=batch"):
        Distill({"attention": AttentionTransfer()})
