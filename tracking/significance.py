"""What p values and intervals say once there are several of them: Holm, Wilcoxon over seeds, non-inferiority."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from tracking.rows import Estimate

Answer = Literal["yes", "no", "open"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for their number by Holm's step-down method.

    Whoever calls everything below .05 significant errs in a family of true null hypotheses with a probability of at
    most .05, however the tests depend on each other.

    Parameters
    ----------
    p_values : sequence of float

    Returns
    -------
    list of float
        In the same order, never smaller than what came in.

    Raises
    ------
    ValueError
        If one of them is not in [0, 1].

    References
    ----------
    Holm: A Simple Sequentially Rejective Multiple Test Procedure. Scandinavian Journal of Statistics 6 (1979).
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"p is {p!r}, expected a number in [0, 1]")
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(p) for p in adjusted]


def wilcoxon_seeds(differences: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test between two trainings that were repeated with the same seeds.

    It asks whether the training as such makes a difference on these test subjects, not whether it does on others.
    Exact up to 50 seeds. Five seeds cannot give less than 1/16, six not less than 1/32.

    Parameters
    ----------
    differences : sequence of float, shape (n_seeds,)
        One training minus the other, seed by seed.

    Returns
    -------
    float
        1 where no seed makes a difference.

    Raises
    ------
    ValueError
        If there is no seed, or a difference is not finite.

    References
    ----------
    Wilcoxon: Individual Comparisons by Ranking Methods. Biometrics Bulletin 1 (1945). doi:10.2307/3001968
    """
    values = np.asarray(differences, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f"differences are {values.tolist()}, expected a finite number for each of one seed or more")
    if not values.any():
        return 1.0
    return float(stats.wilcoxon(values).pvalue)


def judge_noninferiority(difference: Estimate, margin: float, *, larger_is_better: bool = True) -> Answer:
    """Say from a difference's 95 % interval whether a model is worse by less than a margin.

    Parameters
    ----------
    difference : Estimate
        Model minus reference.
    margin : float
        The drop that would matter, larger than 0.
    larger_is_better : bool, default True
        False for errors.

    Returns
    -------
    {"yes", "no", "open"}
        Yes where the whole interval lies on the good side of the margin: where the model is worse by exactly the
        margin that happens in 2.5 % of all data sets. No where it lies on the other side. Open otherwise, and without
        an interval.

    Raises
    ------
    ValueError
        If the margin is not a number above 0.

    References
    ----------
    Piaggio, Elbourne, Pocock, Evans, Altman: Reporting of Noninferiority and Equivalence Randomized Trials. JAMA 308
    (2012). doi:10.1001/jama.2012.87802
    """
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin is {margin!r}, expected a number above 0: the drop that would matter")
    low, high = (difference.low, difference.high) if larger_is_better else (-difference.high, -difference.low)
    return "yes" if low > -margin else "no" if high < -margin else "open"
