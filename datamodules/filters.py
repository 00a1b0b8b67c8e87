"""Filters for single-lead Holter signals: mean removal, band-pass, wavelet denoising; each can be left out."""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MANY, _SAMPLED = 1 << 17, 1 << 15


@dataclass(frozen=True, slots=True)
class Filters:
    """What is done to a signal before beats are cut out of it, in this order.

    Attributes
    ----------
    subtract_mean : bool
        Subtract the mean of each lead.
    band_pass : bool
        Butterworth band-pass, run forwards and backwards, so without a phase.
    low_hz, high_hz : float
        Its edges in Hz.
    order : int
        Its order, per direction. The paper names none.
    wavelet : bool
        Soft-threshold the details of a discrete wavelet transform, see `shrink_wavelet`.
    wavelet_name : str
        Wavelet of pywavelets.
    levels : int
        Levels of the transform.
    """

    subtract_mean: bool = True
    band_pass: bool = True
    low_hz: float = 0.5
    high_hz: float = 50.0
    order: int = 2
    wavelet: bool = True
    wavelet_name: str = "db4"
    levels: int = 5


def apply_filters(signal_mv: NDArray[np.floating], fs: float, filters: Filters) -> NDArray[np.float64]:
    """Filter a signal.

    Parameters
    ----------
    signal_mv : ndarray, shape (..., time)
        Signal without missing values; left as it is.
    fs : float
        Sampling frequency in Hz.
    filters : Filters
        What to do.

    Returns
    -------
    ndarray of float64, shape (..., time)
        The filtered signal.

    Raises
    ------
    ValueError
        If the band does not fit the sampling frequency, the signal is too short, or it holds NaN.
    """
    filtered = np.array(signal_mv, dtype=np.float64)
    mean = filtered.mean(axis=-1, keepdims=True)
    if not np.isfinite(mean).all():  # one value that is not finite makes the mean so
        raise ValueError("the signal holds NaN or infinite values, expected none: bridge missing samples first")
    if filters.subtract_mean:
        filtered -= mean
    if filters.band_pass:
        filtered = pass_band(filtered, fs, filters.low_hz, filters.high_hz, filters.order)
    if filters.wavelet:
        filtered = shrink_wavelet(filtered, filters.wavelet_name, filters.levels)
    return filtered


def pass_band(signal: NDArray[np.float64], fs: float, low_hz: float, high_hz: float, order: int) -> NDArray[np.float64]:
    """Band-pass a signal without shifting it: a Butterworth filter, forwards and backwards.

    Parameters
    ----------
    signal : ndarray of float64, shape (..., time)
        The signal.
    fs, low_hz, high_hz : float
        Sampling frequency and edges in Hz.
    order : int
        Order of the filter, per direction.

    Returns
    -------
    ndarray of float64, shape (..., time)
        The part within the band.

    Raises
    ------
    ValueError
        If the edges do not fit the sampling frequency, or the signal is too short for the filter.
    """
    from scipy.signal import sosfiltfilt

    if not 0 < low_hz < high_hz < fs / 2:
        raise ValueError(
            f"the band of {low_hz!r} to {high_hz!r} Hz does not fit fs {fs!r} Hz, expected 0 < low < high < {fs / 2:g}:"
            f" change datamodule.source.filters"
        )
    sos = _design_band(fs, low_hz, high_hz, order)
    padding = 3 * (2 * len(sos) + 1)  # what sosfiltfilt needs
    if signal.shape[-1] <= padding:
        raise ValueError(f"the signal has {signal.shape[-1]} samples, expected more than {padding} to filter it")
    return np.asarray(sosfiltfilt(sos, signal, axis=-1))


@functools.cache
def _design_band(fs: float, low_hz: float, high_hz: float, order: int) -> NDArray[np.float64]:
    from scipy.signal import butter

    return np.asarray(butter(order, [low_hz, high_hz], "bandpass", fs=fs, output="sos"))


def shrink_wavelet(signal: NDArray[np.float64], wavelet: str = "db4", levels: int = 5) -> NDArray[np.float64]:
    """Denoise by soft thresholding of wavelet details, with the universal threshold.

    The threshold is sigma * sqrt(2 ln n) for n samples, and sigma the median absolute detail of the finest level
    over 0.6745 (Donoho & Johnstone 1994, 10.1093/biomet/81.3.425), per lead. The approximation is left alone.

    Parameters
    ----------
    signal : ndarray of float64, shape (..., time)
        The signal.
    wavelet : str
        Wavelet of pywavelets.
    levels : int
        Levels of the transform.

    Returns
    -------
    ndarray of float64, shape (..., time)
        The denoised signal.

    Raises
    ------
    ValueError
        If the signal is too short for so many levels.
    """
    import pywt

    n_samples = signal.shape[-1]
    most = pywt.dwt_max_level(n_samples, pywt.Wavelet(wavelet).dec_len)
    if levels > most:
        raise ValueError(
            f"the signal has {n_samples} samples, enough for {most} wavelet levels, expected {levels!r}"
            f" (datamodule.source.filters.levels)"
        )
    coefficients = pywt.wavedec(signal, wavelet, level=levels, axis=-1)
    threshold = estimate_noise(coefficients[-1]) * np.sqrt(2 * np.log(n_samples))
    soften(coefficients, threshold)
    return np.asarray(pywt.waverec(coefficients, wavelet, axis=-1)[..., :n_samples])


def estimate_noise(finest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Estimate the noise of a signal from its finest wavelet details.

    Parameters
    ----------
    finest : ndarray of float64, shape (..., n)
        Details of the finest level.

    Returns
    -------
    ndarray of float64, shape (..., 1)
        Standard deviation of white noise with such a median absolute value.
    """
    sizes = np.abs(finest)
    medians = [find_median(row) for row in sizes.reshape(-1, sizes.shape[-1])]
    return np.array(medians).reshape(*sizes.shape[:-1], 1) / 0.6745


def find_median(values: NDArray[np.float64]) -> float:
    """Find the median, of many values in a third of `np.median`'s time: of most, only their number is of interest.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        Finite values.

    Returns
    -------
    float
        What `np.median` gives, to the last bit.
    """
    n_values = len(values)
    if n_values < _MANY:
        return float(np.median(values))
    # The median lies between quantiles of a sample, at a distance of six standard errors to either side.
    sample = np.sort(values[:: n_values // _SAMPLED])
    margin = round(3 * np.sqrt(len(sample)))
    low, high = sample[len(sample) // 2 - margin], sample[len(sample) // 2 + margin]
    n_below = np.count_nonzero(values < low)
    between = np.sort(values[(values >= low) & (values <= high)])
    first, last = (n_values - 1) // 2 - n_below, n_values // 2 - n_below
    if not 0 <= first <= last < len(between):  # the sample was no good
        return float(np.median(values))
    return float(np.mean(between[[first, last]]))


def soften(coefficients: list[NDArray[np.float64]], threshold: NDArray[np.float64]) -> None:
    """Soft-threshold wavelet details in place.

    Parameters
    ----------
    coefficients : list of ndarray of float64
        As `pywt.wavedec` gives them: the approximation, which is left alone, and the details of each level.
    threshold : ndarray of float64
        Threshold, of a shape that fits the details.
    """
    for level in range(1, len(coefficients)):
        details = coefficients[level]
        # What soft thresholding takes away is the detail, clipped.
        details -= np.clip(details, -threshold, threshold)
