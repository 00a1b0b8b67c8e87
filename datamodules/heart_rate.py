"""Heart rate, its variability and the quality of a pulse wave; for training and for live use alike."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import interpolate, signal

from datamodules.pulse import check_wave

Floats = NDArray[np.float64]

# Zeros are padded until the bins of a spectrum lie closer than this, in Hz; a parabola does the rest.
BIN_HZ = 0.01
# de Haan and Jeanne's: 40 to 240 beats a minute, and what counts as pulse on either side of a harmonic.
SNR_BAND_HZ = (2 / 3, 4.0)
SNR_HALF_WIDTH_HZ = 0.1
# Beats are placed to 4 ms; fewer of them vary by chance.
HRV_FS = 250
MIN_BEATS = 20


def find_rate(
    wave: ArrayLike, fs: float, method: str = "fft", band_hz: Sequence[float] = (0.75, 2.5)
) -> NDArray[np.float64]:
    """Heart rate of a wave (..., samples), in beats a minute.

    Parameters
    ----------
    wave : array_like of shape (..., samples)
        Of `PulseFilter`.
    fs : float
    method : {"fft", "autocorrelation", "peaks", "count"}
        Highest peak of the spectrum; shortest lag at which the wave repeats itself; median interval between peaks;
        number of peaks over the length, as P1 does: a peak too many in 10 s is 6 beats a minute.
    band_hz : sequence of float, default (.75, 2.5)
        Where the rate is looked for.

    Returns
    -------
    ndarray of shape (...)
        NaN where a wave is constant or shows no peaks.

    Raises
    ------
    ValueError
        If the method is unknown, a value is not finite, or the wave is shorter than two of the longest beats.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} must be one of {sorted(METHODS)}")
    values = check_wave(wave, fs)
    n, shape = values.shape[-1], values.shape[:-1]
    if n < 2 * fs / band_hz[0]:
        raise ValueError(
            f"{n / fs:.1f} s are too short for a rate from {60 * band_hz[0]:g} bpm on:"
            f" {2 / band_hz[0]:.1f} s are needed"
        )
    rows = values.reshape(-1, n)
    rows = rows - rows.mean(axis=1, keepdims=True)
    rates = np.full(len(rows), np.nan)
    moving = np.ptp(rows, axis=1) > 0
    if moving.any():
        rates[moving] = 60 * METHODS[method](rows[moving], fs, (band_hz[0], band_hz[1]))
    return rates.reshape(shape)


def find_rates(
    wave: ArrayLike,
    fs: float,
    window_s: float,
    step_s: float,
    method: str = "fft",
    band_hz: Sequence[float] = (0.75, 2.5),
) -> NDArray[np.float64]:
    """Heart rate of every window of a wave (samples,), in beats a minute; one window where the wave is shorter."""
    return find_rate(cut_windows(wave, fs, window_s, step_s), fs, method, band_hz)


def cut_windows(wave: ArrayLike, fs: float, window_s: float, step_s: float) -> Floats:
    """Cut a wave (..., samples) into windows (..., windows, samples of one); the whole where it is shorter."""
    values = np.asarray(wave, dtype=np.float64)
    length, step = round(window_s * fs), round(step_s * fs)
    if length < 1 or step < 1:
        raise ValueError(f"window_s={window_s!r} and step_s={step_s!r} must be at least one sample of fs={fs:g} Hz")
    windows = np.lib.stride_tricks.sliding_window_view(values, min(length, values.shape[-1]), axis=-1)
    return windows[..., ::step, :]


def signal_to_noise(wave: ArrayLike, fs: float, rate_bpm: ArrayLike) -> NDArray[np.float64]:
    """Power around a heart rate and its first overtone against the rest of 40 to 240 beats a minute, in dB.

    Parameters
    ----------
    wave : array_like of shape (..., samples)
    fs : float
    rate_bpm : array_like of shape (...)
        The true rate, to judge a method; its own estimate, to judge a recording.

    Returns
    -------
    ndarray of shape (...)
        NaN where the wave is constant or the rate is not finite.

    Notes
    -----
    de Haan and Jeanne 2013 (doi 10.1109/TBME.2013.2266196), with .1 Hz on either side of a harmonic. Differs: in
    windows shorter than 10 s one over their length, which is what they resolve.
    """
    values, rates = check_wave(wave, fs), np.asarray(rate_bpm, dtype=np.float64)[..., None] / 60
    frequencies, power = _spectrum(values - values.mean(axis=-1, keepdims=True), fs)
    inside = (frequencies >= SNR_BAND_HZ[0]) & (frequencies <= SNR_BAND_HZ[1])
    half_width = max(SNR_HALF_WIDTH_HZ, fs / values.shape[-1])
    near = (abs(frequencies - rates) <= half_width) | (abs(frequencies - 2 * rates) <= half_width)
    pulse, noise = (np.where(inside & mask, power, 0).sum(axis=-1) for mask in (near, ~near))
    usable = (pulse > 0) & (noise > 0)
    ratio = np.divide(pulse, noise, out=np.full_like(pulse, np.nan), where=usable)
    return 10 * np.log10(ratio)


