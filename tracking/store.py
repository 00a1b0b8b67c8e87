"""Runs in MLflow: one per artifact under a parent per job, never left open, read back as rows."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracking.answers import Answered, load_answers
from tracking.artifacts import PREDICTIONS_FILE, ROW_FILE, write_artifacts, write_files
from tracking.connection import (
    TrackingError,
    connect,
    open_experiment,
    resolve_uri,
    retry,
    sqlite_path,
    write_batch,
)
from tracking.outbox import Outbox, send_or_keep
from tracking.owners import terminate_cleanly
from tracking.rows import Row, read_rows_file
from tracking.runs import close_stale_runs, open_run
from tracking.search import PARENT, download_file, filter_rows, find_local_file, search_runs
from tracking.sending import (
    KEPT,
    LOOK,
    RowContent,
    count_test_looks,
    keep_row,
    push,
    record_test_look,
    send_row,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


@dataclass(frozen=True)
class OpenRun:
    """A run that is being written.

    Parameters
    ----------
    store : Store
    run_id, name, group : str
    """

    store: "Store"
    run_id: str
    name: str
    group: str

    @contextmanager
    def child(
        self, name: str, *, params: Mapping[str, Any] | None = None, tags: Mapping[str, Any] | None = None
    ) -> Iterator["OpenRun"]:
        """Open a nested run for one artifact; closed FINISHED, or FAILED when the block raises."""
        nested = {**(tags or {}), PARENT: self.run_id}
        store = self.store
        with open_run(store.client, store.experiment_id, name, self.group, params, nested, store.outbox) as run_id:
            yield OpenRun(store, run_id, name, self.group)

    def write(self, *, params: Mapping[str, Any] | None = None, tags: Mapping[str, Any] | None = None) -> None:
        """Add params and tags to the run; errors as in `Store.log_row`."""
        what = f"write to run {self.name!r}"
        send = partial(write_batch, self.store.client, self.run_id, params=params, tags=tags, what=what, hint=KEPT)
        kept = {"params": params or {}, "tags": tags or {}}
        send_or_keep(self.store.outbox, self.run_id, send, lambda box: box.keep(self.run_id, **kept))


@dataclass(frozen=True)
class Store:
    """An open tracking store; make one with `initialise`.

    Parameters
    ----------
    client : MlflowClient
    tracking_uri : str
    experiment_id : str
    outbox : Outbox, optional
        Takes what a job writes from the moment on at which the store is away; without it that is an error.
    """

    client: "MlflowClient"
    tracking_uri: str
    experiment_id: str
    outbox: Outbox | None = None

    @contextmanager
    def job(
        self,
        name: str,
        *,
        group: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> Iterator[OpenRun]:
        """Open the parent run of a job; closed FINISHED, or FAILED when the block raises.

        Runs that a process of this machine left open when it was killed are closed as FAILED first.

        Raises
        ------
        TrackingError
            If the store cannot be reached when the run is opened.
        """
        close_stale_runs(self.client)
        opened = open_run(self.client, self.experiment_id, name, group, params, tags or {}, self.outbox)
        with terminate_cleanly(), opened as run_id:
            yield OpenRun(self, run_id, name, group)

    def log_row(
        self,
        run_id: str,
        row: Row,
        *,
        predictions: Answered | None = None,
        model_path: Path | str | None = None,
        images: Mapping[str, bytes] | None = None,
        texts: Mapping[str, str] | None = None,
        files: Sequence[Path | str] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> Row:
        """Write everything that is known about one artifact to its run.

        Parameters
        ----------
        run_id : str
            Run of the artifact, from `OpenRun.child`.
        row : Row
        predictions : Predictions or HeartRates, optional
            Written as ``predictions.npz``.
        model_path : Path or str, optional
            ONNX file that is logged as a model named ``model``.
        images : mapping of file name to bytes, optional
            For example ``{"roc.png": draw_png(figure)}``.
        texts : mapping of file name to str, optional
            For example ``{"config.yaml": ..., "diff.patch": ...}``; empty texts are left out.
        files : sequence of paths, optional
            Further files.
        params, tags : mapping, optional
            Besides those that the row gives.

        Returns
        -------
        Row
            With `run_id`, `group` and `test_looks` filled in: the row that ``row.json`` holds.

        Raises
        ------
        TrackingError
            If the store cannot be reached after several attempts and there is no outbox. The message says where the
            results remain.
        """
        with tempfile.TemporaryDirectory(prefix="lightheart-") as folder:
            write_artifacts(Path(folder), predictions, images or {}, texts or {}, files)
            content = RowContent(
                row=row,
                folder=Path(folder),
                model=None if model_path is None else Path(model_path),
                params=params or {},
                tags=tags or {},
            )
            send = partial(send_row, self.client, self.tracking_uri, run_id, content)
            return send_or_keep(self.outbox, run_id, send, partial(keep_row, run_id, content))

    def push(self) -> list[Row]:
        """Send what the outbox holds, with several attempts; errors as in `tracking.sending.push`."""
        return [] if self.outbox is None else push(self.client, self.tracking_uri, self.outbox)

    def log_files(self, run_id: str, texts: Mapping[str, str], images: Mapping[str, bytes]) -> None:
        """Add texts and images to a run, by file name; errors as in `Store.log_row`."""
        with tempfile.TemporaryDirectory(prefix="lightheart-") as folder:
            write_files(Path(folder), texts, images)
            what = f"log {', '.join([*texts, *images])} to {self.tracking_uri!r}"
            send = partial(retry, partial(self.client.log_artifacts, run_id, folder), what, hint=KEPT)
            send_or_keep(self.outbox, run_id, send, lambda box: box.keep_files(run_id, folder))

    def record_test_look(self, run_id: str, split_digest: str) -> int | None:
        """Note that this run evaluated the test split; a run counts once.

        Returns
        -------
        int or None
            Evaluations of that split this store has seen so far, this one included; None where it is away.
        """
        send = partial(record_test_look, self.client, run_id, split_digest)
        return send_or_keep(self.outbox, run_id, send, lambda box: box.keep(run_id, tags={LOOK: split_digest}))

    def count_test_looks(self, split_digest: str) -> int:
        """Count evaluations of a test split in every experiment of the store, deleted runs included."""
        return count_test_looks(self.client, split_digest)

    def newest_group(self) -> str | None:
        """Group of the row that was written last, or None in an empty store."""
        runs = search_runs(self.client, filter_rows(), limit=1)
        return runs[0].data.tags.get("group") if runs else None

    def read_rows(self, *, group: str | None = None, filter_string: str | None = None) -> list[Row]:
        """Rows of a group, of an MLflow filter, or of both; of the newest group without either.

        Parameters
        ----------
        group : str, optional
            Group of one command, as given to `job`.
        filter_string : str, optional
            In MLflow's search language, for example ``params.model = 'cnn1d_student'``.

        Returns
        -------
        list of Row
            In the order in which their runs were opened; empty when nothing matches.

        Raises
        ------
        TrackingError
            If the store cannot be reached or does not understand the filter.
        """
        if group is None and filter_string is None:
            group = self.newest_group()
            if group is None:
                return []
        runs = search_runs(self.client, filter_rows(group, filter_string), bare=True)
        places = [(run.info.run_id, find_local_file(run.info.artifact_uri, ROW_FILE)) for run in reversed(runs)]
        return [read_rows_file(path)[0] if path else self.read_row(run_id) for run_id, path in places]

    def read_row(self, run_id: str) -> Row:
        """Row of a run.

        Raises
        ------
        TrackingError
            If the run has none.
        """
        with tempfile.TemporaryDirectory(prefix="lightheart-") as folder:
            return read_rows_file(download_file(self.client, run_id, ROW_FILE, folder))[0]

    def list_files(self, run_id: str) -> list[str]:
        """Names of a run's files and folders, at the top; errors as in `read_rows`."""
        call = partial(self.client.list_artifacts, run_id)
        return [item.path for item in retry(call, f"list the files of run {run_id!r}")]

    def read_file(self, run_id: str, name: str) -> bytes:
        """Content of one file of a run.

        Raises
        ------
        TrackingError
            If the run does not have it.
        """
        with tempfile.TemporaryDirectory(prefix="lightheart-") as folder:
            return Path(download_file(self.client, run_id, name, folder)).read_bytes()

    def read_predictions(self, run_id: str) -> Answered:
        """Test predictions of a run.

        Raises
        ------
        TrackingError
            If the run has none.
        """
        with tempfile.TemporaryDirectory(prefix="lightheart-") as folder:
            return load_answers(download_file(self.client, run_id, PREDICTIONS_FILE, folder))


def initialise(
    tracking_uri: str | None = None,
    *,
    experiment_name: str = "lightheart",
    artifact_location: str | None = None,
    must_exist: bool = False,
) -> Store:
    """Open the tracking store, creating database and experiment where they are missing.

    Parameters
    ----------
    tracking_uri : str, optional
        Any MLflow tracking URI; by default ``MLFLOW_TRACKING_URI``, else ``sqlite:///mlflow.db``.
    experiment_name : str, default "lightheart"
    artifact_location : str, optional
        Where a new experiment keeps its files; ignored for a tracking server, which decides itself.
    must_exist : bool, default False
        Refuse a sqlite file that does not exist instead of creating it.

    Returns
    -------
    Store

    Raises
    ------
    TrackingError
        If the store cannot be reached, or `must_exist` and it does not.
    """
    uri = resolve_uri(tracking_uri)
    path = sqlite_path(uri)
    if must_exist and path is not None and not path.exists():
        raise TrackingError(f"there is no tracking store at {path}: run train.py, or set MLFLOW_TRACKING_URI")
    client = connect(uri)
    return Store(client, uri, open_experiment(client, uri, experiment_name, artifact_location))
