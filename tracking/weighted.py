"""Areas under the curves for many weightings of the same subjects at once.

Bootstrap resamples are such weightings: the weight of a subject is how often it was drawn. Nothing is resampled row
by row; rows are counted once per subject and distinct score, and the counts are weighed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]

# Sums over subjects are faster as a dense product from about this many rows for each group of scores and subject on.
DENSE_FROM = 0.1
# Weightings times groups in memory at once: 2 MiB of float64, which is fastest with many groups.
CHUNK = 2**18
TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """Rows of one class per group of scores, from the highest scores down, and subject.

    Parameters
    ----------
    positives, rows : ndarray or sparse array of float64, shape (n_groups, n_subjects)
        Positive rows, and all rows.
    """

    positives: Any
    rows: Any


def count_scores(
    targets: NDArray[np.floating],
    scores: NDArray[np.floating],
    subjects: NDArray[np.int64],
    n_subjects: int,
    max_groups: int | None = None,
) -> ScoreCounts:
    """Count the rows of one class per distinct score and subject.

    More than `max_groups` distinct scores are joined to groups, as if those of a group were tied. Half of the groups
    end at quantiles of the positives' scores, half at quantiles of the negatives', so that a group holds a share of
    at most 2 / `max_groups` of either, or else a single score. What that changes at most, with the shares p of the
    positives and q of the negatives in each group under the weights at hand:

    - AUROC: sum(p q) / 2, which is 1 / `max_groups` where all subjects have the same weight;
    - average precision: sum(p m / c), with m rows in the group and c rows in it and all groups above.

    Parameters
    ----------
    targets, scores : ndarray, shape (n,)
        Targets are 0 or 1.
    subjects : ndarray of int64, shape (n,)
        Position of each row's subject.
    n_subjects : int
    max_groups : int, optional
        None counts every distinct score, however many there are.
    """
    positive = targets > 0
    group: NDArray[np.int64]
    distinct, group = np.unique(scores, return_inverse=True)
    n_groups = len(distinct)
    if max_groups is not None and n_groups > max_groups:
        edges = np.unique(np.concatenate([_quantiles(scores[side], max_groups // 2) for side in (positive, ~positive)]))
        # Of distinct scores, because there are fewer of them than of rows.
        group, n_groups = np.asarray(np.searchsorted(edges, distinct, side="right"))[group], len(edges) + 1
    group = n_groups - 1 - group
    shape = (n_groups, n_subjects)
    return ScoreCounts(_count(group[positive], subjects[positive], shape), _count(group, subjects, shape))


def weighted_areas(counts: ScoreCounts, weights: Floats) -> tuple[Floats, Floats]:
    """Area under the ROC curve, ties counting half, and average precision, at every weighting.

    Parameters
    ----------
    counts : ScoreCounts
    weights : ndarray of float64, shape (n_weightings, n_subjects)
        Not negative.

    Returns
    -------
    auroc, average_precision : ndarray of float64, shape (n_weightings,)
        NaN where positives, or for the former negatives, have no weight.
    """
    step = max(1, CHUNK // counts.rows.shape[0])
    parts = [
        _areas(chunk @ counts.positives.T, chunk @ counts.rows.T)
        for chunk in (weights[start : start + step] for start in range(0, len(weights), step))
    ]
    auroc, average_precision = (np.concatenate(values) for values in zip(*parts, strict=True))
    return auroc, average_precision


def _areas(positives: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """Areas from weighted counts, both of shape (weightings, groups)."""
    hits, called = np.cumsum(positives, axis=1), np.cumsum(rows, axis=1)
    n_positive = hits[:, -1].copy()
    n_negative = called[:, -1] - n_positive
    # Positives above each negative, those at its score by half; summed over all rows, minus the positives' own sum.
    placed = np.einsum("ij,ij->i", rows, hits) - 0.5 * np.einsum("ij,ij->i", rows, positives) - 0.5 * n_positive**2
    np.divide(hits, np.maximum(called, TINY, out=called), out=hits)
    with np.errstate(invalid="ignore", divide="ignore"):
        return placed / (n_positive * n_negative), np.einsum("ij,ij->i", positives, hits) / n_positive


def _count(groups: NDArray[np.int64], subjects: NDArray[np.int64], shape: tuple[int, int]) -> Any:
    if len(groups) < DENSE_FROM * shape[0] * shape[1]:
        return sparse.coo_array((np.ones(len(groups)), (groups, subjects)), shape=shape).tocsr()
    return np.bincount(groups * shape[1] + subjects, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)


def _quantiles(scores: NDArray[np.floating], n: int) -> NDArray[np.floating]:
    """Scores at which groups begin: every share of 1 / n, from the lowest score on."""
    return np.sort(scores)[:: max(1, -(-len(scores) // n))]
