"""A watched video on the terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from composition.live_pulse import PulseUpdate
from composition.live_pulse_record import PulseTotals
from composition.live_view import REFRESH_S, format_time
from datamodules.live_pulse import Reading

GOOD_DB, FAIR_DB = 3.0, -3.0
NOTEWORTHY_REPEATS = 0.1


@contextmanager
def open_pulse_view(console: Console, title: str) -> Iterator[Callable[[PulseTotals, PulseUpdate, int], None]]:
    """Draw heart rate, quality, frames per second and dropped frames while a video runs, a few times a second.

    Parameters
    ----------
    console : Console
        Where to draw.
    title : str
        What is shown.

    Yields
    ------
    callable
        To be called with the totals, each update and the number of dropped frames.
    """
    drawn = -REFRESH_S

    def show(totals: PulseTotals, update: PulseUpdate, n_dropped: int) -> None:
        nonlocal drawn
        if time.monotonic() - drawn >= REFRESH_S:
            drawn = time.monotonic()
            view.update(draw_moment(title, totals, update, n_dropped), refresh=True)

    with Live(console=console, auto_refresh=False, transient=True) as view:
        yield show


def draw_moment(title: str, totals: PulseTotals, update: PulseUpdate, n_dropped: int) -> Table:
    """Lay out the state of the moment."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_row("video", f"{format_time(totals.arrived_s)}, {totals.fps:.0f} frames/s, {n_dropped:,} dropped")
    there = update.crop is not None and not update.crop.missed
    table.add_row("face", "found" if there else "[red]none[/red]")
    table.add_row("heart rate", name_rate(totals.latest))
    if totals.latest is not None:
        table.add_row("quality", name_quality(totals.latest.quality_db))
    return table


def draw_result(title: str, summary: dict[str, Any]) -> Table:
    """Lay out a summary, see `composition.live_pulse_record.PulseTotals.describe`."""
    table = Table(title=title, show_header=False, title_justify="left")
    rate = summary["hr_bpm"]
    table.add_row("heart rate", "none" if rate is None else f"{rate:.1f} bpm, median of {summary['n_windows']} windows")
    if summary["quality"] is not None:
        table.add_row("quality", name_quality(summary["quality"]))
    table.add_row(
        "video",
        f"{format_time(summary['duration_s'])}, {summary['n_frames']:,} frames, {summary['dropped_frames']:,} dropped,"
        f" no face in {100 * summary['miss_rate']:.0f} %",
    )
    if (repeated := summary["repeat_rate"]) >= NOTEWORTHY_REPEATS:
        text = f"{100 * repeated:.0f} % of the frames repeat the one before; repeats=bridge reads across"
        table.add_row("pictures", text)
    stages = [
        f"{name} {ms:.2f} ms ({100 * summary['stage_share'][name]:.0f} %)" for name, ms in summary["stage_ms"].items()
    ]
    table.add_row("a frame takes", ", ".join(stages))
    over, decoded = summary["time_over_video"], summary["time_over_video_decoded"]
    if over is not None:
        text = f"{100 * over:.1f} % without decoding" + (f", {100 * decoded:.1f} % with" if decoded else "")
        table.add_row("time over video", text)
    return table


def name_rate(reading: Reading | None) -> str:
    """Write a heart rate."""
    if reading is None or reading.hr_bpm != reading.hr_bpm:
        return "not yet"
    return f"{reading.hr_bpm:.0f} bpm" + ("" if reading.whole else f" (of {reading.end_s - reading.start_s:.0f} s)")


def name_quality(quality_db: float) -> str:
    """Write a quality, with a word for it."""
    word = "good" if quality_db >= GOOD_DB else "fair" if quality_db >= FAIR_DB else "poor"
    return f"{quality_db:.1f} dB, {word}"
