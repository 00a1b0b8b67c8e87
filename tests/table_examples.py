"""Cells and rows that the tests of the papers' tables share."""

from typing import Any

from tests.configs import ROOT
from tests.tracking_examples import example_row
from tracking.cells import Filled, JobRows, fill_table
from tracking.papers import Cell, PaperTable, read_papers
from tracking.rendering import to_data_uri
from tracking.report_plots import draw_groups, draw_parameters
from tracking.reports import CAPTIONS, Figure, Report
from tracking.rows import Estimate, Row


def example_cell(**changes: Any) -> Cell:
    values: dict[str, Any] = {
        "id": "student.test",
        "row": "student",
        "label": "student alone",
        "column": "mean AUC, test",
        "metric": "test/auroc_macro",
        "unit": "%",
        "value": 92.8,
        "printed": None,
        "averaging": "macro",
        "tolerance": 0.5,
        "not_comparable": None,
        "open": None,
    }
    return Cell(**(values | changes))


def example_table(*cells: Cell, plots: tuple[str, ...] = ()) -> PaperTable:
    return PaperTable(
        id="p3_distillation",
        title="Teacher, student",
        source="table 5",
        protocol="as printed",
        open=("temperature: not said",),
        plots=plots,
        cells=cells or (example_cell(),),
    )


def real_row(value: float = 0.931, seed: int = 0, **changes: Any) -> Row:
    metrics = {"test/auroc_macro": Estimate(value, value - 0.006, value + 0.006)}
    values = {"data": "real", "dataset": "ptbxl", "seed": seed, "run_id": f"{seed:032d}", "metrics": metrics}
    return example_row(**(values | changes))


def fill(
    *rows: Row, cells: tuple[Cell, ...] = (), take: dict[str, str] | None = None, **changes: Any
) -> tuple[Filled, ...]:
    """Fill the example table from rows of one job, one seed each."""
    values: dict[str, Any] = {
        "rows": {number: (row,) for number, row in enumerate(rows)},
        "others": (),
        "n_seeds": max(len(rows), 1),
        "absent": "" if rows else "no finished run",
    }
    job = JobRows(**(values | changes))
    return fill_table(example_table(*cells), {"student": ("job", take or {"role": "student"})}, {"job": job})


def example_reports() -> list[Report]:
    """Every table of the papers in their order: P1 without data, P2 of simulated data, the others of real data."""
    return [
        Report(
            table=table,
            paper=paper.title,
            profile="ci",
            profile_title="real data, one training fold and few epochs",
            cells=(cells := fill_paper_table(table, paper.id)),
            figures=tuple(_draw(plot, cells) for plot in table.plots if plot in ("parameters", "groups")),
        )
        for paper in read_papers(ROOT / "papers").values()
        for table in paper.tables.values()
    ]


def fill_paper_table(table: PaperTable, paper: str) -> tuple[Filled, ...]:
    """Fill a table of a paper: each figure lies a tenth of a percent above the published one, or is invented."""
    data = {"p1": None, "p2": "synthetic"}.get(paper, "real")
    jobs, takes = {}, {}
    for name in dict.fromkeys(cell.row for cell in table.cells):
        own = [cell for cell in table.cells if cell.row == name]
        rows: dict[int, tuple[Row, ...]] = {}
        if data is not None:
            values = {cell.metric: (cell.value or 90.0) * 1.001 / cell.scale for cell in own}
            fields: dict[str, Any] = {key: value for key, value in values.items() if key in Row.__dataclass_fields__}
            metrics = {
                key: Estimate(value, value * 0.99, value * 1.01) for key, value in values.items() if key not in fields
            }
            rows[0] = (real_row(data=data, name=f"{name}-with-a-recipe", metrics=metrics, verdict="PASS", **fields),)
        jobs[name] = JobRows(
            rows=rows,
            others=("feedc0de" + 24 * "0",) if rows else (),
            n_seeds=1,
            absent="" if rows else "no data: there is no folder data/ubfc (datamodule.root of ubfc)",
            no_data=not rows,
            not_comparable="trained on one fold of eight for two epochs",
        )
        takes[name] = (name, {"role": "student"})
    return fill_table(table, takes, jobs)


def _draw(plot: str, cells: tuple[Filled, ...]) -> Figure:
    drawn = (draw_parameters if plot == "parameters" else draw_groups)(cells) or b"<svg/>"
    return Figure(caption=CAPTIONS[plot], uri=to_data_uri("image/svg+xml", drawn))