def find_variability(wave: ArrayLike, fs: float, min_s: float = 60.0) -> dict[str, float]:
    """Heart-rate variability of a long wave (samples,), by neurokit2's peaks and its indices of the time domain.

    Parameters
    ----------
    wave : array_like of shape (samples,)
        Of `datamodules.pulse.PulseFilter`; brought to 250 Hz by splines first, as frames are too far apart.
    fs : float
    min_s : float, default 60
        Shortest wave that is taken.

    Returns
    -------
    dict of str to float
        ``mean_nn_ms``, ``sdnn_ms``, ``rmssd_ms``, ``pnn50`` (per cent) and ``n_beats``.

    Raises
    ------
    ValueError
        If the wave is too short, or shows too few beats.
    """
    import neurokit2

    values = check_wave(wave, fs)
    n = len(values)
    if n < min_s * fs:
        raise ValueError(f"{n / fs:.1f} s are too short for heart-rate variability, expected {min_s:g} s or more")
    grid = np.arange(0, (n - 1) / fs, 1 / HRV_FS)
    fine = interpolate.CubicSpline(np.arange(n) / fs, values)(grid)
    peaks = neurokit2.ppg_findpeaks(fine, sampling_rate=HRV_FS)["PPG_Peaks"]
    if len(peaks) < MIN_BEATS:
        raise ValueError(f"{len(peaks)} beats in {n / fs:.1f} s are too few for heart-rate variability")
    indices = neurokit2.hrv_time({"PPG_Peaks": peaks}, sampling_rate=HRV_FS).iloc[0]
    names = {"mean_nn_ms": "HRV_MeanNN", "sdnn_ms": "HRV_SDNN", "rmssd_ms": "HRV_RMSSD", "pnn50": "HRV_pNN50"}
    return {**{name: float(indices[column]) for name, column in names.items()}, "n_beats": float(len(peaks))}


def _spectrum(rows: Floats, fs: float) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Frequencies in Hz and power (..., frequencies).

    Without a taper, which would hear the middle of a clip more than its ends where the rate drifts.
    """
    n = rows.shape[-1]
    padded = 1 << int(np.ceil(np.log2(max(n, fs / BIN_HZ))))
    return np.fft.rfftfreq(padded, 1 / fs), np.abs(np.fft.rfft(rows, padded)) ** 2


def _sharpen(curves: NDArray[np.floating], peaks: NDArray[np.intp]) -> Floats:
    """Place of the vertex of the parabola through a peak and its neighbours, in samples; as it is at the border."""
    row = np.arange(len(curves))
    inner = (peaks > 0) & (peaks < curves.shape[1] - 1)
    at = np.clip(peaks, 1, curves.shape[1] - 2)
    left, top, right = curves[row, at - 1], curves[row, at], curves[row, at + 1]
    bend = left - 2 * top + right
    shift = np.divide(left - right, 2 * bend, out=np.zeros_like(bend), where=inner & (bend < 0))
    return peaks + np.clip(shift, -0.5, 0.5)


def _by_fft(rows: Floats, fs: float, band_hz: tuple[float, float]) -> Floats:
    frequencies, power = _spectrum(rows, fs)
    inside = np.flatnonzero((frequencies >= band_hz[0]) & (frequencies <= band_hz[1]))
    curves = np.log(power[:, inside] + np.finfo(float).tiny)
    return (inside[0] + _sharpen(curves, curves.argmax(axis=1))) * frequencies[1]


def _by_autocorrelation(rows: Floats, fs: float, band_hz: tuple[float, float]) -> Floats:
    n = rows.shape[1]
    padded = 1 << int(np.ceil(np.log2(2 * n)))
    correlation = np.fft.irfft(np.abs(np.fft.rfft(rows, padded)) ** 2, padded)[:, :n] / np.arange(n, 0, -1)
    lags = np.arange(max(int(np.floor(fs / band_hz[1])) - 1, 1), int(np.ceil(fs / band_hz[0])) + 1)
    curves = correlation[:, lags]
    tops = (curves >= correlation[:, lags - 1]) & (curves > correlation[:, lags + 1])
    # Two beats repeat themselves as well as one: the shortest lag that does nearly as well as the best.
    high = tops & (curves >= 0.6 * np.where(tops, curves, -np.inf).max(axis=1, keepdims=True)) & (curves > 0)
    first = high.argmax(axis=1)
    return np.where(high.any(axis=1), fs / (lags[0] + _sharpen(curves, first)), np.nan)


def _find_peaks(row: Floats, fs: float, band_hz: tuple[float, float]) -> Floats:
    """Places of the peaks of one wave in samples, at least half of the shortest beat apart."""
    peaks, _ = signal.find_peaks(row, distance=max(0.5 * fs / band_hz[1], 1), prominence=row.std())
    return _sharpen(np.broadcast_to(row, (len(peaks), len(row))), peaks) if len(peaks) else np.empty(0)


def _by_peaks(rows: Floats, fs: float, band_hz: tuple[float, float]) -> Floats:
    intervals = [np.diff(_find_peaks(row, fs, band_hz)) for row in rows]
    return np.array([fs / np.median(steps) if len(steps) else np.nan for steps in intervals])


def _by_count(rows: Floats, fs: float, band_hz: tuple[float, float]) -> Floats:
    counts = np.array([len(signal.find_peaks(row)[0]) for row in rows], dtype=np.float64)
    return np.where(counts > 0, counts * fs / rows.shape[1], np.nan)


METHODS: dict[str, Callable[[Floats, float, tuple[float, float]], Floats]] = {
    "fft": _by_fft,
    "autocorrelation": _by_autocorrelation,
    "peaks": _by_peaks,
    "count": _by_count,
}
