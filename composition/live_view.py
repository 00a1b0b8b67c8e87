"""A live ECG on the terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from composition.live_ecg import Decision, Update
from composition.live_record import Totals

REFRESH_S = 0.25


@contextmanager
def open_view(console: Console, title: str) -> Iterator[Callable[[Totals, Update], None]]:
    """Draw the state of a stream while it runs, a few times a second.

    Parameters
    ----------
    console : Console
        Where to draw.
    title : str
        What is shown.

    Yields
    ------
    callable
        To be called with the totals and each update.
    """
    drawn, last = -REFRESH_S, None

    def show(totals: Totals, update: Update) -> None:
        nonlocal drawn, last
        last = update.decisions[-1] if update.decisions else last
        if time.monotonic() - drawn >= REFRESH_S:
            drawn = time.monotonic()
            view.update(draw(title, totals.describe(), totals.bpm, last), refresh=True)

    with Live(console=console, auto_refresh=False, transient=True) as view:
        yield show


def draw(title: str, summary: dict[str, Any], bpm: float | None = None, last: Decision | None = None) -> Table:
    """Lay out a summary.

    Parameters
    ----------
    title : str
        What the stream is.
    summary : dict
        See `Totals.describe`.
    bpm : float, optional
        Heart rate of the moment.
    last : Decision, optional
        The newest decision.

    Returns
    -------
    Table
    """
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_row("signal", f"{format_time(summary['duration_s'])}, {summary['real_time_factor']:,.1f}x real time")
    if bpm is not None:
        table.add_row("heart rate", f"{bpm:.0f} bpm")
    if last is not None:
        table.add_row("now", f"{last.label} ({last.probability:.2f}) at {format_time(last.time_s)}")
    shares = [f"{name} {100 * share:.1f} %" for name, share in summary["share_by_class"].items()]
    table.add_row("decisions", f"{summary['n_decisions']:,}" + (": " if shares else "") + ", ".join(shares))
    if summary["n_rpeaks"]:
        table.add_row("R peaks", f"{summary['n_rpeaks']:,}")
    rejected = [f"{name} {count:,}" for name, count in summary["not_decided"].items()]
    table.add_row("not decided", ", ".join(rejected) or "none")
    table.add_row("gaps", f"{summary['n_gaps']:,}, {summary['missing_s']:.1f} s missing")
    if (delay := summary["delay_s"])["p50"] is not None:
        computed = 1000 * summary["longest_computation_s"]
        table.add_row(
            "delay", f"{delay['p50']:.1f} s, at most {delay['max']:.1f} s; computed in at most {computed:.0f} ms"
        )
    return table


def format_time(seconds: float) -> str:
    """Write a time as hours, minutes and seconds."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}"
