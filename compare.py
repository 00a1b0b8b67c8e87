"""Put runs side by side: only what differs, with paired statistics against the reference.

python compare.py                                          # the newest group
python compare.py "params.model = 'cnn1d_student'"         # any MLflow filter
python compare.py --seeds --margin 0.01                     # rows that differ only in their seed, pooled
python compare.py --reference RUN --format markdown --output table.md --plot tradeoff.png
python compare.py --groups A B                              # two groups side by side, matched row by row
python compare.py --pivot --metric bytes                    # models as rows, recipes as columns
python compare.py --against published                       # with the papers' figures
python compare.py --ui                                      # addresses of the same rows in the MLflow UI
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from tracking.fronts import tell_fronts
from tracking.hr_tables import tabulate_heart_rates
from tracking.leak_gap import tabulate_figures, tabulate_leak_gap
from tracking.pivot import tabulate_pivot
from tracking.plots import tradeoff_figure
from tracking.rendering import render
from tracking.rows import Row
from tracking.search import filter_rows
from tracking.seeds import summarise_seeds, tabulate_seeds
from tracking.side_by_side import compare_groups, tabulate_pairs, tell_unmatched
from tracking.store import Store, initialise
from tracking.tables import add_column, default_metric, tabulate_rows, to_csv, to_json
from tracking.ui_views import compare_url, save_view

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
    parser.add_argument("--groups", nargs=2, metavar=("A", "B"), help="two groups side by side")
    parser.add_argument(
        "--pivot", action="store_true", help="one figure (--metric): models as rows, recipes as columns"
    )
    parser.add_argument("--against", choices=("published",), help="the papers' figures beside rows")
    parser.add_argument(
        "--ui",
        nargs="?",
        const="",
        metavar="URL",
        help="addresses of these rows in the MLflow UI; saves its runs table",
    )
    parser.add_argument("--format", choices=("table", "markdown", "csv", "json", "html", "latex"), default="table")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead of printing")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="size-latency-metric scatter plot")
    parser.add_argument("--reference", metavar="RUN", help="run id or name that every row is compared with")
    parser.add_argument(
        "--metric",
        help="metric that table and plot show; by default macro AUROC, or bpm of error; with --pivot also bytes, macs",
    )
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


def check_options(arguments: argparse.Namespace) -> None:
    """Refuse options that do not go together.

    Raises
    ------
    ComparisonRefused
        If so; the message names them.
    """
    views = ("groups", "pivot", "seeds", "against", "ui")
    chosen = [f"--{name}" for name in views if getattr(arguments, name) not in (None, False)]
    if len(chosen) > 1:
        raise ComparisonRefused(f"{chosen[0]} and {chosen[1]} do not go together")
    if chosen and (arguments.format in ("csv", "json") or (arguments.plot and not arguments.against)):
        raise ComparisonRefused(f"{chosen[0]} gives a table: leave out --plot and the formats csv and json")
    if arguments.figures and chosen not in ([], ["--groups"]):
        raise ComparisonRefused(f"{chosen[0]} gives a table of its own: leave out --figures")
    if arguments.groups and (arguments.group or arguments.reference):
        raise ComparisonRefused("--groups names rows and references itself: leave out --group and --reference")


def run(arguments: argparse.Namespace, store: Store) -> str:
    """Compare the runs that the arguments select; the text to print or write.

    Raises
    ------
    ComparisonRefused
        If nothing matches, or the runs are of several tasks, levels or test splits.
    TrackingError
        If the store cannot be reached.
    """
    check_options(arguments)
    if arguments.groups:
        return _report_groups(arguments, store)
    rows = _read(arguments, store, arguments.group)
    if arguments.ui is not None:
        return _tell_views(arguments, rows, store)
    check_same_task(rows)
    check_same_level(rows)
    if not arguments.figures:
        check_same_split(rows)
    if arguments.seeds:
        return _report_seeds(arguments, rows, store)
    if arguments.pivot:
        return render(arguments.format, {"": tabulate_pivot(rows, arguments.metric)}, [])
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
        return render(arguments.format, {"": tabulate_figures(rows), "Leak gap": tabulate_leak_gap(rows)}, [])
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


def _read(arguments: argparse.Namespace, store: Store, group: str | None) -> list[Row]:
    rows = store.read_rows(group=group, filter_string=arguments.filter)
    if not rows:
        which = f" of group {group!r}" if arguments.groups else ""
        raise ComparisonRefused(f"no row{which} in {store.tracking_uri} matches: run train.py, or change the filter")
    return rows


def _report_groups(arguments: argparse.Namespace, store: Store) -> str:
    first, second = (_read(arguments, store, group) for group in arguments.groups)
    check_same_task([*first, *second])
    check_same_level([*first, *second])
    sides = [{row.split_digest for row in rows if row.split_digest is not None} for rows in (first, second)]
    if not arguments.figures and not sides[0] & sides[1]:
        check_same_split([*first, *second])
    predictions = cache(store.read_predictions)
    pairs = compare_groups(first, second, predictions, arguments.resamples)
    if not pairs:
        raise ComparisonRefused(
            f"no row of {arguments.groups[0]} has a counterpart in {arguments.groups[1]}: the roles differ"
        )
    tables = {"": tabulate_pairs(pairs, tuple(arguments.groups), arguments.metric)}
    compared: list[Comparison] = []
    for pair in pairs:
        if pair.paired:
            row, reference = replace(pair.b, name=f"B {pair.b.name}"), replace(pair.a, name=f"A {pair.a.name}")
            compared += compare_with(row, reference, *_pair(predictions, row, reference))
    if compared:
        tables["B against A"] = tabulate_comparisons(compared, first[0].level)
    return render(arguments.format, tables, tell_unmatched(first, second, pairs))


def _tell_views(arguments: argparse.Namespace, rows: Sequence[Row], store: Store) -> str:
    group = arguments.group or (None if arguments.filter else rows[0].group)
    chosen = filter_rows(group, arguments.filter)
    table = save_view(store, rows, chosen, metric=arguments.metric, ui=arguments.ui)
    return f"runs table: {table}\ncompared: {compare_url(store, rows, ui=arguments.ui)}\n"


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
    metric = arguments.metric or default_metric(rows)
    table = tabulate_rows(rows, metric=metric, only_differing=True)
    tables = {"": add_column(table, "Pareto front", tell_fronts(rows, metric)) if len(rows) > 1 else table}
    if arguments.against:
        # Only here, because composing the tables' jobs takes seconds.
        from composition.published import find_published, published_column, tabulate_published

        published = find_published(rows)
        tables[""] = add_column(tables[""], f"published {metric}", published_column(rows, published, metric))
        tables["Published beside ours"] = tabulate_published(published)
    if rows[0].task == "heart_rate":
        tables["As in P1"] = tabulate_heart_rates(rows)
    if comparisons:
        part = "group" if rows[0].task == "heart_rate" else "class"
        tables[f"Against the reference, {part} by {part}"] = tabulate_comparisons(comparisons, rows[0].level)
    return render(arguments.format, tables, explain_verdicts(rows))


def _report_seeds(arguments: argparse.Namespace, rows: Sequence[Row], store: Store) -> str:
    shared = {"metric": arguments.metric, "reference": arguments.reference, "margin": arguments.margin}
    summaries = summarise_seeds(rows, store.read_predictions, **shared, n_resamples=arguments.resamples)
    return render(arguments.format, {"": tabulate_seeds(summaries, arguments.metric)}, [])


if __name__ == "__main__":
    sys.exit(main())
