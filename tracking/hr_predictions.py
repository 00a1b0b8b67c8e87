"""What an artifact answered about heart rates on the test split, with the ids that pairing needs."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tracking.files import replace_file

IDS = ("record_ids", "subject_ids", "video_ids")
WINDOWED = ("subject_ids", "times_s", "true_bpm", "bpm", "snr_db")
PER_VIDEO = ("video_true_bpm", "video_bpm", "video_snr_db")


@dataclass(frozen=True, eq=False)
class HeartRates:
    """Heart rates of one artifact, for every window and for every video as a whole.

    Parameters
    ----------
    record_ids, subject_ids : ndarray of str, shape (n,)
        Of the windows; a record is a video. Each record id is unique together with its time.
    times_s : ndarray of float64, shape (n,)
        Start of each window in its video, in seconds.
    true_bpm, bpm : ndarray of float64, shape (n,)
        Heart rate of the reference, and the estimated one.
    snr_db : ndarray of float64, shape (n,)
        Power of the estimated wave at the true rate and its first harmonic over the power elsewhere; NaN where there
        is no wave.
    video_ids : ndarray of str, shape (n_videos,)
        The distinct record ids, sorted.
    video_true_bpm, video_bpm, video_snr_db : ndarray of float64, shape (n_videos,)
        The same of every video as a whole.

    Raises
    ------
    ValueError
        If shapes disagree, a window stands twice, a video belongs to two subjects, `video_ids` are not the windows' or
        a rate is not a positive number.
    """

    task: ClassVar[str] = "heart_rate"
    level: ClassVar[str] = "clip"

    record_ids: NDArray[np.str_]
    subject_ids: NDArray[np.str_]
    times_s: NDArray[np.float64]
    true_bpm: NDArray[np.float64]
    bpm: NDArray[np.float64]
    snr_db: NDArray[np.float64]
    video_ids: NDArray[np.str_]
    video_true_bpm: NDArray[np.float64]
    video_bpm: NDArray[np.float64]
    video_snr_db: NDArray[np.float64]

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_windows(self)
        for names, ids in (("true_bpm", "bpm"), self.record_ids), (("video_true_bpm", "video_bpm"), self.video_ids):
            for name in names:
                values = getattr(self, name)
                if (wrong := ~(np.isfinite(values) & (values > 0))).any():
                    at = int(np.argmax(wrong))
                    raise ValueError(
                        f"video {str(ids[at])!r}: {name} is {values[at].item()!r}, expected beats a minute above 0"
                    )


def make_heart_rates(**arrays: ArrayLike) -> HeartRates:
    """Build `HeartRates` from anything array-like, by the names of its fields; ids become strings. Errors as there."""
    typed: dict[str, Any] = {
        name: np.asarray(values).astype(np.str_) if name in IDS else np.asarray(values, dtype=np.float64)
        for name, values in arrays.items()
    }
    return HeartRates(**typed)


def save_heart_rates(path: Path | str, rates: HeartRates) -> Path:
    """Write heart rates as a compressed ``.npz`` without pickled objects."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{item.name: getattr(rates, item.name) for item in fields(rates)})
    return replace_file(path, buffer.getvalue())


def are_heart_rates(arrays: Mapping[str, Any]) -> bool:
    """Whether an opened ``.npz`` is one of `save_heart_rates`."""
    return "video_bpm" in arrays


def read_heart_rates(arrays: Mapping[str, Any]) -> HeartRates:
    """Rebuild heart rates from an opened ``.npz``; KeyError if an array is missing."""
    return make_heart_rates(**{item.name: arrays[item.name] for item in fields(HeartRates)})


def order_windows(rates: HeartRates) -> NDArray[np.int64]:
    """Positions that sort the windows by video and time."""
    return np.lexsort((rates.times_s, rates.record_ids))


def _check_shapes(rates: HeartRates) -> None:
    n, n_videos = len(rates.record_ids), len(rates.video_ids)
    for names, wanted in (WINDOWED, (n,)), (PER_VIDEO, (n_videos,)):
        for name in names:
            if getattr(rates, name).shape != wanted:
                raise ValueError(f"{name} has shape {getattr(rates, name).shape}, expected {wanted}")


def _check_windows(rates: HeartRates) -> None:
    if not np.isfinite(rates.times_s).all():
        at = int(np.argmin(np.isfinite(rates.times_s)))
        raise ValueError(f"video {str(rates.record_ids[at])!r}: time {rates.times_s[at].item()!r} s, expected a number")
    order = order_windows(rates)
    ids, times, subjects = rates.record_ids[order], rates.times_s[order], rates.subject_ids[order]
    same = ids[1:] == ids[:-1]
    if (twice := same & (times[1:] == times[:-1])).any():
        at = int(np.argmax(twice))
        raise ValueError(f"video {str(ids[at])!r}: two windows start at {times[at]:g} s")
    if (mixed := same & (subjects[1:] != subjects[:-1])).any():
        at = int(np.argmax(mixed))
        raise ValueError(f"video {str(ids[at])!r} belongs to subjects {subjects[at]!s} and {subjects[at + 1]!s}")
    if not np.array_equal(np.unique(rates.record_ids), rates.video_ids):
        raise ValueError(
            f"video_ids {rates.video_ids[:3].tolist()}... ({len(rates.video_ids)}) must be the sorted distinct record"
            f" ids of the windows ({len(np.unique(rates.record_ids))})"
        )
