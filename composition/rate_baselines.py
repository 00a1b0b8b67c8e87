"""What a heart rate from video must beat: the mean rate, and pulses from the mean colour of the face."""

from collections.abc import Callable
from typing import Any

import numpy as np

from composition.heart_rate import HeartRate
from composition.rate_windows import find_rate_windows
from datamodules.colour_pulse import colour_wave, predict_mean_rate
from tracking.hr_predictions import HeartRates

Predict = Callable[[str], HeartRates]


def mean_rate(datamodule: Any, task: HeartRate) -> Predict:
    """Answer with the mean heart rate of the training clips, whatever the video; there is no wave, hence no SNR."""
    train_bpm = datamodule.hr("train")

    def predict(split: str) -> HeartRates:
        windows = find_rate_windows(datamodule, split, task.window_s)
        answers = []
        for n in (len(windows.cuts), len(windows.spans)):
            answers += [predict_mean_rate(train_bpm, n), np.full(n, np.nan)]
        return windows.answer(*answers)

    return predict


def colour_pulse(datamodule: Any, task: HeartRate, method: str) -> Predict:
    """Answer with the rate of a pulse from the mean colour of the face.

    Parameters
    ----------
    datamodule : VideoDataModule
    task : HeartRate
        Its filter, and the way from a wave to a rate: those of the nets beside.
    method : {"green", "chrom", "pos"}
        See `datamodules.colour_pulse.colour_wave`.
    """

    def predict(split: str) -> HeartRates:
        windows, traces = find_rate_windows(datamodule, split, task.window_s), datamodule.traces(split)
        waves = []
        for stretch in windows.stretches:
            trace = traces[stretch.record_id]
            times_s = stretch.start_s + np.arange(len(stretch.hr_bpm)) / windows.fs
            rgb = np.stack([np.interp(times_s, trace["times_s"], colour) for colour in trace["rgb"].T], axis=1)
            waves.append(colour_wave(rgb, task.assumed_fs or windows.fs, method, task.pulse))
        return task.read_waves(windows, waves)

    return predict
