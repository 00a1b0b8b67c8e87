"""Jobs whose tracking store goes away while they run."""

import pytest

import runs
import train
from tests.mlflow_template import template_database
from tests.test_train import job_config, open_store
from tracking import connection
from tracking.connection import TrackingError
from tracking.rows import read_rows_file

JOB = ("compression=none", "trainer.max_epochs=1", "datamodule.source.n_patients=60")


@pytest.fixture
def away(tmp_path, monkeypatch):
    """Refuse files from now on; so many calls, or all until it is set to 0."""
    from mlflow.tracking import MlflowClient

    (tmp_path / "mlflow.db").write_bytes(template_database())
    monkeypatch.setattr(connection.time, "sleep", lambda seconds: None)
    take = MlflowClient.log_artifacts
    left = {"calls": 10**6}

    def refuse(*arguments, **options):
        if left["calls"]:
            left["calls"] -= 1
            raise ConnectionError("connection refused")
        return take(*arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_artifacts", refuse)
    return left


def test_a_job_ends_with_its_results_where_the_store_does_not_come_back(tmp_path, away, monkeypatch, capsys):
    folder = tmp_path / "main"
    config = job_config(tmp_path, "main", *JOB)
    with pytest.raises(TrackingError, match=r"connection refused.* When it is back: python runs\.py push .*main"):
        train.run(config)
    (kept,) = read_rows_file(folder / "rows.json")
    assert kept.metrics
    assert "PASS" in capsys.readouterr().out
    assert open_store(tmp_path).read_rows() == []
    away["calls"] = 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", config.tracking.tracking_uri)
    assert runs.main(["push", str(folder)]) == 0
    store = open_store(tmp_path)
    (row,) = store.read_rows(group="main")
    assert row == kept
    assert {"roc.png", "predictions.npz", "config.yaml", "net.pt"} <= set(store.list_files(row.run_id))
    # Found finished by tables, as if nothing had happened.
    assert {run.info.status for run in store.client.search_runs([store.experiment_id])} == {"FINISHED"}


def test_a_job_sends_what_was_kept_once_its_store_is_back(tmp_path, away):
    away["calls"] = 4
    (row,) = train.run(job_config(tmp_path, "short", *JOB))
    assert open_store(tmp_path).read_rows(group="short") == [row]
    assert read_rows_file(tmp_path / "short" / "rows.json") == [row]
