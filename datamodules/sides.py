"""From loaded windows to the sides of a run: by the authors' folds, or by a function over subjects and targets."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from datamodules.groups import encode_ids
from datamodules.records import EcgWindows, Splitter
from datamodules.splits import split_by_fold

SPLITS = ("train", "val", "test")
LEVELS = ("record", "beat", "window")


def check_options(
    *, kind: str | None, level: str, folds: Mapping[str, Sequence[int]] | None, split: Splitter | None, batch_size: int
) -> None:
    """Refuse options of a data module that contradict each other or do not exist.

    Raises
    ------
    ValueError
        If so; the message names the key.
    """
    if kind not in (None, "real", "synthetic"):
        raise ValueError(f"datamodule.kind is {kind!r}, expected 'real' or 'synthetic'")
    if level not in LEVELS:
        raise ValueError(f"datamodule.level is {level!r}, expected one of {LEVELS!r}")
    if (folds is None) == (split is None):
        raise ValueError(
            f"datamodule.folds is {folds!r} and datamodule.split is {split!r}: expected exactly one of them"
        )
    if folds is not None and sorted(folds) != sorted(SPLITS):
        raise ValueError(f"datamodule.folds has {sorted(folds)!r}, expected {sorted(SPLITS)!r}")
    if batch_size < 1:
        raise ValueError(f"datamodule.batch_size is {batch_size!r}, expected at least 1")


def make_splits(
    windows: EcgWindows, *, folds: Mapping[str, Sequence[int]] | None, split: Splitter | None, leaky: bool
) -> dict[str, NDArray[np.int64]]:
    """Split windows; those that overlap others stay on the training side only.

    Parameters
    ----------
    windows : EcgWindows
        Loaded windows.
    folds : mapping of str to sequence of int, optional
        Folds of each side.
    split : Splitter, optional
        Used where there are no folds.
    leaky : bool
        Whether subjects may be on several sides.

    Returns
    -------
    dict of str to ndarray of int64
        Positions of ``train``, ``val`` and ``test``.

    Raises
    ------
    ValueError
        If the split cannot be made, or windows overlap in a leaky one.
    """
    if folds is not None:
        return split_by_fold(windows.folds, folds)
    if split is None:
        raise ValueError("neither folds nor a split are given, expected one of them")
    if windows.training_only is None or not windows.training_only.any():
        return split(windows.subject_ids, windows.targets)
    if leaky:
        raise ValueError(
            "datamodule.leaky is true, but windows overlap, so the same samples would be on two sides: keep them"
            " apart (datamodule.source.stride = datamodule.n_samples)"
        )
    # The windows that do not overlap decide, so that the split is the same however many there are between them.
    apart = np.flatnonzero(~windows.training_only)
    splits = {side: apart[taken] for side, taken in split(windows.subject_ids[apart], windows.targets[apart]).items()}
    _, codes = encode_ids(windows.subject_ids)
    return {**splits, "train": np.flatnonzero(np.isin(codes, np.unique(codes[splits["train"]])))}
