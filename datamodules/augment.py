"""Random changes to training windows, drawn per window and computed per batch."""

import math

import torch
from torch import Tensor


class EcgAugment:
    """Augmentation of a batch of ECG windows in mV.

    Everything is off by default. Order: crop, shift, amplitude, noise, lead drop.

    Parameters
    ----------
    fs : float
        Sampling frequency in Hz.
    crop_s : float, optional
        Length of a random crop in seconds; the batch gets shorter.
    shift_s : float, default 0
        Circular shift, uniform within plus and minus this many seconds.
    amplitude : float, default 0
        Standard deviation of a gain around 1, one per window.
    noise_mv : float, default 0
        Standard deviation of white noise in mV.
    lead_drop : float, default 0
        Probability that a lead is set to 0 mV.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    def __init__(
        self,
        fs: float,
        crop_s: float | None = None,
        shift_s: float = 0.0,
        amplitude: float = 0.0,
        noise_mv: float = 0.0,
        lead_drop: float = 0.0,
    ) -> None:
        if not fs > 0:
            raise ValueError(f"augment.fs is {fs!r}, expected a frequency above 0 Hz")
        if crop_s is not None and not crop_s * fs >= 1:
            raise ValueError(f"augment.crop_s is {crop_s!r}, expected null or at least one sample ({1 / fs:g} s)")
        for name, value in (("shift_s", shift_s), ("amplitude", amplitude), ("noise_mv", noise_mv)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"augment.{name} is {value!r}, expected 0 or more")
        if not 0 <= lead_drop < 1:
            raise ValueError(f"augment.lead_drop is {lead_drop!r}, expected a probability below 1")
        self.fs = fs
        self.crop_s = crop_s
        self.shift_s = shift_s
        self.amplitude = amplitude
        self.noise_mv = noise_mv
        self.lead_drop = lead_drop

    def __call__(self, signal_mv: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augment a batch.

        Parameters
        ----------
        signal_mv : Tensor of float32, shape (batch, leads, time)
            Windows in mV; left as they are.
        generator : torch.Generator, optional
            Source of randomness; torch's own by default.

        Returns
        -------
        Tensor of float32, shape (batch, leads, time) or (batch, leads, crop_s * fs)
            Augmented windows in mV.

        Raises
        ------
        ValueError
            If the crop is longer than the windows.
        """
        batch, leads, _ = signal_mv.shape
        signal = self._shift(self._crop(signal_mv, generator), generator)
        if self.amplitude:
            signal = signal * (1 + self.amplitude * torch.randn(batch, 1, 1, generator=generator))
        if self.noise_mv:
            signal = signal + self.noise_mv * torch.randn(signal.shape, generator=generator)
        if self.lead_drop:
            signal = signal * (torch.rand(batch, leads, 1, generator=generator) >= self.lead_drop)
        return signal

    def _crop(self, signal: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.crop_s is None:
            return signal
        length, time = round(self.crop_s * self.fs), signal.shape[-1]
        if length > time:
            raise ValueError(f"augment.crop_s is {self.crop_s!r}, longer than a window of {time / self.fs:g} s")
        return _windows_at(signal, torch.randint(time - length + 1, (len(signal),), generator=generator), length)

    def _shift(self, signal: Tensor, generator: torch.Generator | None) -> Tensor:
        time = signal.shape[-1]
        furthest = min(round(self.shift_s * self.fs), time // 2)
        if not furthest:
            return signal
        shift = torch.randint(-furthest, furthest + 1, (len(signal),), generator=generator) % time
        return _windows_at(torch.cat((signal, signal), dim=-1), shift, time)


def _windows_at(signal: Tensor, starts: Tensor, length: int) -> Tensor:
    # A strided view of all windows, of which one per row is copied: no loop and no index per sample.
    # signal (batch, leads, time) -> (batch, leads, start, length) -> (batch, leads, length)
    return signal.unfold(-1, length, 1)[torch.arange(len(signal)), :, starts]
