"""Rows side by side: as a table for the terminal, markdown, html, csv or json."""

import csv
import html
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tracking.headline import find_headline
from tracking.rows import Estimate, Row, own_settings, row_to_dict, rows_to_json
from tracking.statistics import explain_no_interval

MISSING = "-"
NUMBERS = ("seed", "params", "MACs", "zeros", "bytes", "zipped", "flips", "p50 ms", "p99 ms", "mJ", "looks")


@dataclass(frozen=True)
class TableText:
    """A table as text.

    Parameters
    ----------
    header : tuple of str
    cells : sequence of tuple of str
        One per row.
    caption : str
        What is the same in every row.
    """

    header: tuple[str, ...]
    cells: Sequence[tuple[str, ...]]
    caption: str = ""


def default_metric(rows: Sequence[Row]) -> str:
    """Name the headline on test of the rows' task at their level, such as macro AUROC.

    Raises
    ------
    ValueError
        If the rows are of several tasks or levels.
    """
    tasks = sorted({row.task for row in rows}) or ["classification"]
    if len(tasks) > 1:
        raise ValueError(f"rows of the tasks {tasks} have no metric in common")
    levels = sorted({row.level for row in rows}) or ["record"]
    if len(levels) > 1:
        raise ValueError(f"rows of the levels {levels} have no metric in common: name one that they have")
    return find_headline(tasks[0], levels[0]).named("test")


def tabulate_rows(rows: Sequence[Row], *, metric: str | None = None, only_differing: bool = False) -> TableText:
    """Lay rows out in columns.

    Parameters
    ----------
    rows : sequence of Row
    metric : str, optional
        Metric that the table shows, with its interval and its difference to the reference; the headline of their
        task at the level of the rows by default.
    only_differing : bool, default False
        Move columns in which all rows agree into the caption; add name, data set, seed, reference and
        every setting where they differ. The kind of data stays in every row as long as one row is synthetic.

    Returns
    -------
    TableText
        Its caption also says why rows have no interval.

    Raises
    ------
    ValueError
        If no metric is named and the rows are of several levels.
    """
    metric = metric or default_metric(rows)
    columns: dict[str, Callable[[Row], str]] = {
        "name": lambda row: row.name,
        "role": lambda row: row.role,
        "model": lambda row: row.model,
        "recipe": lambda row: row.recipe,
        "runtime": lambda row: row.runtime,
        "precision": lambda row: row.precision,
        "data": lambda row: row.data,
        "dataset": lambda row: row.dataset,
        "seed": lambda row: _count(row.seed),
        "params": lambda row: _count(row.params),
        "MACs": lambda row: _scaled(row.macs, ""),
        "zeros": lambda row: MISSING if row.sparsity is None else f"{row.sparsity:.0%}",
        "bytes": lambda row: _count(row.size_bytes),
        "zipped": lambda row: _count(row.compressed_bytes),
        "p50 ms": lambda row: _milliseconds(row.latency_ms_p50),
        "p99 ms": lambda row: _milliseconds(row.latency_ms_p99),
        f"{metric} [95 %]": lambda row: format_estimate(row.metrics.get(metric)),
        "delta [95 %]": lambda row: format_estimate(row.delta.get(metric), difference=True),
        "flips": lambda row: MISSING if row.flips is None else f"{row.flips:.2%}",
        "reference": lambda row: row.reference or MISSING,
        "verdict": lambda row: row.verdict or MISSING,
        "looks": lambda row: _count(row.test_looks),
    }
    columns |= _device_columns(rows, metric)
    if not only_differing:
        for name in ("name", "dataset", "seed", "reference"):
            del columns[name]
    shown = {name: [text(row) for row in rows] for name, text in columns.items()}
    same: list[str] = []
    if only_differing:
        settings = [own_settings(row) for row in rows]
        shown |= {name: [own.get(name, MISSING) for own in settings] for name in differing_settings(rows)}
    if only_differing and len(rows) > 1:
        kept = {"name", "role", "model", *({"data"} if any(row.data == "synthetic" for row in rows) else ())}
        same = [name for name, texts in shown.items() if name not in kept and len(set(texts)) == 1]
    caption = ", ".join(f"{name} {shown[name][0]}" for name in same if shown[name][0] != MISSING)
    header = tuple(name for name in shown if name not in same)
    cells = list(zip(*(shown[name] for name in header), strict=True))
    notes = [f"the same in every row: {caption}"] if caption else []
    return TableText(header, cells, "; ".join(notes + explain_intervals(rows)))


def add_column(table: TableText, name: str, texts: Sequence[str]) -> TableText:
    """Table with one more column at its end; one that is empty in every row is left out."""
    if set(texts) <= {MISSING}:
        return table
    cells = [(*cells, text) for cells, text in zip(table.cells, texts, strict=True)]
    return TableText((*table.header, name), cells, table.caption)


