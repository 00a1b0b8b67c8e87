"""A client to the tracking store: opened safely by many processes at once, with calls that are retried."""

import hashlib
import logging
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

LOGGER = logging.getLogger(__name__)
DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"
# Seconds before the second, third and fourth attempt.
RETRY_WAITS_S = (0.5, 1.0, 2.0)
TRANSIENT_CODES = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED")
# Limits of MLflow's log_batch and of its columns.
MAX_METRICS, MAX_PARAMS, MAX_PARAM_CHARS, MAX_TAG_CHARS = 1000, 100, 6000, 8000
ENVIRONMENT = {
    # Runs describe patients' data: nothing about them is sent anywhere but to the tracking store.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow's own 7 retries would hold a training for minutes when a server is down; ours come on top.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

Result = TypeVar("Result")


class TrackingError(RuntimeError):
    """The tracking store could not be reached, or refused what it was sent."""


def resolve_uri(tracking_uri: str | None) -> str:
    """Tracking URI to use: the given one, else ``MLFLOW_TRACKING_URI``, else ``sqlite:///mlflow.db``.

    A relative sqlite path is made absolute, so that a later change of the working folder does not matter.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI
    path = sqlite_path(uri)
    return uri if path is None else f"sqlite:///{path.absolute()}"


def sqlite_path(uri: str) -> Path | None:
    """File behind a sqlite URI, or None for every other store."""
    prefix = "sqlite:///"
    return Path(uri[len(prefix) :].partition("?")[0]) if uri.startswith(prefix) else None


def connect(uri: str) -> "MlflowClient":
    """Open a client; a fresh database gets its tables once, however many processes start together.

    Parameters
    ----------
    uri : str
        As returned by `resolve_uri`.

    Raises
    ------
    TrackingError
        If the store cannot be reached or was written by another MLflow version.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)

    def probe() -> MlflowClient:
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
        return client

    what = f"open the tracking store {uri!r}"
    with warnings.catch_warnings():
        # MLflow 3.17 maps one relation with a loader that SQLAlchemy 2.1 deprecates.
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
        # Processes that open a fresh database together would all migrate it, and all fail.
        with nullcontext() if _is_server(uri) else FileLock(_lock_path(uri)):
            client = retry(probe, what)
    # mlflow.onnx.log_model knows only the global URI.
    mlflow.set_tracking_uri(uri)
    return client


def open_experiment(client: "MlflowClient", uri: str, name: str, artifact_location: str | None) -> str:
    """Find an experiment or create it, also when several processes do so at once; its id.

    Parameters
    ----------
    client : MlflowClient
    uri, name : str
    artifact_location : str or None
        Where a new experiment keeps its files; a tracking server decides that itself.

    Raises
    ------
    TrackingError
        If the store cannot be reached, or the experiment was deleted.
    """
    location = None if _is_server(uri) else artifact_location

    def find_or_create() -> str:
        found = client.get_experiment_by_name(name)
        return str(found.experiment_id if found else client.create_experiment(name, location))

    what = f"open experiment {name!r} in {uri!r}"
    try:
        return retry(find_or_create, what)
    except TrackingError:
        # Another process may have been faster between the look and the creation.
        return retry(find_or_create, what, waits_s=())


def retry(call: Callable[[], Result], what: str, *, hint: str = "", waits_s: Iterable[float] = RETRY_WAITS_S) -> Result:
    """Call until it works; errors that another attempt cannot mend are raised at once.

    Parameters
    ----------
    call : callable
        Without arguments; safe to repeat.
    what : str
        What is attempted, for the message.
    hint : str, optional
        What the reader of the error should know or do.
    waits_s : iterable of float, optional
        Seconds before each further attempt.

    Raises
    ------
    TrackingError
        If every attempt failed.
    """
    from mlflow.exceptions import MlflowException

    pending = list(waits_s)
    attempt = 1
    while True:
        try:
            return call()
        except (MlflowException, OSError) as error:
            transient = getattr(error, "error_code", TRANSIENT_CODES[0]) in TRANSIENT_CODES
            if not transient or not pending:
                reason = str(error).splitlines()[0][:500] if str(error) else type(error).__name__
                message = f"could not {what} after {attempt} attempt(s): {reason}. {hint}"
                raise TrackingError(message.rstrip()) from error
            LOGGER.warning("could not %s (attempt %d, trying again): %s", what, attempt, error)
        time.sleep(pending.pop(0))
        attempt += 1


def write_batch(
    client: "MlflowClient",
    run_id: str,
    *,
    metrics: Iterable["Metric"] = (),
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    what: str = "log to the tracking store",
    hint: str = "",
    waits_s: Iterable[float] = RETRY_WAITS_S,
) -> None:
    """Write metrics, params and tags with as few calls as MLflow's limits allow, retried.

    Parameters
    ----------
    client : MlflowClient
    run_id : str
    metrics : iterable of mlflow.entities.Metric
    params, tags : mapping, optional
        None values are left out, others are written as text, cut at MLflow's length limits. Params that
        the run has already are left alone, since MLflow's params cannot change.
    what, hint, waits_s
        As in `retry`.

    Raises
    ------
    TrackingError
        If the store cannot be reached.
    """
    from mlflow.entities import Param, RunTag

    left = list(metrics)
    texts = {key: str(value)[:MAX_PARAM_CHARS] for key, value in (params or {}).items() if value is not None}
    if texts:
        present = retry(partial(client.get_run, run_id), what, hint=hint, waits_s=waits_s).data.params
        texts = {key: value for key, value in texts.items() if key not in present}
    all_params = [Param(key, value) for key, value in texts.items()]
    all_tags = [RunTag(k, str(v)[:MAX_TAG_CHARS]) for k, v in (tags or {}).items() if v is not None]
    # One call holds at most 1,000 entities, of which 100 params and 100 tags.
    room = MAX_METRICS - 2 * MAX_PARAMS
    calls = max(
        math.ceil(len(left) / room),
        math.ceil(len(all_params) / MAX_PARAMS),
        math.ceil(len(all_tags) / MAX_PARAMS),
    )
    for number in range(calls):
        few = slice(number * MAX_PARAMS, (number + 1) * MAX_PARAMS)
        batch = {
            "metrics": left[number * room : (number + 1) * room],
            "params": all_params[few],
            "tags": all_tags[few],
        }
        retry(partial(client.log_batch, run_id, **batch), what, hint=hint, waits_s=waits_s)


def _is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://", "databricks"))


def _lock_path(uri: str) -> Path:
    path = sqlite_path(uri)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_name(f"{path.name}.lock")
    return Path(tempfile.gettempdir()) / f"lightheart-{hashlib.sha256(uri.encode()).hexdigest()[:16]}.lock"
