"""A tracking store that goes away in the middle of a job, and comes back."""

import json
from contextlib import ExitStack
from dataclasses import replace

import pytest

import runs
from tests.mlflow_server import free_port, serve, stop
from tests.mlflow_template import fresh_store
from tests.test_store import write_model
from tests.tracking_examples import example_predictions, example_row
from tracking import connection
from tracking.connection import TrackingError
from tracking.logger import MlflowLogger
from tracking.outbox import UNSENT, Outbox, is_local
from tracking.rows import read_rows_file, write_rows
from tracking.store import initialise

CALLS = ("create_run", "log_batch", "log_artifacts", "get_run", "search_runs", "set_terminated", "search_experiments")


@pytest.fixture
def outage(monkeypatch):
    """Switch the store's client off and on; seconds between attempts are counted instead of waited."""
    from mlflow.tracking import MlflowClient

    waited = []
    monkeypatch.setattr(connection.time, "sleep", waited.append)

    def refuse(*arguments, **options):
        raise ConnectionError("connection refused")

    def switch(away):
        for name in CALLS:
            monkeypatch.setattr(MlflowClient, name, refuse if away else originals[name])

    originals = {name: getattr(MlflowClient, name) for name in CALLS}
    switch.waited = waited
    return switch


@pytest.fixture
def store(tmp_path, monkeypatch):
    store = fresh_store(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    return replace(store, outbox=Outbox(tmp_path / "job" / UNSENT))


def carry_out(store, folder, *, go_away):
    """A job of two rows; the store goes away after the first run was opened."""
    with ExitStack() as stack:
        job = stack.enter_context(store.job("job", group="g1"))
        teacher = stack.enter_context(job.child("teacher"))
        log = MlflowLogger(store, teacher.run_id, flush_s=0)
        log.log_metrics({"train/loss": 1.0}, 0)
        assert store.record_test_look(teacher.run_id, "split-a") == 1
        go_away()
        log.log_metrics({"train/loss": 0.5}, 1)
        log.finalize("success")
        student = stack.enter_context(job.child("student", tags={"model": "small"}))
        MlflowLogger(store, student.run_id).log_hyperparams({"optim": {"lr": 0.1}})
        assert store.record_test_look(student.run_id, "split-a") is None
        store.log_files(student.run_id, {"search.md": "# Search\n"}, {})
        first = example_row(name="teacher", role="teacher", test_looks=1)
        rows = [store.log_row(teacher.run_id, first, predictions=example_predictions(30))]
        second = example_row(name="student", reference="teacher", reference_run_id=teacher.run_id, test_looks=None)
        card = {"model_card.md": f"Written from run `{student.run_id}`.\n"}
        rows.append(store.log_row(student.run_id, second, model_path=write_model(folder / "m.onnx"), texts=card))
        write_rows(folder / "job" / "rows.json", rows)
    return rows


def test_outbox_keeps_what_a_store_that_is_away_cannot_take(store, outage, tmp_path, caplog):
    rows = carry_out(store, tmp_path, go_away=lambda: outage(True))
    # Each kind of call was tried with growing waits, and the store not asked again after the first that failed.
    assert outage.waited[:3] == [0.5, 1.0, 2.0]
    assert len(outage.waited) <= 6
    assert "connection refused" in caplog.text
    assert is_local(rows[1].run_id)
    assert not is_local(rows[0].run_id)
    entries = store.outbox.entries()
    assert {entry.get("status") for entry in entries} == {"FINISHED"}
    with pytest.raises(TrackingError, match=r"could not .* after 4 attempt\(s\): connection refused"):
        store.push()
    assert read_rows_file(tmp_path / "job" / "rows.json") == rows


def test_outbox_is_sent_once(store, outage, tmp_path, capsys):
    carry_out(store, tmp_path, go_away=lambda: outage(True))
    outage(False)
    assert runs.main(["push", str(tmp_path / "job" / "rows.json")]) == 0
    assert "2 rows sent to sqlite:///" in capsys.readouterr().out
    teacher, student = store.read_rows(group="g1")
    assert read_rows_file(tmp_path / "job" / "rows.json") == [teacher, student]
    assert student.reference_run_id == teacher.run_id
    # Both looked at the test side: one before the store went away, one while it was.
    assert (teacher.test_looks, student.test_looks) == (1, 2)
    found = store.client.search_runs([store.experiment_id])
    assert sorted(run.info.run_name for run in found) == ["job", "student", "teacher"]
    assert {run.info.status for run in found} == {"FINISHED"}
    run = store.client.get_run(student.run_id)
    assert run.data.params["optim.lr"] == "0.1"
    assert run.data.tags["mlflow.parentRunId"] == store.client.get_run(teacher.run_id).data.tags["mlflow.parentRunId"]
    assert store.read_file(student.run_id, "model_card.md").decode() == f"Written from run `{student.run_id}`.\n"
    assert "search.md" in store.list_files(student.run_id)
    assert len(run.outputs.model_outputs) == 1
    losses = store.client.get_metric_history(teacher.run_id, "train/loss")
    assert [(point.step, point.value) for point in losses] == [(0, 1.0), (1, 0.5)]
    assert len(store.read_predictions(teacher.run_id).record_ids) == 30
    # A second time nothing is sent.
    assert runs.main(["push", str(tmp_path)]) == 0
    assert "nothing is left to send" in capsys.readouterr().out
    assert len(store.client.search_runs([store.experiment_id])) == 3


def test_outbox_goes_on_where_a_push_was_interrupted(store, outage, tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    carry_out(store, tmp_path, go_away=lambda: outage(True))
    outage(False)
    with monkeypatch.context() as own:
        own.setattr(MlflowClient, "set_terminated", lambda *arguments: (_ for _ in ()).throw(ConnectionError("gone")))
        with pytest.raises(TrackingError, match="gone"):
            store.push()
    assert store.outbox.waiting
    assert len(store.push()) == 2
    assert not store.outbox.waiting
    found = store.client.search_runs([store.experiment_id])
    assert len(found) == 3
    assert [len(run.outputs.model_outputs) for run in found if run.info.run_name == "student"] == [1]


def test_outbox_is_not_sent_to_another_store(store, outage, tmp_path, monkeypatch, capsys):
    carry_out(store, tmp_path, go_away=lambda: outage(True))
    outage(False)
    (tmp_path / "other").mkdir()
    other = fresh_store(tmp_path / "other")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other.tracking_uri)
    assert runs.main(["push", str(tmp_path / "job")]) == 2
    assert "Set MLFLOW_TRACKING_URI to the store that the job was tracked in" in capsys.readouterr().err
    assert other.client.search_runs([other.experiment_id]) == []
    assert store.outbox.waiting


def test_push_says_what_it_needs(store, tmp_path, capsys):
    assert runs.main(["push", str(tmp_path / "absent")]) == 2
    assert "name a job's output folder, or its rows.json" in capsys.readouterr().err
    assert runs.main(["push", str(tmp_path)]) == 0
    assert "nothing is left to send" in capsys.readouterr().out


def test_without_an_outbox_an_absent_store_is_an_error(store, outage):
    bare = replace(store, outbox=None)
    with bare.job("job", group="g") as job:
        outage(True)
        with pytest.raises(TrackingError, match="connection refused"), job.child("student"):
            pytest.fail("the run cannot be opened")


@pytest.mark.slow
def test_outbox_outlives_a_server(tmp_path, monkeypatch):
    """A real server is killed in the middle of a job and started again after it."""
    port = free_port()
    with serve(tmp_path, port) as (process, uri):
        opened = initialise(uri, experiment_name="remote")
        store = replace(opened, outbox=Outbox(tmp_path / "job" / UNSENT))
        rows = carry_out(store, tmp_path, go_away=lambda: stop(process))
    assert json.loads((tmp_path / "job" / "rows.json").read_text())[1]["run_id"] == rows[1].run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert runs.main(["push", str(tmp_path / "job")]) == 2
    with serve(tmp_path, port):
        assert [runs.main(["push", str(tmp_path / "job")]) for _ in range(2)] == [0, 0]
        teacher, student = initialise(uri, experiment_name="remote").read_rows(group="g1")
    assert (teacher.name, student.name, student.reference_run_id) == ("teacher", "student", teacher.run_id)
    assert read_rows_file(tmp_path / "job" / "rows.json") == [teacher, student]
