"""What every data module here is: windows on three sides, read, drawn and batched side by side, never across."""

from abc import abstractmethod
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from datamodules.leakage import LeakageReport


class Windows(Protocol):
    """All windows of a data module, whatever signal they hold."""

    @property
    def targets(self) -> NDArray[np.float32]:
        """Targets, the first axis that of the windows."""

    @property
    def record_ids(self) -> NDArray[np.str_]:
        """Recording behind each window, shape (n,)."""

    @property
    def subject_ids(self) -> NDArray[np.str_]:
        """Person behind each window, shape (n,)."""


Data = TypeVar("Data", bound=Windows)


class SidedDataModule(pl.LightningDataModule, Generic[Data]):
    """Windows of one data set, or of two, on the sides ``train``, ``val`` and ``test``.

    A subclass loads and checks them in `setup`, which ends with `_keep`, and says how they are read.

    Attributes
    ----------
    splits : dict of str to ndarray of int64
        Positions of each side's windows, after `setup`, as are all below.
    leakage : LeakageReport
        Result of the leakage check.
    data_digest, split_digest, preprocessing_digest : str
        Digests of the data, of the split, and of what is done to the signal.
    counts : dict of str to int
        What was listed, dropped and found odd while reading.
    """

    batch_size: int
    splits: dict[str, NDArray[np.int64]]
    leakage: LeakageReport
    data_digest: str
    split_digest: str
    preprocessing_digest: str
    counts: dict[str, int]

    def __init__(self) -> None:
        super().__init__()
        self._data: Data | None = None

    @abstractmethod
    def _read(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return windows as a net sees them, without augmentation."""

    @abstractmethod
    def _batches(self, split: str) -> Dataset[Any]:
        """Return the windows of a split as batches, without augmentation."""

    @abstractmethod
    def _check_leakage(self, data: Data, calibration: NDArray[np.int64] | None = None) -> LeakageReport:
        """Raise `LeakageError` where `splits`, statistics or a calibration leak."""

    def _keep(self, data: Data) -> None:
        """Check `splits` for leaks; from then on the module counts as set up."""
        self.leakage = self._check_leakage(data)
        self.split_digest = self.leakage.split_digest
        self._data = data

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation batches in order."""
        return self._loader(self._batches("val"))

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test batches in order."""
        return self._loader(self._batches("test"))

    def windows(self, split: str, positions: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return windows as a net sees them, without augmentation.

        Parameters
        ----------
        split : {"train", "val", "test"}
            Split of the windows.
        positions : ndarray of int64, optional
            Positions among all windows, as in a batch; all of the split by default.

        Returns
        -------
        ndarray of float32
            Normalised ECG, shape (n, leads, time); of face videos, shape (n, n_frames, 6, size, size), motion in the
            channels 0 to 2 and appearance in 3 to 5.

        Raises
        ------
        ValueError
            If a position is not in the split.
        """
        own = self._positions(split)
        if positions is None:
            positions = own
        elif (outside := np.setdiff1d(positions, own)).size:
            raise ValueError(f"positions {outside[:5].tolist()!r} are not in the split {split!r}")
        return self._read(positions)

    def targets(self, split: str) -> NDArray[np.float32]:
        """Return the targets of a split, shape (n, n_classes); of videos the wave to learn, (n, n_frames), or NaN."""
        return self._loaded().targets[self._positions(split)]

    def record_ids(self, split: str) -> NDArray[np.str_]:
        """Return the recording or video of each window of a split, shape (n,)."""
        return self._loaded().record_ids[self._positions(split)]

    def subject_ids(self, split: str) -> NDArray[np.str_]:
        """Return the person of each window of a split, shape (n,)."""
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
        windows : ndarray of float32
            As `windows`.

        Raises
        ------
        ValueError
            If ``n`` is below 1, or there is nothing to train on.
        LeakageError
            If a drawn window is not a training window.
        """
        if n < 1:
            raise ValueError(f"a calibration with {n!r} windows was asked for, expected at least 1")
        train = self._positions("train")
        if not len(train):
            raise ValueError("there are no training windows to calibrate on: set datamodule.source")
        positions = np.sort(np.random.default_rng(seed).choice(train, size=min(n, len(train)), replace=False))
        self._check_leakage(self._loaded(), positions)
        return positions, self.windows("train", positions)

    def _check_batch_size(self, train: NDArray[np.int64]) -> None:
        if len(train) < self.batch_size:
            raise ValueError(
                f"datamodule.batch_size is {self.batch_size!r}, but the split 'train' has only {len(train)} windows:"
                " not one full batch"
            )

    def _loader(self, batches: Dataset[Any], **options: Any) -> DataLoader[Any]:
        return DataLoader(batches, self.batch_size, collate_fn=_as_is, **options)

    def _loaded(self) -> Data:
        if self._data is None:
            raise RuntimeError("the data module is not set up: call setup() first")
        return self._data

    def _positions(self, split: str) -> NDArray[np.int64]:
        self._loaded()
        if split not in self.splits:
            raise ValueError(f"split {split!r} does not exist, expected one of {list(self.splits)!r}")
        return self.splits[split]


def _as_is(batch: Any) -> Any:
    return batch
