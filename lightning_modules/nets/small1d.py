"""A modern small net for multi-lead ECG, at most 100k parameters."""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_modules.nets.layers import SqueezeExcite, same_conv


class SeparableBlock(nn.Module):
    """Long depthwise convolution, 1x1 expansion with ReLU, 1x1 projection, squeeze-excitation, added to the shortcut.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernel : int
        Odd kernel length of the depthwise convolution, in samples.
    stride : int
        1, or the factor by which the block shortens the map.
    expansion : int
        Channels between the 1x1 convolutions over `inputs`.
    se_reduction : int or None
        Reduction of the squeeze-excitation; None leaves it out.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, se_reduction: int | None
    ) -> None:
        super().__init__()
        hidden = expansion * inputs
        # A bias in front of a batch norm has no effect.
        self.residual = nn.Sequential(
            same_conv(inputs, inputs, kernel, stride=stride, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            same_conv(inputs, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            same_conv(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        if se_reduction is not None:
            self.residual.append(SqueezeExcite(outputs, se_reduction))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            # Rounds up, as the padded convolution beside it does.
            pool = nn.MaxPool2d((1, stride), ceil_mode=True) if stride > 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, same_conv(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Shapes: (batch, inputs, 1, time) -> (batch, outputs, 1, ceil(time / stride))."""
        return self.residual(features) + self.shortcut(features)


class Small1d(nn.Module):
    """Strided stem, stages of depthwise-separable residual blocks, global average pooling, one linear layer.

    The stem mixes the leads and halves the rate; each stage but the first halves it again. Batch norms fold into
    convolutions and every activation is a ReLU or one sigmoid per channel, so that 8 bits lose little.

    Parameters
    ----------
    n_leads, n_classes : int
        Leads of the input, logits of the output.
    n_samples : int
        Samples of one window; not used, the net takes any length.
    widths : sequence of int, default (24, 48, 64)
        Channels of each stage; the first is the stem's too.
    depths : sequence of int, default (1, 2, 3)
        Blocks of each stage.
    stem_kernel : int, default 15
        Odd kernel length of the stem, in samples.
    kernel_size : int, default 13
        Odd kernel length of the depthwise convolutions, in samples of their input. From 15 on, their backward pass
        takes about twice as long on a CPU.
    expansion : int, default 2
        Widening inside a block.
    se_reduction : int or None, default 4
        Reduction of the squeeze-excitations; None leaves them out.
    head_width : int, default 128
        Channels that are pooled.
    dropout : float, default 0.2
        Dropout probability of the pooled features.

    Raises
    ------
    ValueError
        If `widths` and `depths` differ in length, or a kernel is even.

    Notes
    -----
    After MobileNetV2 (Sandler et al. 2018, doi 10.1109/CVPR.2018.00474), ConvNeXt (Liu et al. 2022, doi
    10.1109/CVPR52688.2022.01167) and squeeze-excitation. Differs: depthwise convolution first, with kernels of a beat's
    length instead of many layers; batch norm and ReLU throughout; max-pooled shortcuts where the map gets shorter.
    """

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        n_samples: int,
        widths: Sequence[int] = (24, 48, 64),
        depths: Sequence[int] = (1, 2, 3),
        stem_kernel: int = 15,
        kernel_size: int = 13,
        expansion: int = 2,
        se_reduction: int | None = 4,
        head_width: int = 128,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if len(widths) != len(depths):
            raise ValueError(f"widths {list(widths)!r} and depths {list(depths)!r} must have the same length")
        channels = widths[0]
        layers: list[nn.Module] = [
            same_conv(n_leads, channels, stem_kernel, stride=2, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(SeparableBlock(channels, width, kernel_size, stride, expansion, se_reduction))
                channels = width
        layers += [same_conv(channels, head_width, 1, bias=False), nn.BatchNorm2d(head_width), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(head_width, n_classes)

    def forward(self, signal: Tensor) -> Tensor:
        """Map a batch of windows to logits.

        Shapes: signal (batch, leads, time) -> (batch, leads, 1, time) -> features (batch, head_width, 1, t')
        -> pooled (batch, head_width) -> logits (batch, classes).
        """
        pooled = self.pool(self.features(signal.unsqueeze(2))).flatten(1)
        return self.head(self.dropout(pooled))
