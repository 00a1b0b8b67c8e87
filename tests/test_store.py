import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.mlflow_template import fresh_store
from tests.tracking_examples import example_predictions, example_row
from tracking import connection
from tracking.connection import TrackingError
from tracking.figures import draw_png
from tracking.owners import machine_name
from tracking.plots import roc_figure
from tracking.rows import Estimate
from tracking.search import find_local_file, search_runs
from tracking.store import initialise

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def store(tmp_path):
    return fresh_store(tmp_path)


@pytest.fixture
def no_waits(monkeypatch):
    waited = []
    monkeypatch.setattr(connection.time, "sleep", waited.append)
    return waited


def status_of(store, run_id):
    return store.client.get_run(run_id).info.status


def write_model(path):
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3, 2], np.arange(6, dtype=np.float32))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["ecg", "w"], ["logits"])],
        "net",
        [helper.make_tensor_value_info("ecg", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_store_nests_one_run_per_artifact_under_the_job(store):
    with store.job("job", group="g1", params={"trainer.max_epochs": 3}, tags={"paper": "P3"}) as job:
        with job.child("teacher", params={"model": "cnn1d_teacher"}) as teacher:
            assert status_of(store, teacher.run_id) == "RUNNING"
        with job.child("student", tags={"role": "student", "note": None}) as student:
            student.write(tags={"late": 1}, params={"late": 2})
    runs = {name: store.client.get_run(run.run_id) for name, run in locals().items() if name in ("teacher", "student")}
    parent = store.client.get_run(job.run_id)
    assert {run.info.status for run in [parent, *runs.values()]} == {"FINISHED"}
    assert parent.data.params == {"trainer.max_epochs": "3"}
    assert parent.data.tags["paper"] == "P3"
    assert runs["teacher"].data.params == {"model": "cnn1d_teacher"}
    assert runs["teacher"].info.run_name == "teacher"
    for run in runs.values():
        assert run.data.tags["mlflow.parentRunId"] == job.run_id
        assert run.data.tags["group"] == "g1"
    assert (runs["student"].data.tags["late"], runs["student"].data.params["late"]) == ("1", "2")
    assert "note" not in runs["student"].data.tags


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_store_closes_runs_as_failed_on_an_exception(store, error):
    opened = []

    def fail_in_second():
        with store.job("job", group="g") as job:
            with job.child("first") as first:
                pass
            with job.child("second") as second:
                opened.extend([job, first, second])
                raise error("stop")

    with pytest.raises(error, match="stop"):
        fail_in_second()
    assert [status_of(store, run.run_id) for run in opened] == ["FAILED", "FINISHED", "FAILED"]


def test_store_closes_runs_as_failed_when_the_process_is_terminated(store):
    code = (
        "import time\nfrom tracking.store import initialise\n"
        f"with initialise({store.tracking_uri!r}, experiment_name='test').job('job', group='g') as job:\n"
        "    print(job.run_id, flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        run_id = process.stdout.readline().strip()
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert status_of(store, run_id) == "FAILED"


def test_store_closes_what_a_killed_process_left_open(store, caplog):
    def left_open(owner):
        tags = {"owner": owner}
        return store.client.create_run(store.experiment_id, tags=tags).info.run_id

    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(30)
    killed = left_open(f"{machine_name()}:{process.pid}")
    alive = left_open(f"{machine_name()}:{os.getppid()}")
    elsewhere = left_open(f"other-host/1:{process.pid}")
    odd = left_open(f"{machine_name()}:what")
    with store.job("job", group="g") as job:
        assert status_of(store, killed) == "FAILED"
        assert {status_of(store, run) for run in (alive, elsewhere, odd, job.run_id)} == {"RUNNING"}
    assert f"run {killed} was left open" in caplog.text


def test_store_restores_the_handler_of_sigterm(store):
    before = signal.getsignal(signal.SIGTERM)
    with store.job("job", group="g"):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_store_keeps_everything_of_a_row(store, tmp_path):
    import mlflow

    row = example_row(
        delta={"test/auroc_macro": Estimate(-0.001, -0.002, 0.0005)},
        verdict="PASS",
        reference="teacher",
        reference_run_id="abc",
        data_digest="d" * 16,
        int8_macs_share=None,
    )
    predictions, model = example_predictions(30), write_model(tmp_path / "model.onnx")
    (tmp_path / "weights.pt").write_bytes(b"weights")
    with store.job("job", group="g") as job, job.child("student", params={"model": "cnn1d_student"}) as run:
        logged = store.log_row(
            run.run_id,
            row,
            predictions=predictions,
            model_path=model,
            images={"roc.png": draw_png(roc_figure(predictions))},
            texts={"config.yaml": "seed: 0\n", "diff.patch": ""},
            files=[tmp_path / "weights.pt"],
            params={"optim": "adamw"},
            tags={"paper": "P3"},
        )
    assert logged == replace(row, run_id=run.run_id, group="g", test_looks=1)
    assert store.read_rows() == [logged]
    np.testing.assert_array_equal(store.read_predictions(run.run_id).probabilities, predictions.probabilities)
    files = {item.path for item in store.client.list_artifacts(run.run_id)}
    assert files == {"row.json", "predictions.npz", "roc.png", "config.yaml", "weights.pt"}
    data = store.client.get_run(run.run_id).data
    assert data.metrics["test/auroc_macro"] == 0.931
    assert data.metrics["test/auroc_macro_low"] == 0.925
    assert data.metrics["delta/test/auroc_macro_high"] == 0.0005
    assert data.metrics["deploy/latency_ms_p50"] == 2.19
    assert "deploy/int8_macs_share" not in data.metrics
    assert data.params["recipe"] == "none"
    assert data.params["optim"] == "adamw"
    wanted = {
        "role": "student",
        "verdict": "PASS",
        "reference": "teacher",
        "reference_run": "abc",
        "paper": "P3",
    }
    assert wanted.items() <= data.tags.items()
    assert data.tags["split_digest"] == "split-a"
    (logged_model,) = store.client.search_logged_models([store.experiment_id])
    assert logged_model.source_run_id == run.run_id
    assert logged_model.params["recipe"] == "none"
    assert {item.key: item.value for item in logged_model.metrics}["test/auroc_macro"] == 0.931
    stored = mlflow.onnx.load_model(f"models:/{logged_model.model_id}")
    assert stored.SerializeToString() == model.read_bytes()
    signature = mlflow.models.get_model_info(f"models:/{logged_model.model_id}").signature
    assert signature.inputs.inputs[0].shape == (-1, 3)
    assert [item.name for item in signature.inputs.inputs] == ["ecg"]


def log_example(store, group, **changes):
    with store.job("job", group=group) as job, job.child("artifact") as run:
        return store.log_row(run.run_id, example_row(**changes))


def test_store_reads_the_newest_group_a_group_or_a_filter(store):
    assert store.newest_group() is None
    assert store.read_rows() == []
    first = log_example(store, "g1", model="a")
    second = log_example(store, "g1", model="b")
    third = log_example(store, "g2", model="b")
    with store.job("job", group="g3") as job, job.child("no row yet"):
        assert store.newest_group() == "g2"
    assert store.read_rows() == [third]
    assert store.read_rows(group="g1") == [first, second]
    assert store.read_rows(filter_string="params.model = 'b'") == [second, third]
    assert store.read_rows(group="g1", filter_string="params.model = 'b'") == [second]
    assert store.read_rows(group="g4") == []
    assert store.read_row(first.run_id) == first


def test_store_reads_rows_alike_from_files_and_through_mlflow(store, monkeypatch):
    rows = [log_example(store, "g1", model=model) for model in ("a", "b")]
    monkeypatch.setattr(type(store), "read_row", None)
    # From the files alone.
    assert store.read_rows(group="g1") == rows
    monkeypatch.undo()
    monkeypatch.setattr("tracking.store.find_local_file", lambda *_: None)
    assert store.read_rows(group="g1") == rows


def test_store_finds_the_same_runs_bare(store):
    for model in ("a", "b"):
        log_example(store, "g1", model=model)
    full, bare = (search_runs(store.client, "params.model = 'b'", bare=bare) for bare in (False, True))
    assert [run.info.run_id for run in bare] == [run.info.run_id for run in full]
    assert bare[0].info.artifact_uri == full[0].info.artifact_uri
    assert (bare[0].data.metrics, bare[0].data.params) == ({}, {})
    # Later searches are whole again.
    (again,) = search_runs(store.client, "params.model = 'b'")
    assert (again.data.params["model"], again.data.metrics) == ("b", full[0].data.metrics)
    assert again.data.metrics


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_store_finds_files_of_this_machine_only(tmp_path, form):
    folder = tmp_path / "some place"
    folder.mkdir()
    (folder / "row.json").write_text("[]")
    uri = form.format(str(folder).replace(" ", "%20") if form.startswith("file") else folder)
    assert find_local_file(uri, "row.json") == folder / "row.json"
    assert find_local_file(uri, "other.json") is None
    assert find_local_file("mlflow-artifacts:/0/run/artifacts", "row.json") is None
    assert find_local_file(f"file://elsewhere{folder}", "row.json") is None


def test_store_explains_bad_searches(store):
    with pytest.raises(TrackingError, match=r"search the tracking store for .*nonsense"):
        store.read_rows(filter_string="nonsense")
    with pytest.raises(ValueError, match="single quote"):
        store.read_rows(group="it's")
    with pytest.raises(TrackingError, match=r"could not read 'predictions.npz' of run '0123'"):
        store.read_predictions("0123")


def test_store_counts_every_look_at_a_test_split(store, tmp_path):
    assert store.count_test_looks("split-a") == 0
    assert log_example(store, "g1").test_looks == 1
    second = log_example(store, "g2")
    assert second.test_looks == 2
    assert log_example(store, "g2", split_digest="split-b").test_looks == 1
    # One run is one look, whatever happens to its row, and deleting it does not undo it.
    with store.job("job", group="g3") as job, job.child("artifact") as run:
        assert store.record_test_look(run.run_id, "split-a") == 3
        assert store.log_row(run.run_id, example_row()).test_looks == 3
    store.client.delete_run(second.run_id)
    assert store.count_test_looks("split-a") == 3
    other = initialise(store.tracking_uri, experiment_name="other", artifact_location=str(tmp_path / "other"))
    assert log_example(other, "g4").test_looks == 4
    assert log_example(store, "g5", split_digest=None).test_looks is None


def test_store_retries_and_then_says_where_the_results_are(store, no_waits, monkeypatch):
    """A store that goes away while a row is written."""
    attempts = []

    def fail(*arguments, **options):
        attempts.append(arguments)
        raise ConnectionError("connection refused")

    with store.job("job", group="g") as job, job.child("artifact") as run:
        with monkeypatch.context() as patch:
            patch.setattr(store.client, "log_batch", fail)
            with pytest.raises(TrackingError, match=r"row 'student-alone'.*4 attempt.*refused.*rows\.json") as caught:
                store.log_row(run.run_id, example_row(split_digest=None))
        assert isinstance(caught.value.__cause__, ConnectionError)
        assert len(attempts) == 4
        assert no_waits == [0.5, 1.0, 2.0]
        # What was not finished is no row; once the store is back, the same call completes it.
        assert store.read_rows(group="g") == []
        store.log_row(run.run_id, example_row(split_digest=None))
    assert len(store.read_rows(group="g")) == 1


def test_store_gets_over_a_short_failure(store, no_waits, monkeypatch):
    real, failures = store.client.log_batch, [OSError("reset"), OSError("reset")]

    def shaky(*arguments, **options):
        if failures:
            raise failures.pop()
        return real(*arguments, **options)

    monkeypatch.setattr(store.client, "log_batch", shaky)
    assert log_example(store, "g").test_looks == 1
    assert no_waits == [0.5, 1.0]


def test_store_gone_at_the_end_fails_neither_the_job_nor_hides_its_error(store, no_waits, monkeypatch, caplog):
    def fail(*arguments, **options):
        raise ConnectionError("connection refused")

    with monkeypatch.context() as patch:
        with store.job("job", group="g"):
            patch.setattr(store.client, "set_terminated", fail)
        assert "could not close run 'job' as FINISHED" in caplog.text
        with pytest.raises(ZeroDivisionError), store.job("job", group="g"):
            raise ZeroDivisionError
