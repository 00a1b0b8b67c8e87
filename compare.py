"""Put runs side by side: only what differs, with paired statistics against the reference.

python compare.py                                          # the newest group
python compare.py "params.model = 'cnn1d_student'"         # any MLflow filter
python compare.py --seeds --margin 0.01                     # rows that differ only in their seed, pooled
python compare.py --reference RUN --format markdown --output table.md --plot tradeoff.png
"""

import argparse
import html
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from omegaconf import OmegaConf

from tracking.answers import Answered
from tracking.comparison import (
    Comparison,
    ComparisonRefused,
    check_same_level,
    check_same_split,
    check_same_task,
    compare_with,
    explain_verdicts,
    find_reference,
    refer_to,
    tabulate_comparisons,
)
from tracking.connection import TrackingError
from tracking.files import replace_file
from tracking.hr_tables import tabulate_heart_rates
from tracking.leak_gap import tabulate_figures, tabulate_leak_gap
from tracking.plots import tradeoff_figure
from tracking.rows import Row
from tracking.seeds import summarise_seeds, tabulate_seeds
from tracking.store import Store, initialise
from tracking.tables import TableText, tabulate_rows, to_csv, to_html, to_json, to_markdown, to_plain

LOGGER = logging.getLogger(__name__)
CONFIG = Path(__file__).resolve().parent / "conf" / "tracking" / "mlflow.yaml"
REFUSED = 2
Reader = Callable[[str], Answered]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Runs side by side: only what differs, with paired statistics against the reference. "
        "The store is MLFLOW_TRACKING_URI, or else that of conf/tracking/mlflow.yaml."
    )
    parser.add_argument("filter", nargs="?", help="MLflow filter, e.g. \"params.model = 'cnn1d_student'\"")
    parser.add_argument("--group", help="rows of one command; by default the newest group")
    parser.add_argument("--format", choices=("table", "markdown", "csv", "json", "html"), default="table")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead of printing")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="size-latency-metric scatter plot")
    parser.add_argument("--reference", metavar="RUN", help="run id or name that every row is compared with")
    parser.add_argument("--metric", help="metric that table and plot show; by default macro AUROC, or the error in bpm")
    parser.add_argument(
        "--figures", action="store_true", help="rows of several splits below one another, unpaired; with the leak gap"
    )
    parser.add_argument("--seeds", action="store_true", help="rows that differ only in their seed as one")
    parser.add_argument("--margin", type=float, help="with --seeds: drop that would matter, for non-inferiority")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples with --reference or --seeds")
    parsed = parser.parse_args(arguments)
    if parsed.margin is not None and not parsed.seeds:
        parser.error("--margin needs --seeds")
    return parsed


def run(arguments: argparse.Namespace, store: Store) -> str:
    """Compare the runs that the arguments select; the text to print or write.

    Raises
    ------
    ComparisonRefused
        If nothing matches, or the runs are of several tasks, levels or test splits.
    TrackingError
        If the store cannot be reached.
    """
    rows = store.read_rows(group=arguments.group, filter_string=arguments.filter)
    if not rows:
        raise ComparisonRefused(f"no row in {store.tracking_uri} matches: run train.py, or change the filter")
    check_same_task(rows)
    check_same_level(rows)
    if not arguments.figures:
        check_same_split(rows)
    if arguments.seeds:
        return _report_seeds(arguments, rows, store)
    predictions = cache(store.read_predictions)
    reference = None
    if arguments.reference is not None:
        reference = find_reference(rows, arguments.reference) or store.read_row(arguments.reference)
        rows = [
            row
            if row.run_id == reference.run_id or row.device is not None
            else refer_to(row, reference, *_pair(predictions, row, reference), arguments.resamples)
            for row in rows
        ]
    if arguments.plot is not None:
        arguments.plot.parent.mkdir(parents=True, exist_ok=True)
        tradeoff_figure(rows, arguments.metric).savefig(arguments.plot, dpi=150)
    if arguments.format == "json":
        return to_json(rows)
    if arguments.format == "csv":
        return to_csv(rows)
    if arguments.figures:
        return _render(arguments, {"": tabulate_figures(rows), "Leak gap": tabulate_leak_gap(rows)}, [])
    return _report(arguments, rows, _comparisons(rows, reference, store, predictions))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare runs from the command line; 0, or 2 when the comparison is refused."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    parsed = parse_arguments(arguments)
    try:
        text = run(parsed, initialise(**dict(OmegaConf.load(CONFIG)), must_exist=True))
    except (ComparisonRefused, TrackingError, ValueError) as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return REFUSED
    if parsed.output is None:
        print(text, end="")
    else:
        replace_file(parsed.output, text.encode())
    return 0


def _pair(read: Reader, row: Row, reference: Row) -> tuple[Answered, Answered]:
    check_same_task([row, reference])
    check_same_split([row, reference])
    return read(str(row.run_id)), read(str(reference.run_id))


def _comparisons(rows: Sequence[Row], reference: Row | None, store: Store, read: Reader) -> list[Comparison]:
    """Every row against the given reference, or against its own when none is given."""
    known = {row.run_id: row for row in rows}
    comparisons: list[Comparison] = []
    for row in rows:
        if row.device is not None:
            # Measured on a part of the test side, and paired with the workstation when it came home.
            continue
        other = reference
        if other is None and row.reference_run_id is not None:
            other = known.get(row.reference_run_id) or store.read_row(row.reference_run_id)
        if other is not None and other.run_id != row.run_id:
            comparisons += compare_with(row, other, *_pair(read, row, other))
    return comparisons


def _report(arguments: argparse.Namespace, rows: Sequence[Row], comparisons: list[Comparison]) -> str:
    tables = {"": tabulate_rows(rows, metric=arguments.metric, only_differing=True)}
    if rows[0].task == "heart_rate":
        tables["As in P1"] = tabulate_heart_rates(rows)
    if comparisons:
        part = "group" if rows[0].task == "heart_rate" else "class"
        tables[f"Against the reference, {part} by {part}"] = tabulate_comparisons(comparisons, rows[0].level)
    return _render(arguments, tables, explain_verdicts(rows))


def _report_seeds(arguments: argparse.Namespace, rows: Sequence[Row], store: Store) -> str:
    if arguments.format in ("csv", "json") or arguments.figures or arguments.plot:
        raise ComparisonRefused("--seeds gives a table: leave out --figures, --plot and the formats csv and json")
    shared = {"metric": arguments.metric, "reference": arguments.reference, "margin": arguments.margin}
    summaries = summarise_seeds(rows, store.read_predictions, **shared, n_resamples=arguments.resamples)
    return _render(arguments, {"": tabulate_seeds(summaries, arguments.metric)}, [])


def _render(arguments: argparse.Namespace, tables: Mapping[str, TableText], notes: Sequence[str]) -> str:
    tables = {title: table for title, table in tables.items() if table.cells}
    if arguments.format == "html":
        head = '<!doctype html>\n<meta charset="utf-8">\n<title>Comparison</title>\n'
        listed = "".join(f"<li>{html.escape(note)}</li>\n" for note in notes)
        return head + "".join(to_html(table, title) for title, table in tables.items()) + f"<ul>\n{listed}</ul>\n"
    if arguments.format == "markdown":
        parts = [
            f"### {title}\n\n{to_markdown(table)}" if title else to_markdown(table) for title, table in tables.items()
        ]
        return "\n".join([*parts, *([f"- {note}" for note in notes] + [""] if notes else [])])
    return "\n".join([*(to_plain(table, title) for title, table in tables.items()), *notes]).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
