"""CNNs with attention over channels or over time (paper P4)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_modules.nets.layers import SqueezeExcite, same_conv


class TemporalAttentionPool(nn.Module):
    """Weighted mean over time, with weights that the net learns (Ilse et al. 2018, doi 10.48550/arXiv.1802.04712).

    Differs from the paper: ReLU instead of tanh in the scoring layer, and several heads, each of which pools its own
    share of the channels.

    Parameters
    ----------
    channels : int
        Channels of the map.
    heads : int
        Weight curves.
    hidden : int, default 32
        Channels of the scoring layer.

    Raises
    ------
    ValueError
        If `channels` cannot be shared evenly between the heads.
    """

    def __init__(self, channels: int, heads: int, hidden: int = 32) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be shared evenly between {heads} heads")
        self.heads = heads
        self.hidden = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU())
        # No bias: a softmax takes it away again.
        self.queries = nn.Parameter(torch.randn(heads, hidden) / math.sqrt(hidden))

    def forward(self, features: Tensor) -> Tensor:
        """Pool a map.

        Shapes: features (batch, channels, 1, time) -> scores (batch, heads, time), grouped features (batch, heads,
        channels / heads, time) -> pooled (batch, channels).
        """
        scores = self.queries @ self.hidden(features).squeeze(2)
        grouped = features.squeeze(2).unflatten(1, (self.heads, -1))
        return (grouped @ scores.softmax(-1).unsqueeze(-1)).flatten(1)


class AttentionCnn1d(nn.Module):
    """Convolution blocks with attention: over channels in each block, over time in the pooling, or both.

    A block is: convolution ('same' padding), batch norm, ReLU, [squeeze-excitation], max pool 2.

    Parameters
    ----------
    n_leads, n_classes : int
        Leads of the input, logits of the output.
    n_samples : int
        Samples of one window; checked against the pools. Shorter crops work too.
    widths : sequence of int
        Filters of each block.
    kernel_size : int, default 7
        Odd kernel length in samples.
    se_reduction : int, optional
        Reduction of the squeeze-excitation at the end of each block; none by default.
    pool_heads : int, optional
        Heads of the temporal attention pooling; global average pooling by default.
    dropout : float, default 0.2
        Dropout probability of the pooled features.

    Raises
    ------
    ValueError
        If the window is too short for the blocks, the kernel is even, or the heads do not divide the last width.
    """

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        n_samples: int,
        widths: Sequence[int],
        kernel_size: int = 7,
        se_reduction: int | None = None,
        pool_heads: int | None = None,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if n_samples < 2 ** len(widths):
            raise ValueError(f"n_samples={n_samples} is too short for {len(widths)} blocks that halve it")
        layers: list[nn.Module] = []
        channels = n_leads
        for width in widths:
            layers += [same_conv(channels, width, kernel_size), nn.BatchNorm2d(width), nn.ReLU()]
            if se_reduction is not None:
                layers.append(SqueezeExcite(width, se_reduction))
            layers.append(nn.MaxPool2d((1, 2)))
            channels = width
        self.features = nn.Sequential(*layers)
        self.pool: nn.Module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        if pool_heads is not None:
            self.pool = TemporalAttentionPool(channels, pool_heads)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, n_classes)

    def forward(self, signal: Tensor) -> Tensor:
        """Map a batch of windows to logits.

        Shapes: signal (batch, leads, time) -> (batch, leads, 1, time) -> features (batch, width, 1, t')
        -> pooled (batch, width) -> logits (batch, classes).
        """
        pooled = self.pool(self.features(signal.unsqueeze(2)))
        return self.head(self.dropout(pooled))
