"""Splits by fold, by subject and at random: pure functions over folds, ids and targets.

Those of multi-label data are in `datamodules.stratified_splits`.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.groups import encode_ids


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


def split_subjects(
    subject_ids: NDArray[np.str_],
    targets: NDArray[np.float32],
    *,
    test_share: float = 0.2,
    val_share: float = 0.2,
    seed: int = 0,
) -> dict[str, NDArray[np.int64]]:
    """Split by subjects, so that those with positive windows are on every side.

    Parameters
    ----------
    subject_ids : ndarray of str, shape (n,)
        Person behind each window.
    targets : ndarray of float32, shape (n, n_classes)
        Targets, 0 or 1. A window is positive if it has the last class.
    test_share : float
        Share of the subjects for ``test``.
    val_share : float
        Share of the other subjects for ``val``.
    seed : int
        Seed of the draw.

    Returns
    -------
    dict of str to ndarray of int64
        Sorted positions of ``train``, ``val`` and ``test``.

    Raises
    ------
    ValueError
        If a share is out of range, or too few subjects have positive windows.
    """
    groups = _Subjects.of(subject_ids, targets)
    rng = np.random.default_rng(seed)
    rest, test = _draw(groups.everyone(), groups.positive, test_share, rng, "test")
    train, val = _draw(rest, groups.positive, val_share, rng, "val")
    return groups.positions({"train": train, "val": val, "test": test})


def split_windows(
    subject_ids: NDArray[np.str_],
    targets: NDArray[np.float32],
    *,
    test_share: float = 0.2,
    val_share: float = 0.2,
    seed: int = 0,
) -> dict[str, NDArray[np.int64]]:
    """Split windows at random, whoever they are from: leaky, for comparison with figures that were made so.

    Parameters
    ----------
    subject_ids, targets, test_share, val_share, seed
        See `split_subjects`; the shares are of windows here.

    Returns
    -------
    dict of str to ndarray of int64
        Sorted positions of ``train``, ``val`` and ``test``.

    Raises
    ------
    ValueError
        If a share is out of range.
    """
    n_windows = len(subject_ids)
    n_test = round(check_share("test", test_share) * n_windows)
    n_val = round(check_share("val", val_share) * (n_windows - n_test))
    order = np.random.default_rng(seed).permutation(n_windows)
    parts = np.split(order, [n_test, n_test + n_val])
    return {split: np.sort(part) for split, part in zip(("test", "val", "train"), parts, strict=True)}


def split_kfold(
    subject_ids: NDArray[np.str_],
    targets: NDArray[np.float32],
    *,
    fold: int,
    n_folds: int = 5,
    val_share: float = 0.2,
    seed: int = 0,
) -> dict[str, NDArray[np.int64]]:
    """Make one fold of a subject-wise k-fold cross-validation, stratified by windows.

    Parameters
    ----------
    subject_ids, targets, val_share, seed
        See `split_subjects`.
    fold : int
        Which fold is ``test``, from 0.
    n_folds : int
        Number of folds.

    Returns
    -------
    dict of str to ndarray of int64
        Sorted positions of ``train``, ``val`` and ``test``. Over all folds every window is in ``test`` once.

    Raises
    ------
    ValueError
        If the fold does not exist, or a side would be without positive or negative windows.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    groups = _Subjects.of(subject_ids, targets)
    if not 2 <= n_folds <= len(groups.names) or not 0 <= fold < n_folds:
        raise ValueError(
            f"datamodule.split has fold {fold!r} of {n_folds!r} folds, expected 2 to {len(groups.names)} folds (there"
            f" are {len(groups.names)} subjects), counted from 0"
        )
    labels = targets[:, -1] > 0
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(labels, labels, groups.codes)
    _, tested = next(itertools.islice(folds, fold, None))
    test = np.unique(groups.codes[tested])
    if not 0 < labels[tested].sum() < len(tested):
        raise ValueError(
            f"fold {fold} of {n_folds} has {int(labels[tested].sum())} positive windows of {len(tested)}: expected"
            f" both; only {int(groups.positive.sum())} subjects have positive windows, choose fewer folds or another"
            f" seed (datamodule.split)"
        )
    rest = np.setdiff1d(groups.everyone(), test)
    train, val = _draw(rest, groups.positive, val_share, np.random.default_rng([seed, fold]), "val")
    return groups.positions({"train": train, "val": val, "test": test})


