"""Atrial fibrillation over time: from decisions on beats or windows to episodes and the burden of each record."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracking.predictions import Predictions, encode_ids, order_in_time

Floats = NDArray[np.float64]

# The rhythm as WFDB annotations name it; the last of the classes.
AF = "AFIB"
# Decisions that vote on each one: beats alone are noisy, and 31 of them last about as long as the shortest episode.
N_POOLED = {"beat": 31, "window": 1}
MIN_EPISODE_S = 30.0
# A row stands for the time up to the next one, at most for this many times the usual.
MAX_GAP = 3.0


@dataclass(frozen=True, eq=False)
class Timeline:
    """Rows of all records in the order of time, and what was decided for them.

    Parameters
    ----------
    order : ndarray of int64, shape (n,)
        Positions of the rows among the predictions.
    records : ndarray of int64, shape (n,)
        Position of each row's record among the sorted record ids.
    start_s, end_s : ndarray of float64, shape (n,)
        Time that each row stands for, in seconds from the record's start.
    decided, annotated : ndarray of bool, shape (n,)
        Atrial fibrillation by the pooled decisions, and by the targets.
    """

    order: NDArray[np.int64]
    records: NDArray[np.int64]
    start_s: Floats
    end_s: Floats
    decided: NDArray[np.bool_]
    annotated: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Episodes:
    """Intervals of atrial fibrillation, sorted by record and time.

    Parameters
    ----------
    records : ndarray of int64, shape (n,)
        Position of each episode's record among the sorted record ids.
    start_s, end_s : ndarray of float64, shape (n,)
    """

    records: NDArray[np.int64]
    start_s: Floats
    end_s: Floats

    def at_least(self, duration_s: float) -> "Episodes":
        """Only episodes that last as long."""
        kept = self.end_s - self.start_s >= duration_s
        return Episodes(self.records[kept], self.start_s[kept], self.end_s[kept])

    def overlap(self, others: "Episodes") -> NDArray[np.bool_]:
        """Whether each episode has time in common with any of the others, shape (n,)."""
        if not len(others.records):
            return np.zeros(len(self.records), dtype=bool)
        # One axis of time for all records, one after the other.
        length = 1 + max(float(item.end_s.max(initial=0)) for item in (self, others))
        first = np.searchsorted(others.end_s + others.records * length, self.start_s + self.records * length, "right")
        begins = np.append(others.start_s + others.records * length, np.inf)[first]
        return begins < self.end_s + self.records * length


def pool_decisions(positive: NDArray[np.bool_], records: NDArray[np.int64], n_pooled: int) -> NDArray[np.bool_]:
    """Majority of the decisions in a window around each one; a tie leaves the decision as it is.

    Parameters
    ----------
    positive : ndarray of bool, shape (n,)
        Decisions in the order of time, record by record.
    records : ndarray, shape (n,)
        Windows do not reach into other records; they are shorter at a record's ends.
    n_pooled : int
        Decisions in a window, odd.

    Raises
    ------
    ValueError
        If `n_pooled` is even or below 1.
    """
    if n_pooled < 1 or n_pooled % 2 == 0:
        raise ValueError(f"n_pooled is {n_pooled!r}, expected an odd number of decisions")
    n, half = len(positive), n_pooled // 2
    starts = np.flatnonzero(np.append(True, records[1:] != records[:-1])[:n])
    lengths = np.diff(starts, append=n)
    position = np.arange(n)
    low = np.maximum(position - half, np.repeat(starts, lengths))
    high = np.minimum(position + half + 1, np.repeat(starts + lengths, lengths))
    votes = np.append(0, np.cumsum(positive))
    surplus = 2 * (votes[high] - votes[low]) - (high - low)
    return np.where(surplus == 0, positive, surplus > 0)


def make_timeline(predictions: Predictions, n_pooled: int | None = None) -> Timeline:
    """Put the rows into the order of time and pool their decisions.

    Parameters
    ----------
    predictions : Predictions
        With times; atrial fibrillation is the last class.
    n_pooled : int, optional
        As in `pool_decisions`; by default 31 beats, or a single window.

    Raises
    ------
    ValueError
        If there are no times.
    """
    if predictions.times_s is None:
        raise ValueError("episodes need the time of every row: predictions have no times_s")
    order = order_in_time(predictions)
    records = encode_ids(predictions.record_ids)[1][order]
    start_s = predictions.times_s[order]
    to_next = np.append(np.diff(start_s), np.nan)
    to_next[np.flatnonzero(np.diff(records))] = np.nan
    usual = np.array([_median(part) for part in np.split(to_next, np.flatnonzero(np.diff(records)) + 1)])[records]
    end_s = start_s + np.where(np.isnan(to_next), usual, np.minimum(to_next, MAX_GAP * usual))
    decided = pool_decisions(predictions.decisions[order, -1], records, n_pooled or N_POOLED[predictions.level])
    return Timeline(order, records, start_s, end_s, decided, predictions.targets[order, -1] > 0)


def find_episodes(positive: NDArray[np.bool_], timeline: Timeline) -> Episodes:
    """Join neighbouring positive rows; an episode ends at a gap in the recording.

    Parameters
    ----------
    positive : ndarray of bool, shape (n,)
        `decided` or `annotated` of the timeline.
    timeline : Timeline
    """
    records, start_s, end_s = timeline.records, timeline.start_s, timeline.end_s
    # Sums of times are not exact.
    linked = (records[1:] == records[:-1]) & (start_s[1:] - end_s[:-1] < 1e-6)
    continued = linked & positive[1:] & positive[:-1]
    first = np.flatnonzero(positive & ~np.append(False, continued)[: len(positive)])
    last = np.flatnonzero(positive & ~np.append(continued, False)[: len(positive)])
    return Episodes(records[first], start_s[first], end_s[last])


def find_burdens(positive: NDArray[np.bool_], timeline: Timeline) -> Floats:
    """Share of each record's time in atrial fibrillation, shape (n_records,), in the order of sorted record ids."""
    seconds = timeline.end_s - timeline.start_s
    return np.bincount(timeline.records, seconds * positive) / np.bincount(timeline.records, seconds)


