"""Layers that several nets share, for maps of shape (batch, channels, 1, time)."""

from torch import Tensor, nn


def same_conv(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, bias: bool = True
) -> nn.Conv2d:
    """Convolution over time, written as ``Conv2d`` with kernel (1, k), that keeps the length at stride 1.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernel : int
        Odd length in samples; zeros are padded by half of it on both sides.
    stride, groups, bias
        As in ``Conv2d``. A stride s leaves ceil(time / s) samples.

    Raises
    ------
    ValueError
        If `kernel` is even: one side would need one zero more than the other.
    """
    if kernel % 2 == 0:
        raise ValueError(f"kernel {kernel!r} is even, expected an odd length for 'same' padding")
    return nn.Conv2d(inputs, outputs, (1, kernel), (1, stride), (0, kernel // 2), groups=groups, bias=bias)


class SqueezeExcite(nn.Module):
    """Weight channels by what the whole window holds (Hu et al. 2018, doi 10.1109/CVPR.2018.00745).

    Parameters
    ----------
    channels : int
        Channels of the map.
    reduction : int, default 4
        The bottleneck has ``channels // reduction`` channels, at least 4.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Scale each channel by a weight between 0 and 1.

        Shapes: features (batch, channels, 1, time) -> weights (batch, channels, 1, 1) -> (batch, channels, 1, time).
        """
        return features * self.weigh(features).sigmoid()
