"""A small temporal convolutional net for windows of RR intervals."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.nets.layers import same_conv

SHORTEST_S, LONGEST_S = 0.15, 3.0
"""Intervals are limited to this range, in seconds, before their logarithm is taken."""


class RrFeatures(nn.Module):
    """Deviation of each interval from the window's mean, and change from one interval to the next, as logarithms.

    Both are the same at any heart rate.

    Parameters
    ----------
    mean_s, std_s : float
        Mean and standard deviation of RR intervals in seconds that standardised intervals are taken back with.
    """

    def __init__(self, mean_s: float, std_s: float) -> None:
        super().__init__()
        self.mean_s = mean_s
        self.std_s = std_s

    def forward(self, intervals: Tensor) -> Tensor:
        """Compute the features, about within plus and minus 1.

        Shapes: intervals (batch, leads, time) -> features (batch, 2 * leads, 1, time).
        """
        logarithm = (intervals * self.std_s + self.mean_s).clamp(SHORTEST_S, LONGEST_S).log()
        deviation = logarithm - logarithm.mean(-1, keepdim=True)
        change = functional.pad(logarithm[..., 1:] - logarithm[..., :-1], (1, 0))
        return torch.cat([4 * deviation, 5 * change], dim=1).unsqueeze(2)


class DilatedBlock(nn.Module):
    """Dilated convolution, ReLU, 1x1 convolution, added to the input.

    Parameters
    ----------
    channels : int
        Channels of input and output.
    kernel : int
        Odd kernel length.
    dilation : int
        Intervals from one tap of the kernel to the next.

    Raises
    ------
    ValueError
        If `kernel` is even.
    """

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel {kernel!r} is even, expected an odd length for 'same' padding")
        self.residual = nn.Sequential(
            # Out and back by `dilation` intervals per tap: the length stays.
            nn.Conv2d(channels, channels, (1, kernel), 1, (0, dilation * (kernel // 2)), (1, dilation), bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            same_conv(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Shapes: (batch, channels, 1, time) -> the same."""
        return torch.relu(features + self.residual(features))


class RrTcn(nn.Module):
    """Dilated residual convolutions over RR intervals; mean and spread over time; two linear layers.

    Parameters
    ----------
    n_leads, n_classes : int
        Rows of the input (1 for RR intervals), logits of the output.
    n_samples : int
        Intervals of one window; not used, the net takes any length.
    width : int, default 24
        Channels.
    kernel_size : int, default 3
        Odd kernel length of the dilated convolutions.
    dilations : sequence of int, default (1, 2, 4)
        One block each.
    stem_kernel : int, default 5
        Odd kernel length of the first convolution.
    head_width : int, default 32
        Units between the two linear layers.
    dropout : float, default 0.2
        Dropout probability of the pooled features.
    mean_s, std_s : float, default 0.75 and 0.2
        The input is standardised; this takes it back to seconds, so that ratios of intervals can be formed. Round
        values serve: what they are off by is the same in training and use.

    Raises
    ------
    ValueError
        If a kernel is even.

    Notes
    -----
    After the temporal convolutional network of Bai et al. 2018 (doi 10.48550/arXiv.1803.01271). Differs: not causal,
    one convolution over time per block, batch norm, and pooling of mean and standard deviation as for speaker
    embeddings (Snyder et al. 2018, doi 10.1109/ICASSP.2018.8461375), as irregularity is a matter of spread.
    """

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        n_samples: int,
        width: int = 24,
        kernel_size: int = 3,
        dilations: Sequence[int] = (1, 2, 4),
        stem_kernel: int = 5,
        head_width: int = 32,
        dropout: float = 0.2,
        mean_s: float = 0.75,
        std_s: float = 0.2,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            RrFeatures(mean_s, std_s),
            same_conv(2 * n_leads, width, stem_kernel, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            *(DilatedBlock(width, kernel_size, dilation) for dilation in dilations),
        )
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(2 * width, head_width), nn.ReLU(), nn.Linear(head_width, n_classes)
        )

    def forward(self, signal: Tensor) -> Tensor:
        """Map a batch of windows to logits.

        Shapes: signal (batch, leads, time) -> features (batch, width, 1, time) -> pooled (batch, 2 * width)
        -> logits (batch, classes).
        """
        features = self.features(signal)
        mean = features.mean((2, 3), keepdim=True)
        # The root has no finite slope at 0.
        spread = ((features - mean).square().mean((2, 3)) + 1e-4).sqrt()
        return self.head(torch.cat([mean.flatten(1), spread], dim=1))
