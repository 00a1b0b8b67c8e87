"""Look runs up in a store."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tracking.connection import retry

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

PAGE = 1000
# Tags of runs: of those that hold a row, and MLflow's own of nested ones.
IS_ROW, PARENT = "is_row", "mlflow.parentRunId"


def search_runs(
    client: "MlflowClient",
    filter_string: str,
    *,
    deleted: bool = False,
    limit: int | None = None,
    bare: bool = False,
) -> "list[Run]":
    """Find runs in every experiment of a store, newest first.

    Parameters
    ----------
    client : MlflowClient
    filter_string : str
        In MLflow's search language.
    deleted : bool, default False
        Whether runs that were deleted count too.
    limit : int, optional
        At most that many runs; all of them by default.
    bare : bool, default False
        Whoever asks needs no metrics, params and tags of the runs, which may be left out: where the store is a
        database, they are most of what is read. A filter sees them all the same.

    Raises
    ------
    TrackingError
        If the store cannot be reached or does not understand the filter.
    """
    from mlflow.entities import ViewType

    what = f"search the tracking store for {filter_string!r}"
    view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
    experiments = retry(partial(client.search_experiments, view_type=ViewType.ALL), what)
    look = partial(
        client.search_runs,
        [experiment.experiment_id for experiment in experiments],
        filter_string,
        view,
        limit or PAGE,
        ["attributes.start_time DESC"],
    )
    found: list[Run] = []
    token: str | None = None
    with _without_relations() if bare else nullcontext():
        while True:
            page = retry(partial(look, page_token=token), what)
            found += page
            token = page.token
            if not token or limit is not None:
                return found


def filter_rows(group: str | None = None, filter_string: str | None = None) -> str:
    """Make the filter that finds rows: of a group, of a filter of one's own, of both or all of them."""
    terms = [f"tags.{IS_ROW} = 'true'"]
    if group is not None:
        terms.append(f"tags.group = {quoted(group)}")
    if filter_string is not None:
        terms.append(filter_string)
    return " and ".join(terms)


@contextmanager
def _without_relations() -> Iterator[None]:
    """Have objects that are read from a database in here come without those that belong to them."""
    from sqlalchemy import Select, event, false
    from sqlalchemy.orm import ORMExecuteState, Session

    def leave_out(state: ORMExecuteState) -> None:
        if state.is_relationship_load and isinstance(state.statement, Select):
            state.statement = state.statement.where(false())

    event.listen(Session, "do_orm_execute", leave_out)
    try:
        yield
    finally:
        event.remove(Session, "do_orm_execute", leave_out)


def download_file(client: "MlflowClient", run_id: str, file: str, folder: str) -> str:
    """Copy one file of a run into `folder`; where it is.

    Raises
    ------
    TrackingError
        If the run does not have it or the store cannot be reached.
    """
    return retry(partial(client.download_artifacts, run_id, file, folder), f"read {file!r} of run {run_id!r}")


def find_local_file(artifact_uri: str, file: str) -> Path | None:
    """Place of a run's file where the store keeps files on this machine, else None.

    MLflow's own way is a look into the database and a copy for each run, which is slow for thousands of them.
    """
    place = urlsplit(artifact_uri)
    if place.scheme not in ("", "file") or place.netloc:
        return None
    path = Path(url2pathname(place.path if place.scheme else artifact_uri)) / file
    return path if path.is_file() else None


def quoted(value: str) -> str:
    """Put a value between the quotes of a search filter, which knows no escape.

    Raises
    ------
    ValueError
        If the value holds a single quote.
    """
    if "'" in value:
        raise ValueError(f"{value!r} cannot be searched for: it contains a single quote")
    return f"'{value}'"
