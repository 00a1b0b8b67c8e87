"""The papers' tables as pages: published beside ours, from tracked runs alone."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from tracking.cells import Filled
from tracking.files import replace_file
from tracking.papers import PaperTable
from tracking.rendering import to_data_uri
from tracking.report_plots import draw_groups, draw_parameters
from tracking.rows import Estimate, Row
from tracking.statistics import explain_no_interval
from tracking.tables import MISSING, TableText, to_markdown
from tracking.verdicts import VERDICTS

if TYPE_CHECKING:
    from jinja2 import Environment

    from tracking.store import Store

TEMPLATES = Path(__file__).parent / "templates"
# What train.py draws for each row.
RUN_FIGURES = {"roc": "roc.png", "precision_recall": "pr.png", "confusion": "confusion.png"}
CAPTIONS = {
    "roc": "ROC curves",
    "precision_recall": "precision-recall curves",
    "confusion": "confusion matrices",
    "parameters": "figure over parameters, published and ours",
    "groups": "error by group of the true heart rate, published and ours",
}
HEADER = ("row", "figure", "published", "ours", "interval", "difference", "gate", "verdict", "runs")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture in a page: what it shows, the picture as a data URI, and whether it takes the page's whole width."""

    caption: str
    uri: str
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """One cell of a table as the reader sees it."""

    label: str
    column: str
    metric: str
    averaging: str
    open: str
    published: str
    ours: str
    interval: str
    why_no_interval: str
    difference: str
    gate: str
    verdict: str
    why: str
    synthetic: bool
    note: str
    runs: tuple[tuple[str, str, str], ...]
    others: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """A table of a paper, filled.

    Attributes
    ----------
    table : PaperTable
    paper : str
        Its title.
    profile, profile_title : str
        What the data are.
    cells : tuple of Filled
    figures : tuple of Figure
    """

    table: PaperTable
    paper: str
    profile: str
    profile_title: str
    cells: tuple[Filled, ...]
    figures: tuple[Figure, ...]

    @property
    def title(self) -> str:
        """Title with the data profile."""
        return f"{self.table.title} ({self.profile_text})"

    @property
    def profile_text(self) -> str:
        """Name of the data profile and what it is."""
        return f"{self.profile}: {self.profile_title}"

    @property
    def counts(self) -> dict[str, int]:
        """Cells by verdict, those that occur."""
        found = {verdict: sum(cell.verdict == verdict for cell in self.cells) for verdict in VERDICTS}
        return {verdict: count for verdict, count in found.items() if count}


def collect_figures(table: PaperTable, cells: Sequence[Filled], store: "Store") -> tuple[Figure, ...]:
    """Draw what the paper draws of a table, in our data: curves come from each row's first run, as they lie there."""
    figures = []
    for plot in table.plots:
        if plot in RUN_FIGURES:
            shown: dict[str, Row] = {}
            for cell in cells:
                if cell.rows:
                    shown.setdefault(cell.cell.label, cell.rows[0])
            for label, row in shown.items():
                data = _read_figure(store, row, RUN_FIGURES[plot])
                if data is not None:
                    caption = f"{label}: {CAPTIONS[plot]}, {row.data} data, seed {row.seed}"
                    figures.append(Figure(caption=caption, uri=to_data_uri("image/png", data), wide=_is_wide(data)))
            continue
        drawn = draw_parameters(cells) if plot == "parameters" else draw_groups(cells)
        if drawn is not None:
            figures.append(Figure(caption=CAPTIONS[plot], uri=to_data_uri("image/svg+xml", drawn)))
    return tuple(figures)


def write_reports(folder: Path | str, reports: Sequence[Report], run_url: str) -> list[Path]:
    """Write every report as html, markdown and csv, and an index in html and markdown.

    Parameters
    ----------
    folder : Path or str
    reports : sequence of Report
        In the papers' order.
    run_url : str
        Address of a run in the MLflow UI, with ``{run_id}`` in it.

    Returns
    -------
    list of Path
        The files, the index first.
    """
    folder = Path(folder)
    environment = _environment()
    page = environment.get_template("table.html.j2")
    paths = []
    for report in reports:
        lines = [_line(cell, run_url) for cell in report.cells]
        contents = {
            "html": page.render(report=report, groups=_by_row(lines), missing=MISSING),
            "md": to_markdown_page(report, lines),
            "csv": to_csv(report),
        }
        for ending, content in contents.items():
            paths.append(replace_file(folder / f"{report.table.id}.{ending}", content.encode()))
    index = environment.get_template("index.html.j2").render(reports=reports)
    text = to_markdown(
        TableText(
            ("paper", "table", "data", *VERDICTS),
            [
                (
                    report.paper,
                    f"[{report.table.title}]({report.table.id}.md)",
                    report.profile,
                    *(str(report.counts.get(verdict, 0)) for verdict in VERDICTS),
                )
                for report in reports
            ],
        )
    )
    first = [
        replace_file(folder / "index.html", index.encode()),
        replace_file(folder / "index.md", f"# The papers' tables\n\n{text}".encode()),
    ]
    return [*first, *paths]


