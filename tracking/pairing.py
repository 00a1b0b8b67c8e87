"""Answers of two artifacts, row by row of the same records."""

from dataclasses import replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from tracking.answers import Answered
from tracking.hr_predictions import HeartRates, order_windows
from tracking.predictions import Predictions, make_predictions, order_in_time


@overload
def align(a: Predictions, b: Predictions) -> Predictions: ...
@overload
def align(a: Answered, b: Answered) -> Answered: ...
def align(a: Answered, b: Answered) -> Answered:
    """Put the rows of `b` into the order of `a`.

    Raises
    ------
    ValueError
        If the two do not describe the same records, times, subjects and targets (classes, or reference rates): there
        are no pairs then.
    """
    if isinstance(a, HeartRates) and isinstance(b, HeartRates):
        return _align_rates(a, b)
    if isinstance(a, Predictions) and isinstance(b, Predictions):
        return _align_predictions(a, b)
    raise ValueError(f"cannot pair answers of {a.task} with answers of {b.task}")


def _align_rates(a: HeartRates, b: HeartRates) -> HeartRates:
    order_a, order_b = order_windows(a), order_windows(b)
    position = _match(a.record_ids, b.record_ids, order_a, order_b)
    if not _same_times(a.times_s, b.times_s, position):
        raise ValueError("cannot pair heart rates: windows of the same videos start at other times")
    if not np.array_equal(a.subject_ids, b.subject_ids[position]):
        raise ValueError("cannot pair heart rates: the same videos show other subjects")
    if (differ := a.true_bpm != b.true_bpm[position]).any() or (a.video_true_bpm != b.video_true_bpm).any():
        raise ValueError(f"cannot pair heart rates: {int(differ.sum())} windows have other reference rates")
    windows = {name: getattr(b, name)[position] for name in ("record_ids", "subject_ids", "times_s", "bpm", "snr_db")}
    return replace(b, true_bpm=a.true_bpm, **windows)


def _align_predictions(a: Predictions, b: Predictions) -> Predictions:
    for name in ("class_names", "exclusive", "level"):
        if getattr(a, name) != getattr(b, name):
            what = "classes" if name == "class_names" else name
            raise ValueError(f"cannot pair {what} {getattr(a, name)} with {getattr(b, name)}")
    position = _match(a.record_ids, b.record_ids, order_in_time(a), order_in_time(b))
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


def count_flips(a: Answered, b: Answered) -> float | None:
    """Share of decisions (rows times classes) in which two artifacts differ, each with its own thresholds.

    None where nothing is decided, as about heart rates.

    Raises
    ------
    ValueError
        As `align`.
    """
    if isinstance(a, HeartRates) or isinstance(b, HeartRates):
        return None
    return float((a.decisions != align(a, b).decisions).mean())


def _match(
    a_ids: NDArray[np.str_], b_ids: NDArray[np.str_], order_a: NDArray[np.int64], order_b: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Position on the second side of every row of the first one."""
    if not np.array_equal(a_ids[order_a], b_ids[order_b]):
        only_a, only_b = np.setdiff1d(a_ids, b_ids), np.setdiff1d(b_ids, a_ids)
        raise ValueError(
            f"cannot pair predictions of different records: {len(only_a)} only on the first side "
            f"{only_a[:3].tolist()}, {len(only_b)} only on the second {only_b[:3].tolist()}; "
            f"{len(a_ids)} and {len(b_ids)} rows"
        )
    position = np.empty_like(order_a)
    position[order_a] = order_b
    return position


def _same_times(a: NDArray[np.float64] | None, b: NDArray[np.float64] | None, position: NDArray[np.int64]) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a, b[position])
