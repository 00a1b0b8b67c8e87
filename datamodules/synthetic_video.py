"""Small valid data sets of simulated face videos, in the layouts of UBFC-rPPG and VIPL-HR, read by their readers."""

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from datamodules import simulated_face
from datamodules.cache import cached_directory, content_digest
from datamodules.face_detectors import import_cv2
from datamodules.origin import ORIGIN_JSON
from datamodules.processes import count_cores, run_tasks
from datamodules.simulated_face import FacePlan, render_frames, simulate_pulse, simulate_rate
from datamodules.ubfc import list_ubfc
from datamodules.video_records import VideoListing
from datamodules.vipl import INFRARED_SOURCE, list_vipl

log = logging.getLogger(__name__)

# Mean rates from slow to fast: every group of the paper (low < 77 <= middle < 90 <= high) has persons in it.
_RATES_BPM = (54.0, 112.0)
_UBFC_FPS = (30.0, 30.0, 28.7, 25.0)
_VIPL_FPS = {1: 25.0, 2: 30.0, 3: 30.0, INFRARED_SOURCE: 30.0}
# A face that leaves room around it; nods, shaded by a lamp, make the green channel alone wrong.
_plan_scene = partial(FacePlan, face=0.42, nod=0.006, shading=0.015)
_MJPEG_QUALITY = 98  # in between 8-bit steps the pulse lives on the average over many pixels


@dataclass(frozen=True, slots=True)
class _Task:
    root: Path
    subject: int
    hr_bpm: float
    seed: int
    duration_s: float
    sources: tuple[int, ...] = ()


def list_synthetic_ubfc(
    root: Path | str, *, n_subjects: int = 15, duration_s: float = 24.0, synthetic_seed: int = 0
) -> VideoListing:
    """Write a simulated data set in UBFC-rPPG's layout, unless it is there, and list it; see `write_synthetic_ubfc`."""
    return list_ubfc(write_synthetic_ubfc(root, n_subjects=n_subjects, duration_s=duration_s, seed=synthetic_seed))


def list_synthetic_vipl(
    root: Path | str,
    *,
    n_subjects: int = 10,
    duration_s: float = 16.0,
    sources: Collection[int] = (1, 2),
    synthetic_seed: int = 0,
) -> VideoListing:
    """Write a simulated data set in VIPL-HR's layout, unless it is there, and list it; see `write_synthetic_vipl`."""
    folder = write_synthetic_vipl(
        root, n_subjects=n_subjects, duration_s=duration_s, sources=sources, seed=synthetic_seed
    )
    return list_vipl(folder, sources=sources)


def write_synthetic_ubfc(
    root: Path | str, *, n_subjects: int = 15, duration_s: float = 24.0, seed: int = 0, workers: int | None = None
) -> Path:
    """Write a simulated data set in the layouts of both parts of UBFC-rPPG, unless it is there.

    Every fourth person is in DATASET_1's layout, at 28.7 frames per second, the others in DATASET_2's, at 30 and 25.
    Frames are 160 x 120 pixels, in Motion JPEG. The same arguments give the same bytes.

    Parameters
    ----------
    root : Path or str
        Folder of the simulated data sets: each gets a folder of its own, named by a digest of its arguments and of
        the simulation's source.
    n_subjects : int
        Persons, one video each.
    duration_s : float
        Length of a video in seconds.
    seed : int
        Seed of everything drawn.
    workers : int, optional
        Processes; as many as there are cores by default.

    Returns
    -------
    Path
        Folder of the data set.

    Raises
    ------
    ValueError
        If an argument is out of range.
    OSError
        If the disk is full or not writable.
    """
    return _write_set(root, "ubfc", _write_ubfc, n_subjects, duration_s, seed, workers, ())


def write_synthetic_vipl(
    root: Path | str,
    *,
    n_subjects: int = 10,
    duration_s: float = 16.0,
    sources: Collection[int] = (1, 2),
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Write a simulated data set in VIPL-HR's layout, unless it is there.

    Source 1 has 25 uneven frames per second, source 2 has 30 and no ``time.txt``, source 4 is infrared. Text files
    have Windows line ends, as the published ones.

    Parameters
    ----------
    root, n_subjects, duration_s, seed, workers
        See `write_synthetic_ubfc`.
    sources : collection of int
        Cameras.

    Returns
    -------
    Path
        Folder of the data set.

    Raises
    ------
    ValueError
        If an argument is out of range.
    OSError
        If the disk is full or not writable.
    """
    if unknown := sorted(set(sources) - set(_VIPL_FPS)):
        raise ValueError(f"datamodule.source.sources has {unknown!r}, expected some of {sorted(_VIPL_FPS)!r}")
    return _write_set(root, "vipl", _write_vipl, n_subjects, duration_s, seed, workers, tuple(sorted(sources)))


def encode_video(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float) -> int:
    """Write frames as Motion JPEG in AVI and return how many there were.

    Parameters
    ----------
    path : Path
        File to write, ending in ``.avi``.
    frames : iterable of ndarray of uint8, shape (height, width, 3)
        RGB.
    fps : float
        Frames per second, for the file's tag.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    cv2 = import_cv2()
    writer, n_frames = None, 0
    for frame in frames:
        if writer is None:
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (frame.shape[1], frame.shape[0]))
            writer.set(cv2.VIDEOWRITER_PROP_QUALITY, _MJPEG_QUALITY)
        writer.write(frame[:, :, ::-1])
        n_frames += 1
    if writer is not None:
        writer.release()
    if not path.is_file():
        raise OSError(f"could not write the video {str(path)!r}")
    return n_frames


