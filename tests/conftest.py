import os

import pytest

# Before torch and onnxruntime are imported: tests are many and small, threads would only wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"
# Nothing leaves the machine.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty tracking store of the test's own, the one that entry points find."""
    from tests.mlflow_template import fresh_store

    own = fresh_store(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own.tracking_uri)
    return own
