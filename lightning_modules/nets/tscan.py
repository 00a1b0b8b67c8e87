"""TS-CAN: the pulse from clips of a face, by two branches of 2-D convolutions and a shift over time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

EDGES = ("zero", "repeat")
MASK_NORMS = ("divide", "rsqrt")
# Red, green and blue of the motion, and of the appearance.
N_COLOURS = 3


def temporal_shift(features: Tensor, segment: int, edge: str) -> Tensor:
    """Let every frame see a third of its next frame's channels and a third of those of the frame before it.

    Parameters
    ----------
    features : Tensor, shape (batch * frames, channels, height, width)
        Frames of a clip in a row.
    segment : int
        Frames that exchange channels; nothing passes from one segment to another.
    edge : {"zero", "repeat"}
        What the last frame of a segment sees in the place of its next one, and the first in the place of the one
        before: zeros, or itself.

    Returns
    -------
    Tensor, shape as `features`
        The first third comes from the next frame, the second from the one before, the rest stays.

    Notes
    -----
    Lin et al. 2019 (doi 10.1109/ICCV.2019.00718), with thirds as in Liu et al. 2020 (doi 10.48550/arXiv.2006.03790).
    """
    _, channels, height, width = features.shape
    fold = channels // 3
    clips = features.reshape(-1, segment, channels, height, width)
    following, preceding, still = clips[:, :, :fold], clips[:, :, fold : 2 * fold], clips[:, :, 2 * fold :]
    last, first = following[:, -1:], preceding[:, :1]
    if edge == "zero":
        last, first = torch.zeros_like(last), torch.zeros_like(first)
    shifted = [torch.cat([following[:, 1:], last], 1), torch.cat([first, preceding[:, :-1]], 1), still]
    return torch.cat(shifted, 2).reshape(-1, channels, height, width)


def normalise_mask(mask: Tensor, norm: str) -> Tensor:
    """Scale a mask (frames, 1, height, width) to a mean of one half: divided by its sum, times height * width / 2.

    `norm` "rsqrt" does so without a division, which Edge TPUs lack: times the square of the mean's inverse root.
    """
    mean = mask.mean((2, 3), keepdim=True)
    if norm == "divide":
        return 0.5 * mask / mean
    root = mean.rsqrt()
    # Not `square`, which TFLite writes as a power.
    return 0.5 * (mask * (root * root))


class GatedStage(nn.Module):
    """A pair of convolutions in each branch, and the mask by which the appearance gates the motion.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernel : int
        Odd side of the kernels; the first of a pair keeps the size of the map, the second is without padding.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.motion_same = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.motion_valid = nn.Conv2d(outputs, outputs, kernel)
        self.appearance_same = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.appearance_valid = nn.Conv2d(outputs, outputs, kernel)
        self.attention = nn.Conv2d(outputs, 1, 1)

    def look(self, appearance: Tensor, norm: str) -> tuple[Tensor, Tensor]:
        """Give the map of the appearance (frames, outputs, h - 2, w - 2) and its mask (frames, 1, h - 2, w - 2)."""
        features = torch.tanh(self.appearance_valid(torch.tanh(self.appearance_same(appearance))))
        return features, normalise_mask(torch.sigmoid(self.attention(features)), norm)