def to_markdown_page(report: Report, lines: Sequence[Line]) -> str:
    """Give a report as markdown."""
    cells = [
        (
            line.label,
            line.column,
            line.published,
            f"{line.ours} (synthetic)" if line.synthetic else line.ours,
            f"{line.interval} ({line.why_no_interval})" if line.why_no_interval else line.interval,
            line.difference,
            line.gate,
            f"{line.verdict}: {line.why}" if line.why else line.verdict,
            " ".join(f"[{name}]({url})" for name, url, _ in line.runs) or MISSING,
        )
        for line in lines
    ]
    text = f"# {report.title}\n\n{report.paper}; {report.table.source}.\n\n{report.table.protocol}\n\n"
    text += to_markdown(TableText(HEADER, cells))
    if report.table.open:
        text += "\nWhat the paper leaves open, and what was chosen:\n\n"
        text += "".join(f"- {item}\n" for item in report.table.open)
    return text


def to_csv(report: Report) -> str:
    """Every cell of a report with full precision."""
    buffer = io.StringIO()
    names = (
        *("table", "cell", "row", "figure", "metric", "averaging", "unit", "published", "ours", "low", "high"),
        *("difference", "tolerance", "seeds", "seed_sd", "data", "profile", "verdict", "why", "runs", "other_runs"),
    )
    writer = csv.DictWriter(buffer, names)
    writer.writeheader()
    for filled in report.cells:
        cell, estimate = filled.cell, filled.estimate or Estimate(math.nan)
        values = {
            "table": report.table.id,
            "cell": cell.id,
            "row": cell.label,
            "figure": cell.column,
            "metric": cell.metric,
            "averaging": cell.averaging,
            "unit": cell.unit,
            "published": cell.value,
            "ours": _number(estimate.value),
            "low": _number(estimate.low),
            "high": _number(estimate.high),
            "difference": filled.difference,
            "tolerance": cell.tolerance,
            "seeds": len(filled.rows),
            "seed_sd": filled.seed_sd,
            "data": "synthetic" if filled.synthetic else "real" if filled.rows else None,
            "profile": report.profile,
            "verdict": filled.verdict,
            "why": filled.why,
            "runs": " ".join(str(row.run_id) for row in filled.rows),
            "other_runs": " ".join(filled.others),
        }
        writer.writerow(values)
    return buffer.getvalue()


def format_figure(value: float | None, unit: str, *, signed: bool = False) -> str:
    """Write a figure in its unit: areas and shares with as many digits as the papers print, counts whole."""
    if value is None or math.isnan(value):
        return MISSING
    digits = {"1": 4, "%": 2, "bpm": 2, "count": 0, "MB": 3, "KB": 1, "ms": 3}[unit]
    text = f"{value:{'+' if signed else ''},.{digits}f}"
    return text if unit in ("1", "count") else f"{text} {unit}"


def _line(filled: Filled, run_url: str) -> Line:
    cell, estimate = filled.cell, filled.estimate
    known = estimate is not None and not (math.isnan(estimate.low) or math.isnan(estimate.high))
    interval = MISSING
    if estimate is not None and known:
        low, high = (format_figure(value, cell.unit) for value in (estimate.low, estimate.high))
        interval = f"[{low.removesuffix(f' {cell.unit}')}, {high}]"
    note = ""
    if filled.rows and filled.n_seeds > 1:
        note = f"{len(filled.rows)} of {filled.n_seeds} seeds"
    gates = sorted({row.verdict for row in filled.rows if row.verdict})
    return Line(
        label=cell.label,
        column=cell.column,
        metric=cell.metric,
        averaging=cell.averaging or "",
        open=cell.open or "",
        published=cell.printed or format_figure(cell.value, cell.unit),
        ours=format_figure(estimate.value if estimate else None, cell.unit),
        interval=interval,
        why_no_interval=_explain_no_interval(filled),
        difference=format_figure(filled.difference, cell.unit, signed=True),
        gate=", ".join(gates) or MISSING,
        verdict=filled.verdict,
        why=filled.why,
        synthetic=filled.synthetic,
        note=note,
        runs=tuple((str(row.seed), run_url.format(run_id=row.run_id), row.name) for row in filled.rows),
        others=tuple((run_id[:8], run_url.format(run_id=run_id)) for run_id in filled.others),
    )


def _explain_no_interval(filled: Filled) -> str:
    """Say why a figure of the test split stands without an interval; empty where it has one or needs none."""
    estimate = filled.estimate
    if estimate is None or not math.isnan(estimate.low) or not filled.cell.metric.startswith("test/"):
        return ""
    few = [row.n_subjects for row in filled.rows if row.n_subjects is not None]
    return explain_no_interval(min(few)) if few else ""


def _by_row(lines: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    """Put the figures of each row of a table together, in the paper's order."""
    return [(label, list(own)) for label, own in groupby(lines, key=lambda line: line.label)]


def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _read_figure(store: "Store", row: Row, name: str) -> bytes | None:
    """Picture of a row's run; None where it was not drawn."""
    run_id = str(row.run_id)
    return store.read_file(run_id, name) if name in store.list_files(run_id) else None


def _is_wide(png: bytes) -> bool:
    """Whether a picture is twice as wide as high, or more: several panels beside one another."""
    width, height = (int.from_bytes(png[at : at + 4]) for at in (16, 20))
    return width >= 2 * height


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
