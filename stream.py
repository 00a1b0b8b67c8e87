"""Run a deployed model over a live signal: ``python stream.py artifact=model.onnx source=record.hea``.

``source`` is an ECG, as a WFDB header (``record.hea``), ``stdin`` or ``serial:/dev/ttyUSB0``; or a video of a face, as
a file, the number of a camera (``0``) or ``rtsp://…``. Decisions, or heart rates, go to the terminal, and with
``record=out.json`` to a file; ``page=true`` shows a video's pulse on a local page. A video needs no ``artifact``: the
TS-CAN that ``make weights`` installs reads it. All other options, with what they default to, are the fields of
`StreamOptions`.
"""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table

from composition.live_ecg import LiveModel, LiveOptions, choose_leads, decide_stream, open_model
from composition.live_file import ListFile
from composition.live_record import Totals, describe_decision
from composition.live_view import draw, open_view
from datamodules.live_lines import LineFormat, open_pipe, open_serial
from datamodules.live_source import Chunks, LiveSource, LiveSourceError, open_record
from datamodules.live_video import is_video, open_video
from deploy.artifact import ArtifactError

VIEWS = ("auto", "live", "summary", "none")
WEIGHTS = Path(__file__).resolve().parent / "weights"


@dataclass
class StreamOptions:
    """Options of the command line, ``name=value``."""

    source: str = MISSING  # record.hea, stdin, serial:/dev/ttyUSB0; video.mp4, 0 (a camera), rtsp://…
    artifact: str | None = None  # model file, as train.py exports it; of a video the installed TS-CAN by default
    record: str | None = None  # JSON file for decisions or heart rates, with counts, delay and speed
    speed: float | None = None  # of a record or video: times real time; as fast as it goes by default
    threads: int = 1  # of the runtime
    view: str = "auto"  # auto: live on a terminal, else summary; or live, summary, none

    # Of an ECG.
    lead_names: list[str] | None = None  # leads to take in the place of the model's
    resample: bool = False  # a stream of another sampling frequency is resampled, not refused
    stride: int | None = None  # samples or RR intervals between windows; they do not overlap by default
    thresholds: list[float] | None = None  # of classes that do not exclude each other; 0.5
    block_s: float = 4.0  # how often R peaks are looked for
    fs: float | None = None  # stdin and serial: sampling frequency in Hz
    format: str = "csv"  # stdin and serial: csv or f32 (little-endian float32)
    columns: list[str] | None = None  # stdin and serial: the leads that each sample holds; those that are taken
    unit: str = "mV"  # stdin and serial: mV, uV or V
    baud: int = 115200  # serial

    # Of a video.
    weights: str = "pure"  # installed TS-CAN: trained on pure or rlap
    precision: str = "int8"  # of it: int8 or float32
    detector: str = "auto"  # of faces: ssd, cascade; auto is the SSD where it is installed
    window_s: float = 10.0  # of a heart rate
    step_s: float = 1.0  # from one window to the next
    method: str = "fft"  # autocorrelation, peaks
    repeats: str = "keep"  # frames that repeat the one before; bridge puts a straight line in their place
    fps: float | None = None  # frames per second of a file that does not tell its own
    queue: int = 16  # frames that wait; a camera's are dropped then, a file is read later
    page: bool = False  # a page on 127.0.0.1; a file is then played at speed=1 by default
    port: int = 8765  # of the page; 0 takes a free one


# By position in the class: what belongs to one kind of source is refused with the other.
_NAMES = tuple(StreamOptions.__annotations__)
_OF_ECG = _NAMES[_NAMES.index("lead_names") : _NAMES.index("weights")]
_OF_VIDEO = _NAMES[_NAMES.index("weights") :]


