"""The Pareto front: artifacts that no other one beats in both what they cost and how well they do."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tracking.headline import is_larger_better
from tracking.rows import Row
from tracking.tables import MISSING, default_metric

# What an artifact costs, by how the column calls it.
COSTS = {"size": "size_bytes", "latency": "latency_ms_p50"}


def find_unbeaten(values: NDArray[np.float64]) -> list[int]:
    """Find the rows that no other one beats: nowhere larger, and smaller somewhere.

    Parameters
    ----------
    values : ndarray of float64, shape (n, n_costs)
        Smaller is better. Of rows that are the same the first one counts.

    Returns
    -------
    list of int
        Positions, by the first column, then the next ones.
    """
    front: list[int] = []
    # Whatever beats a row comes before it in this order, and so does something of the front.
    for index in np.lexsort(values.T[::-1]).tolist():
        if not (values[front] <= values[index]).all(axis=1).any():
            front.append(index)
    return front


def find_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points (cost, gain) that no other one beats, the cheapest first.

    Of points that are the same the first one counts.
    """
    return find_unbeaten(np.array([(cost, -gain) for cost, gain in points]).reshape(-1, 2))


def mark_front(rows: Sequence[Row], metric: str | None = None, *, cost: str) -> list[Row]:
    """Rows on the front of a metric and a cost, the cheapest first; rows that lack either are on none.

    Parameters
    ----------
    rows : sequence of Row
    metric : str, optional
        The headline of the rows by default.
    cost : str
        Field of the rows, smaller is better.
    """
    metric = metric or default_metric(rows)
    sign = 1 if is_larger_better(metric) else -1
    known = [row for row in rows if getattr(row, cost) is not None and _is_known(row, metric)]
    points = [(float(getattr(row, cost)), sign * row.metrics[metric].value) for row in known]
    return [known[index] for index in find_front(points)]


def tell_fronts(rows: Sequence[Row], metric: str | None = None) -> list[str]:
    """For each row the costs in whose front it is, such as ``size, latency``."""
    fronts = {name: {id(row) for row in mark_front(rows, metric, cost=field)} for name, field in COSTS.items()}
    return [", ".join(name for name, front in fronts.items() if id(row) in front) or MISSING for row in rows]


def _is_known(row: Row, metric: str) -> bool:
    return metric in row.metrics and not math.isnan(row.metrics[metric].value)
