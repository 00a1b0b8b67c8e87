"""A figure of ours beside a published one: what may be said about the two."""

import math

from tracking.papers import Cell
from tracking.rows import Estimate

REPRODUCED, BETTER, WORSE, DIFFERENT = "reproduced", "better", "worse", "different"
NOT_COMPARABLE, NOT_MEASURED = "not comparable", "not measured"
VERDICTS = (REPRODUCED, BETTER, WORSE, DIFFERENT, NOT_COMPARABLE, NOT_MEASURED)


def judge_cell(
    cell: Cell, estimate: Estimate | None, *, data: str | None, absent: str = "", not_comparable: str | None = None
) -> tuple[str, str]:
    """Verdict on one cell, with its reason; the first of these rules that applies decides.

    1. Without a figure: not measured, because `absent`.
    2. On synthetic data, without a published number, or where paper or profile name a reason: not comparable. The
       profile's reason does not hold for figures of the file itself, such as its parameters.
    3. The published number lies in our interval, widened by the cell's tolerance on both sides: reproduced. Without an
       interval, the tolerance alone counts.
    4. Else better or worse, as the metric goes; different where neither more nor less is better.

    Parameters
    ----------
    cell : Cell
    estimate : Estimate or None
        Ours, in the paper's unit.
    data : {"real", "synthetic"} or None
        What it was measured on.
    absent : str
        Why there is no figure.
    not_comparable : str, optional
        Why the profile's figures cannot be held against published ones.

    Returns
    -------
    tuple of str
        One of `VERDICTS`, and why; the reason may be empty.
    """
    if estimate is None or math.isnan(estimate.value):
        return NOT_MEASURED, absent or "undefined on these test data"
    if data != "real":
        return NOT_COMPARABLE, "synthetic data"
    if cell.value is None:
        return NOT_COMPARABLE, "the paper prints no figure"
    if cell.not_comparable:
        return NOT_COMPARABLE, cell.not_comparable
    if not_comparable and not cell.structural:
        return NOT_COMPARABLE, not_comparable
    low, high = _ends(estimate)
    # What is no difference but for the rounding of binary fractions.
    slack = cell.tolerance + 1e-9 * max(1.0, abs(cell.value))
    if low - slack <= cell.value <= high + slack:
        return REPRODUCED, ""
    if cell.direction == 0:
        return DIFFERENT, ""
    return (BETTER if (estimate.value - cell.value) * cell.direction > 0 else WORSE), ""


def _ends(estimate: Estimate) -> tuple[float, float]:
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return estimate.value, estimate.value
    return estimate.low, estimate.high
