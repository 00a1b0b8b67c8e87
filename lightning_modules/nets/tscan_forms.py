"""The same TS-CAN written for other uses: no division, every tensor with a batch of one, or one look a clip."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.nets.tscan import N_COLOURS, GatedStage, TsCan, temporal_shift

Frames = list[Tensor]
FORMS = ("batched", "unrolled")


def make_form(net: nn.Module, form: str) -> "BatchedTsCan | UnrolledTsCan":
    """Write a net down as what one call of an exported file runs: one segment, which sees nothing of the others.

    Parameters
    ----------
    net : TsCan
        Copied.
    form : {"batched", "unrolled"}
        See `BatchedTsCan` and `UnrolledTsCan`.

    Returns
    -------
    nn.Module
        With ``n_frames``, those of a call, and ``input_shape``.

    Raises
    ------
    ValueError
        If the form is unknown, or the net is no TS-CAN.
    """
    if form not in FORMS:
        raise ValueError(f"form {form!r} must be one of {FORMS}")
    if not isinstance(net, TsCan):
        raise ValueError(f"{type(net).__name__} has no form {form!r}: only a TsCan can be written so")
    if form == "batched":
        return BatchedTsCan(copy.deepcopy(net)).eval()
    return UnrolledTsCan(copy.deepcopy(net), net.segment).eval()


class BatchedTsCan(nn.Module):
    """A TS-CAN for one segment whose frames are the batch, channels last, as kernels want them; without a division.

    Its maps have a batch of as many frames, which an Edge TPU does not take.

    Parameters
    ----------
    net : TsCan
    """

    def __init__(self, net: TsCan) -> None:
        super().__init__()
        self.net = net
        self.n_frames = net.segment
        self.input_shape = (net.segment, net.image_size, net.image_size, 2 * N_COLOURS)

    def forward(self, frames: Tensor) -> Tensor:
        """Shapes: frames (segment, size, size, 6) -> (1, segment)."""
        motion, appearance = (part.permute(0, 3, 1, 2) for part in frames.split(N_COLOURS, dim=3))
        for index, stage in enumerate(self.net.stages):
            if index:
                appearance = functional.avg_pool2d(appearance, self.net.pool)
            appearance, mask = stage.look(appearance, "rsqrt")
            for layer in (stage.motion_same, stage.motion_valid):
                motion = torch.tanh(layer(self._shift(motion)))
            motion = functional.avg_pool2d(motion * mask, self.net.pool)
        return self.net.heads[self.net.answer](motion.flatten(1)).reshape(1, -1)

    def _shift(self, motion: Tensor) -> Tensor:
        """As `temporal_shift` of one segment; no map of zeros is stored, and none has five dimensions."""
        # Channels last, as the convolutions of the runtime have them: else maps would be turned over and back.
        maps = motion.permute(0, 2, 3, 1)
        fold = maps.shape[3] // 3
        following, preceding = maps[1:, :, :, :fold], maps[:-1, :, :, fold : 2 * fold]
        if self.net.edge == "zero":
            following = functional.pad(following, (0, 0, 0, 0, 0, 0, 0, 1))
            preceding = functional.pad(preceding, (0, 0, 0, 0, 0, 0, 1, 0))
        else:
            following = torch.cat([following, maps[-1:, :, :, :fold]])
            preceding = torch.cat([maps[:1, :, :, fold : 2 * fold], preceding])
        return torch.cat([following, preceding, maps[:, :, :, 2 * fold :]], 3).permute(0, 3, 1, 2)


class UnrolledTsCan(nn.Module):
    """A TS-CAN for one clip in which no tensor has more than its three innermost dimensions above one.

    Meant for Edge TPUs (Coral): no division, no batch of frames, and the input laid out as one image of all channels
    of all frames. Weights are shared by all frames.

    Parameters
    ----------
    net : TsCan
    n_frames : int
        Frames of the clip, a multiple of the net's segment.

    Raises
    ------
    ValueError
        If the net's segment does not divide `n_frames`.
    """

    def __init__(self, net: TsCan, n_frames: int) -> None:
        super().__init__()
        if n_frames % net.segment:
            raise ValueError(f"clips of {n_frames} frames are not a multiple of segment={net.segment}")
        self.net = net
        self.n_frames = n_frames
        self.input_shape = (1, net.image_size, net.image_size, n_frames * 2 * N_COLOURS)

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: image (1, size, size, frames * 6), frame by frame -> (1, frames)."""
        maps = [part.permute(0, 3, 1, 2) for part in image.split(N_COLOURS, dim=3)]
        motion, appearance = maps[::2], maps[1::2]
        for index, stage in enumerate(self.net.stages):
            if index:
                appearance = self._each(self._pool, appearance)
            motion, appearance = self._run_stage(stage, motion, appearance)
        # As in one image: the dense layer reads its features channel by channel.
        head = self.net.heads[self.net.answer]
        return torch.cat([head(frame.flatten(1)) for frame in motion], 1)

    def _run_stage(self, stage: GatedStage, motion: Frames, appearance: Frames) -> tuple[Frames, Frames]:
        looks = [stage.look(frame, "rsqrt") for frame in appearance]
        for layer in (stage.motion_same, stage.motion_valid):
            motion = [torch.tanh(layer(frame)) for frame in self._shift(motion)]
        gated = [frame * mask for frame, (_, mask) in zip(motion, looks, strict=True)]
        return self._each(self._pool, gated), [features for features, _ in looks]

    def _pool(self, frame: Tensor) -> Tensor:
        return functional.avg_pool2d(frame, self.net.pool)

    def _shift(self, motion: Frames) -> Frames:
        # Channels last, as the convolutions of the runtime have them: an Edge TPU cannot turn a map over.
        maps = [frame.permute(0, 2, 3, 1) for frame in motion]
        return [self._see_neighbours(maps, index).permute(0, 3, 1, 2) for index in range(self.n_frames)]

    def _see_neighbours(self, maps: Frames, index: int) -> Tensor:
        """One frame (1, height, width, channels) with a third of the next frame's channels and of the one's before."""
        own = maps[index]
        fold, segment = own.shape[3] // 3, self.net.segment
        is_first, is_last = index % segment == 0, index % segment == segment - 1
        following = (own if is_last else maps[index + 1])[:, :, :, :fold]
        preceding = (own if is_first else maps[index - 1])[:, :, :, fold : 2 * fold]
        still = own[:, :, :, 2 * fold :]
        if self.net.edge == "repeat" or not (is_first or is_last):
            return torch.cat([following, preceding, still], 3)
        # Padding makes zeros without storing a map of them.
        if is_first and is_last:
            return functional.pad(still, (2 * fold, 0))
        if is_first:
            return torch.cat([functional.pad(following, (0, fold)), still], 3)
        return functional.pad(torch.cat([preceding, still], 3), (fold, 0))

    @staticmethod
    def _each(function: Callable[[Tensor], Tensor], frames: Frames) -> Frames:
        return [function(frame) for frame in frames]


class OneLookTsCan(nn.Module):
    """A TS-CAN for clips whose frames all have the same appearance, which it looks at once: near half of the work.

    So are clips of the input variant ``standardized_difference``, whose appearance is the clip's mean.

    Parameters
    ----------
    net : TsCan
        Copied.
    """

    def __init__(self, net: TsCan) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).eval()

    def forward(self, clips: Tensor) -> Tensor:
        """Shapes: clips (batch, frames, 6, size, size) -> (batch, frames)."""
        net, n_frames = self.net, clips.shape[1]
        motion, appearance = clips[:, :, :N_COLOURS].flatten(0, 1), clips[:, 0, N_COLOURS:]
        for index, stage in enumerate(net.stages):
            if index:
                appearance = functional.avg_pool2d(appearance, net.pool)
            appearance, mask = stage.look(appearance, net.mask_norm)
            for layer in (stage.motion_same, stage.motion_valid):
                motion = torch.tanh(layer(temporal_shift(motion, net.segment, net.edge)))
            gated = motion.unflatten(0, (-1, n_frames)) * mask.unsqueeze(1)
            motion = functional.avg_pool2d(gated.flatten(0, 1), net.pool)
        return net.heads[net.answer](motion.flatten(1)).reshape(-1, n_frames)
