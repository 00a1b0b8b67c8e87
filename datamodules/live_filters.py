"""The filters of `datamodules.filters` on a stream, block by block, each with enough of its surroundings.

A band-pass that runs forwards and backwards needs the future, and a threshold that holds for a whole record needs
the end of it. Here the filters see what lies around a block, as far as their answer to it reaches, and the noise is
that of the last minutes. So a stream differs from a whole record by what `SETTLED` leaves, by the noise estimate,
and at the ends of segments.
"""

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from datamodules.filters import Filters, estimate_noise, pass_band, soften
from datamodules.live_blocks import Block, BlockPlan

SETTLED = 1e-3
"""Share of a disturbance that may be left when a filter counts as settled."""
NOISE_S = 300.0
"""How much of the past the noise of the wavelet threshold is taken from, in seconds."""


def plan_blocks(filters: Filters, fs: float, block_s: float) -> BlockPlan:
    """Choose blocks and surroundings in which filters settle.

    Parameters
    ----------
    filters : Filters
        What will be done to the signal.
    fs : float
        Sampling frequency in Hz.
    block_s : float
        Wished length of a block in seconds; rounded up, so that wavelets fall on the same samples in every block.

    Returns
    -------
    BlockPlan
        In samples. What is seen ahead delays every decision.

    Raises
    ------
    ValueError
        If a block is shorter than half a second, or the band does not fit the sampling frequency.
    """
    if not block_s >= 0.5:
        raise ValueError(f"block_s is {block_s!r}, expected at least 0.5 seconds")
    ahead = settle_samples(filters, fs)
    grid = 2**filters.levels if filters.wavelet else 1
    if filters.wavelet:
        import pywt

        ahead += (pywt.Wavelet(filters.wavelet_name).dec_len - 1) * (grid - 1)
    ahead = max(ahead, math.ceil(fs))  # the last QRS complex of a block, as a whole
    return BlockPlan(*(grid * math.ceil(length / grid) for length in (block_s * fs, ahead, ahead)))


def settle_samples(filters: Filters, fs: float) -> int:
    """Count the samples until the band-pass has forgotten a disturbance down to `SETTLED`.

    Parameters
    ----------
    filters : Filters
        The filter.
    fs : float
        Sampling frequency in Hz.

    Returns
    -------
    int
        Samples, from the slowest pole; 0 without a band-pass.

    Raises
    ------
    ValueError
        If the band does not fit the sampling frequency.
    """
    if not filters.band_pass:
        return 0
    from scipy.signal import butter

    if not 0 < filters.low_hz < filters.high_hz < fs / 2:
        raise ValueError(
            f"the band of {filters.low_hz!r} to {filters.high_hz!r} Hz does not fit fs {fs!r} Hz: resample to more"
            f" than {2 * filters.high_hz!r} Hz"
        )
    poles = butter(filters.order, [filters.low_hz, filters.high_hz], "bandpass", fs=fs, output="zpk")[1]
    return math.ceil(math.log(SETTLED) / math.log(np.abs(poles).max()))


class BlockFilter:
    """Filters the blocks of a stream; holds what it knows of the past, in memory that does not grow.

    Parameters
    ----------
    filters : Filters
        What to do.
    fs : float
        Sampling frequency in Hz.
    n_leads : int
        Leads of the stream.
    record_s : float
        Length of record that the universal threshold of the wavelet is for, in seconds: that of the training data.
    plan : BlockPlan
        How the stream is cut, see `plan_blocks`.
    """

    def __init__(self, filters: Filters, fs: float, n_leads: int, record_s: float, plan: BlockPlan) -> None:
        self.filters = filters
        self.fs = fs
        self.shortest = 30
        if filters.wavelet:
            import pywt

            self.shortest = max(self.shortest, (pywt.Wavelet(filters.wavelet_name).dec_len - 1) * 2**filters.levels)
        if filters.band_pass:
            self.shortest = max(self.shortest, 3 * (2 * filters.order + 1) + 1)
        self._factor = math.sqrt(2 * math.log(max(2.0, record_s * fs)))
        self._noise: deque[NDArray[np.float64]] = deque(maxlen=max(1, round(NOISE_S * fs / plan.step)))
        self._sum, self._count = np.zeros((n_leads, 1)), 0

    def apply(self, block: Block) -> NDArray[np.float64] | None:
        """Filter a block with its surroundings.

        Parameters
        ----------
        block : Block
            The next one of the stream.

        Returns
        -------
        ndarray of float64, shape (leads, time), or None
            Block and surroundings, filtered; only the block itself is settled. None where a segment is too short
            for the filters.
        """
        if block.signal_mv.shape[1] < self.shortest:
            return None
        filters, signal = self.filters, block.signal_mv.astype(np.float64)
        if filters.subtract_mean:
            if block.opens:  # behind a gap the level may be another one
                self._sum[:], self._count = 0, 0
            self._sum += signal[:, block.inside].sum(axis=1, keepdims=True)
            self._count += block.stop - block.start
            signal -= self._sum / self._count
        if filters.band_pass:
            signal = pass_band(signal, self.fs, filters.low_hz, filters.high_hz, filters.order)
        return self._shrink(signal, block) if filters.wavelet else signal

    def _shrink(self, signal: NDArray[np.float64], block: Block) -> NDArray[np.float64]:
        import pywt

        coefficients = pywt.wavedec(signal, self.filters.wavelet_name, level=self.filters.levels, axis=-1)
        inside = slice(block.inside.start // 2, -(-block.inside.stop // 2))
        self._noise.append(estimate_noise(coefficients[-1][:, inside]))
        soften(coefficients, np.median(self._noise, axis=0) * self._factor)
        return np.asarray(pywt.waverec(coefficients, self.filters.wavelet_name, axis=-1)[:, : signal.shape[1]])