def _device_columns(rows: Sequence[Row], metric: str) -> dict[str, Callable[[Row], str]]:
    """Columns that only measurements on devices, or of energy, fill."""
    columns: dict[str, Callable[[Row], str]] = {}
    if any(row.energy_mj is not None for row in rows):
        columns["mJ"] = lambda row: _milliseconds(row.energy_mj)
    if any(row.device is not None for row in rows):
        name = metric.replace("test/", "slice/", 1)
        columns["device"] = lambda row: row.device or MISSING
        columns[f"{name} [95 %]"] = lambda row: format_estimate(row.metrics.get(name))
        columns["slice delta [95 %]"] = lambda row: format_estimate(row.delta.get(name), difference=True)
        columns["windows"] = lambda row: _count(row.n_test)
    return columns


def explain_intervals(rows: Sequence[Row]) -> list[str]:
    """Say once for each number of subjects why rows have no interval."""
    few: dict[str, list[str]] = {}
    for row in rows:
        if row.n_subjects is not None and (reason := explain_no_interval(row.n_subjects)):
            few.setdefault(reason, []).append(row.name)
    return [
        f"{reason} ({'every row' if len(names) == len(rows) else ', '.join(names)})" for reason, names in few.items()
    ]


def differing_settings(rows: Sequence[Row]) -> list[str]:
    """Name the settings with more than one value among the rows that depend on them."""
    settings = [own_settings(row) for row in rows]
    names = dict.fromkeys(name for own in settings for name in own)
    return [name for name in names if len({own[name] for own in settings if name in own}) > 1]


def format_estimate(estimate: Estimate | None, *, difference: bool = False) -> str:
    """Value and interval as text: ``0.931 [0.925, 0.937]``, differences signed and with four decimals."""
    if estimate is None or math.isnan(estimate.value):
        return MISSING
    form = "+.4f" if difference else ".3f"
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def to_rich(table: TableText, title: str = "") -> Table:
    """Table for a rich console; nothing in it is read as markup."""
    rich = Table(box=box.SIMPLE_HEAD, title=Text(title) if title else None, title_justify="left", pad_edge=False)
    if table.caption:
        rich.caption, rich.caption_justify = Text(table.caption), "left"
    for name in table.header:
        rich.add_column(Text(name), justify="right" if name in NUMBERS else "left", no_wrap=True)
    for cells in table.cells:
        rich.add_row(*(Text(cell) for cell in cells))
    return rich


def to_plain(table: TableText, title: str = "") -> str:
    """Table as plain text, as wide as its content needs, whatever the terminal."""
    rich = to_rich(table, title)
    caption, rich.caption = table.caption, None
    # Wide enough for any table; measuring its content first would take as long as printing it.
    console = Console(file=io.StringIO(), width=10_000, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(rich)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    return "\n".join([*lines, *([caption, ""] if caption else [])]) + "\n"


def to_markdown(table: TableText) -> str:
    """Table in GitHub's markdown, the caption as a line below it."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    rule = ["---:" if name in NUMBERS else "---" for name in table.header]
    lines = [line(table.header), line(rule), *(line(cells) for cells in table.cells)]
    if table.caption:
        lines += ["", table.caption]
    return "\n".join(lines) + "\n"


def to_html(table: TableText, title: str = "") -> str:
    """Table as an html fragment; every text is escaped."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    caption = html.escape(". ".join(text for text in (title, table.caption) if text))
    return "\n".join(
        [
            "<table>",
            f"<caption>{caption}</caption>" if caption else "",
            f"<thead>{line(table.header, 'th')}</thead>",
            "<tbody>",
            *(line(cells, "td") for cells in table.cells),
            "</tbody>",
            "</table>",
            "",
        ]
    )


def to_csv(rows: Sequence[Row]) -> str:
    """Every field of every row with full precision; a metric gives three columns."""
    flat: list[dict[str, object]] = []
    for row in rows:
        values = row_to_dict(row)
        values["reasons"] = "; ".join(values["reasons"])
        del values["checks"]
        for field in ("metrics", "delta"):
            prefix = "delta/" if field == "delta" else ""
            for name, estimate in values.pop(field).items():
                values |= {f"{prefix}{name}": estimate["value"]}
                values |= {f"{prefix}{name}_{end}": estimate[end] for end in ("low", "high")}
        flat.append(values)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(key for values in flat for key in values)))
    writer.writeheader()
    writer.writerows(flat)
    return buffer.getvalue()


def to_json(rows: Sequence[Row]) -> str:
    """Rows exactly as ``rows.json`` holds them."""
    return rows_to_json(rows)


def _count(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}"


def _milliseconds(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _scaled(value: float | None, unit: str) -> str:
    if value is None:
        return MISSING
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.1f} {prefix}{unit}"
    return f"{value:.0f} {unit}".rstrip()
