"""Ground truth beside a video: checked, and resampled to the frame times."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LEAST_BPM, MOST_BPM = 25.0, 250.0
# Camera and sensor start and stop by hand; more than this is a cut file or a wrong frame rate.
MOST_MISMATCH = 0.1


def parse_numbers(texts: Sequence[str], path: Path, record_id: str, what: str) -> NDArray[np.float64]:
    """Parse numbers of a text file.

    Parameters
    ----------
    texts : sequence of str
        One number each.
    path : Path
        The file, for the error.
    record_id, what : str
        Record and quantity, for the error.

    Returns
    -------
    ndarray of float64, shape (n,)
        The numbers, all finite.

    Raises
    ------
    ValueError
        If one is no finite number, or there is none.
    """
    try:
        values = np.array([float(text) for text in texts])
    except ValueError as error:
        raise ValueError(f"record {record_id!r}: {what} in {path.name} is no number: {error}") from error
    if not len(values):
        raise ValueError(f"record {record_id!r}: {path.name} has no {what}: the file is empty or cut")
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(
            f"record {record_id!r}: {what} {at} of {len(values)} in {path.name} is {texts[at].strip()!r}, expected a"
            f" number: mend the file, or leave the record out (datamodule.bad_records=skip)"
        )
    return values


def check_times(times_s: NDArray[np.float64], path: Path, record_id: str) -> NDArray[np.float64]:
    """Return times in seconds that increase, or raise `ValueError`."""
    steps = np.diff(times_s)
    if (steps <= 0).any():
        at = int(np.flatnonzero(steps <= 0)[0])
        raise ValueError(
            f"record {record_id!r}: time {at + 1} in {path.name} is {times_s[at + 1]:g} s after {times_s[at]:g} s,"
            f" expected times that increase: mend the file, or leave the record out (datamodule.bad_records=skip)"
        )
    return times_s


def check_span(end_s: float, video_end_s: float, path: Path, record_id: str) -> None:
    """Refuse ground truth that does not last as long as its video.

    Raises
    ------
    ValueError
        If they differ by more than a tenth.
    """
    if abs(end_s - video_end_s) > MOST_MISMATCH * max(video_end_s, end_s):
        raise ValueError(
            f"record {record_id!r}: the video lasts {video_end_s:.1f} s and {path.name} {end_s:.1f} s, expected the"
            f" same within {MOST_MISMATCH:.0%}: one of them is cut, or the video's fps tag is wrong"
            f" (datamodule.source.fps)"
        )


def resample(
    times_s: NDArray[np.float64], values: NDArray[np.float64], frame_times_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolate linearly to the frame times; NaN beyond the ends by more than a frame.

    Parameters
    ----------
    times_s, values : ndarray of float64, shape (m,)
        Ground truth.
    frame_times_s : ndarray of float64, shape (n,)
        Times of the frames in seconds.

    Returns
    -------
    ndarray of float64, shape (n,)
        Values at the frame times.
    """
    slack = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
    slack = max(slack, float(np.median(np.diff(frame_times_s))))
    inside = (frame_times_s >= times_s[0] - slack) & (frame_times_s <= times_s[-1] + slack)
    return np.where(inside, np.interp(frame_times_s, times_s, values), np.nan)


def resample_rate(
    times_s: NDArray[np.float64],
    hr_bpm: NDArray[np.float64],
    frame_times_s: NDArray[np.float64],
    path: Path,
    record_id: str,
) -> NDArray[np.float64]:
    """Interpolate heart rates to the frame times, without the zeros by which an oximeter says that it has none.

    Parameters
    ----------
    times_s, hr_bpm : ndarray of float64, shape (m,)
        Ground truth; ``hr_bpm`` in bpm.
    frame_times_s : ndarray of float64, shape (n,)
        Times of the frames in seconds.
    path : Path
        The file, for the error.
    record_id : str
        Named in errors.

    Returns
    -------
    ndarray of float64, shape (n,)
        In bpm; NaN where the ground truth does not reach.

    Raises
    ------
    ValueError
        If there is no rate, or one that no heart has.
    """
    known = hr_bpm != 0
    outside = known & ~((hr_bpm >= LEAST_BPM) & (hr_bpm <= MOST_BPM))
    if outside.any() or not known.any():
        shown = f"{hr_bpm[outside][0]:g}" if outside.any() else "0 throughout"
        raise ValueError(
            f"record {record_id!r}: heart rate in {path.name} is {shown}, expected {LEAST_BPM:g} to {MOST_BPM:g} bpm:"
            f" mend the file, or leave the record out (datamodule.bad_records=skip)"
        )
    return resample(times_s[known], hr_bpm[known], frame_times_s)
