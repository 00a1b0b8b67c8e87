"""VIPL-HR-V2: five short face videos a person, with the mean heart rate of each; there is no wave.

The challenge set of RePSS (Li et al. 2020, The 1st Challenge on Remote Physiological Signal Sensing).
``<subject>/gt.csv`` has a column per video and rows ``Heart rate`` and ``fps_mean``; the videos are
``video1.mp4.avi`` to ``video5.mp4.avi``, of 17 to 27 frames per second whatever their tags say.
"""

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from datamodules.ground_truth import LEAST_BPM, MOST_BPM, parse_numbers
from datamodules.origin import find_kind
from datamodules.video_files import probe_video, read_frames
from datamodules.video_records import VideoEntry, VideoListing, VideoRecord

TRUTH, ENDING = "gt.csv", ".mp4.avi"
RATE_ROW, FPS_ROW = "heart rate", "fps_mean"
HOW_TO_GET = (
    "VIPL-HR-V2 is not downloaded by this project: ask for it, with its signed agreement, at https://vipl.ict.ac.cn"
    " (resources, databases, VIPL-HR-V2) and lay it out as <root>/<subject>/gt.csv with"
    " <root>/<subject>/video1.mp4.avi to video5.mp4.avi"
)


def read_vipl_v2(root: Path | str) -> Iterator[VideoRecord]:
    """Read the records one after the other; see `list_vipl_v2`.

    Yields
    ------
    VideoRecord
        Frame times and mean heart rate; its frames are streamed when asked for.
    """
    for entry in list_vipl_v2(root).entries:
        yield entry.read()


def list_vipl_v2(root: Path | str | None) -> VideoListing:
    """List the records.

    Parameters
    ----------
    root : Path or str
        Folder of the subjects' folders.

    Returns
    -------
    VideoListing
        One entry per video.

    Raises
    ------
    FileNotFoundError
        If there is no video; the message says how to get the data set.
    """
    if root is None:
        raise FileNotFoundError(f"datamodule.root, or test_root, is not set. {HOW_TO_GET}")
    folder = Path(root).expanduser().absolute()
    videos = sorted(folder.glob(f"*/video*{ENDING}"), key=lambda path: (len(path.parent.name), path))
    if not videos:
        raise FileNotFoundError(
            f"no */video*{ENDING} under {str(folder)!r} (datamodule.root, or test_root). {HOW_TO_GET}"
        )
    entries = []
    for video in videos:
        column = video.name.removesuffix(ENDING)
        record_id, truth = f"{video.parent.name}/{column}", video.parent / TRUTH
        read = partial(_read, video, truth, record_id, column)
        entries.append(VideoEntry(record_id, video.parent.name, (video, truth), read))
    return VideoListing("vipl_v2", tuple(entries), find_kind(folder), {"listed": len(entries)})


def _read(video: Path, truth: Path, record_id: str, column: str) -> VideoRecord:
    hr_bpm, fps = _parse(truth, record_id, column)
    if not LEAST_BPM <= hr_bpm <= MOST_BPM:
        raise ValueError(
            f"record {record_id!r}: heart rate in {TRUTH} is {hr_bpm:g}, expected {LEAST_BPM:g} to {MOST_BPM:g} bpm"
        )
    facts = probe_video(video, record_id, fps=fps)
    return VideoRecord(
        record_id=record_id,
        subject_id=video.parent.name,
        fps=fps,
        times_s=facts.times_s,
        stream=partial(read_frames, video, record_id, len(facts.times_s)),
        mean_hr_bpm=hr_bpm,
        notes=("no_wave", "no_times"),
    )


def _parse(path: Path, record_id: str, column: str) -> tuple[float, float]:
    """Return mean heart rate in bpm and mean frames per second of one video."""
    if not path.is_file():
        raise FileNotFoundError(f"record {record_id!r} has no {TRUTH}. {HOW_TO_GET}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = {row[0].strip().lower(): [cell.strip() for cell in row[1:]] for row in csv.reader(file) if row}
    names = table.get("", [])
    if column not in names:
        raise ValueError(f"record {record_id!r}: {TRUTH} has the columns {names!r}, expected one named {column!r}")
    cells = []
    for row in (RATE_ROW, FPS_ROW):
        values = table.get(row, [])
        if len(values) <= names.index(column):
            raise ValueError(
                f"record {record_id!r}: {TRUTH} has no {row!r} for {column!r}; its rows are {sorted(table)!r}"
            )
        cells.append(float(parse_numbers([values[names.index(column)]], path, record_id, row)[0]))
    return cells[0], cells[1]
