"""Clips of all videos of a data module: where they lie, what belongs to them, and their batches."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.cache import content_digest
from datamodules.clips import InputVariant, derive_target, even_positions, find_clips, make_clips, take_frames
from datamodules.video_crops import RecordCrops

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor, Tensor]

# Of the paper: low < 77 <= middle < 90 <= high.
GROUP_BOUNDS_BPM = (77.0, 90.0)


@dataclass(frozen=True, eq=False, slots=True)
class VideoClips:
    """Clips of one length from whole data sets, with ground truth and ids.

    Attributes
    ----------
    records : tuple of RecordCrops
        The videos.
    positions : tuple of ndarray of float64
        Where each video's evenly timed frames lie among its own, see `even_positions`.
    record_of, starts : ndarray of int64, shape (n,)
        Video of each clip, and its first frame among ``positions`` of it.
    targets : ndarray of float32, shape (n, n_frames)
        Derivative of the pulse; NaN where the video has no wave.
    hr_bpm : ndarray of float64, shape (n,)
        Mean heart rate of the clip; of its video where only that is known.
    times_s : ndarray of float64, shape (n,)
        Start of each clip in its video.
    n_frames : int
        Frames of a clip.
    """

    records: tuple[RecordCrops, ...]
    positions: tuple[NDArray[np.float64], ...]
    record_of: NDArray[np.int64]
    starts: NDArray[np.int64]
    targets: NDArray[np.float32]
    hr_bpm: NDArray[np.float64]
    times_s: NDArray[np.float64]
    n_frames: int

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.record_of)

    @property
    def record_ids(self) -> NDArray[np.str_]:
        """Video of each clip, shape (n,)."""
        return np.array([record.record_id for record in self.records])[self.record_of]

    @property
    def subject_ids(self) -> NDArray[np.str_]:
        """Person of each clip, shape (n,)."""
        return np.array([record.subject_id for record in self.records])[self.record_of]

    @property
    def hashes(self) -> NDArray[np.bytes_]:
        """Hash of each clip, shape (n,): of its video's content and its place there."""
        digests = [record.digest for record in self.records]
        texts = [f"{digests[at]} {start}" for at, start in zip(self.record_of, self.starts, strict=True)]
        return np.array([hashlib.sha256(text.encode()).hexdigest()[:32].encode() for text in texts])

    def digest(self) -> str:
        """Digest the content of all videos and the places of the clips: the same on every machine."""
        return content_digest(
            {
                "records": [[record.record_id, record.subject_id, record.digest] for record in self.records],
                "clips": [self.record_of.tolist(), self.starts.tolist(), self.n_frames],
            }
        )

    def groups(self) -> NDArray[np.float32]:
        """Return which heart rate group each clip's person is in, shape (n, n_groups), at least two, of them few empty.

        A person's group is that of the mean over all of their clips, so that a split by persons can be stratified.
        """
        subjects, codes = np.unique(self.subject_ids, return_inverse=True)
        means = np.bincount(codes, self.hr_bpm, len(subjects)) / np.bincount(codes, minlength=len(subjects))
        table = np.eye(3, dtype=np.float32)[np.digitize(means, GROUP_BOUNDS_BPM)][codes]
        present = table.sum(axis=0) > 0
        # A single column would be taken for a class to tell from its absence.
        return table[:, present] if present.sum() > 1 else table[:, :2] if present[:2].any() else table[:, 1:]

    def take(self, clips: NDArray[np.int64], variant: InputVariant) -> NDArray[np.float32]:
        """Return the input of some clips, float32 of shape (len(clips), n_frames, 6, size, size)."""
        size = self.records[0].crops.shape[1]
        taken = np.empty((len(clips), self.n_frames, 6, size, size), np.float32)
        for row, clip in enumerate(clips):
            at, start = int(self.record_of[clip]), int(self.starts[clip])
            where = self.positions[at][start : start + self.n_frames + 1]
            frames = take_frames(self.records[at].crops, where)
            taken[row] = make_clips(frames[None], variant)[0]
        return taken


class ClipBatches(Dataset[Batch]):
    """Clips of one split, fetched a batch at a time.

    Parameters
    ----------
    clips : VideoClips
        All clips.
    wanted : ndarray of int64
        This split's clips.
    variant : {"normalized_difference", "standardized_difference"}
        Which input.
    """

    def __init__(self, clips: VideoClips, wanted: NDArray[np.int64], variant: InputVariant) -> None:
        self.clips = clips
        self.wanted = wanted
        self.variant = variant

    def __len__(self) -> int:
        """Return the number of clips of this split."""
        return len(self.wanted)

    def __getitem__(self, item: int) -> Batch:
        """Return a batch of one clip."""
        return self.__getitems__([item])

    def __getitems__(self, items: list[int]) -> Batch:
        """Return input (b, n_frames, 6, size, size), target (b, n_frames) and position (b,) of a batch."""
        wanted = self.wanted[items]
        clips = torch.from_numpy(self.clips.take(wanted, self.variant))
        return clips, torch.from_numpy(self.clips.targets[wanted]), torch.from_numpy(wanted)