def split_leave_one_out(
    subject_ids: NDArray[np.str_],
    targets: NDArray[np.float32],
    *,
    fold: int,
    val_share: float = 0.2,
    seed: int = 0,
) -> dict[str, NDArray[np.int64]]:
    """Make one fold of a leave-one-subject-out cross-validation.

    The one subject may have no positive window, or only such: figures come from all folds together.

    Parameters
    ----------
    subject_ids, targets, val_share, seed
        See `split_subjects`.
    fold : int
        Which subject, in sorted order, is ``test``; from 0.

    Returns
    -------
    dict of str to ndarray of int64
        Sorted positions of ``train``, ``val`` and ``test``.

    Raises
    ------
    ValueError
        If there is no such subject, or too few of the others have positive windows.
    """
    groups = _Subjects.of(subject_ids, targets)
    if not 0 <= fold < len(groups.names):
        raise ValueError(f"datamodule.split.fold is {fold!r}, expected 0 to {len(groups.names) - 1}: one per subject")
    rest = np.delete(groups.everyone(), fold)
    train, val = _draw(rest, groups.positive, val_share, np.random.default_rng([seed, fold]), "val")
    return groups.positions({"train": train, "val": val, "test": np.array([fold])})


@dataclass(frozen=True, eq=False, slots=True)
class _Subjects:
    names: NDArray[np.str_]
    codes: NDArray[np.int64]  # subject of each window
    positive: NDArray[np.bool_]  # subjects with a positive window

    @classmethod
    def of(cls, subject_ids: NDArray[np.str_], targets: NDArray[np.float32]) -> "_Subjects":
        names, codes = encode_ids(subject_ids)
        return cls(names, codes, np.bincount(codes, targets[:, -1] > 0, len(names)) > 0)

    def everyone(self) -> NDArray[np.int64]:
        return np.arange(len(self.names))

    def positions(self, sides: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
        side_of = np.empty(len(self.names), dtype=np.int64)
        for number, subjects in enumerate(sides.values()):
            side_of[subjects] = number
        sides_of_windows = side_of[self.codes]
        return {split: np.flatnonzero(sides_of_windows == number) for number, split in enumerate(sides)}


def _draw(
    subjects: NDArray[np.int64], positive: NDArray[np.bool_], share: float, rng: np.random.Generator, split: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Take a share of the subjects with and of those without positive windows; return the rest and the taken."""
    check_share(split, share)
    n_taken = max(1, round(share * len(subjects)))
    with_label, without = subjects[positive[subjects]], subjects[~positive[subjects]]
    # A later draw and the training side need one each.
    spare = 2 if split == "test" else 1
    if len(with_label) <= spare:
        raise ValueError(
            f"{len(with_label)} of {len(subjects)} subjects have positive windows, too few for {split!r} and what is"
            f" left: every side needs one; choose other records or another split"
        )
    n_with = min(max(1, round(n_taken * len(with_label) / len(subjects))), len(with_label) - spare)
    n_without = min(n_taken - n_with, max(0, len(without) - spare))
    taken = np.concatenate([rng.permutation(with_label)[:n_with], rng.permutation(without)[: max(0, n_without)]])
    return np.setdiff1d(subjects, taken), np.sort(taken)


def check_share(split: str, share: float) -> float:
    """Return the share, or raise `ValueError` if it is not between 0 and 1."""
    if not 0 < share < 1:
        raise ValueError(f"datamodule.split.{split}_share is {share!r}, expected more than 0 and less than 1")
    return share
