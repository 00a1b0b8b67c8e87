"""Figures that CI expects of a profile, with tolerances: ``expected/<profile>-<table>.csv``."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tracking.cells import Filled
from tracking.files import replace_file
from tracking.tables import MISSING, TableText

NAMES = ("cell", "metric", "unit", "value", "tolerance")
# As many standard deviations over seeds as a figure may move: that of two or three seeds is uncertain itself, and one
# false alarm among some hundred cells is one too many.
SPREADS = 5.0
# In each unit, the least that a figure may move: other processors round otherwise.
FLOORS = {"1": 0.01, "%": 1.0, "bpm": 1.0, "count": 0.0, "MB": 0.002, "KB": 2.0, "ms": 0.0}
# What answers may move where one seed was run: a training of one epoch may differ by as much on another machine.
WIDE = {"1": 0.25, "%": 10.0, "bpm": 5.0}


class ExpectedError(ValueError):
    """A file of expected figures that is missing or damaged."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What one cell must be.

    Attributes
    ----------
    cell, metric, unit : str
    value, tolerance : float
        In the unit.
    """

    cell: str
    metric: str
    unit: str
    value: float
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A cell that is not what was expected."""

    cell: str
    why: str


def expect(cells: Sequence[Filled], floors: dict[str, float] | None = None) -> list[Expected]:
    """Make measured figures the expected ones, each with its tolerance. Figures of time are left out: the machine's.

    A tolerance is `SPREADS` standard deviations over seeds, or the floor of the unit. The standard deviation of few
    seeds may be tiny by chance: that of a cell counts as no smaller than the median of the table's cells of the same
    metric.
    With one seed nothing is known of it: answers then have a wide tolerance, figures of the file itself the floor.
    """
    floors = FLOORS if floors is None else floors
    measured = [
        filled
        for filled in cells
        if filled.estimate is not None and not math.isnan(filled.estimate.value) and not filled.cell.timed
    ]
    spreads: dict[str, list[float]] = {}
    for filled in measured:
        spreads.setdefault(filled.cell.metric, []).append(filled.seed_sd or 0.0)
    expected = []
    for filled in measured:
        cell, value = filled.cell, filled.estimate.value if filled.estimate else math.nan
        spread = max(filled.seed_sd or 0.0, median(spreads[cell.metric]))
        unknown = filled.seed_sd is None and not cell.structural
        floor = max(floors[cell.unit], WIDE.get(cell.unit, 0.0) if unknown else 0.0)
        expected.append(
            Expected(
                cell=cell.id,
                metric=cell.metric,
                unit=cell.unit,
                value=value,
                tolerance=max(SPREADS * spread, floor),
            )
        )
    return expected


def find_drift(expected: Sequence[Expected], cells: Sequence[Filled]) -> list[Drift]:
    """Name every cell that lies outside its tolerance, is no longer measured, or is measured as something else."""
    measured = {filled.cell.id: filled for filled in cells}
    drift = []
    for item in expected:
        filled = measured.get(item.cell)
        if filled is None:
            drift.append(Drift(cell=item.cell, why="no such cell in the paper's table"))
        elif (filled.cell.metric, filled.cell.unit) != (item.metric, item.unit):
            now = f"{filled.cell.metric} in {filled.cell.unit}"
            drift.append(Drift(cell=item.cell, why=f"is {now}, expected {item.metric} in {item.unit}"))
        elif filled.estimate is None:
            drift.append(Drift(cell=item.cell, why=filled.says))
        elif not abs(filled.estimate.value - item.value) <= item.tolerance + 1e-9 * max(1.0, abs(item.value)):
            unit = "" if item.unit == "1" else f" {item.unit}"
            wanted = f"{item.value:.6g} +- {item.tolerance:.3g}{unit}"
            drift.append(Drift(cell=item.cell, why=f"is {filled.estimate.value:.6g}, expected {wanted}"))
    return drift


def tabulate_expected(expected: Sequence[Expected]) -> TableText:
    """Lay out what was expected."""
    cells = [(item.cell, item.metric, f"{item.value:.6g}", f"{item.tolerance:.3g}", item.unit) for item in expected]
    return TableText(("cell", "metric", "expected", "tolerance", "unit"), cells)


def tabulate_measured(cells: Sequence[Filled]) -> TableText:
    """Lay out what was measured."""
    rows = []
    for filled in cells:
        value = MISSING if filled.estimate is None else f"{filled.estimate.value:.6g}"
        rows.append((filled.cell.id, filled.cell.metric, value, filled.cell.unit, filled.says))
    return TableText(("cell", "metric", "measured", "unit", "verdict"), rows)


def write_expected(path: Path | str, expected: Sequence[Expected]) -> Path:
    """Write expected figures as csv."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(NAMES)
    for item in expected:
        writer.writerow((item.cell, item.metric, item.unit, f"{item.value:.8g}", f"{item.tolerance:.4g}"))
    return replace_file(path, buffer.getvalue().encode())


def read_expected(path: Path | str) -> list[Expected]:
    """Read expected figures.

    Raises
    ------
    ExpectedError
        If the file is not there, has other columns, or a line's value or tolerance is no number.
    """
    path = Path(path)
    if not path.is_file():
        raise ExpectedError(f"there is no {path}: write it with `python tables.py expect` from runs that are right")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != NAMES:
            raise ExpectedError(f"{path}: columns {reader.fieldnames}, expected {list(NAMES)}")
        return [_read_line(line, f"{path}, line {number}") for number, line in enumerate(reader, start=2)]


def _read_line(line: dict[str, str], where: str) -> Expected:
    try:
        value, tolerance = float(line["value"]), float(line["tolerance"])
    except (TypeError, ValueError) as error:
        raise ExpectedError(f"{where}: value {line['value']!r}, tolerance {line['tolerance']!r}: {error}") from error
    if not (math.isfinite(value) and tolerance >= 0):
        raise ExpectedError(f"{where}: value {value} and tolerance {tolerance} must be finite, the latter not negative")
    return Expected(cell=line["cell"], metric=line["metric"], unit=line["unit"], value=value, tolerance=tolerance)
