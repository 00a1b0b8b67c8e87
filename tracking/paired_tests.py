"""Closed-form tests between two classifiers on the same records: DeLong and McNemar.

Both take records as independent. Where subjects have several records, the interval of
`tracking.statistics.paired_bootstrap` is the one to trust.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Z95 = float(stats.norm.ppf(0.975))


@dataclass(frozen=True)
class DelongResult:
    """Difference between two correlated areas under the ROC curve.

    Parameters
    ----------
    auroc_a, auroc_b, difference, se : float
        `difference` is a - b, `se` its standard error.
    p : float
        Two-sided, of the hypothesis of no difference.
    low, high : float
        Ends of the 95 % interval of the difference.
    """

    auroc_a: float
    auroc_b: float
    difference: float
    se: float
    p: float
    low: float
    high: float


@dataclass(frozen=True)
class McnemarResult:
    """Exact test whether two classifiers err equally often.

    Parameters
    ----------
    only_a_right, only_b_right : int
        Records that one of the two decided correctly and the other did not.
    p : float
        Two-sided.
    """

    only_a_right: int
    only_b_right: int
    p: float


def delong(
    a_scores: NDArray[np.floating], b_scores: NDArray[np.floating], targets: NDArray[np.floating]
) -> list[DelongResult]:
    """Compare two models' areas under the ROC curve per class by DeLong's method, in its fast form.

    Parameters
    ----------
    a_scores, b_scores, targets : ndarray, shape (n, n_classes)
        Scores of the same records; targets are 0 or 1.

    Returns
    -------
    list of DelongResult
        One per class.

    Raises
    ------
    ValueError
        If shapes differ, or a class has fewer than two positives or negatives, which leaves no variance.

    References
    ----------
    Sun, Xu: Fast implementation of DeLong's algorithm for comparing the areas under correlated receiver
    operating characteristic curves. IEEE Signal Processing Letters 21 (2014). doi:10.1109/LSP.2014.2337313
    """
    _check_shapes(a_scores, b_scores, targets)
    return [
        _delong_class(a_scores[:, column], b_scores[:, column], targets[:, column] > 0, column)
        for column in range(targets.shape[1])
    ]


def mcnemar(
    a_decisions: NDArray[np.bool_], b_decisions: NDArray[np.bool_], targets: NDArray[np.floating]
) -> list[McnemarResult]:
    """Compare two models' decisions per class by McNemar's exact test.

    Parameters
    ----------
    a_decisions, b_decisions, targets : ndarray, shape (n, n_classes)

    Returns
    -------
    list of McnemarResult
        One per class; p is 1 when the two never disagree about right and wrong.

    Raises
    ------
    ValueError
        If shapes differ.

    References
    ----------
    McNemar: Note on the sampling error of the difference between correlated proportions or percentages.
    Psychometrika 12 (1947). doi:10.1007/BF02295996
    """
    _check_shapes(a_decisions, b_decisions, targets)
    truth = targets > 0
    a_right, b_right = a_decisions == truth, b_decisions == truth
    results = []
    for only_a, only_b in zip((a_right & ~b_right).sum(axis=0), (b_right & ~a_right).sum(axis=0), strict=True):
        total = int(only_a + only_b)
        p = float(stats.binomtest(int(only_a), total).pvalue) if total else 1.0
        results.append(McnemarResult(int(only_a), int(only_b), p))
    return results


def _check_shapes(a: NDArray[np.generic], b: NDArray[np.generic], targets: NDArray[np.generic]) -> None:
    if not a.shape == b.shape == targets.shape or targets.ndim != 2:
        raise ValueError(
            f"expected three arrays of one shape (n, n_classes), got {a.shape}, {b.shape} and {targets.shape}"
        )


def _delong_class(
    a_scores: NDArray[np.floating], b_scores: NDArray[np.floating], positive: NDArray[np.bool_], column: int
) -> DelongResult:
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if min(n_positive, n_negative) < 2:
        raise ValueError(
            f"class {column} has {n_positive} positive and {n_negative} negative records; DeLong's variance "
            "needs two of each"
        )
    of_positives, of_negatives = [], []
    for scores in (a_scores, b_scores):
        ranks = stats.rankdata(scores)
        # Share of the other class that a record is placed right against, from mid-ranks.
        of_positives.append((ranks[positive] - stats.rankdata(scores[positive])) / n_negative)
        of_negatives.append(1 - (ranks[~positive] - stats.rankdata(scores[~positive])) / n_positive)
    a, b = (float(placement.mean()) for placement in of_positives)
    spread = np.cov(of_positives) / n_positive + np.cov(of_negatives) / n_negative
    se = math.sqrt(max(0.0, float(spread[0, 0] + spread[1, 1] - 2 * spread[0, 1])))
    difference = a - b
    # Without any spread only equality is likely.
    p = float(2 * stats.norm.sf(abs(difference) / se)) if se > 0 else float(difference == 0)
    return DelongResult(a, b, difference, se, p, difference - Z95 * se, difference + Z95 * se)
