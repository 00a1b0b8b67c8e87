"""Classification metrics under many weightings of the same records at once.

Every function takes weights of shape (n, n_weightings) and gives one figure per weighting. Bootstrap
resamples are such weightings: the weight of a record is how often its subject was drawn. No resampled copy of
the data is made.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def weighted_auroc(targets: NDArray[np.floating], scores: NDArray[np.floating], weights: Floats) -> Floats:
    """Area under the ROC curve of one class; ties count half.

    Parameters
    ----------
    targets, scores : ndarray, shape (n,)
        Targets are 0 or 1.
    weights : ndarray of float64, shape (n, n_weightings)
        Not negative.

    Returns
    -------
    ndarray of float64, shape (n_weightings,)
        NaN where positives or negatives have no weight.
    """
    positive = targets > 0
    order = np.argsort(scores[~positive], kind="stable")
    sorted_scores = scores[~positive][order]
    below = _cumulated(weights[~positive][order])
    first = np.searchsorted(sorted_scores, scores[positive], side="left")
    last = np.searchsorted(sorted_scores, scores[positive], side="right")
    # Weight of the negatives below each positive, those at the same score by half.
    placed = below[first]
    placed += below[last]
    own = weights[positive]
    with np.errstate(invalid="ignore", divide="ignore"):
        return 0.5 * np.einsum("ij,ij->j", own, placed) / (own.sum(axis=0) * below[-1])


def weighted_average_precision(targets: NDArray[np.floating], scores: NDArray[np.floating], weights: Floats) -> Floats:
    """Average precision of one class: precision at every distinct score, weighted by the gain in recall.

    Parameters and return value as in `weighted_auroc`; NaN where positives have no weight.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, sorted_weights = -scores[order], weights[order]
    positive = targets[order] > 0
    hits = _cumulated(sorted_weights * positive[:, None])
    # A score is a threshold once: all records that share it are called together.
    end = np.searchsorted(ranked, ranked[positive], side="right")
    called = _cumulated(sorted_weights)[end]
    precision = np.divide(hits[end], called, out=np.zeros_like(called), where=called > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.einsum("ij,ij->j", sorted_weights[positive], precision) / hits[-1]


def weighted_f1(targets: NDArray[np.floating], decisions: NDArray[np.bool_], weights: Floats) -> Floats:
    """F1 of one class for given decisions; 0 where nothing is positive and nothing is called.

    Parameters
    ----------
    targets, decisions : ndarray, shape (n,)
    weights : ndarray of float64, shape (n, n_weightings)

    Returns
    -------
    ndarray of float64, shape (n_weightings,)
    """
    positive = (targets > 0).astype(np.float64)
    called = decisions.astype(np.float64)
    hits = (positive * called) @ weights
    total = (positive + called) @ weights
    return np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)


def _cumulated(weights: Floats) -> Floats:
    """Sum the first 0, 1, ... n rows."""
    sums = np.zeros((len(weights) + 1, weights.shape[1]))
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums
