"""The pulse of a running video in three timed stages: faces, net, heart rate."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from composition.live_models import PulseModel
from datamodules.clips import make_clips
from datamodules.face_detectors import load_cascade, load_ssd
from datamodules.faces import FaceCrop, FaceStage, FaceTracker
from datamodules.live_clips import ClipCutter, LiveClip
from datamodules.live_pulse import PulseTrack, Reading
from datamodules.live_repeats import RepeatFinder
from datamodules.live_video import FrameQueue, TimedFrame
from datamodules.pretrained import SSD_WEIGHTS
from datamodules.pulse import PulseFilter

DETECTORS = ("auto", "ssd", "cascade")
STAGES = ("faces", "pulse", "rate")
REPEATS = ("keep", "bridge")


@dataclass(frozen=True, kw_only=True, slots=True)
class PulseOptions:
    """What the person who runs a stream may choose.

    Attributes
    ----------
    window_s, step_s : float
        Length of the windows that have a heart rate, and from one to the next.
    method : str
        How it is read from the wave, see `datamodules.heart_rate.find_rate`.
    repeats : {"keep", "bridge"}
        What becomes of frames that repeat the one before: ``keep`` gives them to the net, as published protocols do;
        ``bridge`` puts a straight line between the pictures in their place.
    """

    window_s: float = 10.0
    step_s: float = 1.0
    method: str = "fft"
    repeats: str = "keep"


@dataclass(frozen=True, eq=False, slots=True)
class PulseUpdate:
    """News of a stream, for every frame.

    Attributes
    ----------
    frame : TimedFrame, optional
        The frame; None when the stream has ended.
    crop : FaceCrop, optional
        Its face.
    readings : sequence of Reading
        Windows that are complete now.
    preview : Reading, optional
        The heart rate so far while no window is complete; given when it is new.
    repeated : bool
        Whether the frame shows again what the one before did, see `RepeatFinder`.
    """

    frame: TimedFrame | None
    crop: FaceCrop | None
    readings: Sequence[Reading] = ()
    preview: Reading | None = None
    repeated: bool = False


@dataclass(slots=True)
class StageTimes:
    """Seconds spent in each stage."""

    spent_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time of a ``with`` block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent_s[stage] += time.perf_counter() - start


def make_stage(detector: str, weights: Path | str) -> FaceStage:
    """Set up how faces are found: as conf/datamodule/faces does for data sets, but asked less often.

    The cascade once a second, and the SSD, three times as slow, every three: while the face stays, nothing changes.

    Parameters
    ----------
    detector : {"auto", "ssd", "cascade"}
        ``auto`` is the SSD where its weights are installed, else the cascade.
    weights : Path or str
        Folder that ``make weights`` fills.

    Raises
    ------
    ValueError
        If there is no such detector.
    """
    if detector not in DETECTORS:
        raise ValueError(f"detector is {detector!r}, expected one of {DETECTORS!r}")
    if detector == "ssd" or (detector == "auto" and (Path(weights) / SSD_WEIGHTS.name).is_file()):
        return FaceStage(partial(load_ssd, weights=weights), detect_every=90, enlarge=1.1)
    return FaceStage(load_cascade, detect_every=30, enlarge=1.0)


class PulseWatcher:
    """Follows the pulse of one face through a video, in memory that does not grow.

    Parameters
    ----------
    model : PulseModel
        The net.
    stage : FaceStage
        How faces are found.
    options : PulseOptions
        Choices.

    Attributes
    ----------
    times : StageTimes
        What each stage took so far: ``faces`` is detection, crops and clips; ``pulse`` the net; ``rate`` the filter,
        the heart rate and its quality.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        If the detector cannot be loaded or an option does not fit.
    """

    def __init__(self, model: PulseModel, stage: FaceStage, options: PulseOptions) -> None:
        if options.repeats not in REPEATS:
            raise ValueError(f"repeats is {options.repeats!r}, expected one of {REPEATS!r}")
        contract = model.contract
        self.times = StageTimes()
        self._model = model
        self._tracker = FaceTracker(stage, contract.image_size)
        self._cutter = ClipCutter(contract.fs, contract.n_frames, contract.image_size)
        self._track = PulseTrack(
            contract.fs, PulseFilter(band_hz=contract.band_hz), options.window_s, options.step_s, options.method
        )
        self._repeats = RepeatFinder()
        self._bridge = options.repeats == "bridge"

    @property
    def least_s(self) -> float:
        """Shortest stretch with a face that a heart rate is read from, in seconds."""
        contract = self._model.contract
        return max(self._track.least_s, contract.n_frames / contract.fs)

    @property
    def longest_s(self) -> float:
        """Longest stretch with a face so far, in seconds."""
        return self._cutter.longest_s

    def watch(self, frames: FrameQueue) -> Iterator[PulseUpdate]:
        """Yield news of every frame, and at last of the end.

        Raises
        ------
        Exception
            As iterating over the queue.
        """
        for frame in frames:
            with self.times.measure("faces"):
                crop = self._tracker.update(frame.image)
                face = crop.image if crop.box[2] > crop.box[0] else None
                repeated = self._repeats.update(face)
                # The cutter puts a straight line where it was given no frame.
                bridged = repeated and self._bridge
                clips = [] if bridged else list(self._cutter.add(frame.time_s, face))
            readings, preview = self._read(clips)
            yield PulseUpdate(frame, crop, readings, preview, repeated)
        yield PulseUpdate(None, None, self.finish())

    def finish(self) -> list[Reading]:
        """Read what is left when a stream ends."""
        with self.times.measure("faces"):
            clips = list(self._cutter.finish())
        readings, _ = self._read(clips)
        with self.times.measure("rate"):
            return [*readings, *self._track.finish()]

    def _read(self, clips: Sequence[LiveClip]) -> tuple[list[Reading], Reading | None]:
        readings: list[Reading] = []
        preview = None
        for clip in clips:
            with self.times.measure("faces"):
                batch = make_clips(clip.frames[None], self._model.contract.input_variant)
            with self.times.measure("pulse"):
                derivative: NDArray[np.float64] = self._model.session(batch)[0, -clip.n_new :].astype(np.float64)
            with self.times.measure("rate"):
                readings += self._track.add(derivative, clip.end_s, opens=clip.opens)
                preview = self._track.preview()
        return readings, preview
