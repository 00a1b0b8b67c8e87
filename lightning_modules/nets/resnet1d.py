"""ResNet-15, -21 and -25 for single beats (paper P2)."""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_modules.nets.layers import same_conv


class ResidualBlock(nn.Module):
    """Conv, BN, ReLU, Conv, BN, added to the shortcut, ReLU.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernel_sizes : sequence of two int
        Kernel lengths of the two convolutions, in samples.
    projection : bool
        Shortcut through a 1x1 convolution and BN; otherwise the input itself.

    Raises
    ------
    ValueError
        If the shortcut is the input itself and the channels differ.
    """

    def __init__(self, inputs: int, outputs: int, kernel_sizes: Sequence[int], projection: bool) -> None:
        super().__init__()
        if not projection and inputs != outputs:
            raise ValueError(f"a block from {inputs} to {outputs} channels needs projection=true")
        first, second = kernel_sizes
        self.residual = nn.Sequential(
            same_conv(inputs, outputs, first),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            same_conv(outputs, outputs, second),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if projection:
            self.shortcut = nn.Sequential(same_conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Shapes: (batch, inputs, 1, time) -> (batch, outputs, 1, time)."""
        return self.activation(self.residual(features) + self.shortcut(features))


class ResNet1d(nn.Module):
    """Stem, residual blocks, optional max pool 2, global average pooling, one linear layer.

    Parameters
    ----------
    n_leads, n_classes : int
        Leads of the input, logits of the output.
    n_samples : int
        Samples of one window; not used, the net takes any length of at least two samples.
    stem_width, stem_kernel : int
        Filters and kernel length of the first convolution.
    widths : sequence of int
        Filters of each block.
    kernel_sizes : sequence of pairs of int
        Kernel lengths of each block's two convolutions.
    projection : bool
        Whether shortcuts hold a 1x1 convolution and BN.
    max_pool : bool
        Whether a max pool stands before the global average.

    Raises
    ------
    ValueError
        If a kernel is even, `widths` and `kernel_sizes` differ in length, or channels change without projection.

    Notes
    -----
    Reconstructed so that layers and parameters, counted as in Keras, meet the paper's: with one lead and two classes
    21,698 (ResNet-15), 11,138 (ResNet-21) and 26,978 (ResNet-25). The paper puts a softmax behind the last layer;
    here the logits come out.
    """

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        n_samples: int,
        stem_width: int,
        stem_kernel: int,
        widths: Sequence[int],
        kernel_sizes: Sequence[Sequence[int]],
        projection: bool,
        max_pool: bool,
    ) -> None:
        super().__init__()
        if len(widths) != len(kernel_sizes):
            raise ValueError(f"widths {list(widths)!r} and kernel_sizes {kernel_sizes!r} must have the same length")
        layers: list[nn.Module] = [
            same_conv(n_leads, stem_width, stem_kernel),
            nn.BatchNorm2d(stem_width),
            nn.ReLU(inplace=True),
        ]
        channels = stem_width
        for width, kernels in zip(widths, kernel_sizes, strict=True):
            layers.append(ResidualBlock(channels, width, kernels, projection))
            channels = width
        if max_pool:
            layers.append(nn.MaxPool2d((1, 2)))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, n_classes)

    def forward(self, signal: Tensor) -> Tensor:
        """Map a batch of windows to logits.

        Shapes: signal (batch, leads, time) -> (batch, leads, 1, time) -> features (batch, width, 1, time or time // 2)
        -> pooled (batch, width) -> logits (batch, classes).
        """
        features = self.features(signal.unsqueeze(2))
        return self.head(self.pool(features).flatten(1))
