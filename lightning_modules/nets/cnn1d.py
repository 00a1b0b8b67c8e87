"""Plain 1-D convolutional nets for multi-lead ECG: teacher, student, the width sweep and the plain CNN."""

from collections.abc import Sequence

from torch import Tensor, nn


class Cnn1d(nn.Module):
    """Stack of convolution blocks, global average pooling, one linear layer.

    A block is: convolution (valid padding), [batch norm], max pool 2, ReLU, [dropout]. ReLU comes after the pool: the
    two commute, and half the values are left to rectify. Convolutions are written as ``Conv2d`` with kernel
    (1, k), which lets channels_last and the converters see the same layout everywhere.

    Parameters
    ----------
    n_leads, n_classes : int
        Leads of the input, logits of the output.
    n_samples : int
        Samples of one window; checked against the receptive field.
    widths : sequence of int
        Filters of each block.
    kernel_sizes : int or sequence of int, default 10
        Kernel length of each block, in samples.
    batch_norm : bool, default True
        Whether blocks hold a batch norm.
    dropout : float, default 0.2
        Dropout probability.
    dropout_after : sequence of int, optional
        Blocks (from 0) that end in dropout; all of them by default. -1 is the pooled features.

    Raises
    ------
    ValueError
        If the window is too short for the blocks, or the lists differ in length.

    Notes
    -----
    Parameter counts follow the paper: teacher (100, 250, 500, 1000) 6,522,555; student (50, 150, 300) 534,005.
    """

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        n_samples: int,
        widths: Sequence[int],
        kernel_sizes: int | Sequence[int] = 10,
        batch_norm: bool = True,
        dropout: float = 0.2,
        dropout_after: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        kernels = [kernel_sizes] * len(widths) if isinstance(kernel_sizes, int) else list(kernel_sizes)
        if len(kernels) != len(widths):
            raise ValueError(f"kernel_sizes {kernels!r} and widths {list(widths)!r} must have the same length")
        drops = set(range(len(widths)) if dropout_after is None else dropout_after)
        layers: list[nn.Module] = []
        channels, length = n_leads, n_samples
        for block, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
            length = (length - kernel + 1) // 2
            if length < 1:
                raise ValueError(f"n_samples={n_samples} is too short for {len(widths)} blocks of kernels {kernels!r}")
            layers.append(nn.Conv2d(channels, width, (1, kernel)))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers += [nn.MaxPool2d((1, 2)), nn.ReLU()]
            if dropout > 0 and block in drops:
                layers.append(nn.Dropout(dropout))
            channels = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout if -1 in drops else 0.0)
        self.head = nn.Linear(channels, n_classes)

    def forward(self, signal: Tensor) -> Tensor:
        """Map a batch of windows to logits.

        Shapes: signal (batch, leads, time) -> (batch, leads, 1, time) -> features (batch, width, 1, t')
        -> pooled (batch, width) -> logits (batch, classes).
        """
        features = self.features(signal.unsqueeze(2))
        pooled = self.pool(features).flatten(1)
        return self.head(self.dropout(pooled))
