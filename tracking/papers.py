"""Published tables and figures as data: ``papers/*.yaml``, the only place where a paper's number stands."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# What our value is multiplied by to be in the paper's unit.
UNITS = {"1": 1.0, "%": 100.0, "bpm": 1.0, "count": 1.0, "MB": 1e-6, "KB": 1e-3, "ms": 1.0}
# Two figures that differ by less are the same one, in each unit, where the paper's file says nothing else.
TOLERANCES = {"1": 0.005, "%": 0.5, "bpm": 0.3, "count": 0.0, "MB": 0.05, "KB": 5.0, "ms": 0.0}
# Figures of the file itself: they do not depend on what it was trained on.
SIZES = ("params", "params_keras", "macs", "size_bytes", "compressed_bytes", "size_ratio")
STRUCTURAL = (*SIZES, "int8_macs_share", "sparsity")
TIMES = ("latency_ms_p50", "latency_ms_p99", "latency_ratio", "time_over_video", "time_over_video_decoded")
SHARES = ("faces_share", "pulse_share", "rate_share")
CLASSIFIED = (
    "auroc",
    "average_precision",
    "f1",
    "precision",
    "recall",
    "sensitivity",
    "specificity",
    "accuracy",
    "ece",
)
RATES = ("hr_mae_bpm", "hr_rmse_bpm", "hr_mape_percent", "hr_bias_bpm", "hr_pearson_r", "hr_snr_db")
GROUPS = ("low", "middle", "high", "not_low")
PLOTS = ("roc", "precision_recall", "confusion", "parameters", "groups")
SMALLER_IS_BETTER = (*SIZES, "ece", "hr_mae_bpm", "hr_rmse_bpm", "hr_mape_percent", *TIMES)
# Neither more nor less is better.
UNDIRECTED = (*SHARES, "hr_bias_bpm", "params", "params_keras", "macs")


class PaperError(ValueError):
    """A file of published figures that says something wrong; the message names file and cell."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One published figure, or one that the paper leaves without a number.

    Attributes
    ----------
    id : str
        ``<row>.<column>``, unique within its table.
    row, label : str
        Row of the table that fills it, and how the paper calls it.
    column : str
        What is measured, in words.
    metric : str
        Our name of it: a metric of a row's test or validation split, or a figure of the file.
    unit : str
        One of `UNITS`.
    value : float or None
        Published, in that unit; None where the paper prints none.
    printed : str or None
        As the paper prints it, where that is more than the number.
    averaging : str or None
        Over classes.
    tolerance : float
        In the unit: within it, two figures are the same.
    not_comparable : str or None
        Why no figure of ours can be held against this one, whatever the data.
    open : str or None
        What the paper leaves open about it, and what we chose.
    """

    id: str
    row: str
    label: str
    column: str
    metric: str
    unit: str
    value: float | None
    printed: str | None
    averaging: str | None
    tolerance: float
    not_comparable: str | None
    open: str | None

    @property
    def scale(self) -> float:
        """What our value is multiplied by to be in the unit."""
        return UNITS[self.unit]

    @property
    def direction(self) -> int:
        """1 where more is better, -1 where less is, 0 where neither is."""
        stem = find_stem(self.metric)
        return 0 if stem in UNDIRECTED else -1 if stem in SMALLER_IS_BETTER else 1

    @property
    def structural(self) -> bool:
        """Whether it is about the file and not about its answers."""
        return self.metric in STRUCTURAL

    @property
    def timed(self) -> bool:
        """Whether it is another one on every machine."""
        return find_stem(self.metric) in (*TIMES, *SHARES)


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table or figure of a paper.

    Attributes
    ----------
    id, title, source, protocol : str
        Name of its file below ``conf/table``; what it shows, where it stands, how the paper measured.
    open : tuple of str
        What the paper leaves open, each with what we chose.
    plots : tuple of str
        What the paper draws of it, of `PLOTS`.
    cells : tuple of Cell
    """

    id: str
    title: str
    source: str
    protocol: str
    open: tuple[str, ...]
    plots: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A paper with all its tables, in its order."""

    id: str
    title: str
    tables: dict[str, PaperTable]


def find_stem(metric: str) -> str | None:
    """Name of a metric without split, averaging, group, class and level; None if there is no such metric."""
    if metric in STRUCTURAL or metric in TIMES:
        return metric
    room, _, name = metric.partition("/")
    if room == "stages":
        return name if name in (*SHARES, *TIMES[-2:]) else None
    averages = "_(?:macro|weighted|binary)"
    # A class is written as in the data, which no averaging is.
    forms = (
        rf"({'|'.join(CLASSIFIED)})(?:{averages}|_[A-Z][A-Z0-9]*)?(?:_(?:beat|window))?",
        rf"({'|'.join(RATES)})(?:_(?:{'|'.join(GROUPS)}))?_(?:window|video)",
    )
    if room in ("test", "val"):
        for form in forms:
            if found := re.fullmatch(form, name):
                return found.group(1)
    return None


def read_papers(folder: Path | str) -> dict[str, Paper]:
    """Read every paper of a folder, by id; errors as in `read_paper`."""
    papers = [read_paper(path) for path in sorted(Path(folder).glob("*.yaml"))]
    return {paper.id: paper for paper in papers}


def read_paper(path: Path | str) -> Paper:
    """Read and check one paper.

    Parameters
    ----------
    path : Path or str
        A table has ``title``, ``source``, ``protocol``, ``open``, ``plots``, ``columns`` and ``rows``. A column has
        ``label``, ``metric`` and ``unit`` and may have ``averaging``, ``tolerance``, ``not_comparable`` and ``open``. A
        row has ``label`` and ``values``: by column a number, null where the paper prints none, or a mapping with
        ``value`` and what differs from the column there.

    Raises
    ------
    PaperError
        If the file is no such mapping, a metric, unit, plot, column or key is unknown, or a value is no number.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise PaperError(f"{path}: not readable as YAML: {error}") from error
    _expect_keys(content, {"title", "tables"}, set(), f"{path}")
    tables = {name: _read_table(name, table, f"{path}: table {name!r}") for name, table in content["tables"].items()}
    return Paper(id=path.stem, title=content["title"], tables=tables)


