"""UBFC-rPPG: uncompressed face videos with a finger oximeter's wave, both published parts.

Bobbia et al. 2019, Unsupervised skin tissue segmentation for remote photoplethysmography, 10.1016/j.patrec.2017.10.017.
DATASET_2 has folders ``subjectN`` with ``vid.avi`` and ``ground_truth.txt`` (rows: wave, heart rate, seconds);
DATASET_1 folders such as ``5-gt`` with ``vid.avi`` and ``gtdump.xmp`` (lines: ms, heart rate, oxygen saturation, wave).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.ground_truth import check_span, check_times, parse_numbers, resample, resample_rate
from datamodules.origin import find_kind
from datamodules.video_files import probe_video, read_frames
from datamodules.video_records import VideoEntry, VideoListing, VideoRecord

VIDEO, TRUTH_1, TRUTH_2 = "vid.avi", "gtdump.xmp", "ground_truth.txt"
HOW_TO_GET = (
    "UBFC-rPPG is not downloaded by this project: ask its authors for it at"
    " https://sites.google.com/view/ybenezeth/ubfcrppg and lay it out as <root>/subject1/vid.avi with"
    " <root>/subject1/ground_truth.txt (DATASET_2), or <root>/5-gt/vid.avi with <root>/5-gt/gtdump.xmp (DATASET_1);"
    " both may lie together, in folders DATASET_1 and DATASET_2"
)


def read_ubfc(root: Path | str, *, fps: float | None = None) -> Iterator[VideoRecord]:
    """Read the records one after the other; see `list_ubfc`.

    Yields
    ------
    VideoRecord
        Frame times and ground truth; its frames are streamed when asked for.
    """
    for entry in list_ubfc(root, fps=fps).entries:
        yield entry.read()


def list_ubfc(root: Path | str | None, *, fps: float | None = None) -> VideoListing:
    """List the records of one or both parts.

    Parameters
    ----------
    root : Path or str
        Folder of the subjects' folders, or of ``DATASET_1`` and ``DATASET_2``.
    fps : float, optional
        Frames per second, where the videos' own tags are known to be wrong.

    Returns
    -------
    VideoListing
        One entry per video, in the order of the subjects' numbers.

    Raises
    ------
    FileNotFoundError
        If there is no video; the message says how to get the data set.
    """
    if root is None:
        raise FileNotFoundError(f"datamodule.root, or test_root, is not set. {HOW_TO_GET}")
    folder = Path(root).expanduser().absolute()
    videos = [path for pattern in (f"*/{VIDEO}", f"DATASET_[12]/*/{VIDEO}") for path in folder.glob(pattern)]
    if not videos:
        raise FileNotFoundError(f"no */{VIDEO} under {str(folder)!r} (datamodule.root, or test_root). {HOW_TO_GET}")
    folders = sorted((video.parent for video in videos), key=lambda path: (path.parent.name, *_by_number(path.name)))
    entries = []
    for place in folders:
        record_id = place.relative_to(folder).as_posix()
        truth = place / (TRUTH_1 if (place / TRUTH_1).is_file() else TRUTH_2)
        read = partial(_read, place / VIDEO, truth, record_id, fps)
        entries.append(VideoEntry(record_id, record_id, (place / VIDEO, truth), read))
    return VideoListing("ubfc", tuple(entries), find_kind(folder), {"listed": len(entries)})


def _by_number(name: str) -> tuple[int, str]:
    digits = "".join(letter for letter in name if letter.isdigit())
    return int(digits) if digits else 0, name


def _read(video: Path, truth: Path, record_id: str, fps: float | None) -> VideoRecord:
    if not truth.is_file():
        raise FileNotFoundError(f"record {record_id!r} has a {VIDEO} and neither {TRUTH_1} nor {TRUTH_2}. {HOW_TO_GET}")
    facts = probe_video(video, record_id, fps=fps)
    times_s, hr_bpm, wave = (_parse_1 if truth.name == TRUTH_1 else _parse_2)(truth, record_id)
    check_times(times_s, truth, record_id)
    check_span(float(times_s[-1]), float(facts.times_s[-1]), truth, record_id)
    rate = resample_rate(times_s, hr_bpm, facts.times_s, truth, record_id)
    return VideoRecord(
        record_id=record_id,
        subject_id=record_id,
        fps=facts.fps,
        times_s=facts.times_s,
        stream=partial(read_frames, video, record_id, len(facts.times_s)),
        bvp=resample(times_s, wave, facts.times_s),
        hr_bpm=rate,
        mean_hr_bpm=float(np.nanmean(rate)),
        notes=("variable_frame_rate",) if facts.variable else (),
    )


def _parse_2(path: Path, record_id: str) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    rows = [line.split() for line in path.read_text(encoding="ascii", errors="replace").splitlines() if line.strip()]
    if len(rows) != 3 or len({len(row) for row in rows}) != 1:
        raise ValueError(
            f"record {record_id!r}: {path.name} has rows of {[len(row) for row in rows]!r} numbers, expected three rows"
            f" (wave, heart rate, seconds) of the same length: the file is cut"
        )
    wave, hr_bpm, times_s = (
        parse_numbers(row, path, record_id, what)
        for row, what in zip(rows, ("wave", "heart rate", "time"), strict=True)
    )
    return times_s - times_s[0], hr_bpm, wave


def _parse_1(path: Path, record_id: str) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    lines = [
        line.split(",") for line in path.read_text(encoding="ascii", errors="replace").splitlines() if line.strip()
    ]
    if bad := [number for number, line in enumerate(lines) if len(line) < 4]:
        raise ValueError(
            f"record {record_id!r}: line {bad[0] + 1} of {path.name} has {len(lines[bad[0]])} values, expected ms,"
            f" heart rate, oxygen saturation, wave"
        )
    times_ms, hr_bpm, wave = (
        parse_numbers([line[column] for line in lines], path, record_id, what)
        for column, what in ((0, "time"), (1, "heart rate"), (3, "wave"))
    )
    return (times_ms - times_ms[0]) / 1000, hr_bpm, wave