def run(options: StreamOptions, console: Console | None = None) -> dict[str, Any]:
    """Run a stream until it ends or is interrupted.

    Parameters
    ----------
    options : StreamOptions
        What to run on what.
    console : Console, optional
        Where to draw; nothing is drawn by default.

    Returns
    -------
    dict
        The summary, with ``problems`` of the source and whether it was ``interrupted``.

    Raises
    ------
    ArtifactError, LiveSourceError, ValueError, OSError, ImportError
        If model, source or an option is not as expected.
    """
    video = is_video(options.source)
    check_kind(options, video)
    return run_video(options, console) if video else run_ecg(options, console)


def check_kind(options: StreamOptions, video: bool) -> None:
    """Refuse options that mean nothing to the source."""
    for name in _OF_ECG if video else _OF_VIDEO:
        if getattr(options, name) != getattr(StreamOptions, name):
            what = "an ECG, and the source is a video" if video else "a video, and the source is none"
            raise LiveSourceError(f"{name}={getattr(options, name)} is for {what}: leave it out")


def run_video(options: StreamOptions, console: Console | None = None) -> dict[str, Any]:
    """Read the pulse of a face in a video; see `run`."""
    from composition.live_models import find_published, open_pulse_model
    from composition.live_pulse import PulseOptions, make_stage
    from composition.live_watch import WatchOptions, watch_video

    path = options.artifact or find_published(WEIGHTS, options.weights, options.precision)
    model = open_pulse_model(path, options.threads)
    speed = options.speed
    if options.page and speed is None and Path(options.source).is_file():
        speed = 1.0
    video = open_video(options.source, model.contract.fs, fps=options.fps, speed=speed)
    watch = WatchOptions(
        record=None if options.record is None else Path(options.record),
        console=console if is_shown_live(options, console) else None,
        page_port=options.port if options.page else None,
        announce=lambda address: print(f"page: {address}", file=sys.stderr, flush=True),
        queue=options.queue,
        on_time=speed is not None,
    )
    pulse = PulseOptions(
        window_s=options.window_s, step_s=options.step_s, method=options.method, repeats=options.repeats
    )
    return watch_video(video, model, make_stage(options.detector, WEIGHTS), pulse, watch)


def is_shown_live(options: StreamOptions, console: Console | None) -> bool:
    """Tell whether the stream is drawn while it runs."""
    return console is not None and (options.view == "live" or (options.view == "auto" and console.is_terminal))


def run_ecg(options: StreamOptions, console: Console | None = None) -> dict[str, Any]:
    """Decide about an ECG; see `run`."""
    if options.artifact is None:
        raise LiveSourceError(f"source={options.source} needs artifact=<model file>, as train.py exports it")
    live_options = LiveOptions(
        resample=options.resample,
        stride=options.stride,
        thresholds=None if options.thresholds is None else tuple(options.thresholds),
        block_s=options.block_s,
    )
    model = open_model(options.artifact, options.threads)
    leads = choose_leads(model.contract, options.lead_names)
    source = find_opener(options.source)(options, leads)
    if options.speed is not None:
        source = replace(source, chunks=pace(source, options.speed))
    updates = decide_stream(source, model, live_options)
    totals, interrupted = Totals(), False
    with ExitStack() as stack:
        file = None
        if options.record:
            file = stack.enter_context(ListFile(Path(options.record), describe(options, model, source), "decisions"))
        show = None
        if console and is_shown_live(options, console):
            show = stack.enter_context(open_view(console, f"{source.name} | {model.path.name}"))
        try:
            for update in updates:
                totals.add(update)
                if file:
                    for decision in update.decisions:
                        file.add(describe_decision(decision))
                if show:
                    show(totals, update)
        except KeyboardInterrupt:
            interrupted = True
        source.chunks.close()  # the last problems are known then
        summary = {**totals.describe(), "interrupted": interrupted, "problems": source.problems}
        if file:
            file.finish({"summary": summary})
    return summary