def rhythm_ratios(
    predictions: Predictions, subjects: NDArray[np.int64]
) -> dict[str, tuple[NDArray[np.int64], Floats, Floats]]:
    """Numerators and denominators of the metrics over time, each with the subject that it belongs to.

    - ``af_burden_mae_record``: mean over records of the absolute error of the burden.
    - ``sensitivity_AFIB_episode``: share of the annotated episodes of at least 30 s that a decided one of at least
      30 s overlaps.
    - ``precision_AFIB_episode``: share of the decided episodes of at least 30 s that any annotated one overlaps
      (positive predictivity).

    Episodes are counted over all records together, as the gross statistics of ANSI/AAMI EC57 for the detection of
    atrial fibrillation. Other than there, only episodes of at least 30 s count; annotations are known at the rows
    alone, not sample by sample; episodes end at gaps; no learning period is left out.

    Parameters
    ----------
    predictions : Predictions
    subjects : ndarray of int64, shape (n,)
        Position of each row's subject.

    Returns
    -------
    dict of str to tuple of ndarray
        Subjects, numerators and denominators. Empty unless there are times, and two classes of which one holds and
        the last is atrial fibrillation.
    """
    two = predictions.exclusive and len(predictions.class_names) == 2 and predictions.class_names[-1] == AF
    if not two or predictions.times_s is None or predictions.level not in N_POOLED:
        return {}
    timeline = make_timeline(predictions)
    owner = np.zeros(timeline.records[-1] + 1, dtype=np.int64)
    owner[timeline.records] = subjects[timeline.order]
    errors = np.abs(find_burdens(timeline.decided, timeline) - find_burdens(timeline.annotated, timeline))
    decided, annotated = (find_episodes(rows, timeline) for rows in (timeline.decided, timeline.annotated))
    reported, wanted = decided.at_least(MIN_EPISODE_S), annotated.at_least(MIN_EPISODE_S)
    found, right = wanted.overlap(reported), reported.overlap(annotated)
    return {
        "af_burden_mae_record": (owner, errors, np.ones_like(errors)),
        f"sensitivity_{AF}_episode": (owner[wanted.records], found.astype(float), np.ones(len(found))),
        f"precision_{AF}_episode": (owner[reported.records], right.astype(float), np.ones(len(right))),
    }


def _median(to_next: Floats) -> float:
    """Usual time between rows; a lone row stands for no time that could be known, taken as a second."""
    known = to_next[~np.isnan(to_next)]
    return float(np.median(known)) if len(known) else 1.0
