"""What a tracking store that went away could not be sent: kept in the job's output folder until it can."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from tracking.connection import TrackingError
from tracking.files import replace_file

if TYPE_CHECKING:
    from mlflow.entities import Metric

LOGGER = logging.getLogger(__name__)
# Folder of everything unsent in a job's output folder; also begins the ids of runs that no store has seen.
UNSENT = "unsent"
RUN_FILE, FILES = "run.json", "files"
Result = TypeVar("Result")


@dataclass
class Outbox:
    """A folder with what runs still lack in the store, one folder for each run.

    Once the store was away it is not asked again before the end of the job: every further call would wait for it.

    Attributes
    ----------
    folder : Path
        Created with the first run that is kept.
    away : bool
    """

    folder: Path
    away: bool = False

    def open(self, **known: Any) -> str:
        """Keep a run that the store has never seen; the id by which the job knows it until it is sent."""
        run_id = f"{UNSENT}-{uuid4().hex}"
        self.keep(run_id, started_ms=int(time.time() * 1000), **known)
        return run_id

    def keep(self, run_id: str, *, metrics: "Iterable[Metric]" = (), **known: Any) -> None:
        """Add to what is kept of a run.

        Parameters
        ----------
        run_id : str
            Of the store, or from `open`.
        metrics : iterable of mlflow.entities.Metric
        **known
            Mappings such as ``params`` and ``tags`` are merged with what is kept, None in them is left out; other
            values replace it.
        """
        entry = self.read(run_id)
        for name, value in known.items():
            if isinstance(value, Mapping):
                texts = {key: str(item) for key, item in value.items() if item is not None}
                entry[name] = {**entry.get(name, {}), **texts}
            else:
                entry[name] = value
        points = [[item.key, item.value, item.timestamp, item.step] for item in metrics]
        entry["metrics"] = [*entry.get("metrics", []), *points]
        # A metric may be NaN, which Python writes and reads.
        replace_file(self.folder / run_id / RUN_FILE, (json.dumps(entry, indent=1) + "\n").encode())

    def keep_files(self, run_id: str, folder: Path | str) -> Path:
        """Copy a folder's files to those that are kept of a run; where they are."""
        self.keep(run_id)
        return Path(shutil.copytree(folder, self.folder / run_id / FILES, dirs_exist_ok=True))

    def read(self, run_id: str) -> dict[str, Any]:
        """Read what is kept of a run; a new entry where nothing is."""
        path = self.folder / run_id / RUN_FILE
        return json.loads(path.read_text()) if path.is_file() else {"run_id": run_id, "kept_ns": time.time_ns()}

    def entries(self) -> list[dict[str, Any]]:
        """Read what is kept of every run, in the order in which that began: a parent comes before its children."""
        found = [self.read(path.parent.name) for path in self.folder.glob(f"*/{RUN_FILE}")]
        return sorted(found, key=lambda entry: entry["kept_ns"])

    @property
    def waiting(self) -> bool:
        """Whether something is kept that was not sent."""
        return any(not entry.get("sent") for entry in self.entries())


def is_local(run_id: str) -> bool:
    """Whether a run's id is one of `Outbox.open`, unknown to any store."""
    return run_id.startswith(f"{UNSENT}-")


def send_or_keep(
    outbox: Outbox | None, run_id: str, send: Callable[[], Result], keep: Callable[[Outbox], Result]
) -> Result:
    """Send something about a run, or keep it where the store is away.

    Parameters
    ----------
    outbox : Outbox or None
    run_id : str
        Empty for a run that is not open yet.
    send, keep : callable
        Give what the caller needs to go on.

    Raises
    ------
    TrackingError
        If the store cannot be reached and there is no outbox.
    """
    if outbox is None:
        return send()
    if not outbox.away and not is_local(run_id):
        try:
            return send()
        except TrackingError as error:
            LOGGER.error("%s The job goes on; what it finds is kept in %s.", error, outbox.folder)
            outbox.away = True
    return keep(outbox)
