"""Hybrid of a CNN and a vision transformer, sized for a watch (paper P4)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_modules.nets.layers import same_conv


def project(inputs: int, outputs: int) -> nn.Sequential:
    """Linear layer for each token with a batch norm behind it, written as a 1x1 convolution."""
    # A bias in front of a batch norm has no effect.
    return nn.Sequential(same_conv(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


class SelfAttention(nn.Module):
    """Multi-head self-attention, written out in matrix products that every converter knows.

    Parameters
    ----------
    width : int
        Channels of a token.
    heads : int
        Heads.

    Raises
    ------
    ValueError
        If `heads` does not divide `width`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width={width} cannot be shared evenly between {heads} heads")
        self.heads = heads
        self.query, self.key, self.value, self.out = (project(width, width) for _ in range(4))
        # The scale of the scores starts in the norm of the queries, where export folds it away.
        nn.init.constant_(self.query[1].get_parameter("weight"), math.sqrt(heads / width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Let every token look at all tokens of its window.

        Shapes: tokens (batch, width, 1, t) -> query, key, value (batch, heads, width / heads, t)
        -> weights (batch, heads, t, t) -> (batch, width, 1, t).
        """
        query, key, value = (
            layer(tokens).squeeze(2).unflatten(1, (self.heads, -1)) for layer in (self.query, self.key, self.value)
        )
        weights = (query.transpose(2, 3) @ key).softmax(-1)
        return self.out((value @ weights.transpose(2, 3)).flatten(1, 2).unsqueeze(2))


class EncoderBlock(nn.Module):
    """Self-attention and a two-layer perceptron with ReLU, each added to its input.

    Parameters
    ----------
    width, heads : int
        Channels of a token, heads of the attention.
    expansion : int
        Hidden channels of the perceptron over `width`.
    dropout : float
        Dropout probability on both branches.
    """

    def __init__(self, width: int, heads: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.Sequential(SelfAttention(width, heads), nn.Dropout(dropout))
        self.perceptron = nn.Sequential(
            project(width, expansion * width), nn.ReLU(), project(expansion * width, width), nn.Dropout(dropout)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (batch, width, 1, t) -> (batch, width, 1, t)."""
        tokens = tokens + self.attention(tokens)
        return tokens + self.perceptron(tokens)


class CnnVit(nn.Module):
    """Strided convolutions make tokens, transformer blocks relate them, their mean is classified.

    Parameters
    ----------
    n_leads, n_classes : int
        Leads of the input, logits of the output.
    n_samples : int
        Samples of one window: the most that the net takes; shorter crops work too.
    stem_widths, stem_kernels, stem_strides : sequence of int
        Filters, odd kernel lengths and strides of the convolutions, each followed by batch norm and ReLU. The last
        width is that of the tokens.
    depth, heads : int
        Transformer blocks, heads of each.
    expansion : int, default 2
        Hidden channels of the perceptrons over the tokens' width.
    dropout : float, default 0.1
        Dropout probability in the blocks and before the last layer.

    Raises
    ------
    ValueError
        If the stem's lists differ in length, a kernel is even, or `heads` does not divide the tokens' width.

    Notes
    -----
    After Vaswani et al. 2017 (doi 10.48550/arXiv.1706.03762), Dosovitskiy et al. 2021 (doi 10.48550/arXiv.2010.11929)
    and, for the batch norms that fold away instead of layer norms, LeViT (Graham et al. 2021, doi
    10.48550/arXiv.2104.01136). Differs: ReLU instead of GELU and fixed sinusoidal positions instead of learned ones,
    for 8-bit arithmetic and for crops; mean of the tokens instead of a class token.
    """

    positions: Tensor

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        n_samples: int,
        stem_widths: Sequence[int] = (32, 48, 64),
        stem_kernels: Sequence[int] = (11, 7, 7),
        stem_strides: Sequence[int] = (2, 2, 4),
        depth: int = 2,
        heads: int = 4,
        expansion: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if not len(stem_widths) == len(stem_kernels) == len(stem_strides):
            raise ValueError(
                f"stem_widths {list(stem_widths)!r}, stem_kernels {list(stem_kernels)!r} and stem_strides "
                f"{list(stem_strides)!r} must have the same length"
            )
        layers: list[nn.Module] = []
        channels, n_tokens = n_leads, n_samples
        for width, kernel, stride in zip(stem_widths, stem_kernels, stem_strides, strict=True):
            layers += [same_conv(channels, width, kernel, stride=stride), nn.BatchNorm2d(width), nn.ReLU()]
            channels, n_tokens = width, math.ceil(n_tokens / stride)
        self.stem = nn.Sequential(*layers)
        # Made from the configuration: no part of the weights.
        self.register_buffer("positions", sinusoids(channels, n_tokens), persistent=False)
        self.blocks = nn.Sequential(*(EncoderBlock(channels, heads, expansion, dropout) for _ in range(depth)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, n_classes)

    def forward(self, signal: Tensor) -> Tensor:
        """Map a batch of windows to logits.

        Shapes: signal (batch, leads, time) -> (batch, leads, 1, time) -> tokens (batch, width, 1, t)
        -> pooled (batch, width) -> logits (batch, classes).
        """
        tokens = self.stem(signal.unsqueeze(2))
        n_tokens, most = tokens.shape[-1], self.positions.shape[-1]
        if n_tokens > most:
            raise ValueError(
                f"windows of {signal.shape[-1]} samples make {n_tokens} tokens, expected at most {most}:"
                " build the net with the n_samples of the longest window"
            )
        tokens = self.blocks(tokens + self.positions[..., :n_tokens])
        return self.head(self.dropout(self.pool(tokens).flatten(1)))


def sinusoids(width: int, length: int) -> Tensor:
    """Positions as sines and cosines of falling frequency, shape (width, 1, length), float32."""
    frequency = 10_000 ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    angle = frequency[:, None, None] * torch.arange(length, dtype=torch.float32)
    return torch.cat((angle.sin(), angle.cos()))[:width]
