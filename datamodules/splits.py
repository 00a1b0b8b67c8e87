"""Splits by fold: pure functions over the folds of the records."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def split_by_fold(
    folds_of_records: NDArray[np.integer], folds: Mapping[str, Sequence[int]]
) -> dict[str, NDArray[np.int64]]:
    """Give each split the records of its folds.

    Parameters
    ----------
    folds_of_records : ndarray of int, shape (n,)
        Fold of each record.
    folds : mapping of str to sequence of int
        Folds of each split.

    Returns
    -------
    dict of str to ndarray of int64
        Sorted positions of each split's records.

    Raises
    ------
    ValueError
        If a split names no fold, a fold without records, or a fold of another split.
    """
    owner: dict[int, str] = {}
    for split, wanted in folds.items():
        if len(wanted) == 0:
            raise ValueError(f"datamodule.folds.{split} is {list(wanted)!r}, expected at least one fold")
        for fold in wanted:
            if fold in owner:
                raise ValueError(
                    f"datamodule.folds.{split} has fold {fold!r}, which datamodule.folds.{owner[fold]} has"
                    f" already: expected every fold once"
                )
            owner[fold] = split
    present = sorted(set(np.unique(folds_of_records).tolist()))
    for fold, split in owner.items():
        if fold not in present:
            raise ValueError(
                f"datamodule.folds.{split} has fold {fold!r}, which holds no record; folds with records: {present!r}"
            )
    return {
        split: np.flatnonzero(np.isin(folds_of_records, list(wanted))).astype(np.int64)
        for split, wanted in folds.items()
    }
