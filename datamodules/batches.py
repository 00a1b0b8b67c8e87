"""Windows as batches: one fancy index of the memory map and a few operations on the whole batch."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.augment import EcgAugment
from datamodules.normalize import Normalizer
from datamodules.records import EcgWindows

Batch = tuple[Tensor, Tensor, Tensor]


class EcgBatches(Dataset[Batch]):
    """Windows of one split, fetched a batch at a time.

    Parameters
    ----------
    windows : EcgWindows
        All windows.
    positions : ndarray of int64
        Positions of this split's windows.
    normalizer : Normalizer
        Standardisation, applied last.
    augment : EcgAugment, optional
        Applied to the signal in mV.
    generator : torch.Generator, optional
        Source of the augmentation's randomness.
    """

    def __init__(
        self,
        windows: EcgWindows,
        positions: NDArray[np.int64],
        normalizer: Normalizer,
        augment: EcgAugment | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        # A plain view: indexing np.memmap itself makes a memmap object of every batch.
        self.signal_mv = np.asarray(windows.signal_mv)
        self.targets = windows.targets
        self.positions = positions
        self.mean_mv = torch.from_numpy(normalizer.mean_mv[:, None])
        self.std_mv = torch.from_numpy(normalizer.std_mv[:, None])
        self.augment = augment
        self.generator = generator

    def __len__(self) -> int:
        """Return the number of windows of this split."""
        return len(self.positions)

    def __getitem__(self, item: int) -> Batch:
        """Return a batch of one window."""
        return self.__getitems__([item])

    def __getitems__(self, items: list[int]) -> Batch:
        """Return signal (b, leads, time), target (b, classes) and position (b,) of a batch."""
        positions = self.positions[items]
        signal = torch.from_numpy(self.signal_mv[positions])
        if self.augment is not None:
            signal = self.augment(signal, self.generator)
        signal = signal.sub_(self.mean_mv).div_(self.std_mv)
        return signal, torch.from_numpy(self.targets[positions]), torch.from_numpy(positions)
