"""Heart rate from video: waves of clips become rates of windows and videos, and parity counts in bpm."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.heart_rate import find_rate, signal_to_noise
from datamodules.pulse import PulseFilter
from datamodules.stretches import Stretch, cut_evenly, find_stretches, record_spans
from deploy import gate
from tracking.headline import Headline, find_headline
from tracking.hr_predictions import HeartRates, make_heart_rates
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
        return find_headline("heart_rate")

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

    def read(self, datamodule: Any, split: str, outputs: Floats) -> HeartRates:
        """Heart rates of the windows and videos of a split, from the predicted derivatives (clips, frames)."""
        stretches = find_split_stretches(datamodule, split)
        fs = self.assumed_fs or datamodule.fs
        waves = [self.pulse(stretch.join(outputs), fs) for stretch in stretches]
        return self.read_waves(datamodule, split, stretches, waves)

    def read_waves(
        self, datamodule: Any, split: str, stretches: Sequence[Stretch], waves: Sequence[Floats]
    ) -> HeartRates:
        """Heart rates from the pulse wave (frames,) of each stretch of a split; of a net, or of a baseline."""
        fs = self.assumed_fs or datamodule.fs
        length = max(1, round(self.window_s * datamodule.fs))
        windows = [
            (stretch, cut, wave[cut])
            for stretch, wave in zip(stretches, waves, strict=True)
            for cut in cut_evenly(len(stretch.hr_bpm), length)
        ]
        truth = np.array([stretch.hr_bpm[cut].mean() for stretch, cut, _ in windows])
        rates = np.array([self._rate(wave, fs) for *_, wave in windows])
        spans = record_spans(stretches)
        known = datamodule.video_hr(split)
        video_truth = np.array([_video_truth(known.get(name), stretches, at) for name, at in spans.items()])
        whole = [np.concatenate([waves[position] for position in at]) for at in spans.values()]
        video_rates = np.array([self._rate(wave, fs) for wave in whole])
        return make_heart_rates(
            record_ids=[stretch.record_id for stretch, *_ in windows],
            subject_ids=[stretch.subject_id for stretch, *_ in windows],
            times_s=[stretch.start_s + cut.start / datamodule.fs for stretch, cut, _ in windows],
            true_bpm=truth,
            bpm=self._fill(rates, split),
            snr_db=[_quality(wave, fs, rate) for (*_, wave), rate in zip(windows, truth, strict=True)],
            video_ids=list(spans),
            video_true_bpm=video_truth,
            video_bpm=self._fill(video_rates, split),
            video_snr_db=[_quality(wave, fs, rate) for wave, rate in zip(whole, video_truth, strict=True)],
        )

    def conclude(self, datamodule: Any, val: HeartRates, test: HeartRates) -> tuple[HeartRates, dict[str, float]]:
        """Give the answers to test as they are, and the figures of validation."""
        return test, {f"val/{name}": value for name, value in point_metrics(val).items() if np.isfinite(value)}

    def weigh(self, datamodule: Any, outputs: Floats) -> float:
        """Mean absolute error per video on validation, in bpm."""
        return point_metrics(self.read(datamodule, "val", outputs))[self.headline.metric]

    def check_parity(
        self, datamodule: Any, answers: HeartRates, net: Floats, file: Floats, precision: str
    ) -> list[gate.Check]:
        """Compare waves by correlation, and the rates of single clips; derivatives (clips, frames)."""
        ours, theirs = (self.pulse(outputs, datamodule.fs) for outputs in (net, file))
        net_bpm, file_bpm = (find_rate(waves, datamodule.fs, self.method, self.pulse.band_hz) for waves in (ours, theirs))
        return gate.check_rate_parity(ours, theirs, net_bpm, file_bpm, precision)

    def _rate(self, wave: Floats, fs: float) -> float:
        return float(find_rate(wave, fs, self.method, self.pulse.band_hz))

    def _fill(self, rates: NDArray[np.float64], split: str) -> NDArray[np.float64]:
        """Answer the middle of the band where a wave shows no rate: an answer has to be given, and it counts."""
        unknown = np.isnan(rates)
        if unknown.any():
            log.warning("%d of %d waves of the split %r show no heart rate", int(unknown.sum()), len(rates), split)
        return np.where(unknown, 60 * float(np.sqrt(np.prod(self.pulse.band_hz))), rates)


def find_split_stretches(datamodule: Any, split: str) -> list[Stretch]:
    """Put the clips of a split together again, see `datamodules.stretches.find_stretches`."""
    return find_stretches(
        datamodule.record_ids(split),
        datamodule.subject_ids(split),
        datamodule.times_s(split),
        datamodule.hr(split),
        n_frames=datamodule.n_frames,
        fs=datamodule.fs,
    )


def _video_truth(known: float | None, stretches: Sequence[Stretch], positions: Sequence[int]) -> float:
    """Mean heart rate of a video: of all of it where that is known, else of its clips."""
    if known is not None and np.isfinite(known):
        return known
    return float(np.concatenate([stretches[position].hr_bpm for position in positions]).mean())


def _quality(wave: Floats, fs: float, rate_bpm: float) -> float:
    return float(signal_to_noise(wave, fs, rate_bpm))
