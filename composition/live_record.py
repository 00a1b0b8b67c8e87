"""What is kept of a stream of decisions: totals of bounded size."""

import math
import time
from collections import Counter
from dataclasses import asdict
from typing import Any

from composition.live_ecg import Decision, Update

MOST_GAPS = 1000
"""Gaps that are listed one by one; all of them are in the sums."""
_BIN_S = 0.02  # of delays


class Totals:
    """Sums over a stream, of a size that does not depend on its length.

    Attributes
    ----------
    arrived_s : float
        Seconds of the stream so far.
    labels : Counter of str
        Decisions by label.
    rejected : Counter of str
        Beats or windows without a decision, by reason.
    n_rpeaks : int
        R peaks found.
    bpm : float or None
        Heart rate over the last few beats.
    gaps_s : list of list of float
        The first `MOST_GAPS` gaps, from and to.
    missing_s : float
        All of them together.
    """

    def __init__(self) -> None:
        self.arrived_s = 0.0
        self.labels: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.n_rpeaks = 0
        self.bpm: float | None = None
        self.gaps_s: list[list[float]] = []
        self.n_gaps = 0
        self.missing_s = 0.0
        self.compute_s = 0.0
        self._delays: Counter[int] = Counter()
        self._rpeaks_s: list[float] = []
        self._gap_end = -1.0
        self._began = time.perf_counter()

    def add(self, update: Update) -> None:
        """Take in what is new."""
        self.arrived_s = max(self.arrived_s, update.arrived_s)
        if update.gap_s is not None:
            self._add_gap(*update.gap_s)
            return
        if update.opens:
            self._rpeaks_s, self.bpm = [], None
        self.n_rpeaks += len(update.rpeaks_s)
        self._rpeaks_s = [*self._rpeaks_s, *update.rpeaks_s.tolist()][-9:]
        if len(self._rpeaks_s) > 2:
            self.bpm = 60 * (len(self._rpeaks_s) - 1) / (self._rpeaks_s[-1] - self._rpeaks_s[0])
        self.rejected.update(update.counts)
        self.compute_s = max(self.compute_s, update.compute_s)
        for decision in update.decisions:
            self.labels[decision.label] += 1
            self._delays[math.ceil(decision.delay_s / _BIN_S)] += 1

    def _add_gap(self, start_s: float, stop_s: float) -> None:
        self.missing_s += stop_s - start_s
        if start_s == self._gap_end:
            if self.n_gaps <= MOST_GAPS:
                self.gaps_s[-1][1] = stop_s
        else:
            self.n_gaps += 1
            if self.n_gaps <= MOST_GAPS:
                self.gaps_s.append([start_s, stop_s])
        self._gap_end = stop_s

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start, on the clock."""
        return time.perf_counter() - self._began

    @property
    def real_time_factor(self) -> float:
        """Seconds of the stream per second on the clock."""
        return self.arrived_s / self.elapsed_s

    def delay_s(self, share: float) -> float | None:
        """Return the delay that a share of the decisions does not exceed, in steps of 0.02 s."""
        left = share * self._delays.total()
        for step in sorted(self._delays):
            left -= self._delays[step]
            if left <= 0:
                return round(step * _BIN_S, 2)
        return None

    def shares(self) -> dict[str, float]:
        """Return each label's share of the decisions."""
        n = self.labels.total()
        return {label: count / n for label, count in sorted(self.labels.items())}

    def describe(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "duration_s": self.arrived_s,
            "n_decisions": self.labels.total(),
            "decisions_by_class": dict(sorted(self.labels.items())),
            "share_by_class": self.shares(),
            "n_rpeaks": self.n_rpeaks,
            "not_decided": dict(sorted(self.rejected.items())),
            "n_gaps": self.n_gaps,
            "missing_s": self.missing_s,
            "gaps_s": self.gaps_s,
            "delay_s": {"p50": self.delay_s(0.5), "p99": self.delay_s(0.99), "max": self.delay_s(1.0)},
            "longest_computation_s": self.compute_s,
            "elapsed_s": self.elapsed_s,
            "real_time_factor": self.real_time_factor,
        }


def describe_decision(decision: Decision) -> dict[str, Any]:
    """Return a decision as plain data."""
    item = asdict(decision)
    item["class"] = item.pop("label")
    return item
