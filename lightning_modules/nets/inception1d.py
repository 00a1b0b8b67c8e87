"""The Inception CNN of paper P3."""

import torch
from torch import Tensor, nn

from lightning_modules.nets.layers import same_conv


class InceptionBlock(nn.Module):
    """Four branches side by side: 1x1; 1x1 and k3; 1x1 and k5; max pool 3 and 1x1. ReLU behind each convolution.

    Parameters
    ----------
    inputs : int
        Channels of the input.
    width : int
        Filters of every convolution; four times as many come out.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.point = nn.Sequential(same_conv(inputs, width, 1), nn.ReLU())
        self.short, self.long = (
            nn.Sequential(same_conv(inputs, width, 1), nn.ReLU(), same_conv(width, width, kernel), nn.ReLU())
            for kernel in (3, 5)
        )
        self.pooled = nn.Sequential(nn.MaxPool2d((1, 3), 1, (0, 1)), same_conv(inputs, width, 1), nn.ReLU())

    def forward(self, features: Tensor) -> Tensor:
        """Shapes: (batch, inputs, 1, time) -> (batch, 4 * width, 1, time)."""
        branches = (self.point, self.short, self.long, self.pooled)
        return torch.cat([branch(features) for branch in branches], 1)


class Inception1d(nn.Module):
    """Four convolutions, one inception block, the map laid flat, two dense layers, one linear layer.

    Parameters
    ----------
    n_leads, n_classes : int
        Leads of the input, logits of the output.
    n_samples : int
        Samples of every window: the dense layer holds one weight for each position and channel, so training on
        random crops is not possible.

    Raises
    ------
    ValueError
        If the window is too short for three max pools; in `forward`, if it has another length than `n_samples`.

    Notes
    -----
    4,266,277 parameters as Keras counts them, at 12 leads, 1000 samples and 5 classes. The paper does not say where
    the activations are: ReLU follows each convolution and each dense layer directly, as a Keras layer's own
    activation does, before pool and BN.
    """

    def __init__(self, n_leads: int, n_classes: int, n_samples: int) -> None:
        super().__init__()
        positions = n_samples // 8
        if positions < 1:
            raise ValueError(f"n_samples={n_samples} is too short for three max pools, expected at least 8")
        self.n_samples = n_samples
        layers: list[nn.Module] = [same_conv(n_leads, 32, 7), nn.ReLU(), nn.BatchNorm2d(32)]
        for inputs, width, kernel in ((32, 128, 5), (128, 64, 7), (64, 64, 5)):
            layers += [same_conv(inputs, width, kernel), nn.ReLU(), nn.MaxPool2d((1, 2)), nn.BatchNorm2d(width)]
        self.features = nn.Sequential(*layers, InceptionBlock(64, 64))
        self.dense = nn.Sequential(
            nn.Linear(256 * positions, 128),
            nn.ReLU(),
            nn.BatchNorm1d(128),
            nn.Linear(128, 128),
            nn.ReLU(),
            nn.BatchNorm1d(128),
        )
        self.head = nn.Linear(128, n_classes)

    def forward(self, signal: Tensor) -> Tensor:
        """Map a batch of windows to logits.

        Shapes: signal (batch, leads, time) -> (batch, leads, 1, time) -> features (batch, 256, 1, time // 8)
        -> flat (batch, 256 * (time // 8)) -> dense (batch, 128) -> logits (batch, classes).
        """
        if signal.shape[-1] != self.n_samples:
            raise ValueError(
                f"windows of {signal.shape[-1]} samples, expected n_samples={self.n_samples}: this net lays its map"
                " flat; set model.crop_s=null to train it on whole windows"
            )
        return self.head(self.dense(self.features(signal.unsqueeze(2)).flatten(1)))
