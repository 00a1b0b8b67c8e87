"""Models against recipes: one figure of every artifact, its models below one another and its recipes side by side."""

import math
from collections.abc import Sequence

from tracking.artifacts import DEPLOY_FIELDS
from tracking.cells import join_seeds
from tracking.comparison import ComparisonRefused
from tracking.rows import Estimate, Row, own_settings
from tracking.tables import MISSING, TableText, default_metric, differing_settings, format_estimate

ALIASES = {"bytes": "size_bytes", "size": "size_bytes", "latency": "latency_ms_p50"}
# What the rows of one column may differ in where that names the column.
DETAILS = ("runtime", "precision", "device")


def tabulate_pivot(rows: Sequence[Row], metric: str | None = None) -> TableText:
    """Lay one figure out with models as rows and recipes as columns.

    Parameters
    ----------
    rows : sequence of Row
        Seeds of one setting are pooled: the mean, with its interval over seeds and subjects.
    metric : str, optional
        A metric such as ``test/auroc_macro``, or a figure of the file such as ``size_bytes``, ``bytes``, ``latency`` or
        ``macs``; the headline of the rows by default.

    Raises
    ------
    ComparisonRefused
        If no row has the figure, or the rows of a cell differ in their role or data set.
    """
    metric = ALIASES.get(metric, metric) if metric else default_metric(rows)
    known = [row for row in rows if _figure(row, metric) is not None]
    if not known:
        listed = sorted({name for row in rows for name in row.metrics} | set(DEPLOY_FIELDS))
        raise ComparisonRefused(f"no row has {metric!r}: choose --metric from {listed}")
    columns = _name_columns(known)
    cells: dict[tuple[str, str], list[Row]] = {}
    for row, column in zip(known, columns, strict=True):
        cells.setdefault((row.model, column), []).append(row)
    names = list(dict.fromkeys(columns))
    table = [
        (model, *(_cell(cells.get((model, name), []), metric) for name in names))
        for model in dict.fromkeys(row.model for row in known)
    ]
    notes = [f"{metric}{' [95 %]' if metric not in DEPLOY_FIELDS else ''}"]
    notes += [", ".join(sorted({f"{row.data} data, {row.dataset}" for row in known}))]
    if len({row.seed for row in known}) > 1:
        notes.append("(n): mean of n seeds")
    return TableText(("model", *names), table, "; ".join(notes))


def _name_columns(rows: Sequence[Row]) -> list[str]:
    """Name each row's column: its recipe, and what rows of one model and recipe differ in besides their seed."""
    names: dict[int, str] = {}
    for recipe in dict.fromkeys(row.recipe for row in rows):
        own = [row for row in rows if row.recipe == recipe]
        by_model = [[row for row in own if row.model == model] for model in dict.fromkeys(row.model for row in own)]
        details = [name for name in DETAILS if any(len({getattr(row, name) for row in same}) > 1 for same in by_model)]
        settings = _tell_apart(by_model)
        for row in own:
            shown = [str(getattr(row, name)) for name in details if getattr(row, name)]
            shown += [f"{name.rpartition('.')[2]}={own_settings(row).get(name, MISSING)}" for name in settings]
            names[id(row)] = " ".join([recipe, *shown])
    return [names[id(row)] for row in rows]


def _tell_apart(groups: Sequence[Sequence[Row]]) -> list[str]:
    """Fewest settings, the first ones first, that tell apart what all settings tell apart within the groups."""
    chosen: list[str] = []
    for rows in groups:
        for name in differing_settings(rows):
            kinds = [len({_values_of(row, (*chosen, *more)) for row in rows}) for more in ((), (name,))]
            if kinds[1] > kinds[0]:
                chosen.append(name)
    return chosen


def _values_of(row: Row, names: Sequence[str]) -> tuple[str, ...]:
    settings = own_settings(row)
    return tuple(settings.get(name, MISSING) for name in names)


def _cell(rows: Sequence[Row], metric: str) -> str:
    if not rows:
        return MISSING
    if odd := [name for name in ("role", "dataset", "data") if len({getattr(row, name) for row in rows}) > 1]:
        raise ComparisonRefused(
            f"{len(rows)} rows of model {rows[0].model} and recipe {rows[0].recipe} differ in {', '.join(odd)}: narrow"
            f" the selection down, for example with \"params.{odd[0]} = '{getattr(rows[0], odd[0])}'\""
        )
    # Of one seed's runs the last counts.
    by_seed = {row.seed: row for row in rows}
    estimates = [estimate for row in by_seed.values() if (estimate := _figure(row, metric))]
    joined = join_seeds(estimates)
    number = f" ({len(estimates)})" if len(estimates) > 1 else ""
    return _text(joined, metric) + number


def _figure(row: Row, metric: str) -> Estimate | None:
    if metric in DEPLOY_FIELDS:
        value = getattr(row, metric)
        return None if value is None else Estimate(float(value))
    estimate = row.metrics.get(metric)
    return None if estimate is None or math.isnan(estimate.value) else estimate


def _text(estimate: Estimate, metric: str) -> str:
    if metric not in DEPLOY_FIELDS:
        return format_estimate(estimate)
    return (
        f"{estimate.value:,.0f}" if estimate.value >= 1000 or estimate.value.is_integer() else f"{estimate.value:.3g}"
    )