def find_opener(source: str) -> Callable[[StreamOptions, tuple[str, ...]], LiveSource]:
    """Choose what opens a source, by its name.

    Raises
    ------
    LiveSourceError
        If nothing opens it.
    """
    if source.endswith(".hea"):
        return lambda options, leads: open_record(Path(options.source), leads)
    if source == "stdin":
        return lambda options, leads: open_pipe(0, "stdin", line_format(options, leads), leads)
    if source.startswith("serial:"):
        port = source.removeprefix("serial:")
        return lambda options, leads: open_serial(port, options.baud, line_format(options, leads), leads)
    raise LiveSourceError(
        f"source is {source!r}, expected record.hea, stdin, serial:<port>, a video file,"
        " the number of a camera, or rtsp://…"
    )


def line_format(options: StreamOptions, leads: tuple[str, ...]) -> LineFormat:
    """Say how samples of a pipe or a port are written."""
    if options.fs is None:
        raise LiveSourceError(f"source={options.source} does not tell its sampling frequency: say fs=<Hz>")
    return LineFormat(options.fs, tuple(options.columns or leads), options.format, options.unit)


def pace(source: LiveSource, speed: float) -> Chunks:
    """Hand out a source at so many times real time, in parts of a quarter second."""
    if not speed > 0:
        raise LiveSourceError(f"speed is {speed!r}, expected more than 0")
    began, done, step = time.monotonic(), 0, max(1, round(source.fs / 4))
    for chunk in source.chunks:
        for first in range(0, chunk.shape[1], step):
            part = chunk[:, first : first + step]
            done += part.shape[1]
            time.sleep(max(0.0, began + done / source.fs / speed - time.monotonic()))
            yield part


def describe(options: StreamOptions, model: LiveModel, source: LiveSource) -> dict[str, Any]:
    """Say what the decisions are of."""
    contract = model.contract
    return {
        "artifact": model.path.name,
        "source": source.name,
        "fs": source.fs,
        "lead_names": list(source.lead_names),
        "level": contract.level,
        "class_names": list(contract.class_names),
        "trained_on": contract.data,
        "resampled_to": contract.fs if options.resample and source.fs != contract.fs else None,
        "note": "not a medical device",
    }


def parse_options(arguments: Sequence[str]) -> StreamOptions:
    """Read ``name=value`` arguments.

    Raises
    ------
    LiveSourceError
        If one is unknown, missing or of another type.
    """
    try:
        given = OmegaConf.from_cli(list(arguments))
        options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(StreamOptions), given))
    except OmegaConfBaseException as error:
        first = str(error).splitlines()[0]
        raise LiveSourceError(f"{first}; expected name=value of {', '.join(StreamOptions.__annotations__)}") from error
    assert isinstance(options, StreamOptions)
    if options.view not in VIEWS:
        raise LiveSourceError(f"view is {options.view!r}, expected one of {VIEWS!r}")
    return options


def draw_end(options: StreamOptions, summary: dict[str, Any]) -> Table:
    """Lay out the summary of either kind of source."""
    if not is_video(options.source):
        return draw(f"{options.source}: done", summary)
    from composition.live_pulse_view import draw_result

    # A network address may hold a password.
    return draw_result(f"{options.source.rpartition('@')[2]}: done", summary)


def main(arguments: Sequence[str]) -> int:
    """Run one stream; 1 if the source was not as it should be, 2 if nothing could be run."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__, "\n".join(f"  {name}: {kind}" for name, kind in StreamOptions.__annotations__.items()), sep="\n")
        return 0 if arguments else 2
    console = Console(stderr=True)
    try:
        options = parse_options(arguments)
        summary = run(options, console)
    except (ArtifactError, ImportError, OSError, ValueError) as error:
        console.print(f"stream.py: {error}", style="red", markup=False, highlight=False)
        return 2
    if options.view != "none":
        Console().print(draw_end(options, summary))
    for problem in summary["problems"]:
        console.print(f"stream.py: {problem}", style="red", markup=False, highlight=False)
    return 1 if summary["problems"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
