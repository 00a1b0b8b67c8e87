"""Pulse waves from the mean colour of a face, without learning: what every net must beat."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datamodules.pulse import PulseFilter, bandpass, check_wave

Floats = NDArray[np.float64]

# Length of the windows of CHROM and POS: no beat but the slowest is longer.
WINDOW_S = 1.6
CHROM_BAND_HZ = (0.7, 4.0)
TINY = 1e-9


def predict_mean_rate(train_bpm: ArrayLike, n: int) -> Floats:
    """Answer with the mean heart rate in training for each of `n` windows or videos, in beats a minute."""
    return np.full(n, np.asarray(train_bpm, dtype=np.float64).mean())


def colour_wave(rgb: ArrayLike, fs: float, method: str = "pos", pulse_filter: PulseFilter | None = None) -> Floats:
    """Pulse wave of the mean colour of a face, as clean as that of a net, see `PulseFilter`.

    Parameters
    ----------
    rgb : array_like of shape (..., frames, 3)
        Mean red, green and blue of each frame, in any unit that starts at 0.
    fs : float
        Frames a second.
    method : {"green", "chrom", "pos"}
    pulse_filter : PulseFilter, optional
        With its own defaults if not given.

    Returns
    -------
    ndarray of float64, shape (..., frames)

    Raises
    ------
    ValueError
        If the method is unknown, there are not three colours, a value is not finite, a colour is black all the time,
        or the trace is shorter than a window of 1.6 s.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} must be one of {sorted(METHODS)}")
    colours = check_wave(rgb, fs)
    if colours.shape[-1:] != (3,):
        raise ValueError(f"rgb of shape {colours.shape}, expected (..., frames, 3)")
    if colours.shape[-2] < round(WINDOW_S * fs):
        raise ValueError(f"{colours.shape[-2] / fs:.2f} s of colour are too short, expected {WINDOW_S} s or more")
    if not (colours.mean(axis=-2) > 0).all():
        raise ValueError("a colour has a mean of 0 or less: expected brightness, not differences")
    return (pulse_filter or PulseFilter()).clean(METHODS[method](colours, fs), fs)


def green(rgb: Floats, fs: float) -> Floats:
    """Green channel, which blood absorbs most, darker where there is more: Verkruysse 2008 (doi 10.1364/OE.16.021434).

    Shapes: rgb (..., frames, 3) -> (..., frames). The sign is turned, so that a beat points up as in a pulse wave.
    """
    return -rgb[..., 1]


def chrom(rgb: Floats, fs: float) -> Floats:
    """Two chrominance signals weighed so that motion cancels: de Haan 2013 (doi 10.1109/TBME.2013.2266196).

    Shapes: rgb (..., frames, 3) -> (..., frames). Windows of 1.6 s overlap by half under a Hann window.
    """
    length = round(WINDOW_S * fs) // 2 * 2
    windows, starts = _cut(rgb, length, length // 2)
    red, green_, blue = np.moveaxis(windows / windows.mean(axis=-2, keepdims=True), -1, 0)
    low, high = CHROM_BAND_HZ
    band = (low, min(high, 0.45 * fs))
    x, y = bandpass(3 * red - 2 * green_, fs, band), bandpass(1.5 * red + green_ - 1.5 * blue, fs, band)
    waves = x - _ratio(x, y) * y
    return _overlap_add(waves * np.hanning(length + 1)[:-1], starts, rgb.shape[-2])


def pos(rgb: Floats, fs: float) -> Floats:
    """Plane orthogonal to the skin tone, window by window: Wang et al. 2017 (doi 10.1109/TBME.2016.2609282).

    Shapes: rgb (..., frames, 3) -> (..., frames). The sign is turned, as in `green`.
    """
    windows, starts = _cut(rgb, round(WINDOW_S * fs), 1)
    red, green_, blue = np.moveaxis(windows / windows.mean(axis=-2, keepdims=True), -1, 0)
    x, y = blue - green_, 2 * red - green_ - blue
    waves = x + _ratio(x, y) * y
    return _overlap_add(waves - waves.mean(axis=-1, keepdims=True), starts, rgb.shape[-2])


METHODS: dict[str, Callable[[Floats, float], Floats]] = {"green": green, "chrom": chrom, "pos": pos}


def _cut(rgb: Floats, length: int, step: int) -> tuple[Floats, NDArray[np.intp]]:
    """Windows (..., windows, length, 3) and where they start; the last one ends with the trace."""
    last = rgb.shape[-2] - length
    starts = np.unique(np.append(np.arange(0, last + 1, step), last))
    windows = np.lib.stride_tricks.sliding_window_view(rgb, length, axis=-2)[..., starts, :, :]
    return np.swapaxes(windows, -1, -2), starts


def _ratio(x: Floats, y: Floats) -> Floats:
    return x.std(axis=-1, keepdims=True) / np.maximum(y.std(axis=-1, keepdims=True), TINY)


def _overlap_add(waves: Floats, starts: NDArray[np.intp], n_frames: int) -> Floats:
    """Sum windows (..., windows, length) up where they lie in the trace."""
    total = np.zeros((*waves.shape[:-2], n_frames))
    # No two windows start at the same frame, so each of these is one vectorised addition.
    for offset in range(waves.shape[-1]):
        total[..., starts + offset] += waves[..., offset]
    return total
