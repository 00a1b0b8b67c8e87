import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mlflow_server import serve, stop
from tests.mlflow_template import fresh_store
from tests.tracking_examples import example_row
from tracking import connection
from tracking.connection import TrackingError, resolve_uri, retry, write_batch
from tracking.logger import MlflowLogger
from tracking.store import initialise

ROOT = Path(__file__).resolve().parent.parent
# Nothing listens on the discard port.
DOWN = "http://127.0.0.1:9"


@pytest.fixture
def store(tmp_path):
    return fresh_store(tmp_path)


def log_example(store, group):
    with store.job("job", group=group) as job, job.child("artifact") as run:
        return store.log_row(run.run_id, example_row())


@pytest.fixture
def no_waits(monkeypatch):
    waited = []
    monkeypatch.setattr(connection.time, "sleep", waited.append)
    return waited


def test_connection_takes_more_than_a_batch_holds(store):
    from mlflow.entities import Metric

    with store.job("job", group="g", params={f"p{i}": i for i in range(250)}) as job:
        metrics = [Metric("loss", float(i), i, i) for i in range(2500)]
        write_batch(store.client, job.run_id, metrics=metrics, tags={f"t{i}": i for i in range(120)})
    data = store.client.get_run(job.run_id).data
    assert len(data.params) == 250
    assert data.tags["t119"] == "119"
    assert len(store.client.get_metric_history(job.run_id, "loss")) == 2500


def test_connection_leaves_params_alone_that_the_run_has(store):
    with store.job("job", group="g", params={"model": "a"}) as job:
        write_batch(store.client, job.run_id, params={"model": "b", "long": "x" * 7000, "none": None})
    params = store.client.get_run(job.run_id).data.params
    assert params["model"] == "a"
    assert len(params["long"]) == 6000
    assert "none" not in params


def test_connection_does_not_repeat_what_cannot_succeed(store, no_waits):
    from mlflow.exceptions import MlflowException

    with pytest.raises(TrackingError, match=r"after 1 attempt\(s\): .*No such run|not found"):
        retry(lambda: store.client.get_run("0" * 32), "read a run")
    with pytest.raises(TrackingError, match="4 attempt"):
        retry(lambda: (_ for _ in ()).throw(MlflowException("database is locked")), "write")
    assert len(no_waits) == 3


def test_connection_says_so_when_a_server_is_down(no_waits):
    start_s = time.monotonic()
    with pytest.raises(TrackingError, match=rf"could not open the tracking store '{DOWN}' after 4 attempt"):
        initialise(DOWN)
    assert time.monotonic() - start_s < 30


def test_connection_honours_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/env.db")
    assert resolve_uri(None) == f"sqlite:///{tmp_path}/env.db"
    assert resolve_uri("sqlite:////given.db") == "sqlite:////given.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert resolve_uri(None) == f"sqlite:///{Path.cwd()}/mlflow.db"
    assert resolve_uri("http://host:5000") == "http://host:5000"


def test_connection_does_not_create_what_must_exist(tmp_path):
    with pytest.raises(TrackingError, match=r"no tracking store at .*absent\.db: run train\.py"):
        initialise(f"sqlite:///{tmp_path}/absent.db", must_exist=True)
    assert list(tmp_path.iterdir()) == []


def test_connection_does_not_follow_a_change_of_folder(tmp_path, monkeypatch):
    fresh_store(tmp_path)
    monkeypatch.chdir(tmp_path)
    store = initialise("sqlite:///mlflow.db", experiment_name="relative", artifact_location="./mlruns")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    row = log_example(store, "g")
    assert store.read_rows() == [row]
    assert (tmp_path / "mlruns" / row.run_id / "artifacts" / "row.json").is_file()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_connection_starts_once_for_many_processes(tmp_path):
    """Four jobs of a sweep open a database that does not exist yet."""
    code = (
        "import multiprocessing\nimport mlflow\nfrom tracking.store import initialise\n"
        "def job(number):\n"
        f"    store = initialise('sqlite:///{tmp_path}/sub/mlflow.db', artifact_location='{tmp_path}')\n"
        "    with store.job('job', group='g'):\n"
        "        return store.experiment_id\n"
        # Forked after the slow import, so that all four open the database at the same moment.
        "with multiprocessing.get_context('fork').Pool(4) as pool:\n"
        "    print(len(set(pool.map(job, range(4), chunksize=1))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    # Nothing is said on stderr: no lines about migrations either.
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    store = initialise(f"sqlite:///{tmp_path}/sub/mlflow.db", must_exist=True)
    runs = store.client.search_runs([store.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4


def test_connection_sends_nothing_elsewhere():
    assert connection.ENVIRONMENT["MLFLOW_DISABLE_TELEMETRY"] == "true"
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert is_telemetry_disabled()


@pytest.fixture
def server(tmp_path):
    with serve(tmp_path) as server:
        yield server


@pytest.mark.slow
def test_connection_loses_nothing_when_a_server_dies(server, tmp_path):
    process, uri = server
    store = initialise(uri, experiment_name="remote", artifact_location=str(tmp_path / "ignored"))
    row = log_example(store, "g1")
    assert store.read_rows() == [row]
    assert not (tmp_path / "ignored").exists()
    with store.job("job", group="g2") as job, job.child("artifact") as run:
        log = MlflowLogger(store, run.run_id, flush_s=0)
        log.log_metrics({"loss": 1.0}, 0)
        stop(process)
        # Training goes on, the row is refused with a pointer to where it is, and the job ends in order.
        log.log_metrics({"loss": 0.5}, 1)
        with pytest.raises(TrackingError, match=r"rows\.json in the job's output folder keeps the results"):
            store.log_row(run.run_id, example_row())
    assert len(log._buffer) == 1