class PulseHead(nn.Module):
    """Two dense layers: features of a frame (frames, features) -> one sample (frames, 1)."""

    def __init__(self, features: int, width: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Shapes: (frames, features) -> (frames, width) -> (frames, 1)."""
        return self.out(self.dropout(torch.tanh(self.hidden(features))))


class TsCan(nn.Module):
    """Temporal shift convolutional attention network; with several tasks, the multi-task MTTS-CAN.

    Parameters
    ----------
    n_frames : int
        Frames of one clip, a multiple of `segment`.
    image_size : int
        Height and width of a frame, in pixels; the dense layer fixes them.
    segment : int, default 10
        Frames that exchange channels, see `temporal_shift`.
    edge : {"zero", "repeat"}
        How a segment ends, see `temporal_shift`.
    widths : sequence of int, default (32, 64)
        Channels of the two stages; at least three, so that there is a third to shift.
    dense_width : int, default 128
        Width of the dense layer.
    dropout : sequence of float, default (0.25, 0.5)
        Probabilities behind the pools and behind the dense layer.
    tasks : sequence of str, default ("bvp",)
        Signals, each with a head of its own.
    answer : str, default "bvp"
        The task whose signal `forward` gives, and an exported file with it.
    mask_norm : {"divide", "rsqrt"}
        How the masks are scaled, see `normalise_mask`.

    Raises
    ------
    ValueError
        If an option is unknown or does not fit another, or a clip does not fit the net.

    Notes
    -----
    Liu et al. 2020, NeurIPS (doi 10.48550/arXiv.2006.03790); 532,899 parameters at 36 pixels and one task. Channels
    0-2 of a clip are its motion, 3-5 its appearance.
    """

    kernel = 3
    pool = 2

    def __init__(
        self,
        n_frames: int,
        image_size: int,
        segment: int = 10,
        edge: str = "zero",
        widths: Sequence[int] = (32, 64),
        dense_width: int = 128,
        dropout: Sequence[float] = (0.25, 0.5),
        tasks: Sequence[str] = ("bvp",),
        answer: str = "bvp",
        mask_norm: str = "divide",
    ) -> None:
        super().__init__()
        for key, value, allowed in (("edge", edge, EDGES), ("mask_norm", mask_norm, MASK_NORMS)):
            if value not in allowed:
                raise ValueError(f"{key} {value!r} must be one of {allowed}")
        if answer not in tasks:
            raise ValueError(f"answer {answer!r} must be one of the tasks {tuple(tasks)}")
        if len(widths) != 2 or min(widths) < 3:
            raise ValueError(f"widths {tuple(widths)} must be two, of at least 3 channels: a third of them is shifted")
        self.segment, self.edge, self.mask_norm = segment, edge, mask_norm
        self.image_size, self.tasks, self.answer = image_size, tuple(tasks), answer
        self._check_length(n_frames)
        self.first = GatedStage(N_COLOURS, widths[0], self.kernel)
        self.second = GatedStage(widths[0], widths[1], self.kernel)
        self.dropout = nn.Dropout(dropout[0])
        features = widths[-1] * self.last_side**2
        self.heads = nn.ModuleDict({task: PulseHead(features, dense_width, dropout[1]) for task in tasks})

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips to the derivative of a signal, one sample a frame.

        Shapes: clips (batch, frames, 6, size, size) -> features (batch * frames, features) -> (batch, frames).
        """
        return self.heads[self.answer](self.features(clips)).reshape(-1, clips.shape[1])

    def forward_tasks(self, clips: Tensor) -> Tensor:
        """Map clips (batch, frames, 6, size, size) to the derivatives of all signals (batch, frames, tasks)."""
        features = self.features(clips)
        signals = torch.cat([self.heads[task](features) for task in self.tasks], 1)
        return signals.reshape(-1, clips.shape[1], len(self.tasks))

    def features(self, clips: Tensor) -> Tensor:
        """Give what the heads see: clips (batch, frames, 6, size, size) -> (batch * frames, features)."""
        self._check_clips(clips)
        frames = clips.flatten(0, 1)
        motion, appearance = frames[:, :N_COLOURS], frames[:, N_COLOURS:]
        for index, stage in enumerate(self.stages):
            if index:
                appearance = self.dropout(functional.avg_pool2d(appearance, self.pool))
            appearance, mask = stage.look(appearance, self.mask_norm)
            motion = torch.tanh(stage.motion_same(self._shift(motion)))
            motion = torch.tanh(stage.motion_valid(self._shift(motion)))
            motion = self.dropout(functional.avg_pool2d(motion * mask, self.pool))
        return motion.flatten(1)

    def _shift(self, motion: Tensor) -> Tensor:
        return temporal_shift(motion, self.segment, self.edge)

    @property
    def stages(self) -> tuple[GatedStage, GatedStage]:
        """Both stages in order."""
        return self.first, self.second

    @property
    def last_side(self) -> int:
        """Height and width of the last map, behind both stages, in pixels."""
        side = self.image_size
        for _ in range(2):
            side = (side - self.kernel + 1) // self.pool
        if side < 1:
            raise ValueError(f"image_size {self.image_size} is too small: no pixel would be left behind the pools")
        return side

    def _check_length(self, n_frames: int) -> None:
        if self.segment < 1 or n_frames < 1 or n_frames % self.segment:
            raise ValueError(
                f"clips of {n_frames} frames are not a multiple of segment={self.segment}: change"
                " datamodule.n_frames or model.module.net.segment"
            )

    def _check_clips(self, clips: Tensor) -> None:
        expected = (2 * N_COLOURS, self.image_size, self.image_size)
        if clips.ndim != 5 or tuple(clips.shape[2:]) != expected:
            raise ValueError(
                f"clips of shape {tuple(clips.shape)}, expected (batch, frames, {', '.join(map(str, expected))}):"
                " check datamodule.image_size"
            )
        self._check_length(clips.shape[1])
