"""The Lightning data module for ECG windows: split, check, normalise, batch."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from datamodules.augment import EcgAugment
from datamodules.batches import Batch, EcgBatches
from datamodules.checks import check_classes, check_windows
from datamodules.leakage import LeakageReport, check_leakage
from datamodules.normalize import Normalizer, digest_preprocessing, fit_normalizer
from datamodules.records import EcgSource, EcgWindows, Splitter
from datamodules.rr import RR_ROW, rr_around
from datamodules.sided import SidedDataModule
from datamodules.sides import SPLITS, check_options, make_splits

log = logging.getLogger(__name__)


class EcgDataModule(SidedDataModule[EcgWindows]):
    """Splits, normalises and batches the windows of one data set.

    Parameters
    ----------
    source : EcgSource
        Loads the windows; called with the arguments of the same names below.
    name : str
        Name of the data set.
    kind : {"real", "synthetic"}, optional
        Where the signals come from; stands beside every figure. Verified against the folder; None takes what it says.
    root : Path or str, optional
        Folder of the data set; None where the source simulates one.
    n_leads, n_classes : int
        Sizes that models are built from; verified against the data.
    class_names, lead_names : sequence of str
        Names of targets and leads, in order.
    fs : int
        Sampling frequency of the recordings in Hz.
    n_samples : int
        Samples of a window.
    folds : mapping of str to sequence of int, optional
        Folds of ``train``, ``val`` and ``test``, where the data set's authors made folds.
    split : Splitter, optional
        Makes the splits otherwise, from subjects and targets.
    batch_size, seed : int
        Windows per batch; seed of shuffling, augmentation and calibration.
    augment : EcgAugment, optional
        Augmentation of training batches.
    max_drop : float, optional
        Loss of the metric that compression may cost on this data; read by the gate.
    level : {"record", "beat", "window"}
        What one window is; part of the name of every metric.
    exclusive : bool
        Whether every window has exactly one class; verified.
    leaky : bool
        Whether the split may share records and persons; such runs are tagged.
    pooled : bool
        Whether figures come from the test sides of all folds together, so that a class may be absent from one.
    missing, flat_leads, download
        Passed to the source (``flat_leads`` if given), see `datamodules.ptbxl.load_ptbxl`.

    Attributes
    ----------
    normalizer : Normalizer
        Statistics of the training windows, after `setup`.
    """

    normalizer: Normalizer

    def __init__(
        self,
        *,
        source: EcgSource,
        name: str,
        kind: Literal["real", "synthetic"] | None,
        root: Path | str | None,
        n_leads: int,
        n_classes: int,
        class_names: Sequence[str],
        lead_names: Sequence[str],
        fs: int,
        n_samples: int,
        batch_size: int,
        seed: int,
        folds: Mapping[str, Sequence[int]] | None = None,
        split: Splitter | None = None,
        level: Literal["record", "beat", "window"] = "record",
        exclusive: bool = False,
        leaky: bool = False,
        pooled: bool = False,
        augment: EcgAugment | None = None,
        max_drop: float = 0.002,
        missing: Literal["error", "skip"] = "error",
        flat_leads: Literal["keep", "error"] | None = None,
        download: bool = False,
    ) -> None:
        super().__init__()
        check_options(kind=kind, level=level, folds=folds, split=split, batch_size=batch_size)
        self.source = source
        self.name = name
        self.kind = kind
        self.root = root
        self.n_leads = n_leads
        self.n_classes = n_classes
        self.class_names = tuple(class_names)
        self.lead_names = tuple(lead_names)
        self.fs = fs
        self.n_samples = n_samples
        self.folds = None if folds is None else {side: list(folds[side]) for side in SPLITS}
        self.split = split
        self.level = level
        self.exclusive = exclusive
        self.leaky = leaky
        self.pooled = pooled
        self.batch_size = batch_size
        self.seed = seed
        self.augment = augment
        self.max_drop = max_drop
        self.missing = missing
        self.flat_leads = flat_leads
        self.download = download

    def setup(self, stage: str | None = None) -> None:
        """Load, verify, split, check and normalise; a second call does nothing.

        Raises
        ------
        FileNotFoundError, ValueError
            If the data are missing or not as configured, or a class is absent from a split.
        LeakageError
            If splits share a person, a signal or statistics.
        """
        if self._data is not None:
            return
        windows = self._load()
        splits = make_splits(windows, folds=self.folds, split=self.split, leaky=self.leaky)
        # The test sides of pooled folds are judged together.
        check_classes(windows, {side: splits[side] for side in SPLITS if side != "test" or not self.pooled})
        self._check_batch_size(splits["train"])
        self.splits = splits
        self.normalizer = fit_normalizer(windows, splits["train"])
        self.data_digest, self.counts = windows.data_digest, windows.counts
        self.preprocessing_digest = digest_preprocessing(windows, self.normalizer)
        self.kind = windows.kind
        self._keep(windows)
        log.info("%s: %s; windows per split %s", self.name, self.counts, self.leakage.n_records)

    @property
    def training_settings(self) -> dict[str, Any]:
        """What shapes the training batches besides the data: plain values, for the digest of a fit."""
        augment = {} if self.augment is None else vars(self.augment)
        return {"batch_size": self.batch_size, "seed": self.seed, "augment": dict(augment)}

    @property
    def unit(self) -> str:
        """Unit of the signal."""
        return "s" if self.lead_names == (RR_ROW,) else "mV"

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled, augmented batches; the last incomplete one is dropped."""
        # Two generators, so that an augmentation does not change the order.
        order, draws = (torch.Generator().manual_seed(self.seed) for _ in range(2))
        batches = self._batches("train", self.augment, draws)
        return self._loader(batches, shuffle=True, drop_last=True, generator=order)

    def times_s(self, split: str) -> NDArray[np.float64] | None:
        """Return the places of a split's windows in their records in seconds, shape (n,); None for whole records."""
        times_s = self._loaded().times_s
        return None if times_s is None else times_s[self._positions(split)]

    def rr_s(self, split: str, n_intervals: int) -> NDArray[np.float32]:
        """Return the RR intervals around the beats of a split, or those that its windows are made of.

        Parameters
        ----------
        split : {"train", "val", "test"}
            Split of the windows.
        n_intervals : int
            Intervals around each beat; windows of RR intervals have as many as they have.

        Returns
        -------
        ndarray of float32, shape (n, intervals)
            In seconds; NaN beyond the ends of a record.

        Raises
        ------
        ValueError
            If the windows are neither beats nor RR intervals.
        """
        windows, positions = self._loaded(), self._positions(split)
        if self.lead_names == (RR_ROW,):
            return np.asarray(windows.signal_mv)[positions, 0]
        if windows.times_s is None or self.level != "beat":
            raise ValueError(f"RR intervals exist around beats, but datamodule.level is {self.level!r}")
        return rr_around(windows.record_ids, windows.times_s, n_intervals)[positions]

    def _load(self) -> EcgWindows:
        folds = self.folds and sorted({fold for wanted in self.folds.values() for fold in wanted})
        optional = {"folds": folds, "flat_leads": self.flat_leads}
        windows = self.source(
            self.root,
            **{key: getattr(self, key) for key in ("fs", "lead_names", "class_names", "missing", "download")},
            **{key: value for key, value in optional.items() if value is not None},
        )
        check_windows(windows, {**vars(self), "kind": self.kind or windows.kind})
        return windows

    def _read(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.normalizer.apply(np.asarray(self._loaded().signal_mv)[positions])

    def _batches(
        self, split: str, augment: EcgAugment | None = None, draws: torch.Generator | None = None
    ) -> Dataset[Batch]:
        return EcgBatches(self._loaded(), self._positions(split), self.normalizer, augment, draws)

    def _check_leakage(self, data: EcgWindows, calibration: NDArray[np.int64] | None = None) -> LeakageReport:
        return check_leakage(
            record_ids=data.record_ids,
            subject_ids=data.subject_ids,
            signal_hashes=data.signal_hashes,
            splits=self.splits,
            class_names=data.class_names,
            normalizer_indices=self.normalizer.indices,
            calibration_indices=calibration,
            leaky=self.leaky,
        )
