"""Errors of heart rates as sums per subject: every metric under any weights of the subjects follows from them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tracking.hr_predictions import HeartRates

Floats = NDArray[np.float64]

# Groups of paper P1 by the reference rate in bpm: from the first number on, below the second.
GROUPS = {"low": (0.0, 77.0), "middle": (77.0, 90.0), "high": (90.0, np.inf), "not_low": (77.0, np.inf)}

SPREAD_BPM2 = 1e-9


def weigh_rates(rates: HeartRates, subjects: NDArray[np.int64], weights: Floats) -> dict[str, Floats]:
    """Every metric of heart rates at every weighting of the subjects.

    Parameters
    ----------
    rates : HeartRates
    subjects : ndarray of int64, shape (n,)
        Position of each window's subject.
    weights : ndarray of float64, shape (n_weightings, n_subjects)

    Returns
    -------
    dict of str to ndarray of float64, shape (n_weightings,)
        For windows and for videos (last part of the names): mean absolute error, root mean square error and mean
        absolute percentage error in bpm and percent, Pearson's r, the wave's signal-to-noise ratio, and the mean
        absolute error in the groups of P1. NaN where a metric is undefined.
    """
    _, first = np.unique(rates.record_ids, return_index=True)
    levels = {
        "window": (subjects, rates.true_bpm, rates.bpm, rates.snr_db),
        "video": (subjects[first], rates.video_true_bpm, rates.video_bpm, rates.video_snr_db),
    }
    metrics: dict[str, Floats] = {}
    for level, (owners, truth, estimate, snr_db) in levels.items():
        own = _weigh_level(owners, truth, estimate, snr_db, weights)
        metrics |= {f"{name}_{level}": values for name, values in own.items()}
    return metrics


def _weigh_level(
    owners: NDArray[np.int64], truth: Floats, estimate: Floats, snr_db: Floats, weights: Floats
) -> dict[str, Floats]:
    n_subjects = weights.shape[1]

    def mean(values: Floats, chosen: NDArray[np.bool_] | None = None) -> Floats:
        """Mean over the chosen rows at every weighting."""
        rows = np.ones(len(values), dtype=bool) if chosen is None else chosen
        total = weights @ np.bincount(owners[rows], values[rows], n_subjects)
        count = weights @ np.bincount(owners[rows], minlength=n_subjects).astype(np.float64)
        return np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0)

    error = estimate - truth
    metrics = {
        "hr_mae_bpm": mean(np.abs(error)),
        "hr_rmse_bpm": np.sqrt(mean(error**2)),
        "hr_mape_percent": 100 * mean(np.abs(error) / truth),
        # The mean error; positive where rates are overestimated.
        "hr_bias_bpm": mean(error),
        # Around fixed centres, because a difference of large moments loses digits.
        "hr_pearson_r": _correlate(mean, truth - truth.mean(), estimate - estimate.mean()),
        "hr_snr_db": mean(snr_db, np.isfinite(snr_db)),
    }
    for name, (low, high) in GROUPS.items():
        metrics[f"hr_mae_bpm_{name}"] = mean(np.abs(error), (truth >= low) & (truth < high))
    return metrics


def _correlate(mean: Callable[[Floats], Floats], x: Floats, y: Floats) -> Floats:
    """Pearson's r; NaN where one of the two does not vary, as with a single row."""
    spread_x, spread_y = mean(x**2) - mean(x) ** 2, mean(y**2) - mean(y) ** 2
    shared = mean(x * y) - mean(x) * mean(y)
    # What rounding leaves of a constant is no spread.
    varies = (spread_x > SPREAD_BPM2) & (spread_y > SPREAD_BPM2)
    return np.divide(shared, np.sqrt(spread_x * spread_y), out=np.full_like(shared, np.nan), where=varies)
