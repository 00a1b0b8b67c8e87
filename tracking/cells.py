"""Cells of a paper's table, filled from rows of finished runs and from nothing else."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tracking.papers import Cell, PaperTable, find_stem
from tracking.rows import Estimate, Row
from tracking.verdicts import judge_cell

Take = Mapping[str, str]


class CellError(ValueError):
    """A table that takes no single row for a cell; the message names table and row."""


@dataclass(frozen=True, kw_only=True)
class JobRows:
    """What is known about one job of a table, over its seeds.

    Attributes
    ----------
    rows : dict of int to tuple of Row
        Of the chosen run of each seed.
    others : tuple of str
        Runs of further finished jobs of the same setting: older, or of other data.
    n_seeds : int
        Asked for.
    absent : str
        Why there are no rows, if there are none.
    no_data : bool
        Whether that is because the data are not there.
    not_comparable : str or None
        Why its figures cannot be held against published ones.
    """

    rows: dict[int, tuple[Row, ...]]
    others: tuple[str, ...]
    n_seeds: int
    absent: str
    no_data: bool = False
    not_comparable: str | None = None


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A cell with what was found for it.

    Attributes
    ----------
    cell : Cell
    estimate : Estimate or None
        Mean over seeds with its interval, in the paper's unit.
    rows : tuple of Row
        One for each seed.
    others : tuple of str
        Runs that could have filled it too.
    seed_sd : float or None
        Standard deviation over the seeds (n - 1), in the unit.
    verdict, why : str
        See `tracking.verdicts.judge_cell`.
    no_data : bool
        Whether it is empty because the data are not there.
    n_seeds : int
        Asked for.
    """

    cell: Cell
    estimate: Estimate | None
    rows: tuple[Row, ...]
    others: tuple[str, ...]
    seed_sd: float | None
    verdict: str
    why: str
    no_data: bool
    n_seeds: int

    @property
    def difference(self) -> float | None:
        """Ours minus the published one, in the unit."""
        if self.estimate is None or self.cell.value is None or math.isnan(self.estimate.value):
            return None
        return self.estimate.value - self.cell.value

    @property
    def synthetic(self) -> bool:
        """Whether any of its figures is of synthetic data."""
        return any(row.data == "synthetic" for row in self.rows)

    @property
    def says(self) -> str:
        """Verdict and reason in one line."""
        return f"{self.verdict}: {self.why}" if self.why else self.verdict


def fill_table(
    table: PaperTable, takes: Mapping[str, tuple[str, Take]], jobs: Mapping[str, JobRows]
) -> tuple[Filled, ...]:
    """Fill every cell of a table.

    Parameters
    ----------
    table : PaperTable
    takes : mapping of str to (str, mapping)
        For each row of the table, its job and the fields of the row to take.
    jobs : mapping of str to JobRows

    Raises
    ------
    CellError
        If a row of the paper has no job, a job is unknown, or several rows of a job are meant.
    """
    filled = []
    for cell in table.cells:
        if cell.row not in takes:
            raise CellError(f"table {table.id!r}: nothing fills row {cell.row!r}, expected one of {sorted(takes)}")
        job, take = takes[cell.row]
        if job not in jobs:
            raise CellError(f"table {table.id!r}, row {cell.row!r}: there is no job {job!r} in {sorted(jobs)}")
        filled.append(_fill_cell(cell, jobs[job], take, f"table {table.id!r}, row {cell.row!r}"))
    return tuple(filled)


def take_row(rows: Sequence[Row], take: Take, where: str) -> Row | None:
    """Find the one row that has all the fields; None if none has.

    Raises
    ------
    CellError
        If several have, or rows know no such field.
    """
    if unknown := sorted(set(take) - set(Row.__dataclass_fields__)):
        raise CellError(f"{where}: rows have no fields {unknown}")
    found = [row for row in rows if all(getattr(row, name) == value for name, value in take.items())]
    if len(found) > 1:
        names = [row.name for row in found]
        raise CellError(f"{where}: {dict(take)} means {len(found)} rows, {names}: add a field that tells them apart")
    return found[0] if found else None


def look_up(row: Row, metric: str, rows: Sequence[Row]) -> Estimate | None:
    """Give a row's figure by our name of it; ``size_ratio`` is that to its reference among `rows`."""
    if metric in row.metrics:
        return row.metrics[metric]
    if metric == "size_ratio":
        before = next((other for other in rows if other.run_id == row.reference_run_id), None)
        if before is None or row.reference_run_id is None or not row.size_bytes or not before.size_bytes:
            return None
        return Estimate(row.size_bytes / before.size_bytes)
    value = getattr(row, metric, None) if find_stem(metric) == metric else None
    return None if value is None else Estimate(float(value))


def join_seeds(estimates: Sequence[Estimate], scale: float = 1.0) -> Estimate:
    """Mean over seeds, with an interval for other subjects and other seeds.

    One seed keeps its interval over subjects. Of several, the mean half-width over subjects and the 95 % half-width
    over seeds (Student's t) are added as squares, as sources that do not depend on each other; without an interval over
    subjects there is none.
    """
    values = np.array([estimate.value for estimate in estimates]) * scale
    lows = np.array([estimate.low for estimate in estimates]) * scale
    highs = np.array([estimate.high for estimate in estimates]) * scale
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return Estimate(mean, float(lows[0]), float(highs[0]))
    over_seeds = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n)
    below, above = (values - lows).mean(), (highs - values).mean()
    return Estimate(mean, mean - math.hypot(below, over_seeds), mean + math.hypot(above, over_seeds))


def _fill_cell(cell: Cell, job: JobRows, take: Take, where: str) -> Filled:
    rows, estimates, absent = [], [], job.absent
    for own in job.rows.values():
        row = take_row(own, take, where)
        if row is None:
            absent = f"the job has no row with {dict(take)}"
            continue
        estimate = look_up(row, cell.metric, own)
        if estimate is None or math.isnan(estimate.value):
            absent = f"the run has no {cell.metric}"
            continue
        rows.append(row)
        estimates.append(estimate)
    joined = join_seeds(estimates, cell.scale) if estimates else None
    data = None if not rows else "real" if all(row.data == "real" for row in rows) else "synthetic"
    verdict, why = judge_cell(cell, joined, data=data, absent=absent, not_comparable=job.not_comparable)
    values = [estimate.value * cell.scale for estimate in estimates]
    return Filled(
        cell=cell,
        estimate=joined,
        rows=tuple(rows),
        others=job.others if rows else (),
        seed_sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        verdict=verdict,
        why=why,
        no_data=joined is None and job.no_data,
        n_seeds=job.n_seeds,
    )
