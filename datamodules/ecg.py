"""The Lightning data module for ECG windows: split, check, normalise, batch."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from datamodules.augment import EcgAugment
from datamodules.batches import Batch, EcgBatches
from datamodules.checks import check_classes, check_windows
from datamodules.leakage import LeakageReport, check_leakage
from datamodules.normalize import Normalizer, digest_preprocessing, fit_normalizer
from datamodules.records import EcgSource, EcgWindows
from datamodules.splits import split_by_fold

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


class EcgDataModule(pl.LightningDataModule):
    """Splits, normalises and batches the windows of one data set.

    Parameters
    ----------
    source : EcgSource
        Loads the windows; called with the arguments of the same names below.
    name : str
        Name of the data set.
    kind : {"real", "synthetic"}
        Where the signals come from; stands beside every figure.
    root : Path or str
        Folder of the data set.
    n_leads, n_classes : int
        Sizes that models are built from; verified against the data.
    class_names, lead_names : sequence of str
        Names of targets and leads, in order.
    fs : int
        Sampling frequency in Hz.
    n_samples : int
        Samples of a window; ``fs`` times its seconds.
    folds : mapping of str to sequence of int
        Folds of ``train``, ``val`` and ``test``.
    batch_size : int
        Windows per batch.
    seed : int
        Seed of shuffling, augmentation and calibration.
    augment : EcgAugment, optional
        Augmentation of training batches.
    max_drop : float, optional
        Loss of the metric that compression may cost on this data; read by the gate.
    missing, flat_leads, download
        See `datamodules.ptbxl.load_ptbxl`.

    Attributes
    ----------
    splits : dict of str to ndarray of int64
        Positions of each split's windows, after `setup`, as are all below.
    normalizer : Normalizer
        Statistics of the training windows.
    leakage : LeakageReport
        Result of the leakage check.
    data_digest, split_digest, preprocessing_digest : str
        Digests of the arrays, of the split, and of what is done to the signal.
    counts : dict of str to int
        What was listed, dropped and found odd while reading.
    """

    splits: dict[str, NDArray[np.int64]]
    normalizer: Normalizer
    leakage: LeakageReport
    data_digest: str
    split_digest: str
    preprocessing_digest: str
    counts: dict[str, int]

    def __init__(
        self,
        *,
        source: EcgSource,
        name: str,
        kind: Literal["real", "synthetic"],
        root: Path | str,
        n_leads: int,
        n_classes: int,
        class_names: Sequence[str],
        lead_names: Sequence[str],
        fs: int,
        n_samples: int,
        folds: Mapping[str, Sequence[int]],
        batch_size: int,
        seed: int,
        augment: EcgAugment | None = None,
        max_drop: float = 0.002,
        missing: Literal["error", "skip"] = "error",
        flat_leads: Literal["keep", "error"] = "keep",
        download: bool = False,
    ) -> None:
        super().__init__()
        if kind not in ("real", "synthetic"):
            raise ValueError(f"datamodule.kind is {kind!r}, expected 'real' or 'synthetic'")
        if sorted(folds) != sorted(SPLITS):
            raise ValueError(f"datamodule.folds has {sorted(folds)!r}, expected {sorted(SPLITS)!r}")
        if batch_size < 1:
            raise ValueError(f"datamodule.batch_size is {batch_size!r}, expected at least 1")
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
        self.folds = {split: list(folds[split]) for split in SPLITS}
        self.batch_size = batch_size
        self.seed = seed
        self.augment = augment
        self.max_drop = max_drop
        self.missing = missing
        self.flat_leads = flat_leads
        self.download = download
        self._windows: EcgWindows | None = None

    def setup(self, stage: str | None = None) -> None:
        """Load, verify, split, check and normalise; a second call does nothing.

        Raises
        ------
        FileNotFoundError, ValueError
            If the data are missing or not as configured, or a class is absent from a split.
        LeakageError
            If splits share a person, a signal or statistics.
        """
        if self._windows is not None:
            return
        windows = self._load()
        splits = split_by_fold(windows.folds, self.folds)
        check_classes(windows, splits)
        if len(splits["train"]) < self.batch_size:
            raise ValueError(
                f"datamodule.batch_size is {self.batch_size!r}, but the split 'train' has only"
                f" {len(splits['train'])} windows: not one full batch"
            )
        self.splits = splits
        self.normalizer = fit_normalizer(windows, splits["train"])
        self.leakage = self._check_leakage(windows)
        self.split_digest = self.leakage.split_digest
        self.data_digest, self.counts = windows.data_digest, windows.counts
        self.preprocessing_digest = digest_preprocessing(windows, self.normalizer)
        # Last: until every check has passed, the module counts as not set up.
        self._windows = windows
        log.info("%s: %s; records per split %s", self.name, self.counts, self.leakage.n_records)

    @property
    def training_settings(self) -> dict[str, Any]:
        """What shapes the training batches besides the data: plain values, for the digest of a fit."""
        augment = {} if self.augment is None else vars(self.augment)
        return {"batch_size": self.batch_size, "seed": self.seed, "augment": dict(augment)}

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled, augmented batches; the last incomplete one is dropped."""
        # Two generators, so that an augmentation does not change the order.
        order, draws = (torch.Generator().manual_seed(self.seed) for _ in range(2))
        return self._loader("train", augment=self.augment, draws=draws, shuffle=True, drop_last=True, generator=order)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation batches in order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches in order."""
        return self._loader("test")

    def windows(self, split: str, positions: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return normalised windows, without augmentation.

        Parameters
        ----------
        split : {"train", "val", "test"}
            Split of the windows.
        positions : ndarray of int64, optional
            Positions among all windows, as in a batch; all of the split by default.

        Returns
        -------
        ndarray of float32, shape (n, leads, time)
            The windows.

        Raises
        ------
        ValueError
            If a position is not in the split.
        """
        if positions is None:
            positions = self._positions(split)
        elif (outside := np.setdiff1d(positions, self._positions(split))).size:
            raise ValueError(f"positions {outside[:5].tolist()!r} are not in the split {split!r}")
        return self.normalizer.apply(np.asarray(self._loaded().signal_mv)[positions])

    def targets(self, split: str) -> NDArray[np.float32]:
        """Return the targets of a split, shape (n, n_classes)."""
        return self._loaded().targets[self._positions(split)]

    def record_ids(self, split: str) -> NDArray[np.str_]:
        """Return the record ids of a split, shape (n,)."""
        return self._loaded().record_ids[self._positions(split)]

    def subject_ids(self, split: str) -> NDArray[np.str_]:
        """Return the subject ids of a split, shape (n,)."""
        return self._loaded().subject_ids[self._positions(split)]

    def calibration(self, n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Draw windows for the calibration of a quantizer, from the training split only.

        Parameters
        ----------
        n : int
            Windows to draw, without replacement; all training windows if there are fewer.
        seed : int
            Seed of the draw.

        Returns
        -------
        positions : ndarray of int64, shape (n,)
            Sorted positions among all windows.
        windows : ndarray of float32, shape (n, leads, time)
            Normalised windows.

        Raises
        ------
        ValueError
            If ``n`` is below 1.
        LeakageError
            If a drawn window is not a training window.
        """
        if n < 1:
            raise ValueError(f"a calibration with {n!r} windows was asked for, expected at least 1")
        train = self._positions("train")
        positions = np.sort(np.random.default_rng(seed).choice(train, size=min(n, len(train)), replace=False))
        self._check_leakage(self._loaded(), positions)
        return positions, self.windows("train", positions)

    def _load(self) -> EcgWindows:
        windows = self.source(
            self.root,
            fs=self.fs,
            lead_names=self.lead_names,
            class_names=self.class_names,
            folds=sorted({fold for wanted in self.folds.values() for fold in wanted}),
            missing=self.missing,
            flat_leads=self.flat_leads,
            download=self.download,
        )
        check_windows(windows, vars(self))
        return windows

    def _loader(
        self,
        split: str,
        augment: EcgAugment | None = None,
        draws: torch.Generator | None = None,
        **options: Any,
    ) -> DataLoader[Batch]:
        batches = EcgBatches(self._loaded(), self._positions(split), self.normalizer, augment, draws)
        return DataLoader(batches, self.batch_size, collate_fn=_as_is, **options)

    def _loaded(self) -> EcgWindows:
        if self._windows is None:
            raise RuntimeError("the data module is not set up: call setup() first")
        return self._windows

    def _positions(self, split: str) -> NDArray[np.int64]:
        self._loaded()
        if split not in self.splits:
            raise ValueError(f"split {split!r} does not exist, expected one of {list(self.splits)!r}")
        return self.splits[split]

    def _check_leakage(self, windows: EcgWindows, calibration: NDArray[np.int64] | None = None) -> LeakageReport:
        return check_leakage(
            record_ids=windows.record_ids,
            subject_ids=windows.subject_ids,
            signal_hashes=windows.signal_hashes,
            splits=self.splits,
            class_names=windows.class_names,
            normalizer_indices=self.normalizer.indices,
            calibration_indices=calibration,
        )


def _as_is(batch: Any) -> Any:
    return batch
