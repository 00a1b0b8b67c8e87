"""The 95 % interval of a figure from its resampled values."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95


def tail_share(degrees: float, widening: float = 1.0) -> float:
    """Share of the resampled values that lies beyond either end of the 95 % interval.

    A bootstrap of n units spreads by sqrt((n - 1) / n) too little and takes the normal distribution's quantiles for
    those of Student's t; both make intervals of few units too short. Percentiles further out mend both, and keep what
    percentiles are good for: an interval of a share stays within 0 and 1, and is as skewed as its figure.

    Parameters
    ----------
    degrees : float
        Degrees of freedom of the spread: units less one.
    widening : float, default 1.0
        By how much the resampled values spread too little.

    Returns
    -------
    float
        .025 with infinitely many units, .017 with 23.

    References
    ----------
    Hesterberg: What Teachers Should Know About the Bootstrap. The American Statistician 69 (2015), on expanded
    percentile intervals. doi:10.1080/00031305.2015.1089789
    """
    return float(stats.norm.cdf(-widening * stats.t.ppf(0.5 + LEVEL / 2, degrees)))


def subject_interval(
    values: NDArray[np.float64], n_subjects: int, *, left_out: NDArray[np.float64] | None = None
) -> tuple[float, float]:
    """Interval of a figure from its values in resamples of subjects.

    Parameters
    ----------
    values : ndarray of float64, shape (n_resamples,)
        Where the figure does not exist it is NaN: without an episode there is no sensitivity to them.
    n_subjects : int
        Subjects that were drawn from.
    left_out : ndarray of float64, shape (n_groups,), optional
        The figure without each subject, or without each of some groups of equally many: the interval is then
        accelerated, see `accelerate`. A difference of two models is as skewed as either side only by chance, and
        better off without.

    Returns
    -------
    low, high : float
        NaN without a resample in which the figure exists.
    """
    tail = tail_share(n_subjects - 1, float(np.sqrt(n_subjects / (n_subjects - 1))))
    return take_percentiles(values, *accelerate(tail, 0.0 if left_out is None else measure_acceleration(left_out)))


def accelerate(tail: float, acceleration: float) -> tuple[float, float]:
    """Shares of the resampled values beyond the ends of an interval of a figure whose spread changes with the figure.

    That is BCa, the bias-corrected and accelerated interval, with a bias of zero: the share of resamples below the
    figure, which would correct it, is itself uncertain, and says of a figure that resampling inflates (the error of
    calibration) little else. Without acceleration intervals of shares of few subjects miss the truth too often:
    `bench.bench_coverage` counts.

    Parameters
    ----------
    tail : float
        Share beyond either end where nothing is skewed.
    acceleration : float
        See `measure_acceleration`.

    Returns
    -------
    below, above : float

    References
    ----------
    Efron: Better Bootstrap Confidence Intervals. JASA 82 (1987). doi:10.1080/01621459.1987.10478410
    """
    reach = stats.norm.isf(tail)
    # The acceleration of n subjects is a sixth at most, so that only a handful of them reaches the pole.
    below, above = (stats.norm.cdf(-reach / max(1 + sign * acceleration * reach, 1e-3)) for sign in (1, -1))
    return float(below), float(above)


def measure_acceleration(left_out: NDArray[np.float64]) -> float:
    """How fast the spread of a figure changes with it: a sixth of the skewness of what single subjects add to it.

    Parameters
    ----------
    left_out : ndarray of float64, shape (n_groups,)
        The figure without each subject, or without each of some groups of equally many. NaN are left out.
    """
    known = left_out[~np.isnan(left_out)]
    added = known.mean() - known if len(known) else known
    spread = float((added**2).sum())
    return float((added**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0


def take_percentiles(values: NDArray[np.float64], below: float, above: float) -> tuple[float, float]:
    """Values with a share of `below` of the others below, and of `above` above; NaN are left out.

    Returns
    -------
    low, high : float
        NaN where every value is.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.quantile(known, (below, 1 - above))
    return float(low), float(high)
