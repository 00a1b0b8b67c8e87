"""Heart rate from video: waves of clips become rates of windows and videos, and parity counts in bpm."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from composition.rate_windows import RateWindows, find_rate_windows
from composition.stages import time_stages
from composition.task import ALL, Rows
from datamodules.heart_rate import find_rate, signal_to_noise
from datamodules.pulse import PulseFilter
from deploy import gate
from deploy.artifact import Artifact
from tracking.headline import Headline, find_headline
from tracking.hr_predictions import HeartRates
from tracking.statistics import point_metrics

log = logging.getLogger(__name__)
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class HeartRate:
    """Evaluate nets that read the pulse from clips of a face: a `composition.task.Task`.

    Parameters
    ----------
    pulse : PulseFilter
        From the derivative that a net predicts to its wave; its band is also where rates are looked for.
    method : {"fft", "autocorrelation", "peaks", "count"}
        How a rate is read from a wave, see `datamodules.heart_rate.find_rate`.
    window_s : float
        Length of the windows that figures per window are about; clips are put together to as many frames.
    parity_windows : int
        Test clips on which the exported file is held against torch.
    assumed_fs : float, optional
        Frames a second that the post-processing believes in, whatever the truth; P1 takes 30 for every video. None
        believes the data.
    batch_size : int, default 4
        Clips of one call of a file.
    chunk_size : int, default 64
        Clips that are made at once.
    """

    name: ClassVar[str] = "heart_rate"

    pulse: PulseFilter
    method: str
    window_s: float
    parity_windows: int
    assumed_fs: float | None = None
    batch_size: int = 4
    chunk_size: int | None = 64

    @property
    def headline(self) -> Headline:
        """Mean absolute error per video."""
        return find_headline(self.name)

    def make_example(self, datamodule: Any) -> Tensor:
        """Zeros (2, frames, 6, size, size)."""
        return torch.zeros(2, datamodule.n_frames, 6, datamodule.image_size, datamodule.image_size)

    def describe_input(self, datamodule: Any) -> dict[str, Any]:
        """Rate, length and side of a clip, what its channels are, and how the wave is read."""
        return {
            "task": "heart_rate",
            "fs": datamodule.fs,
            "n_frames": datamodule.n_frames,
            "image_size": datamodule.image_size,
            "input_variant": datamodule.input_variant,
            "output": "bvp_derivative",
            "band_hz": list(self.pulse.band_hz),
            "preprocessing_digest": datamodule.preprocessing_digest,
        }

    def read(self, datamodule: Any, split: str, outputs: Floats, rows: Rows = ALL) -> HeartRates:
        """Heart rates of the windows and videos of a split, from the predicted derivatives (clips, frames)."""
        windows = find_rate_windows(datamodule, split, self.window_s, rows)
        fs = self.assumed_fs or windows.fs
        return self.read_waves(windows, [self.pulse(stretch.join(outputs), fs) for stretch in windows.stretches])

    def read_waves(self, windows: RateWindows, waves: Sequence[NDArray[np.float64]]) -> HeartRates:
        """Heart rates from the pulse wave (frames,) of each stretch; of a net, or of a baseline."""
        parts, videos = windows.cut(waves), windows.join(waves)
        return windows.answer(
            bpm=self._find_rates(parts, windows),
            snr_db=self._find_quality(parts, windows.true_bpm, windows),
            video_bpm=self._find_rates(videos, windows),
            video_snr_db=self._find_quality(videos, windows.video_true_bpm, windows),
        )

    def conclude(self, datamodule: Any, val: HeartRates, test: HeartRates) -> tuple[HeartRates, dict[str, float]]:
        """Give the answers to test as they are, and the figures of validation."""
        return test, {f"val/{name}": value for name, value in point_metrics(val).items() if np.isfinite(value)}

    def weigh(self, datamodule: Any, outputs: Floats, rows: Rows = ALL) -> float:
        """Mean absolute error per video on validation, or on some of its clips, in bpm."""
        return point_metrics(self.read(datamodule, "val", outputs, rows))[self.headline.metric]

    def to_scores(self, datamodule: Any, outputs: Floats) -> Floats:
        """Pulse waves (clips, frames) of the derivatives."""
        return self.pulse(outputs, datamodule.fs)

    def time_stages(self, datamodule: Any, artifact: Artifact) -> dict[str, float]:
        """Time P1's three stages on a test video, where the data come from videos; see `composition.stages`."""
        if getattr(datamodule, "faces", None) is None:
            return {}
        return time_stages(datamodule, artifact, self.pulse, self.method)

    def check_parity(
        self, datamodule: Any, answers: HeartRates, net: Floats, file: Floats, precision: str
    ) -> list[gate.Check]:
        """Compare waves by correlation, and the rates of single clips; derivatives (clips, frames)."""
        fs = datamodule.fs
        waves = [self.pulse(outputs, fs) for outputs in (net, file)]
        net_bpm, file_bpm = (find_rate(wave, fs, self.method, self.pulse.band_hz) for wave in waves)
        return gate.check_rate_parity(waves[0], waves[1], net_bpm, file_bpm, precision)

    def _find_rates(self, waves: Sequence[Floats], windows: RateWindows) -> NDArray[np.float64]:
        """Rate of each wave; the middle of the band where it shows none, since an answer has to be given and counts."""
        fs = self.assumed_fs or windows.fs
        rates = np.array([find_rate(wave, fs, self.method, self.pulse.band_hz) for wave in waves], dtype=np.float64)
        unknown = np.isnan(rates)
        if unknown.any():
            log.warning("%d of %d pulse waves show no heart rate", int(unknown.sum()), len(rates))
        return np.where(unknown, 60 * float(np.sqrt(np.prod(self.pulse.band_hz))), rates)

    def _find_quality(
        self, waves: Sequence[Floats], true_bpm: NDArray[np.float64], windows: RateWindows
    ) -> NDArray[np.float64]:
        """Signal-to-noise ratio of each wave at the true rate, in dB."""
        fs = self.assumed_fs or windows.fs
        return np.array([signal_to_noise(wave, fs, rate) for wave, rate in zip(waves, true_bpm, strict=True)])
