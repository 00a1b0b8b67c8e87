"""A Lightning logger that costs the training next to nothing and never ends it."""

import logging
import re
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from tracking.connection import RETRY_WAITS_S, TrackingError, write_batch
from tracking.digests import flatten
from tracking.outbox import is_local
from tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Metric

LOGGER = logging.getLogger(__name__)
LONGEST_WAIT_S = 300.0


class MlflowLogger(Logger):
    """Keep metrics in memory and write them to a run in batches.

    A store that is down costs one attempt now and then; the metrics stay in memory and are written once it is
    back, at the latest by `finalize`. What even that cannot write goes to the store's outbox, or is reported in the
    log; the training goes on.

    Parameters
    ----------
    store : Store
    run_id : str
        Run that is open, from `OpenRun.child`; this logger does not close it.
    flush_s : float, default 10
        Seconds between writes.
    flush_metrics : int, default 800
        Metrics in memory that make a write due earlier.
    """

    def __init__(self, store: Store, run_id: str, *, flush_s: float = 10.0, flush_metrics: int = 800) -> None:
        super().__init__()
        self._store = store
        self._run_id = run_id
        self._flush_s = flush_s
        self._flush_metrics = flush_metrics
        self._wait_s = flush_s
        self._failing = False
        self._last = time.monotonic()
        self._buffer: list[Metric] = []

    @property
    def name(self) -> str:
        """Experiment that the run belongs to."""
        return self._store.experiment_id

    @property
    def version(self) -> str:
        """Run that is written to."""
        return self._run_id

    @property
    def experiment(self) -> Any:
        """The MLflow client, for what a callback wants to write itself."""
        return self._store.client

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Write hyperparameters, nested names joined by dots; those that the run has already stay."""
        flat = flatten(vars(params) if isinstance(params, Namespace) else params)
        outbox = self._store.outbox
        if outbox and (outbox.away or is_local(self._run_id)):
            outbox.keep(self._run_id, params=flat)
            return
        try:
            write_batch(self._store.client, self._run_id, params=flat, what="log hyperparameters", waits_s=())
        except TrackingError as error:
            LOGGER.warning("%s", error)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Take metrics into memory; written when `flush_s` have passed or the memory is full."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._buffer += [
            Metric(re.sub(r"[^\w\-./ ]", "_", name), float(value), now, step or 0) for name, value in metrics.items()
        ]
        waited = time.monotonic() - self._last
        full = not self._failing and len(self._buffer) >= self._flush_metrics
        if (waited >= self._wait_s or full) and not is_local(self._run_id):
            self.flush(waits_s=())

    def flush(self, waits_s: tuple[float, ...] = RETRY_WAITS_S) -> bool:
        """Write what is in memory; whether it is all written. Never raises for a store that is down."""
        try:
            write_batch(
                self._store.client,
                self._run_id,
                metrics=self._buffer,
                what="log training metrics",
                waits_s=waits_s,
            )
        except TrackingError as error:
            # Longer and longer waits: a server that answers slowly must not slow the training down.
            self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
            self._failing = True
            LOGGER.warning("%s. %d values are kept and written later.", error, len(self._buffer))
        else:
            self._buffer = []
            self._wait_s = self._flush_s
            self._failing = False
        self._last = time.monotonic()
        return not self._failing

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the rest, with several attempts; the run itself is closed by whoever opened it."""
        if not self._buffer or (not is_local(self._run_id) and self.flush()):
            return
        if self._store.outbox:
            self._store.outbox.keep(self._run_id, metrics=self._buffer)
            self._buffer = []
        else:
            LOGGER.error("%d training metrics of run %s could not be written", len(self._buffer), self._run_id)
