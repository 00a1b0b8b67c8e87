"""The 95 % interval of a figure from its resampled values."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
# Where nearly all resamples lie on one side of the figure, they are about what resampling does to it: an error of
# calibration grows by it. Beyond this many standard deviations a bias is no longer taken out.
MAX_BIAS = 1.0


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
    values: NDArray[np.float64],
    n_subjects: int,
    *,
    figure: float | None = None,
    left_out: NDArray[np.float64] | None = None,
) -> tuple[float, float]:
    """Interval of a figure from its values in resamples of subjects.

    With the figure and its values without each subject it is corrected for bias and acceleration (BCa): shares of few
    subjects are skewed, and percentiles alone miss their true value too often.

    Parameters
    ----------
    values : ndarray of float64, shape (n_resamples,)
        Where the figure does not exist it is NaN: without an episode there is no sensitivity to them.
    n_subjects : int
        Subjects that were drawn from.
    figure : float, optional
        That of all subjects.
    left_out : ndarray of float64, shape (n_groups,), optional
        The figure without each subject, or without each of some groups of equally many.

    Returns
    -------
    low, high : float
        NaN without a resample in which the figure exists.
    """
    tail = tail_share(n_subjects - 1, float(np.sqrt(n_subjects / (n_subjects - 1))))
    if figure is None or left_out is None:
        return take_percentiles(values, tail)
    return take_percentiles(values, *correct_tails(values, figure, left_out, tail))


def correct_tails(
    values: NDArray[np.float64], figure: float, left_out: NDArray[np.float64], tail: float
) -> tuple[float, float]:
    """Shares of the resampled values below the low and above the high end of the BCa interval.

    Parameters
    ----------
    values : ndarray of float64, shape (n_resamples,)
    figure : float
    left_out : ndarray of float64, shape (n_groups,)
    tail : float
        Share beyond either end of an interval that needs no correction.

    References
    ----------
    Efron: Better Bootstrap Confidence Intervals. JASA 82 (1987). doi:10.1080/01621459.1987.10478410
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return tail, tail
    # Ties count half: a share of few rows takes few values.
    below = ((known < figure).mean() + (known <= figure).mean()) / 2
    bias = float(np.clip(stats.norm.ppf(below), -MAX_BIAS, MAX_BIAS))
    acceleration = measure_acceleration(left_out)
    reach = stats.norm.isf(tail)
    low, high = (
        stats.norm.cdf(bias + end / max(1 - acceleration * end, np.finfo(float).tiny))
        for end in (bias - reach, bias + reach)
    )
    return float(low), float(1 - high)


def measure_acceleration(left_out: NDArray[np.float64]) -> float:
    """How fast a figure's spread changes with the figure: a sixth of the skewness of what single subjects do to it.

    Parameters
    ----------
    left_out : ndarray of float64, shape (n_groups,)
        The figure without each subject, or without each of some groups of equally many. NaN are left out.
    """
    known = left_out[~np.isnan(left_out)]
    moved = known.mean() - known if len(known) else known
    spread = float((moved**2).sum())
    return float((moved**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0


def take_percentiles(values: NDArray[np.float64], below: float, above: float | None = None) -> tuple[float, float]:
    """Values with a share of `below` of the others below, and of `above` above; NaN are left out.

    Parameters
    ----------
    values : ndarray of float64, shape (n_resamples,)
    below : float
    above : float, optional
        As `below` by default.

    Returns
    -------
    low, high : float
        NaN where every value is.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.quantile(known, (below, 1 - (below if above is None else above)))
    return float(low), float(high)
