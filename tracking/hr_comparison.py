"""Heart rates of a row against those of its reference, overall and by the groups of P1."""

from collections.abc import Sequence
from dataclasses import dataclass

from tracking.hr_tallies import GROUPS
from tracking.rows import Estimate, Row
from tracking.tables import TableText, format_estimate

LEVELS = ("video", "window")


@dataclass(frozen=True)
class RateComparison:
    """One figure of one artifact against its reference.

    Parameters
    ----------
    name, reference, figure : str
    value, reference_value, delta : Estimate or None
        Mean absolute errors in bpm, and this minus the reference's on the same subjects; below 0 is better.
    """

    name: str
    reference: str
    figure: str
    value: Estimate | None
    reference_value: Estimate | None
    delta: Estimate | None


def compare_rates(row: Row, reference: Row) -> list[RateComparison]:
    """Compare mean absolute errors of an artifact and its reference, of all windows and videos and group by group."""
    names = ["hr_mae_bpm", *(f"hr_mae_bpm_{group}" for group in GROUPS)]
    figures = [f"test/{name}_{level}" for level in LEVELS for name in names]
    return [
        RateComparison(
            *(row.name, reference.name, figure.removeprefix("test/")),
            *(row.metrics.get(figure), reference.metrics.get(figure), row.delta.get(figure)),
        )
        for figure in figures
    ]


def tabulate_rate_comparisons(comparisons: Sequence[RateComparison]) -> TableText:
    """Lay comparisons of heart rates out in columns."""
    header = ("name", "reference", "figure", "bpm [95 %]", "of the reference [95 %]", "delta [95 %]")
    cells = [
        (
            *(item.name, item.reference, item.figure, format_estimate(item.value)),
            *(format_estimate(item.reference_value), format_estimate(item.delta, difference=True)),
        )
        for item in comparisons
    ]
    return TableText(header, cells, "errors in bpm: below 0 is better than the reference" if cells else "")
