"""Random changes to training windows of RR intervals, drawn per window and computed per batch."""

import math

import torch
from torch import Tensor
from torch.nn import functional


class RrAugment:
    """Augmentation of a batch of RR intervals in seconds.

    Everything is off by default. Order: jitter, premature beats.

    Parameters
    ----------
    jitter_s : float, default 0
        Beats move by normal noise in seconds; its standard deviation is uniform between 0 and this, one per window.
        A beat that moves makes one interval longer and the next shorter.
    premature : float, default 0
        Probability that a beat comes early, uniform between 0 and this, one per window: by up to half of its interval,
        uniform; the next interval is longer by as much (a compensatory pause).

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    def __init__(self, jitter_s: float = 0.0, premature: float = 0.0) -> None:
        if not (jitter_s >= 0 and math.isfinite(jitter_s)):
            raise ValueError(f"augment.jitter_s is {jitter_s!r}, expected 0 or more")
        if not 0 <= premature <= 1:
            raise ValueError(f"augment.premature is {premature!r}, expected a probability")
        self.jitter_s = jitter_s
        self.premature = premature

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
        if self.jitter_s:
            spread_s = self.jitter_s * torch.rand(batch, 1, 1, generator=generator)
            intervals_s = intervals_s + (spread_s * torch.randn(batch, rows, time + 1, generator=generator)).diff()
        if self.premature:
            probability = self.premature * torch.rand(batch, 1, 1, generator=generator)
            # The last beat has no next interval here.
            chosen, shares = (torch.rand(batch, rows, time - 1, generator=generator) for _ in range(2))
            early_s = (chosen < probability) * 0.5 * shares * intervals_s[..., :-1]
            intervals_s = intervals_s + functional.pad(early_s, (1, 0)) - functional.pad(early_s, (0, 1))
        return intervals_s
