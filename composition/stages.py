"""The three stages of paper P1 on a test video, each timed: faces, pulse, rate."""

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.clips import even_positions, make_clips, pack_crop, take_frames
from datamodules.faces import FaceTracker
from datamodules.heart_rate import find_rate
from datamodules.pulse import PulseFilter
from datamodules.video_records import VideoEntry
from deploy.artifact import Artifact, find_target

# Long enough for several clips and detections, short enough to be timed for every file of a job.
VIDEO_S = 12.0


def time_stages(datamodule: Any, artifact: Artifact, pulse: PulseFilter, method: str) -> dict[str, float]:
    """Run a file on the beginning of the first test video, in one thread of its runtime.

    Parameters
    ----------
    datamodule : VideoDataModule
    artifact : Artifact
        Reads clips of the data module.
    pulse : PulseFilter
    method : str
        How the rate is read from the wave, see `datamodules.heart_rate.find_rate`.

    Returns
    -------
    dict of str to float
        ``stages/faces_ms``, ``pulse_ms``, ``rate_ms`` and ``decoding_ms`` a frame; ``_share`` of the first three in
        their sum (0 to 1), which is the time without decoding; ``stages/time_over_video`` without and
        ``stages/time_over_video_decoded`` with decoding.

    Raises
    ------
    ValueError
        If the beginning of the video is shorter than a clip.
    """
    record = find_test_entry(datamodule).read()
    n_wanted = max(round(VIDEO_S * record.fps), int(np.ceil(1.1 * datamodule.n_frames * record.fps / datamodule.fs)))
    tracker = FaceTracker(datamodule.faces, datamodule.image_size)
    spent = dict.fromkeys(("decoding", "faces", "pulse", "rate"), 0.0)
    crops = []
    frames = islice(record.frames(), n_wanted)
    while (frame := _next(frames, spent)) is not None:
        start = time.perf_counter()
        crops.append(pack_crop(tracker.update(frame).image))
        spent["faces"] += time.perf_counter() - start
    times_s = record.times_s[: len(crops)]
    start = time.perf_counter()
    even = take_frames(np.stack(crops), even_positions(times_s, datamodule.fs))
    n = datamodule.n_frames
    pieces = [even[at : at + n + 1] for at in range(0, len(even) - n, n)]
    if not pieces:
        raise ValueError(
            f"record {record.record_id!r}: {len(even)} frames are no clip of datamodule.n_frames={n}: take shorter ones"
        )
    clips = make_clips(np.stack(pieces), datamodule.input_variant)
    spent["faces"] += time.perf_counter() - start
    session = find_target(artifact.path).open_session(artifact.path, threads=1)
    # A first call sets the runtime up; a stream pays for that once.
    session(clips[:1])
    start = time.perf_counter()
    derivative = np.concatenate([session(clip[None]) for clip in clips]).reshape(-1)
    spent["pulse"] = time.perf_counter() - start
    start = time.perf_counter()
    find_rate(pulse(derivative, datamodule.fs), datamodule.fs, method, pulse.band_hz)
    spent["rate"] = time.perf_counter() - start
    return _describe(spent, float(times_s[-1] - times_s[0]), len(crops))


def find_test_entry(datamodule: Any) -> VideoEntry:
    """First video of the test split, as its data set lists it."""
    other = datamodule.test_source is not None
    source, root = (datamodule.test_source, datamodule.test_root) if other else (datamodule.source, datamodule.root)
    # With training data beside, ids of another data set carry a prefix.
    wanted = {str(name).removeprefix("test/") for name in datamodule.record_ids("test")}
    return next(entry for entry in source(root).entries if entry.record_id in wanted)


def _next(frames: Iterator[NDArray[np.uint8]], spent: dict[str, float]) -> NDArray[np.uint8] | None:
    start = time.perf_counter()
    frame = next(frames, None)
    spent["decoding"] += time.perf_counter() - start
    return frame


def _describe(spent: dict[str, float], video_s: float, n_frames: int) -> dict[str, float]:
    total = spent["faces"] + spent["pulse"] + spent["rate"]
    figures = {f"stages/{stage}_ms": 1e3 * seconds / n_frames for stage, seconds in spent.items()}
    figures |= {f"stages/{stage}_share": spent[stage] / total for stage in ("faces", "pulse", "rate")}
    over = {"time_over_video": total, "time_over_video_decoded": total + spent["decoding"]}
    return figures | {f"stages/{name}": seconds / video_s for name, seconds in over.items()}
