"""The Lightning data module for clips of face videos: find faces, cut, split by person, check, batch."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from datamodules.cache import content_digest
from datamodules.clips import VARIANTS, InputVariant
from datamodules.faces import SIZES, FaceStage
from datamodules.leakage import LeakageReport, check_leakage
from datamodules.records import Splitter
from datamodules.sided import SidedDataModule
from datamodules.video_clips import Batch, ClipBatches, VideoClips, cut_clips
from datamodules.video_crops import RecordCrops, load_crops
from datamodules.video_records import VideoListing, VideoSource

log = logging.getLogger(__name__)

NO_NORMALIZATION = np.empty(0, dtype=np.int64)
"""Training clips that statistics come from: none, every clip is normalised by itself."""


class VideoDataModule(SidedDataModule[VideoClips]):
    """Clips of one data set split by person, or of two: one to train on, another to test on.

    Parameters
    ----------
    source : VideoSource, optional
        Lists the videos; called with the root. None where there is nothing to train on.
    name : str
        Name of the data.
    kind : {"real", "synthetic"}, optional
        Where the videos come from; stands beside every figure. Verified against the folders; None takes what they say.
    root : Path or str, optional
        Folder of the data set; None where the source simulates one.
    split : Splitter
        Makes the splits from persons and heart rate groups. With a test source, its ``test`` side joins ``train``.
    faces : FaceStage
        How faces are found.
    fs : float
        Frames per second that all videos are brought to.
    n_frames : int
        Frames of a clip.
    image_size : {36, 72, 96}
        Side of a crop in pixels.
    batch_size, seed : int
        Clips per batch; seed of shuffling.
    input_variant : {"normalized_difference", "standardized_difference"}
        What a net sees, see `datamodules.clips.make_clips`.
    stride : int, optional
        Frames from the start of a clip to the next; ``n_frames`` by default.
    test_source : VideoSource, optional
        Lists the videos of another data set, all of which are ``test``.
    test_root : Path or str, optional
        Its folder.
    cache_dir : Path or str, optional
        Folder of all caches. None: no crop is written to the disk.
    bad_records : {"error", "skip"}
        What to do about videos that are damaged, show no face or are too short.
    max_drop : float
        Growth of the mean absolute error, in bpm, that compression may cost; read by the gate.
    leaky, pooled : bool
        As in `datamodules.ecg.EcgDataModule`; a split by persons is never leaky.
    """

    def __init__(
        self,
        *,
        source: VideoSource | None,
        name: str,
        kind: Literal["real", "synthetic"] | None,
        root: Path | str | None,
        split: Splitter,
        faces: FaceStage,
        fs: float,
        n_frames: int,
        image_size: int,
        batch_size: int,
        seed: int,
        input_variant: InputVariant = "normalized_difference",
        stride: int | None = None,
        test_source: VideoSource | None = None,
        test_root: Path | str | None = None,
        cache_dir: Path | str | None = None,
        bad_records: Literal["error", "skip"] = "error",
        max_drop: float = 0.3,
        leaky: bool = False,
        pooled: bool = False,
        level: Literal["clip"] = "clip",
    ) -> None:
        super().__init__()
        stride = n_frames if stride is None else stride
        at_least_one = {"n_frames": n_frames, "stride": stride, "batch_size": batch_size, "fs": fs}
        options = {
            "kind": kind,
            "image_size": image_size,
            "input_variant": input_variant,
            "level": level,
            "leaky": leaky,
        }
        _check_options(at_least_one, options)
        if source is None and test_source is None:
            raise ValueError("datamodule.source and datamodule.test_source are both null: expected at least one")
        self.source, self.root = source, root
        self.test_source, self.test_root = test_source, test_root
        self.name = name
        self.kind = kind
        self.split = split
        self.faces = faces
        self.fs = fs
        self.n_frames = n_frames
        self.stride = stride
        self.image_size = image_size
        self.input_variant = input_variant
        self.batch_size = batch_size
        self.seed = seed
        self.cache_dir = cache_dir
        self.bad_records = bad_records
        self.max_drop = max_drop
        self.leaky = leaky
        self.pooled = pooled
        self.level = level

    def setup(self, stage: str | None = None) -> None:
        """Find faces, cut, split and check; a second call does nothing.

        Raises
        ------
        FileNotFoundError, ValueError
            If videos are missing, damaged or refused, or not as configured.
        LeakageError
            If splits share a person or a clip.
        """
        if self._data is not None:
            return
        records, counts, is_test = self._load()
        clips, cut = cut_clips(
            records, fs=self.fs, n_frames=self.n_frames, stride=self.stride, bad_records=self.bad_records
        )
        test_ids = {record.record_id for record, test in zip(records, is_test, strict=True) if test}
        splits = self._split(clips, test_ids)
        self._check_splits(clips, splits)
        self.splits = splits
        self.data_digest, self.counts = clips.digest(), {**counts, **cut}
        self.preprocessing_digest = self._digest_preprocessing()
        self._keep(clips)
        log.info("%s: %s; clips per split %s", self.name, self.counts, self.leakage.n_records)

    @property
    def training_settings(self) -> dict[str, Any]:
        """What shapes the training batches besides the data: plain values, for the digest of a fit."""
        return {"batch_size": self.batch_size, "seed": self.seed}

    @property
    def unit(self) -> str:
        """Unit of the input."""
        return "1"

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled batches of input, target and position; the last incomplete one is dropped."""
        order = torch.Generator().manual_seed(self.seed)
        return self._loader(self._batches("train"), shuffle=True, drop_last=True, generator=order)

    def hr(self, split: str) -> NDArray[np.float64]:
        """Return the heart rate of each clip of a split in bpm, shape (n,)."""
        return self._loaded().hr_bpm[self._positions(split)]

    def times_s(self, split: str) -> NDArray[np.float64]:
        """Return the start of each clip of a split in its video in seconds, shape (n,)."""
        return self._loaded().times_s[self._positions(split)]

    def video_hr(self, split: str) -> dict[str, float]:
        """Return the mean heart rate of each video of a split in bpm, by record id."""
        return {
            record.record_id: float("nan") if record.mean_hr_bpm is None else record.mean_hr_bpm
            for record in self._records(split)
        }

    def traces(self, split: str) -> dict[str, dict[str, NDArray[np.float64]]]:
        """Return the mean colour of the face in each frame of each video of a split.

        Returns
        -------
        dict of str to dict
            By record id: ``times_s`` (n,) in seconds, the video's own and perhaps uneven; ``rgb`` (n, 3) from 0 to 1.
            Frames without a face are left out.
        """
        return {
            record.record_id: {"times_s": record.times_s[record.usable], "rgb": record.traces[record.usable]}
            for record in self._records(split)
        }

    def crops(self, split: str, record_id: str) -> NDArray[np.float32]:
        """Return the crops of one video of a split, 0 to 1, shape (n, size, size, 3), at its own frame times.

        Raises
        ------
        ValueError
            If the video is not in the split.
        """
        for record in self._records(split):
            if record.record_id == record_id:
                return np.asarray(record.crops) * np.float32(1 / 65535)
        raise ValueError(f"record {record_id!r} is not in the split {split!r}")

    def _load(self) -> tuple[list[RecordCrops], dict[str, int], list[bool]]:
        """Return the videos of both data sets, what was found, and which videos are test only."""
        records: list[RecordCrops] = []
        is_test: list[bool] = []
        counts: dict[str, int] = {}
        sources = (
            ("source", "root", self.source, self.root),
            ("test_source", "test_root", self.test_source, self.test_root),
        )
        for side, (_, key, source, root) in enumerate(sources):
            if source is None:
                continue
            listing = source(root)
            self._check_kind(listing, key)
            loaded, found = load_crops(
                listing, self.faces, self.image_size, cache_dir=self.cache_dir, bad_records=self.bad_records
            )
            if side and self.source is not None:
                # Both data sets may call somebody "subject1".
                loaded = [
                    replace(item, record_id=f"test/{item.record_id}", subject_id=f"test/{item.subject_id}")
                    for item in loaded
                ]
            records += loaded
            is_test += [bool(side)] * len(loaded)
            for name, count in {**listing.counts, **found}.items():
                counts[name] = counts.get(name, 0) + count
        return records, counts, is_test

    def _check_kind(self, listing: VideoListing, key: str) -> None:
        if self.kind not in (None, listing.kind):
            raise ValueError(
                f"datamodule.kind is {self.kind!r}, but the videos of datamodule.{key} are {listing.kind!r}:"
                f" correct the configuration or choose other data"
            )
        self.kind = listing.kind

    def _split(self, clips: VideoClips, test_ids: set[str]) -> dict[str, NDArray[np.int64]]:
        """Return positions by split."""
        everything = np.arange(len(clips))
        if self.test_source is None:
            return self.split(clips.subject_ids, clips.groups())
        test = np.isin(clips.record_ids, sorted(test_ids))
        if self.source is None:
            return {"train": everything[:0], "val": everything[:0], "test": everything}
        others = everything[~test]
        sides = self.split(clips.subject_ids[others], clips.groups()[others])
        train = np.sort(np.concatenate([others[sides["train"]], others[sides["test"]]]))
        return {"train": train, "val": others[sides["val"]], "test": everything[test]}

    def _check_splits(self, clips: VideoClips, splits: dict[str, NDArray[np.int64]]) -> None:
        if self.source is None:
            return
        if empty := [split for split, positions in splits.items() if not len(positions)]:
            n_subjects = len(np.unique(clips.subject_ids))
            raise ValueError(
                f"the split {empty[0]!r} of {n_subjects} persons is empty: more persons are needed, or larger shares"
                f" (datamodule.split.val_share, datamodule.split.test_share)"
            )
        for split in ("train", "val"):
            without = splits[split][np.isnan(clips.targets[splits[split]]).any(axis=1)]
            if without.size:
                raise ValueError(
                    f"record {str(clips.record_ids[without[0]])!r} of the split {split!r} has no wave to train on:"
                    f" train on another data set and test on this one (datamodule.test_source)"
                )
        self._check_batch_size(splits["train"])

    def _digest_preprocessing(self) -> str:
        names = ("fs", "n_frames", "stride", "image_size", "input_variant")
        return content_digest({"faces": self.faces.describe(), **{name: getattr(self, name) for name in names}})

    def _read(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._loaded().take(positions, self.input_variant)

    def _batches(self, split: str) -> Dataset[Batch]:
        return ClipBatches(self._loaded(), self._positions(split), self.input_variant)

    def _records(self, split: str) -> Sequence[RecordCrops]:
        clips = self._loaded()
        return [clips.records[at] for at in np.unique(clips.record_of[self._positions(split)])]

    def _check_leakage(self, data: VideoClips, calibration: NDArray[np.int64] | None = None) -> LeakageReport:
        return check_leakage(
            record_ids=data.record_ids,
            subject_ids=data.subject_ids,
            signal_hashes=data.hashes,
            splits=self.splits,
            class_names=("bvp",),
            normalizer_indices=NO_NORMALIZATION,
            calibration_indices=calibration,
        )


def _check_options(at_least_one: Mapping[str, float], options: Mapping[str, Any]) -> None:
    for key, value in at_least_one.items():
        if value < 1:
            raise ValueError(f"datamodule.{key} is {value!r}, expected at least 1")
    allowed: dict[str, tuple[Any, ...]] = {
        "kind": (None, "real", "synthetic"),
        "image_size": SIZES,
        "input_variant": VARIANTS,
        "level": ("clip",),
        "leaky": (False,),
    }
    for key, value in options.items():
        if value not in allowed[key]:
            raise ValueError(f"datamodule.{key} is {value!r}, expected one of {allowed[key]!r}")
