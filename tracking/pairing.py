"""Predictions of two artifacts, row by row of the same records."""

import numpy as np
from numpy.typing import NDArray

from tracking.predictions import Predictions, make_predictions, order_in_time


def align(a: Predictions, b: Predictions) -> Predictions:
    """Put the rows of `b` into the order of `a`.

    Raises
    ------
    ValueError
        If the two do not describe the same records, times, subjects, targets and classes: there are no pairs then.
    """
    for name in ("class_names", "exclusive", "level"):
        if getattr(a, name) != getattr(b, name):
            what = "classes" if name == "class_names" else name
            raise ValueError(f"cannot pair {what} {getattr(a, name)} with {getattr(b, name)}")
    order_a, order_b = order_in_time(a), order_in_time(b)
    if not np.array_equal(a.record_ids[order_a], b.record_ids[order_b]):
        only_a, only_b = np.setdiff1d(a.record_ids, b.record_ids), np.setdiff1d(b.record_ids, a.record_ids)
        raise ValueError(
            f"cannot pair predictions of different records: {len(only_a)} only on the first side "
            f"{only_a[:3].tolist()}, {len(only_b)} only on the second {only_b[:3].tolist()}; "
            f"{len(a.record_ids)} and {len(b.record_ids)} rows"
        )
    position = np.empty_like(order_a)
    position[order_a] = order_b
    if not _same_times(a.times_s, b.times_s, position):
        raise ValueError("cannot pair predictions: rows of the same records lie at other times")
    if not np.array_equal(a.subject_ids, b.subject_ids[position]):
        raise ValueError("cannot pair predictions: the same records belong to other subjects")
    differ = (a.targets != b.targets[position]).any(axis=1)
    if differ.any():
        raise ValueError(
            f"cannot pair predictions: {int(differ.sum())} rows have other targets, "
            f"the first is of record {str(a.record_ids[differ][0])!r}"
        )
    thresholds = b.thresholds if b.thresholds.ndim == 1 else b.thresholds[position]
    probabilities = b.probabilities[position]
    return make_predictions(
        *(a.record_ids, a.subject_ids, a.targets, probabilities, a.class_names, thresholds),
        *(a.exclusive, a.level, a.times_s),
    )


def count_flips(a: Predictions, b: Predictions) -> float:
    """Share of decisions (rows times classes) in which two artifacts differ, each with its own thresholds.

    Raises
    ------
    ValueError
        As `align`.
    """
    return float((a.decisions != align(a, b).decisions).mean())


def _same_times(a: NDArray[np.float64] | None, b: NDArray[np.float64] | None, position: NDArray[np.int64]) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a, b[position])
