"""Cells and rows that the tests of the papers' tables share."""

from typing import Any

from tests.tracking_examples import example_row
from tracking.cells import Filled, JobRows, fill_table
from tracking.papers import Cell, PaperTable
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
