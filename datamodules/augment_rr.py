"""Random changes to training windows of RR intervals, drawn per window and computed per batch."""

import math

import torch
from torch import Tensor


class RrAugment:
    """Augmentation of a batch of RR intervals in seconds.

    Everything is off by default. Order: rate, jitter.

    Parameters
    ----------
    rate : float, default 0
        Standard deviation of the logarithm of a factor, one per window: another heart rate, the same irregularity.
    jitter_s : float, default 0
        Beats move by normal noise in seconds; its standard deviation is uniform between 0 and this, one per window.
        A beat that moves makes one interval longer and the next shorter.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    def __init__(self, rate: float = 0.0, jitter_s: float = 0.0) -> None:
        for name, value in (("rate", rate), ("jitter_s", jitter_s)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"augment.{name} is {value!r}, expected 0 or more")
        self.rate = rate
        self.jitter_s = jitter_s

    def __call__(self, intervals_s: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augment a batch.

        Parameters
        ----------
        intervals_s : Tensor of float32, shape (batch, 1, time)
            RR intervals in seconds; left as they are.
        generator : torch.Generator, optional
            Source of randomness; torch's own by default.

        Returns
        -------
        Tensor of float32, shape (batch, 1, time)
            Augmented intervals in seconds.
        """
        batch, rows, time = intervals_s.shape
        if self.rate:
            intervals_s = intervals_s * torch.exp(self.rate * torch.randn(batch, 1, 1, generator=generator))
        if self.jitter_s:
            spread_s = self.jitter_s * torch.rand(batch, 1, 1, generator=generator)
            intervals_s = intervals_s + (spread_s * torch.randn(batch, rows, time + 1, generator=generator)).diff()
        return intervals_s