def cut_clips(
    records: Sequence[RecordCrops],
    *,
    fs: float,
    n_frames: int,
    stride: int,
    bad_records: Literal["error", "skip"] = "error",
) -> tuple[VideoClips, dict[str, int]]:
    """Cut videos into clips of evenly timed frames.

    Parameters
    ----------
    records : sequence of RecordCrops
        The videos.
    fs : float
        Frames per second of the clips.
    n_frames : int
        Frames of a clip; the frame after its last is needed too.
    stride : int
        Frames from the start of a clip to the next.
    bad_records : {"error", "skip"}
        What to do about a video without a single clip.

    Returns
    -------
    clips : VideoClips
        The clips.
    counts : dict of str to int
        Clips that were dropped and why, and videos that are too short.

    Raises
    ------
    ValueError
        If a video has no clip and ``bad_records`` is ``"error"``, or there is no clip at all.
    """
    kept, parts, counts = [], [], {"clips_without_face_or_truth": 0, "clips_flat_wave": 0, "too_short": 0}
    for record in records:
        positions = even_positions(record.times_s, fs)
        usable = record.usable.copy()
        for truth in (record.bvp, record.hr_bpm):
            usable &= True if truth is None else np.isfinite(truth)
        starts, n_dropped = find_clips(usable, positions, n_frames=n_frames, stride=stride)
        counts["clips_without_face_or_truth"] += n_dropped
        targets = np.full((len(starts), n_frames), np.nan, np.float32)
        good = np.ones(len(starts), dtype=bool)
        if record.bvp is not None:
            even = np.interp(positions, np.arange(len(record.bvp)), record.bvp)
            for row, start in enumerate(starts):
                target = derive_target(even[start : start + n_frames + 1])
                good[row] = target is not None
                targets[row] = np.nan if target is None else target
        counts["clips_flat_wave"] += int((~good).sum())
        if not good.any():
            _refuse(record, len(positions), n_frames, fs, n_dropped, bad_records)
            counts["too_short"] += 1
            continue
        kept.append((record, positions))
        parts.append((starts[good], targets[good], *_describe(record, positions, starts[good], n_frames)))
    if not kept:
        raise ValueError(f"no video has a clip of {n_frames} frames at {fs:g} frames per second: {counts!r}")
    starts, targets, hr_bpm, times_s = (np.concatenate(column) for column in zip(*parts, strict=True))
    clips = VideoClips(
        records=tuple(record for record, _ in kept),
        positions=tuple(positions for _, positions in kept),
        record_of=np.repeat(np.arange(len(kept)), [len(part[0]) for part in parts]),
        starts=starts,
        targets=targets,
        hr_bpm=hr_bpm,
        times_s=times_s,
        n_frames=n_frames,
    )
    return clips, {"records": len(kept), "clips": len(clips), **counts}


def _describe(
    record: RecordCrops, positions: NDArray[np.float64], starts: NDArray[np.int64], n_frames: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return heart rate and start time of each clip."""
    if record.hr_bpm is None:
        hr_bpm = np.full(len(starts), record.mean_hr_bpm, dtype=np.float64)
    else:
        rates = np.interp(positions, np.arange(len(record.hr_bpm)), record.hr_bpm)
        hr_bpm = np.array([rates[start : start + n_frames + 1].mean() for start in starts])
    times_s = np.interp(positions[starts], np.arange(len(record.times_s)), record.times_s)
    return hr_bpm, times_s


def _refuse(
    record: RecordCrops, n_even: int, n_frames: int, fs: float, n_dropped: int, bad_records: Literal["error", "skip"]
) -> None:
    if n_even <= n_frames:
        message = (
            f"record {record.record_id!r} lasts {n_even / fs:.1f} s, {n_even} frames at {fs:g} per second: a clip takes"
            f" {n_frames + 1} (datamodule.n_frames={n_frames}); leave the record out (datamodule.bad_records=skip) or"
            f" take shorter clips"
        )
    else:
        message = (
            f"record {record.record_id!r} has no clip of {n_frames} frames with a face and ground truth throughout"
            f" ({n_dropped} were dropped): leave the record out (datamodule.bad_records=skip) or take shorter clips"
            f" (datamodule.n_frames)"
        )
    if bad_records == "error":
        raise ValueError(message)
    log.warning("skipped: %s", message)
