"""The leak gap: what a figure gains when test persons were seen in training."""

from collections.abc import Sequence

from tracking.headline import find_headline
from tracking.rows import Row
from tracking.tables import MISSING, TableText, format_estimate


def tabulate_figures(rows: Sequence[Row]) -> TableText:
    """Lay the common figures of a task out, one row per artifact, whatever its split; no pairs are formed.

    Intervals are those of `Row.metrics`; beside the figures of a cross-validation stand mean and standard deviation
    over its folds.
    """
    names = _common(rows)
    header = ("dataset", "data", "leaky", "model", "recipe", "precision", "n subjects", *names)
    cells = [
        (
            *(row.dataset, row.data, "leaky" if row.leaky else MISSING, row.model, row.recipe, row.precision),
            *(str(row.n_subjects), *(_figure(row, name) for name in names)),
        )
        for row in rows
    ]
    return TableText(header, cells)


def tabulate_leak_gap(rows: Sequence[Row]) -> TableText:
    """Leaky minus honest figure of the same model, recipe, precision and seed on the same windows.

    The two test sides hold other windows, so there are no pairs and no interval.
    """
    names = _common(rows)
    honest = {_twin(row): row for row in rows if not row.leaky and not row.folds}
    pairs = [(row, honest[_twin(row)]) for row in rows if row.leaky and _twin(row) in honest]
    header = ("leaky", "honest", "data", "model", "recipe", "precision", *(f"gap in {name}" for name in names))
    cells = [
        (
            *(leaky.dataset, other.dataset, leaky.data, leaky.model, leaky.recipe, leaky.precision),
            *(f"{leaky.metrics[name].value - other.metrics[name].value:+.4f}" for name in names),
        )
        for leaky, other in pairs
    ]
    return TableText(header, cells, "different test windows on the two sides: no pairs, no interval" if cells else "")


def _twin(row: Row) -> tuple[object, ...]:
    return (row.model, row.recipe, row.runtime, row.precision, row.seed, row.data_digest)


def _common(rows: Sequence[Row]) -> list[str]:
    """Full names of the shown metrics that every row has, whatever the level."""
    levels, tasks = {row.level for row in rows}, {row.task for row in rows}
    if len(tasks) > 1:
        return []
    headline = find_headline(tasks.pop() if tasks else "classification", levels.pop() if len(levels) == 1 else "record")
    wanted = [f"test/{name}" for name in headline.shown]
    return [name for name in wanted if all(name in row.metrics for row in rows)]


def _figure(row: Row, name: str) -> str:
    text = format_estimate(row.metrics[name])
    metric = name.removeprefix("test/")
    mean, spread = (row.metrics.get(f"folds/{metric}_{what}") for what in ("mean", "std"))
    return text if mean is None or spread is None else f"{text}; folds {mean.value:.3f} +- {spread.value:.3f}"