def _write_set(
    root: Path | str,
    layout: str,
    write: Callable[[_Task], None],
    n_subjects: int,
    duration_s: float,
    seed: int,
    workers: int | None,
    sources: tuple[int, ...],
) -> Path:
    if n_subjects < 1 or not duration_s >= 2:
        raise ValueError(
            f"datamodule.source.n_subjects={n_subjects!r} and duration_s={duration_s!r}: expected at least 1 and 2 s"
        )
    origin = {
        "kind": "synthetic",
        "layout": layout,
        "n_subjects": n_subjects,
        "duration_s": duration_s,
        "sources": list(sources),
        "seed": seed,
        "generator": _digest_generator(),
    }

    def build(target: Path) -> None:
        _write_all(target, origin, write, workers or count_cores())

    return cached_directory(Path(root) / f"{layout}_videos", layout, content_digest(origin), build)


def _digest_generator() -> str:
    """Digest of the simulation's source, so that nobody trains on files of an older one."""
    sources = (__file__, simulated_face.__file__)
    return hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources)).hexdigest()


def _write_all(target: Path, origin: Mapping[str, Any], write: Callable[[_Task], None], workers: int) -> None:
    n_subjects = origin["n_subjects"]
    rates = np.random.default_rng(origin["seed"]).permutation(np.linspace(*_RATES_BPM, n_subjects))
    tasks = [
        _Task(target, subject, float(rate), origin["seed"], origin["duration_s"], tuple(origin["sources"]))
        for subject, rate in enumerate(rates, start=1)
    ]
    # A process starts in the time of some hundred frames.
    workers = min(workers, max(1, round(n_subjects * origin["duration_s"] / 60)))
    log.info("simulating face videos of %d persons with %d processes", n_subjects, workers)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task(f"synthetic {origin['layout']}: simulating persons", total=n_subjects)
        run_tasks(write, tasks, workers=workers, collect=lambda _: bar.advance(shown))
    (target / ORIGIN_JSON).write_text(json.dumps(dict(origin), indent=1) + "\n", encoding="utf-8")


def _write_ubfc(task: _Task) -> None:
    rng = np.random.default_rng([task.seed, task.subject])
    fps = _UBFC_FPS[task.subject % len(_UBFC_FPS)]
    first = fps == 28.7
    folder = task.root / (f"{task.subject}-gt" if first else f"subject{task.subject}")
    folder.mkdir()
    times_s = np.arange(round(task.duration_s * fps)) / fps
    # DATASET_1's oximeter has its own clock, DATASET_2's wave has about one value per frame.
    fine_s = np.arange(0, times_s[-1] + 1 / 62, 1 / 62 if first else 1 / fps)
    rate = simulate_rate(rng, fine_s, task.hr_bpm)
    wave = simulate_pulse(rng, fine_s, rate)
    encode_video(folder / "vid.avi", render_frames(rng, _plan_scene(times_s), np.interp(times_s, fine_s, wave)), fps)
    if first:
        rows = zip(np.rint(fine_s * 1000), np.rint(rate), wave * 20 + 50, strict=True)
        text = "".join(f"{ms:.0f},{bpm:.0f},98,{value:.2f}\n" for ms, bpm, value in rows)
        (folder / "gtdump.xmp").write_text(text, encoding="ascii")
    else:
        lines = ["  ".join(f"{value: .7e}" for value in row) for row in (wave, np.rint(rate), fine_s)]
        (folder / "ground_truth.txt").write_text("".join(f" {line}\n" for line in lines), encoding="ascii")


def _write_vipl(task: _Task) -> None:
    for source in task.sources:
        rng = np.random.default_rng([task.seed, task.subject, source])
        folder = task.root / "data" / f"p{task.subject}" / "v1" / f"source{source}"
        folder.mkdir(parents=True)
        fps = _VIPL_FPS[source]
        times_s = np.arange(round(task.duration_s * fps)) / fps
        if source == 1:  # a webcam is early or late
            times_s = times_s + np.concatenate([[0], rng.uniform(-0.3, 0.3, len(times_s) - 1) / fps])
        fine_s = np.arange(0, times_s[-1] + 1 / 60, 1 / 60)
        rate = simulate_rate(rng, fine_s, task.hr_bpm)
        wave = simulate_pulse(rng, fine_s, rate)
        plan = _plan_scene(times_s, infrared=source == INFRARED_SOURCE)
        encode_video(folder / "video.avi", render_frames(rng, plan, np.interp(times_s, fine_s, wave)), 30.0)
        per_second = np.interp(np.arange(np.ceil(times_s[-1])), fine_s, rate)
        _write_lines(folder / "gt_HR.csv", ["HR", *(f"{value:.0f}" for value in per_second)])
        _write_lines(folder / "gt_SpO2.csv", ["SpO2", *("98" for _ in per_second)])
        _write_lines(folder / "wave.csv", ["Wave", *(f"{value * 40 + 60:.0f}" for value in wave)])
        if source != 2:
            _write_lines(folder / "time.txt", [f"{value * 1000:.0f}" for value in times_s])


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode("ascii"))
