"""The main job, end to end, on synthetic data that is small enough for a test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from omegaconf import DictConfig

import train
from composition import measurement, weights
from deploy.gate import GateFailed
from tests.configs import ROOT, compose_config
from tests.mlflow_template import template_database
from tracking.rows import read_rows_file
from tracking.store import initialise

SMALL = (
    "model=cnn1d_57k",
    "model@compression.teacher=cnn1d_57k",
    "datamodule.source.n_patients=120",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "callbacks=quiet",
    "bootstrap.n_resamples=200",
    "latency_window_s.synthetic=0.05",
    "gate=report",
)
NEEDED = {"role", "model", "recipe", "runtime", "precision", "data", "seed", "params", "macs", "size_bytes"}
NEEDED |= {"int8_macs_share", "latency_ms_p50", "latency_ms_p99", "peak_memory_bytes", "metrics", "delta", "reference"}
NEEDED |= {"verdict", "reasons", "run_id", "data_digest", "split_digest"}


def job_config(folder: Path, name: str, *overrides: str) -> DictConfig:
    config = compose_config(*(item for item in SMALL if "teacher" not in item), *overrides, f"group={name}")
    config.paths.update(
        data=str(folder / "data"),
        synthetic=str(folder / "data"),
        cache=str(folder / "cache"),
        floats=str(folder / "floats"),
        output=str(folder / name),
    )
    config.tracking.update(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_location=str(folder / "mlruns"))
    return config


def open_store(folder: Path):
    return initialise(f"sqlite:///{folder / 'mlflow.db'}")


def runs_of(folder: Path):
    store = open_store(folder)
    return store.client.search_runs([store.experiment_id])


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The four-row job, run once: its folder and its rows."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "mlflow.db").write_bytes(template_database())
    rows = train.run(job_config(folder, "main", SMALL[1]))
    return folder, rows


def test_main_job_gives_one_row_per_artifact(job):
    _, rows = job
    assert [(row.role, row.recipe, row.precision) for row in rows] == [
        ("teacher", "none", "float32"),
        ("student", "none", "float32"),
        ("student", "distill", "float32"),
        ("student", "distill_ptq_int8", "int8"),
    ]
    assert {row.data for row in rows} == {"synthetic"}
    assert [row.reference for row in rows] == [None, *(row.name for row in rows[:3])]


def test_main_job_measures_every_column(job):
    _, rows = job
    for row in rows:
        assert row.params == 56_955
        assert row.params_keras == 56_955 + 2 * 150
        assert row.latency_ms_p50 <= row.latency_ms_p90 <= row.latency_ms_p99
        assert min(row.macs, row.size_bytes, row.peak_memory_bytes, row.n_test, row.n_subjects) > 0
        estimate = row.metrics["test/auroc_macro"]
        assert estimate.low <= estimate.value <= estimate.high
        assert row.verdict in ("PASS", "FAIL", "INCONCLUSIVE")
    assert rows[3].int8_macs_share > 0.9
    assert rows[0].int8_macs_share == 0
    assert rows[3].size_bytes < rows[2].size_bytes
    assert rows[0].delta == {}
    assert set(rows[3].delta) >= {"test/auroc_macro"}


def test_main_job_writes_the_rows_that_it_tracks(job):
    folder, rows = job
    written = json.loads((folder / "main" / "rows.json").read_text())
    assert set(written[0]) >= NEEDED
    assert read_rows_file(folder / "main" / "rows.json") == rows
    assert open_store(folder).read_rows(group="main") == rows


def test_main_job_counts_each_look_at_the_test_split(job):
    _, rows = job
    assert [row.test_looks for row in rows] == [1, 2, 3, 4]


def test_main_job_tracks_a_run_per_row_below_one_parent(job):
    folder, rows = job
    runs = {run.info.run_id: run for run in runs_of(folder) if run.data.tags["group"] == "main"}
    parents = {runs[row.run_id].data.tags["mlflow.parentRunId"] for row in rows}
    assert len(runs) == 5
    assert len(parents) == 1
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    (parent,) = parents
    assert runs[parent].data.params["trainer.max_epochs"] == "2"
    files = {item.path for item in open_store(folder).client.list_artifacts(rows[3].run_id)}
    assert {"row.json", "predictions.npz", "roc.png", "pr.png", "config.yaml", "net.pt"} <= files
    # Two sides of three files: here, teacher and student are the same net with the same weights.
    assert len(list((folder / "floats" / "answers").glob("*.npy"))) == 6


def test_main_job_logs_curves_to_the_run_that_trained(job):
    folder, rows = job
    client = open_store(folder).client
    for row in (rows[0], rows[2]):
        assert client.get_run(row.run_id).data.params["fit.epochs"] == "2"
        assert client.get_run(row.run_id).data.tags["fit_run"] == row.run_id
        # One value an epoch, and the row's own at the end.
        assert len(client.get_metric_history(row.run_id, "val/auroc_macro")) == 3
    # Here the student is the teacher's twin: one fit serves both, and says where its curves are.
    assert client.get_run(rows[1].run_id).data.tags["fit_run"] == rows[0].run_id


def test_exported_files_carry_their_input_contract(job):
    folder, rows = job
    files = sorted((folder / "main").glob("*.onnx"))
    assert len(files) == len(rows)
    facts = {item.key: item.value for item in onnx.load(files[0]).metadata_props}
    assert json.loads(facts["lead_names"])[:2] == ["I", "II"]
    assert (json.loads(facts["fs"]), facts["unit"], facts["data"]) == (100, "mV", "synthetic")
    assert len(json.loads(facts["mean_mv"])) == 12
    assert facts["split_digest"] == rows[0].split_digest


def test_predictions_of_a_row_give_its_metric_back(job):
    folder, rows = job
    from sklearn.metrics import roc_auc_score

    predictions = open_store(folder).read_predictions(rows[3].run_id)
    assert roc_auc_score(predictions.targets, predictions.probabilities) == pytest.approx(
        rows[3].metrics["test/auroc_macro"].value, abs=1e-6
    )


def test_a_float_model_is_trained_once_for_all_recipes(job, monkeypatch):
    folder, rows = job

    def refuse(*arguments, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr("pytorch_lightning.Trainer.fit", refuse)
    again = train.run(job_config(folder, "ptq", "compression=ptq_int8"))
    assert [(row.role, row.recipe) for row in again] == [("student", "none"), ("student", "ptq_int8")]
    assert again[0].metrics == rows[1].metrics
    assert again[0].verdict == "PASS"


def test_another_setting_is_another_float_model(job, monkeypatch):
    folder, _ = job

    def stop(*arguments, **options):
        raise InterruptedError("asked to train")

    monkeypatch.setattr("pytorch_lightning.Trainer.fit", stop)
    for change in ("seed=1", "trainer.max_epochs=3", "optim.optimizer.lr=0.001", "model=cnn1d_124k"):
        with pytest.raises(InterruptedError):
            train.run(job_config(folder, "other", "compression=none", change))


def test_an_exception_leaves_no_run_open_and_no_rows(job, monkeypatch):
    folder, _ = job

    def fail(*arguments, **options):
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(train, "profile_artifacts", fail)
    with pytest.raises(RuntimeError, match="on fire"):
        train.run(job_config(folder, "broken", "compression=none"))
    states = [run.info.status for run in runs_of(folder) if run.data.tags["group"] == "broken"]
    assert states == ["FAILED", "FAILED"]
    assert not (folder / "broken" / "rows.json").exists()


def test_a_failed_gate_is_raised_after_everything_is_logged(job):
    folder, _ = job
    config = job_config(folder, "strict", "compression=ptq_int8", "model.limits.int8.size_ratio=0.01", "gate=enforce")
    with pytest.raises(GateFailed, match=r"ptq_int8.*size_ratio is 0\.\d+ of the reference, limit 0.01"):
        train.run(config)
    rows = open_store(folder).read_rows(group="strict")
    assert [row.verdict for row in rows] == ["PASS", "FAIL"]
    assert len(read_rows_file(folder / "strict" / "rows.json")) == 2


def test_a_model_that_does_not_survive_saving_fails(job, monkeypatch):
    folder, _ = job
    reload = measurement.load_weights

    def lose_a_layer(net, path):
        reload(net, path)
        net.head.weight.data.zero_()

    monkeypatch.setattr(measurement, "load_weights", lose_a_layer)
    (row,) = train.run(job_config(folder, "lossy", "compression=none"))
    assert row.verdict == "FAIL"
    assert "reloaded model differs" in row.reasons[0]


def test_a_teacher_can_come_from_a_run_or_a_file(job):
    folder, rows = job
    for source in (f"runs:/{rows[0].run_id}", str(next((folder / "floats").glob("*/net.pt")))):
        config = job_config(folder, "given", "compression=distill", SMALL[1], f"compression.teacher.weights='{source}'")
        given = train.run(config)
        assert [row.recipe for row in given] == ["none", "none", "distill"]
        if source.startswith("runs:"):
            np.testing.assert_allclose(
                given[0].metrics["test/auroc_macro"].value, rows[0].metrics["test/auroc_macro"].value
            )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.pt", "no weights at 'nowhere.pt'"),
        ("runs:/0123456789abcdef0123456789abcdef", "no weights found at"),
        ("models:/lost@champion", "no weights found at"),
    ],
)
def test_a_teacher_that_is_not_there_is_named(job, source, message):
    folder, _ = job
    config = job_config(folder, "lost", "compression=distill", SMALL[1], f"compression.teacher.weights='{source}'")
    with pytest.raises(ValueError, match=message):
        train.run(config)


def test_a_teacher_that_does_not_fit_is_refused(job):
    folder, rows = job
    config = job_config(
        folder,
        "misfit",
        "compression=distill",
        "model@compression.teacher=cnn1d_124k",
        f"compression.teacher.weights='runs:/{rows[0].run_id}'",
    )
    with pytest.raises(ValueError, match=r"do not fit Cnn1d.*model@compression\.teacher"):
        train.run(config)


def test_a_teacher_from_another_split_is_refused(job):
    folder, rows = job
    source = f"compression.teacher.weights='runs:/{rows[0].run_id}'"
    other = ("compression=distill", SMALL[1], source, "datamodule.folds={train:[1,2,3,4,5,6,7],val:[9],test:[8]}")
    with pytest.raises(ValueError, match=r"trained on other data.*perhaps on the test patients"):
        train.run(job_config(folder, "leaky", *other))


def test_max_epochs_applies_to_every_fit_and_else_each_model_has_its_own(job, monkeypatch):
    folder, _ = job
    epochs = []

    def stop(trainer, *arguments, **options):
        epochs.append(trainer.max_epochs)
        raise InterruptedError("asked to train")

    monkeypatch.setattr("pytorch_lightning.Trainer.fit", stop)
    for model, change in (
        ("cnn1d_teacher", "trainer.max_epochs=3"),
        ("cnn1d_124k", "trainer.max_epochs=3"),
        ("cnn1d_teacher", "trainer.max_epochs=null"),
        ("cnn1d_124k", "trainer.max_epochs=null"),
    ):
        with pytest.raises(InterruptedError):
            train.run(job_config(folder, "epochs", "compression=none", f"model={model}", change))
    assert epochs == [3, 3, 5, 9]


def test_what_a_person_sees_does_not_train_again(job, monkeypatch):
    folder, rows = job
    monkeypatch.setattr("pytorch_lightning.Trainer.fit", None)
    shown = ("callbacks=default", "trainer.log_every_n_steps=7")
    (row,) = train.run(job_config(folder, "seen", "compression=none", *shown))
    assert row.metrics == rows[1].metrics


def test_a_file_for_another_device_has_no_latency_here(job):
    folder, _ = job
    rows = train.run(job_config(folder, "s8", "compression=ptq_int8", "deploy=onnx_s8"))
    assert [row.latency_ms_p50 for row in rows] == [None, None]
    assert "latency not measured" in " ".join(check["reason"] for check in rows[1].checks)
    assert not any("latency" in reason for reason in rows[1].reasons)


def test_a_registered_model_can_teach(job):
    folder, rows = job
    client = open_store(folder).client
    client.create_registered_model("teacher")
    version = client.create_model_version("teacher", f"runs:/{rows[0].run_id}/model", rows[0].run_id)
    client.set_registered_model_alias("teacher", "champion", version.version)
    given = "compression.teacher.weights='models:/teacher@champion'"
    config = job_config(folder, "registered", "compression=distill", SMALL[1], given)
    path, origin = weights.find_weights(config.compression.teacher.weights, open_store(folder), folder)
    assert path.name == "net.pt"
    assert origin["split_digest"] == rows[0].split_digest


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_failed_job(tmp_path):
    """As a process: three jobs, the middle one fails its gate; the others finish, the exit code says so."""
    options = [item for item in SMALL if "gate" not in item and "teacher" not in item]
    limits = ",".join(
        f"{{size_ratio:{ratio},latency_ratio:9.0,int8_macs_share:0.9}}" for ratio in ("0.9", "0.01", "0.8")
    )
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'sweep.db'}"}
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "-m",
        *options,
        "compression=ptq_int8",
        f"model.limits.int8={limits}",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "size_ratio" in done.stdout + done.stderr
    files = sorted((tmp_path / "outputs" / "sweeps").rglob("rows.json"))
    assert len(files) == 3
    store = initialise(environment["MLFLOW_TRACKING_URI"])
    assert len(store.read_rows()) == 6
    assert not (tmp_path / "mlflow.db").exists()


def test_an_unknown_gate_is_refused(tmp_path):
    with pytest.raises(ValueError, match="gate='off' must be one of"):
        train.run(job_config(tmp_path, "x", "gate=off"))


def test_train_refuses_an_unknown_rule_of_thresholds(tmp_path):
    with pytest.raises(ValueError, match=r"evaluation\.threshold_rule='youden' must be null or in"):
        train.run(job_config(tmp_path, "x", "evaluation.threshold_rule=youden"))
