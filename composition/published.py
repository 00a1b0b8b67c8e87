"""Published figures beside rows, whatever command they came from: each with what may be said about the two."""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from composition.fits import plain
from composition.rows import find_setting
from composition.tables import Job, plan_jobs, prepare, setting_digests
from tracking.cells import join_seeds, look_up
from tracking.digests import flatten
from tracking.papers import Cell, PaperTable, read_papers
from tracking.reports import format_figure
from tracking.rows import Estimate, Row
from tracking.tables import MISSING, TableText
from tracking.verdicts import judge_cell

ROOT = Path(__file__).resolve().parent.parent
CONF, PAPERS = ROOT / "conf", ROOT / "papers"
# By kind of data, the profile whose settings a row must have for its figures to be held against the paper's.
PROFILES = {"real": "full", "synthetic": "synthetic"}
# Settings without which a row answers another question than the table's: other leads, classes or windows.
TASK = ("datamodule.lead_names", "datamodule.class_names", "datamodule.level", "datamodule.fs")


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published figure and the row of ours that it stands beside.

    Attributes
    ----------
    row : Row
    table : PaperTable
    cell : Cell
    estimate : Estimate or None
        Ours, in the paper's unit.
    verdict, why : str
        As in `tracking.verdicts.judge_cell`.
    """

    row: Row
    table: PaperTable
    cell: Cell
    estimate: Estimate | None
    verdict: str
    why: str


def find_published(rows: Sequence[Row], *, conf: Path = CONF, papers: Path = PAPERS) -> list[Published]:
    """Find the cells of the papers that rows stand for: of the same model, recipe, role, data set and task.

    A row whose settings are not those of the table in full is shown all the same, and said not to be comparable.

    Parameters
    ----------
    rows : sequence of Row
    conf, papers : Path
        Folders of the tables' configuration and of the published figures.

    Raises
    ------
    PaperError
        If a file of published figures is wrong.
    """
    tables = [table for paper in read_papers(papers).values() for table in paper.tables.values()]
    models = {row.model for row in rows}
    chosen = {table: _jobs_with(models, table.id, conf) for table in tables}
    found: list[Published] = []
    with initialize_config_dir(version_base="1.3", config_dir=str(conf)):
        for kind in dict.fromkeys(row.data for row in rows):
            own, known = [row for row in rows if row.data == kind], dict[Any, DictConfig]()
            for table, names in chosen.items():
                if names:
                    found += _hold_table(own, rows, table, names, kind, known)
    return found


def tabulate_published(published: Sequence[Published]) -> TableText:
    """Lay published figures out beside ours, by row."""
    header = ("name", "paper's table", "paper's row", "figure", "published", "ours", "difference", "verdict")
    order = {id(item.row): number for number, item in reversed(list(enumerate(published)))}
    cells = [
        (
            *(item.row.name, item.table.id, item.cell.label, item.cell.column),
            item.cell.printed or format_figure(item.cell.value, item.cell.unit),
            _format_ours(item),
            _format_difference(item),
            f"{item.verdict}: {item.why}" if item.why else item.verdict,
        )
        for item in sorted(published, key=lambda item: order[id(item.row)])
        if item.cell.value is not None or item.cell.printed
    ]
    return TableText(header, cells, "verdicts as in tables.py; one seed each" if cells else "")


def published_column(rows: Sequence[Row], published: Sequence[Published], metric: str) -> list[str]:
    """Give what papers print of a metric for each row, with the table's name; several where several tables do."""
    texts: dict[str | None, list[str]] = {}
    for item in published:
        if item.cell.metric == metric and (item.cell.value is not None or item.cell.printed):
            text = item.cell.printed or format_figure(item.cell.value, item.cell.unit)
            texts.setdefault(item.row.run_id, []).append(f"{text} ({item.table.id})")
    return ["; ".join(texts.get(row.run_id, [])) or MISSING for row in rows]


def _jobs_with(models: Set[str], table: str, conf: Path) -> list[str]:
    """Name the jobs of a table with one of these models, without composing what takes a fraction of a second each."""

    def names_model(override: str) -> bool:
        key, _, value = override.partition("=")
        if key == "experiment":
            text = (conf / "experiment" / f"{value}.yaml").read_text(encoding="utf-8")
            return any(re.search(rf"/model(@\S+)?: {re.escape(model)}\b", text) for model in models)
        return key == "model" and value in models

    jobs = OmegaConf.load(conf / "table" / f"{table}.yaml").jobs
    return [str(name) for name, job in jobs.items() if any(names_model(item) for item in job.overrides)]


def _hold_table(
    own: Sequence[Row],
    rows: Sequence[Row],
    table: PaperTable,
    names: Sequence[str],
    kind: str,
    known: dict[Any, DictConfig],
) -> list[Published]:
    """Hold the cells of a table that some of its jobs fill against those of our own rows that such a job would give."""
    overrides = [f"table={table.id}", f"profile={PROFILES[kind]}", "group=table", "paths.output=table"]
    config = compose("config", overrides)
    OmegaConf.set_struct(config, False)
    config.table.jobs = {name: config.table.jobs[name] for name in names}
    jobs = {job.name: job for job in plan_jobs(config, known=known)}
    found = []
    for cell in table.cells:
        filling = config.table.rows[cell.row]
        if (job := jobs.get(filling.job)) is None:
            continue
        row = _find_row(own, job.config, plain(filling.take))
        if row is not None:
            found.append(_hold(row, rows, table, cell, job))
    return found


def _find_row(rows: Sequence[Row], job: DictConfig, take: Mapping[str, str]) -> Row | None:
    """Find the row that a job's take means, the newest where there are several."""
    setting = flatten(find_setting(job))
    wanted = {name: str(setting[name]) for name in TASK if name in setting}
    found = [
        row
        for row in rows
        if row.dataset == job.datamodule.name
        and row.device is None
        and all(getattr(row, name) == value for name, value in take.items())
        and row.model == _model_of(row, job, take)
        and ("recipe" in take or row.recipe in ("none", job.compression.name))
        and all(row.settings.get(name, value) == value for name, value in wanted.items())
    ]
    return found[-1] if found else None


def _model_of(row: Row, job: DictConfig, take: Mapping[str, str]) -> str | None:
    if row.role == "teacher":
        teacher = job.compression.get("teacher")
        return None if teacher is None else str(teacher.name)
    return take.get("model", str(job.model.name))


def _hold(row: Row, rows: Sequence[Row], table: PaperTable, cell: Cell, job: Job) -> Published:
    estimate = look_up(row, cell.metric, rows)
    ours = None if estimate is None else join_seeds([estimate], cell.scale)
    why = job.not_comparable
    if row.config_digest not in setting_digests(prepare(job, row.seed or 0, "table", "table")):
        why = f"made with other settings than the table's (profile={PROFILES[row.data]})"
    absent = f"the row has no {cell.metric}"
    verdict, reason = judge_cell(cell, ours, data=row.data, absent=absent, not_comparable=why)
    return Published(row=row, table=table, cell=cell, estimate=ours, verdict=verdict, why=reason)


def _format_ours(item: Published) -> str:
    if item.estimate is None:
        return MISSING
    figures = (format_figure(value, item.cell.unit) for value in (item.estimate.low, item.estimate.high))
    text, (low, high) = format_figure(item.estimate.value, item.cell.unit), figures
    return text if MISSING in (low, high) else f"{text} [{low}, {high}]"


def _format_difference(item: Published) -> str:
    if item.estimate is None or item.cell.value is None:
        return MISSING
    return format_figure(item.estimate.value - item.cell.value, item.cell.unit, signed=True)
