"""A small residual net for multi-lead ECG, at most 100k parameters."""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_modules.nets.layers import SqueezeExcite, same_conv


class HalvingBlock(nn.Module):
    """Conv, BN, ReLU, Conv, BN, squeeze-excitation, added to an average-pooled shortcut, ReLU; halves the rate.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernel : int
        Odd kernel length of both convolutions, in samples.
    se_reduction : int or None
        Reduction of the squeeze-excitation; None leaves it out.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, se_reduction: int | None) -> None:
        super().__init__()
        # A bias in front of a batch norm has no effect.
        self.residual = nn.Sequential(
            same_conv(inputs, outputs, kernel, stride=2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            same_conv(outputs, outputs, kernel, bias=False),
            nn.BatchNorm2d(outputs),
        )
        if se_reduction is not None:
            self.residual.append(SqueezeExcite(outputs, se_reduction))
        self.shortcut = nn.Sequential(
            # Rounds up, as the padded convolution beside it does.
            nn.AvgPool2d((1, 2), ceil_mode=True, count_include_pad=False),
            same_conv(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Shapes: (batch, inputs, 1, time) -> (batch, outputs, 1, ceil(time / 2))."""
        return self.activation(self.residual(features) + self.shortcut(features))


class Small1d(nn.Module):
    """Strided stem, residual blocks that halve the rate, global average pooling, one linear layer.

    Parameters
    ----------
    n_leads, n_classes : int
        Leads of the input, logits of the output.
    n_samples : int
        Samples of one window; not used, the net takes any length.
    widths : sequence of int, default (32, 40, 64)
        Channels of each block.
    stem_width : int, default 32
        Channels of the stem, which mixes the leads and halves the rate.
    stem_kernel : int, default 11
        Odd kernel length of the stem, in samples.
    kernel_size : int, default 7
        Odd kernel length of the blocks' convolutions, in samples of their input.
    se_reduction : int or None, default 4
        Reduction of the squeeze-excitations; None leaves them out.
    dropout : float, default 0.2
        Dropout probability of the pooled features.

    Raises
    ------
    ValueError
        If a kernel is even.

    Notes
    -----
    After ResNet-D (He et al. 2019, doi 10.1109/CVPR.2019.00065) and squeeze-excitation. Differs: one block per rate
    and long kernels, which see a beat in few layers. Few wide convolutions cost a CPU less than many small operators:
    a net of depthwise-separable blocks with as many parameters and MACs trained at less than half the speed.
    """

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        n_samples: int,
        widths: Sequence[int] = (32, 40, 64),
        stem_width: int = 32,
        stem_kernel: int = 11,
        kernel_size: int = 7,
        se_reduction: int | None = 4,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            same_conv(n_leads, stem_width, stem_kernel, stride=2, bias=False),
            nn.BatchNorm2d(stem_width),
            nn.ReLU(inplace=True),
        ]
        channels = stem_width
        for width in widths:
            layers.append(HalvingBlock(channels, width, kernel_size, se_reduction))
            channels = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, n_classes)

    def forward(self, signal: Tensor) -> Tensor:
        """Map a batch of windows to logits.

        Shapes: signal (batch, leads, time) -> (batch, leads, 1, time) -> features (batch, widths[-1], 1, t')
        -> pooled (batch, widths[-1]) -> logits (batch, classes).
        """
        pooled = self.pool(self.features(signal.unsqueeze(2))).flatten(1)
        return self.head(self.dropout(pooled))
