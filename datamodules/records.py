"""What a reader yields and what a data module holds: frozen records with ids, units and lead names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datamodules.origin import Kind


@dataclass(frozen=True, eq=False, slots=True)
class EcgRecord:
    """One ECG recording.

    Attributes
    ----------
    record_id, subject_id : str
        Ids of the recording and of the person; splits go by the person.
    signal_mv : ndarray of float32, shape (leads, time)
        Signal in mV.
    fs : float
        Sampling frequency in Hz.
    lead_names : tuple of str
        Name of each row of ``signal_mv``, as in the record's header.
    """

    record_id: str
    subject_id: str
    signal_mv: NDArray[np.float32]
    fs: float
    lead_names: tuple[str, ...]


@dataclass(frozen=True, eq=False, slots=True)
class EcgWindows:
    """Windows of one length from a whole data set, with targets and ids.

    Attributes
    ----------
    signal_mv : ndarray of float32, shape (n, leads, time)
        Signals in mV, memory-mapped where they come from the cache. Seconds where the only lead is ``RR``.
    targets : ndarray of float32, shape (n, n_classes)
        Multi-label targets, 0 or 1.
    record_ids, subject_ids : ndarray of str, shape (n,)
        Recording and person behind each window.
    folds : ndarray of int16, shape (n,)
        Fold that the data set's authors put the window in; 0 where they made none.
    signal_hashes : ndarray of bytes or uint64, shape (n,)
        Hash of each signal; equal hashes mean equal signals.
    fs : float
        Sampling frequency in Hz.
    lead_names, class_names : tuple of str
        Names of the axes of ``signal_mv`` and ``targets``.
    data_digest : str
        Digest of signals, targets, ids and folds: the same on every machine.
    counts : dict of str to int
        What was listed, dropped and found odd while reading.
    lead_means_mv, lead_variances_mv2 : ndarray of float64, shape (n, leads), optional
        Mean (mV) and variance (mV squared) over time of each window and lead, kept so that normalisation
        statistics need no second pass over the signals.
    times_s : ndarray of float64, shape (n,), optional
        Place of each window in its record, in seconds from the start: the R peak of a beat, the first beat of a
        window of RR intervals.
    training_only : ndarray of bool, shape (n,), optional
        Windows that overlap others and so serve in training alone.
    kind : {"real", "synthetic"}
        Whether the signals were recorded or simulated.
    """

    signal_mv: NDArray[np.float32]
    targets: NDArray[np.float32]
    record_ids: NDArray[np.str_]
    subject_ids: NDArray[np.str_]
    folds: NDArray[np.int16]
    signal_hashes: NDArray[np.bytes_] | NDArray[np.uint64]
    fs: float
    lead_names: tuple[str, ...]
    class_names: tuple[str, ...]
    data_digest: str
    counts: dict[str, int]
    lead_means_mv: NDArray[np.float64] | None = None
    lead_variances_mv2: NDArray[np.float64] | None = None
    times_s: NDArray[np.float64] | None = None
    training_only: NDArray[np.bool_] | None = None
    kind: Kind = "real"

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.record_ids)


class EcgSource(Protocol):
    """Loads windows, as `datamodules.ptbxl.load_ptbxl` does once its cache is bound.

    Called with ``fs``, ``lead_names``, ``class_names``, ``missing`` and ``download``; with ``folds`` where the split
    is by the authors' folds, and with ``flat_leads`` where that is configured.
    """

    def __call__(self, root: Path | str | None, **options: Any) -> EcgWindows:
        """Load the windows."""


class Splitter(Protocol):
    """Makes the splits, as functions of `datamodules.splits` and `datamodules.stratified_splits` with options bound."""

    def __call__(self, subject_ids: NDArray[np.str_], targets: NDArray[np.float32]) -> dict[str, NDArray[np.int64]]:
        """Return the positions of ``train``, ``val`` and ``test``, from subject (n,) and targets (n, n_classes)."""
