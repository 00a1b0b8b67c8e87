"""One watched video from its opening to its summary: joins source, net, file, terminal and page."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from composition.live_file import ListFile
from composition.live_models import PulseModel
from composition.live_pulse import PulseOptions, PulseUpdate, PulseWatcher
from composition.live_pulse_record import PulseTotals, describe_reading
from composition.live_pulse_view import open_pulse_view
from datamodules.faces import FaceStage
from datamodules.live_video import FrameQueue, LiveVideo


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """Where the pulse of a video goes.

    Attributes
    ----------
    record : Path, optional
        JSON file.
    console : Console, optional
        Terminal to draw on while the video runs.
    page_port : int, optional
        Port of a local page; none is served by default.
    announce : callable, optional
        Told the page's address.
    queue : int
        Most frames that wait.
    on_time : bool
        Whether reading waits for the clock.
    """

    record: Path | None = None
    console: Console | None = None
    page_port: int | None = None
    announce: Callable[[str], None] | None = None
    queue: int = 16
    on_time: bool = False


def watch_video(
    video: LiveVideo, model: PulseModel, stage: FaceStage, pulse: PulseOptions, options: WatchOptions
) -> dict[str, Any]:
    """Read the pulse of a video until it ends or is interrupted.

    Parameters
    ----------
    video : LiveVideo
        What to watch.
    model : PulseModel
        What reads the pulse.
    stage : FaceStage
        How faces are found.
    pulse : PulseOptions
        How heart rates are read.
    options : WatchOptions
        Where they go.

    Returns
    -------
    dict
        See `PulseTotals.describe`; with ``problems``, and whether it was ``interrupted``. There is no heart rate where
        no face, too short a stretch of it, or too little of it was seen: a problem then says so.

    Raises
    ------
    FileNotFoundError, ImportError, OSError, ValueError
        If nothing could be read, or an option does not fit.
    """
    watcher, totals, interrupted = PulseWatcher(model, stage, pulse), PulseTotals(), False
    title = f"{video.name} | {model.path.name}"
    with ExitStack() as stack:
        file = None
        if options.record:
            file = stack.enter_context(ListFile(options.record, describe_run(video, model, pulse), "windows"))
        shows: list[Callable[[PulseTotals, PulseUpdate, int], None]] = []
        if options.console:
            shows.append(stack.enter_context(open_pulse_view(options.console, title)))
        if options.page_port is not None:
            from composition.live_page import open_page

            address, show = stack.enter_context(open_page(title, options.page_port))
            shows.append(show)
            if options.announce:
                options.announce(address)
        frames = stack.enter_context(FrameQueue(video, options.queue))

        def take(update: PulseUpdate) -> None:
            totals.add(update)
            if file:
                for reading in update.readings:
                    file.add(describe_reading(reading))
            for show in shows:
                show(totals, update, frames.n_dropped)

        try:
            for update in watcher.watch(frames):
                take(update)
        except KeyboardInterrupt:
            interrupted = True
            take(PulseUpdate(None, None, watcher.finish()))
        summary = totals.describe(watcher, frames, on_time=options.on_time or video.live)
        problems = [] if frames.problem is None else [frames.problem]
        if (refusal := find_refusal(video, totals, watcher, stage)) is not None:
            problems.append(refusal)
            summary["hr_bpm"] = summary["quality"] = None
        summary |= {"interrupted": interrupted, "problems": problems}
        if file:
            file.finish(summary)
    return summary


def find_refusal(video: LiveVideo, totals: PulseTotals, watcher: PulseWatcher, stage: FaceStage) -> str | None:
    """Say why a video has no heart rate, if it has none."""
    if totals.n_missed == totals.n_frames:
        return (
            f"{video.name} shows no face in {totals.n_frames} frames: more light, the face to the camera, or detector="
        )
    if totals.miss_rate > stage.max_miss_rate:
        return (
            f"{video.name} shows no face in {totals.miss_rate:.0%} of its frames, at most {stage.max_miss_rate:.0%} are"
            f" allowed: no heart rate of the whole is given"
        )
    if totals.find_rate()[0] is None:
        return (
            f"{video.name} shows a face for {watcher.longest_s:.1f} s at a time, a heart rate needs"
            f" {watcher.least_s:.1f} s"
        )
    return None


def describe_run(video: LiveVideo, model: PulseModel, pulse: PulseOptions) -> dict[str, Any]:
    """Say what the heart rates are of."""
    contract = model.contract
    return {
        "source": video.name,
        "live": video.live,
        "artifact": model.path.name,
        "precision": model.precision,
        "trained_on": contract.dataset,
        "data": contract.data,
        "fs": contract.fs,
        "band_hz": list(contract.band_hz),
        "window_s": pulse.window_s,
        "step_s": pulse.step_s,
        "method": pulse.method,
        "repeats": pulse.repeats,
        "note": "not a medical device",
    }