def _read_table(name: str, table: Any, where: str) -> PaperTable:
    _expect_keys(table, {"title", "source", "protocol", "columns", "rows"}, {"open", "plots"}, where)
    plots = tuple(table.get("plots") or ())
    if unknown := sorted(set(plots) - set(PLOTS)):
        raise PaperError(f"{where}: unknown plots {unknown}, expected some of {PLOTS}")
    cells = []
    for row, content in table["rows"].items():
        _expect_keys(content, {"label", "values"}, set(), f"{where}, row {row!r}")
        for column, value in content["values"].items():
            place = f"{where}, cell '{row}.{column}'"
            if column not in table["columns"]:
                raise PaperError(f"{place}: there is no column {column!r}, expected one of {list(table['columns'])}")
            own = value if isinstance(value, Mapping) else {"value": value}
            cells.append(_read_cell(str(row), content["label"], column, {**table["columns"][column], **own}, place))
    return PaperTable(
        id=name,
        title=table["title"],
        source=table["source"],
        protocol=table["protocol"],
        open=tuple(table.get("open") or ()),
        plots=plots,
        cells=tuple(cells),
    )


def _read_cell(row: str, label: str, column: str, content: dict[str, Any], where: str) -> Cell:
    optional = {"averaging", "tolerance", "not_comparable", "open", "printed"}
    _expect_keys(content, {"label", "metric", "unit", "value"}, optional, where)
    metric, unit, value = content["metric"], content["unit"], content["value"]
    if find_stem(metric) is None:
        raise PaperError(
            f"{where}: unknown metric {metric!r}, expected a figure of the file such as 'params' or 'size_bytes', or a"
            " metric of a split such as 'test/auroc_macro' or 'val/f1_weighted_beat'"
        )
    if unit not in UNITS:
        raise PaperError(f"{where}: unknown unit {unit!r}, expected one of {tuple(UNITS)}")
    for name, number in (("value", value), ("tolerance", content.get("tolerance"))):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise PaperError(f"{where}: {name} is {number!r}, expected a number or null")
    return Cell(
        id=f"{row}.{column}",
        row=row,
        label=label,
        column=content["label"],
        metric=metric,
        unit=unit,
        value=None if value is None else float(value),
        printed=content.get("printed"),
        averaging=content.get("averaging"),
        tolerance=float(content.get("tolerance", TOLERANCES[unit])),
        not_comparable=content.get("not_comparable"),
        open=content.get("open"),
    )


def _expect_keys(content: Any, needed: set[str], optional: set[str], where: str) -> None:
    if not isinstance(content, Mapping):
        raise PaperError(f"{where}: expected a mapping, got {type(content).__name__}")
    if missing := sorted(needed - set(content)):
        raise PaperError(f"{where}: lacks {missing}")
    if unknown := sorted(set(content) - needed - optional):
        raise PaperError(f"{where}: unknown keys {unknown}, expected {sorted(needed | optional)}")
