"""The papers' tables from tracked runs: rendered as pages, or held against what is expected.

``python tables.py render profile=ci`` after ``python train.py -m "table=glob(*)" profile=ci``; ``make tables``
does both.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig

from composition.fits import plain
from composition.tables import find_rows
from tracking.cells import CellError, fill_table
from tracking.connection import TrackingError
from tracking.expected import (
    ExpectedError,
    expect,
    find_drift,
    read_expected,
    tabulate_expected,
    tabulate_measured,
    write_expected,
)
from tracking.finished import find_finished
from tracking.papers import PaperError, PaperTable, read_papers
from tracking.reports import Report, collect_figures, write_reports
from tracking.store import Store, initialise
from tracking.tables import to_plain

ROOT = Path(__file__).resolve().parent
CONF, PAPERS, EXPECTED = ROOT / "conf", ROOT / "papers", ROOT / "expected"
FAILED, REFUSED = 1, 2


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="tables.py", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("render", "check", "expect"))
    parser.add_argument("overrides", nargs="*", help="as for train.py: profile=ci paths.ptbxl=... allow_missing=true")
    parser.add_argument("--table", action="append", help="only this one; may be repeated")
    parser.add_argument("--output", type=Path, default=Path("reports"), help="folder of the pages (render)")
    parser.add_argument(
        "--expected", type=Path, default=EXPECTED, help="folder of the expected figures (check, expect)"
    )
    parser.add_argument("--ui", help="address of the MLflow UI that runs are linked to; by default the tracking server")
    # Overrides may stand before and behind options.
    return parser.parse_intermixed_args(arguments)


@dataclass(frozen=True, kw_only=True)
class Filling:
    """Reports, where their runs are, and whether data may be missing."""

    reports: tuple[Report, ...]
    store: Store
    allow_missing: bool


def fill_reports(overrides: Sequence[str], names: Sequence[str] | None = None, *, draw: bool = True) -> Filling:
    """Fill the papers' tables, in their order, from the tracking store that the configuration names.

    Parameters
    ----------
    overrides : sequence of str
        As for `train.py`.
    names : sequence of str, optional
        Tables to fill; all by default.
    draw : bool, default True
        Whether figures are collected too.

    Raises
    ------
    PaperError, CellError
        If a paper's file or a table's configuration is wrong, or a table is unknown.
    TrackingError
        If the store cannot be reached.
    """
    papers = read_papers(PAPERS)
    tables = {name: (paper, table) for paper in papers.values() for name, table in paper.tables.items()}
    names = list(tables) if not names else list(names)
    if unknown := sorted(set(names) - set(tables)):
        raise CellError(f"there are no tables {unknown}, expected some of {list(tables)}")
    own = [item for item in overrides if not item.startswith("table=")]
    known: dict[Any, DictConfig] = {}
    reports = []
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        configs = [compose("config", [*own, f"table={name}", "group=table", "paths.output=table"]) for name in names]
        store = initialise(**configs[0].tracking)
        finished = find_finished(store.client)
        for name, config in zip(names, configs, strict=True):
            paper, table = tables[name]
            takes = {row: (item.job, plain(item.take)) for row, item in config.table.rows.items()}
            cells = fill_table(table, takes, find_rows(config, store, finished, own, known))
            figures = collect_figures(table, cells, store) if draw else ()
            reports.append(
                Report(
                    table=table,
                    paper=paper.title,
                    profile=config.profile.name,
                    profile_title=config.profile.title,
                    cells=cells,
                    figures=figures,
                )
            )
    return Filling(reports=tuple(reports), store=store, allow_missing=configs[0].allow_missing)


def find_run_url(store: Store, ui: str | None) -> str:
    """Address of a run in the MLflow UI, with ``{run_id}`` in it; without a server that of `make ui`."""
    server = store.tracking_uri if store.tracking_uri.startswith("http") else "http://127.0.0.1:5000"
    return f"{(ui or server).rstrip('/')}/#/experiments/{store.experiment_id}/runs/{{run_id}}"


def render(arguments: argparse.Namespace) -> int:
    """Write the pages; 1 where data were not there, unless ``allow_missing=true``."""
    filling = fill_reports(arguments.overrides, arguments.table)
    index, *_ = write_reports(arguments.output, filling.reports, find_run_url(filling.store, arguments.ui))
    for report in filling.reports:
        print(f"{report.table.id}: " + ", ".join(f"{count} {verdict}" for verdict, count in report.counts.items()))
    print(f"index: {index}")
    empty = {report.table.id for report in filling.reports for cell in report.cells if cell.no_data}
    if empty and not filling.allow_missing:
        print(f"no data for {', '.join(sorted(empty))}: allow_missing=true if that is all right", file=sys.stderr)
        return FAILED
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Hold measured figures against the expected ones; 1 and both tables where one has drifted."""
    reports = fill_reports(arguments.overrides, arguments.table, draw=False).reports
    drifted = checked = 0
    for report in reports:
        path = expected_path(arguments.expected, report.profile, report.table)
        if not path.is_file() and not arguments.table:
            print(f"{report.table.id}: nothing is expected, {path.name} is not there")
            continue
        expected = read_expected(path)
        drift = find_drift(expected, report.cells)
        checked += len(expected)
        drifted += len(drift)
        print(f"{report.table.id}: {len(expected) - len(drift)} of {len(expected)} cells as expected")
        if drift:
            print(f"expected: {path}\n{to_plain(tabulate_expected(expected))}")
            print(f"measured: {report.title}\n{to_plain(tabulate_measured(report.cells))}")
            for item in drift:
                print(f"DRIFT {report.table.id} {item.cell}: {item.why}")
    if not checked:
        raise ExpectedError(
            f"{arguments.expected} expects no figure of profile {reports[0].profile!r}: write some with"
            " `python tables.py expect`"
        )
    return FAILED if drifted else 0


def write(arguments: argparse.Namespace) -> int:
    """Make what is measured the expected figures: profile.seeds=[0,1,2] gives tolerances from three seeds."""
    reports = fill_reports(arguments.overrides, arguments.table, draw=False).reports
    for report in reports:
        expected = expect(report.cells)
        if expected:
            path = expected_path(arguments.expected, report.profile, report.table)
            print(f"{write_expected(path, expected)}: {len(expected)} cells")
        else:
            print(f"{report.table.id}: nothing is measured, nothing is written")
    return 0


def expected_path(folder: Path, profile: str, table: PaperTable) -> Path:
    """File of the figures that are expected of a table."""
    return folder / f"{profile}-{table.id}.csv"


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command; 0, 1 for missing data or drift, 2 when it is refused."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    parsed = parse_arguments(arguments)
    try:
        return {"render": render, "check": check, "expect": write}[parsed.command](parsed)
    except (PaperError, CellError, ExpectedError, TrackingError, HydraException) as error:
        print(f"tables.py: {error}", file=sys.stderr)
        return REFUSED


if __name__ == "__main__":
    sys.exit(main())
