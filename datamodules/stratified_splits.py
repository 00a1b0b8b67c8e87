"""Splits of multi-label data: iterative stratification and k-fold, grouped by subject unless said otherwise.

What is dealt out are subjects, each once with the union of its windows' classes. ``grouped=False`` deals out windows,
whoever they are from, for comparison with figures that were made so: the leakage check refuses such a split unless
``datamodule.leaky=true``. Of k folds the one behind the test fold, in a ring, is the validation side: with ten folds
8:1:1, as the folds of PTB-XL's authors.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.groups import encode_ids
from datamodules.splits import check_share

_SIDES = ("train", "val", "test")
_VAL, _TEST = 1, 2


def split_iterative(
    subject_ids: NDArray[np.str_],
    targets: NDArray[np.float32],
    *,
    test_share: float = 0.1,
    val_share: float = 0.1,
    grouped: bool = True,
    seed: int = 0,
) -> dict[str, NDArray[np.int64]]:
    """Split so that each side has its share of every class, by iterative stratification.

    Sechidis, Tsoumakas & Vlahavas 2011, On the stratification of multi-label data, 10.1007/978-3-642-23808-6_10; the
    paper knows no groups: a subject with the union of its classes takes the place of an example.

    Parameters
    ----------
    subject_ids : ndarray of str, shape (n,)
        Person behind each window.
    targets : ndarray of float32, shape (n, n_classes)
        Multi-label targets, 0 or 1.
    test_share : float
        Share for ``test``, of the subjects where they are grouped, of the windows else.
    val_share : float
        Share of the rest for ``val``.
    grouped : bool
        Whether all windows of a subject go to one side.
    seed : int
        Seed of the draw.

    Returns
    -------
    dict of str to ndarray of int64
        Sorted positions of ``train``, ``val`` and ``test``.

    Raises
    ------
    ValueError
        If a share is out of range, or there are too few subjects for it.
    """
    units, classes = _group(subject_ids, targets, grouped)
    rest, test = _draw_stratified(np.arange(len(classes)), classes, test_share, seed, "test")
    _, val = _draw_stratified(rest, classes, val_share, seed, "val")
    sides = np.zeros(len(classes), dtype=np.int64)
    sides[val], sides[test] = _VAL, _TEST
    return _positions(sides[units])


def split_iterative_kfold(
    subject_ids: NDArray[np.str_],
    targets: NDArray[np.float32],
    *,
    fold: int,
    n_folds: int = 10,
    grouped: bool = True,
    seed: int = 0,
) -> dict[str, NDArray[np.int64]]:
    """Make one fold of a cross-validation by iterative stratification, see `split_iterative`.

    Parameters
    ----------
    subject_ids, targets, grouped, seed
        See `split_iterative`.
    fold : int
        Which fold is ``test``, from 0.
    n_folds : int
        Number of folds, at least 3.

    Returns
    -------
    dict of str to ndarray of int64
        Sorted positions of ``train``, ``val`` and ``test``. Over all folds every window is in ``test`` once.

    Raises
    ------
    ValueError
        If the fold does not exist.
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    units, classes = _group(subject_ids, targets, grouped)
    return _turn(MultilabelStratifiedKFold, units, classes, fold, n_folds, seed)


def split_stratified_kfold(
    subject_ids: NDArray[np.str_],
    targets: NDArray[np.float32],
    *,
    fold: int,
    n_folds: int = 10,
    grouped: bool = True,
    seed: int = 0,
) -> dict[str, NDArray[np.int64]]:
    """Make one fold of a cross-validation stratified by combinations of classes, with scikit-learn.

    Every combination of classes that at least ``n_folds`` subjects have is a stratum, all rarer ones are one together.
    It is scikit-learn's StratifiedKFold over subjects: its StratifiedGroupKFold takes a minute for PTB-XL's.

    Parameters
    ----------
    subject_ids, targets, fold, n_folds, grouped, seed
        See `split_iterative_kfold`.

    Returns
    -------
    dict of str to ndarray of int64
        Sorted positions of ``train``, ``val`` and ``test``. Over all folds every window is in ``test`` once.

    Raises
    ------
    ValueError
        If the fold does not exist.
    """
    from sklearn.model_selection import StratifiedKFold

    units, classes = _group(subject_ids, targets, grouped)
    return _turn(StratifiedKFold, units, _combine(classes, n_folds), fold, n_folds, seed)


