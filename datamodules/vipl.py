"""VIPL-HR: face videos of many situations and cameras, with heart rate and an oximeter's wave.

Niu et al. 2018, VIPL-HR: a multi-modal database for pulse estimation from less-constrained face video,
10.1007/978-3-030-20873-8_36. ``data/pN/vM/sourceS/`` (a second session's folders are ``vM-2``) holds ``video.avi``,
``gt_HR.csv`` (1 Hz), ``wave.csv`` (60 Hz) and ``time.txt`` (ms of each frame), which source 2 lacks (30 frames per
second); source 4 is infrared.
"""

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.ground_truth import check_span, check_times, parse_numbers, resample, resample_rate
from datamodules.origin import find_kind
from datamodules.video_files import check_fps, probe_video, read_frames
from datamodules.video_records import VideoEntry, VideoListing, VideoRecord

VIDEO, RATES, WAVE, TIMES = "video.avi", "gt_HR.csv", "wave.csv", "time.txt"
WAVE_HZ, RATE_HZ, FPS_WITHOUT_TIMES = 60.0, 1.0, 30.0
INFRARED_SOURCE = 4
HOW_TO_GET = (
    "VIPL-HR is not downloaded by this project: ask for it, with its signed agreement, at https://vipl.ict.ac.cn"
    " (resources, databases, VIPL-HR) and lay it out as <root>/data/p1/v1/source1/video.avi with gt_HR.csv, wave.csv"
    " and time.txt beside it"
)


def read_vipl(root: Path | str, *, sources: Collection[int] = (1, 2, 3)) -> Iterator[VideoRecord]:
    """Read the records one after the other; see `list_vipl`.

    Yields
    ------
    VideoRecord
        Frame times and ground truth; its frames are streamed when asked for.
    """
    for entry in list_vipl(root, sources=sources).entries:
        yield entry.read()


def list_vipl(root: Path | str | None, *, sources: Collection[int] = (1, 2, 3)) -> VideoListing:
    """List the records of some cameras.

    Parameters
    ----------
    root : Path or str
        Folder of ``data``, or that folder itself.
    sources : collection of int
        Cameras: 1 webcam, 2 phone, 3 RealSense in colour, 4 RealSense in infrared.

    Returns
    -------
    VideoListing
        One entry per video; how many of other cameras were left out is in its counts.

    Raises
    ------
    FileNotFoundError
        If there is no video; the message says how to get the data set.
    """
    if root is None:
        raise FileNotFoundError(f"datamodule.root, or test_root, is not set. {HOW_TO_GET}")
    folder = Path(root).expanduser().absolute()
    base = folder / "data" if (folder / "data").is_dir() else folder
    videos = list(base.glob(f"p*/v*/source*/{VIDEO}"))
    wanted = {f"source{source}" for source in sources}
    places = sorted((path.parent for path in videos if path.parent.name in wanted), key=_by_numbers)
    if not places:
        raise FileNotFoundError(
            f"no p*/v*/source*/{VIDEO} of {sorted(wanted)!r} (datamodule.source.sources) under {str(base)!r}"
            f" (datamodule.root, or test_root). {HOW_TO_GET}"
        )
    entries = []
    for place in places:
        record_id = place.relative_to(base).as_posix()
        files = tuple(place / name for name in (VIDEO, RATES, WAVE, TIMES) if (place / name).is_file())
        entries.append(VideoEntry(record_id, place.parts[-3], files, partial(_read, place, record_id)))
    counts = {"listed": len(videos), "other_cameras": len(videos) - len(places)}
    return VideoListing("vipl", tuple(entries), find_kind(folder), counts)


def _by_numbers(place: Path) -> tuple[tuple[int, str], ...]:
    return tuple((int("".join(filter(str.isdigit, part.split("-")[0])) or 0), part) for part in place.parts[-3:])


def _read(place: Path, record_id: str) -> VideoRecord:
    times_s, notes = _read_times(place, record_id)
    fps = check_fps((len(times_s) - 1) / float(times_s[-1]), record_id)
    hr_bpm = _read_column(place / RATES, record_id, "HR")
    check_span(len(hr_bpm) / RATE_HZ, float(times_s[-1]), place / RATES, record_id)
    rate = resample_rate(np.arange(len(hr_bpm)) / RATE_HZ, hr_bpm, times_s, place / RATES, record_id)
    bvp = None
    if (place / WAVE).is_file():
        wave = _read_column(place / WAVE, record_id, "Wave")
        check_span(len(wave) / WAVE_HZ, float(times_s[-1]), place / WAVE, record_id)
        bvp = resample(np.arange(len(wave)) / WAVE_HZ, wave, times_s)
    else:
        notes += ("no_wave",)
    return VideoRecord(
        record_id=record_id,
        subject_id=place.parts[-3],
        fps=fps,
        times_s=times_s,
        stream=partial(read_frames, place / VIDEO, record_id, len(times_s)),
        bvp=bvp,
        hr_bpm=rate,
        mean_hr_bpm=float(np.nanmean(rate)),
        infrared=place.name == f"source{INFRARED_SOURCE}",
        notes=notes,
    )


def _read_times(place: Path, record_id: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the times of the frames in seconds, and notes about them."""
    # Only the number of frames is taken from the container: its tag says 30 whatever the camera did.
    n_frames = len(probe_video(place / VIDEO, record_id, fps=FPS_WITHOUT_TIMES).times_s)
    path = place / TIMES
    if not path.is_file():
        return np.arange(n_frames) / FPS_WITHOUT_TIMES, ("no_times",)
    times_ms = parse_numbers(path.read_text(encoding="ascii", errors="replace").split(), path, record_id, "time")
    times_s = check_times((times_ms - times_ms[0]) / 1000, path, record_id)
    # The first and last frames are missing from one of them now and then.
    if abs(len(times_s) - n_frames) > max(2, 0.01 * n_frames):
        raise ValueError(
            f"record {record_id!r}: {VIDEO} has {n_frames} frames and {TIMES} {len(times_s)} times, expected as many:"
            f" one of them is cut"
        )
    steps = np.diff(times_s)
    variable = float(np.abs(steps - np.median(steps)).max()) > 0.1 * float(np.median(steps))
    return times_s[:n_frames], ("variable_frame_rate",) if variable else ()


def _read_column(path: Path, record_id: str, header: str) -> NDArray[np.float64]:
    if not path.is_file():
        raise FileNotFoundError(f"record {record_id!r} has no {path.name}. {HOW_TO_GET}")
    lines = path.read_text(encoding="utf-8-sig", errors="replace").split()
    if not lines or lines[0].strip(",").lower() != header.lower():
        raise ValueError(
            f"record {record_id!r}: {path.name} begins with {lines[:1]!r}, expected a column named {header!r}"
        )
    return parse_numbers([line.strip(",") for line in lines[1:]], path, record_id, header)
