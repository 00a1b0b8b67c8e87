"""Open a run and close it again, whatever happens in between."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from tracking.connection import TrackingError, retry, write_batch
from tracking.outbox import Outbox, send_or_keep
from tracking.owners import is_orphan, machine_name, owner_tag
from tracking.search import quoted, search_runs

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LOGGER = logging.getLogger(__name__)
OWNER = "owner"


@contextmanager
def open_run(
    client: "MlflowClient",
    experiment_id: str,
    name: str,
    group: str,
    params: Mapping[str, Any] | None,
    tags: Mapping[str, Any],
    outbox: Outbox | None = None,
) -> Iterator[str]:
    """Open a run; closed FINISHED, or FAILED when the block raises. Gives the run's id.

    With an outbox a store that is gone does not end the block: the run is kept there under an id of its own.

    Raises
    ------
    TrackingError
        If the store cannot be reached when the run is opened, and there is no outbox. A store that is gone at the end
        is only logged: it should neither hide the error that ended the block nor turn a finished job into a failed one.
    """
    from mlflow.tracking.context.registry import resolve_tags

    text = {key: str(value) for key, value in tags.items() if value is not None}
    # User, program and commit, as MLflow's own functions add them.
    text = resolve_tags({**text, "group": group, OWNER: owner_tag()})
    what = f"open run {name!r}"

    def send() -> str:
        run = retry(partial(client.create_run, experiment_id, tags=text, run_name=name), what)
        return str(run.info.run_id)

    known = {"name": name, "experiment_id": experiment_id, "tags": text}
    run_id = send_or_keep(outbox, "", send, lambda box: box.open(**known))
    status = "FAILED"
    try:
        write = partial(write_batch, client, run_id, params=params, what=what)
        send_or_keep(outbox, run_id, write, lambda box: box.keep(run_id, params=params or {}))
        yield run_id
        status = "FINISHED"
    finally:
        _close(client, run_id, name, status, outbox)


def _close(client: "MlflowClient", run_id: str, name: str, status: str, outbox: Outbox | None) -> None:
    ended_ms = int(time.time() * 1000)
    call = partial(retry, partial(client.set_terminated, run_id, status, ended_ms), f"close run {name!r} as {status}")
    try:
        send_or_keep(outbox, run_id, call, lambda box: box.keep(run_id, status=status, ended_ms=ended_ms))
    except TrackingError as error:
        LOGGER.error("%s. The next job on this machine closes it.", error)


def close_stale_runs(client: "MlflowClient") -> int:
    """Close runs as FAILED that a process of this machine left open when it was killed; how many."""
    mine = quoted(f"{machine_name()}:%")
    found = search_runs(client, f"attributes.status = 'RUNNING' and tags.{OWNER} LIKE {mine}")
    stale = [run.info.run_id for run in found if is_orphan(run.data.tags[OWNER])]
    for run_id in stale:
        LOGGER.warning("run %s was left open by a process that is gone: closed as FAILED", run_id)
        retry(partial(client.set_terminated, run_id, "FAILED"), f"close run {run_id!r}")
    return len(stale)