def split_unstratified_kfold(
    subject_ids: NDArray[np.str_],
    targets: NDArray[np.float32],
    *,
    fold: int,
    n_folds: int = 10,
    grouped: bool = True,
    seed: int = 0,
) -> dict[str, NDArray[np.int64]]:
    """Make one fold of a cross-validation at random: scikit-learn's KFold over subjects.

    Parameters
    ----------
    subject_ids, targets, fold, n_folds, grouped, seed
        See `split_iterative_kfold`.

    Returns
    -------
    dict of str to ndarray of int64
        Sorted positions of ``train``, ``val`` and ``test``. Over all folds every window is in ``test`` once.

    Raises
    ------
    ValueError
        If the fold does not exist.
    """
    from sklearn.model_selection import KFold

    units, classes = _group(subject_ids, targets, grouped)
    return _turn(KFold, units, classes, fold, n_folds, seed)


def _group(
    subject_ids: NDArray[np.str_], targets: NDArray[np.float32], grouped: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the unit (subject, or window itself) of each window, and the classes of each unit."""
    present = targets > 0
    if not grouped:
        return np.arange(len(present)), present
    names, codes = encode_ids(subject_ids)
    classes = np.zeros((len(names), present.shape[1]), dtype=bool)
    np.logical_or.at(classes, codes, present)
    return codes, classes


def _draw_stratified(
    units: NDArray[np.int64], classes: NDArray[np.bool_], share: float, seed: int, split: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Take a share of the units; return the rest and the taken."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    check_share(split, share)
    n_taken = round(share * len(units))
    if not 0 < n_taken < len(units):
        raise ValueError(
            f"datamodule.split.{split}_share is {share!r}, which is {n_taken} of {len(units)} subjects or windows:"
            f" expected at least one on either side; choose another share or more data"
        )
    draw = MultilabelStratifiedShuffleSplit(1, test_size=n_taken, random_state=seed)
    rest, taken = next(draw.split(classes[units], classes[units]))
    return units[rest], units[taken]


def _combine(present: NDArray[np.bool_], at_least: int) -> NDArray[np.int64]:
    """Give each combination of classes a number, shape (n,); the rare ones share one."""
    _, strata, counts = np.unique(present, axis=0, return_inverse=True, return_counts=True)
    rare = counts < at_least
    # Too few even together: they join the largest.
    joined = len(counts) if counts[rare].sum() >= at_least else int(counts.argmax())
    return np.where(rare, joined, np.arange(len(counts)))[strata]


def _turn(
    make_folds: Callable[..., Any],
    units: NDArray[np.int64],
    labels: NDArray[Any],
    fold: int,
    n_folds: int,
    seed: int,
) -> dict[str, NDArray[np.int64]]:
    """Deal the units out to folds, and the folds to sides."""
    if not 3 <= n_folds <= len(labels) or not 0 <= fold < n_folds:
        raise ValueError(
            f"datamodule.split has fold {fold!r} of {n_folds!r} folds, expected 3 to {len(labels)} folds (there are"
            f" {len(labels)} subjects or windows; one fold is test, one validation), counted from 0"
        )
    sides = np.zeros(len(labels), dtype=np.int64)
    for number, (_, taken) in enumerate(make_folds(n_folds, shuffle=True, random_state=seed).split(labels, labels)):
        sides[taken] = {fold: _TEST, (fold + 1) % n_folds: _VAL}.get(number, 0)
    return _positions(sides[units])


def _positions(sides: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    return {split: np.flatnonzero(sides == number) for number, split in enumerate(_SIDES)}
