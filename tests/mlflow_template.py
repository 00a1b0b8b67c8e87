"""Fresh tracking stores for tests: the database is migrated once per process and copied."""

import os
import tempfile
from functools import cache
from pathlib import Path

from tracking.store import Store, initialise

# Nothing that a test does may leave the machine.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"


@cache
def template_database() -> bytes:
    """Content of a migrated, empty MLflow database."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        initialise(f"sqlite:///{path}", experiment_name="template")
        return path.read_bytes()


def fresh_store(folder: Path) -> Store:
    """Open a store of its own in `folder`, without the seconds that a migration takes."""
    path = folder / "mlflow.db"
    path.write_bytes(template_database())
    return initialise(f"sqlite:///{path}", experiment_name="test", artifact_location=str(folder / "mlruns"))
