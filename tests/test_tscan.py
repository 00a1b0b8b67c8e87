"""TS-CAN against a slow reference, its count of parameters, its options."""

import numpy as np
import pytest
import torch

from lightning_modules.nets.tscan import EDGES, TsCan, normalise_mask, temporal_shift
from lightning_modules.nets.tscan_forms import OneLookTsCan, UnrolledTsCan

# Kernel and bias of every layer at 36 pixels.
SHAPES = {
    "first.motion_same": (32, 3, 3, 3),
    "first.motion_valid": (32, 32, 3, 3),
    "first.appearance_same": (32, 3, 3, 3),
    "first.appearance_valid": (32, 32, 3, 3),
    "first.attention": (1, 32, 1, 1),
    "second.motion_same": (64, 32, 3, 3),
    "second.motion_valid": (64, 64, 3, 3),
    "second.appearance_same": (64, 32, 3, 3),
    "second.appearance_valid": (64, 64, 3, 3),
    "second.attention": (1, 64, 1, 1),
    "heads.bvp.hidden": (128, 3136),
    "heads.bvp.out": (1, 128),
}


def make_net(**options) -> TsCan:
    """Make a net small enough for loops, with weights that let a signal through."""
    torch.manual_seed(0)
    settings = {"n_frames": 8, "image_size": 14, "segment": 4, "widths": (4, 6), "dense_width": 5}
    net = TsCan(**{**settings, **options}).eval()
    for value in net.parameters():
        torch.nn.init.normal_(value, std=0.4)
    return net


def make_clips(net: TsCan, n: int = 2, n_frames: int = 8) -> torch.Tensor:
    return torch.randn(n, n_frames, 6, net.image_size, net.image_size, generator=torch.Generator().manual_seed(1))


def shift_slowly(features: np.ndarray, segment: int, edge: str) -> np.ndarray:
    """Shift frames (frames, channels, ...) one channel of one frame at a time."""
    n_frames, channels = features.shape[:2]
    out = np.zeros_like(features)
    for t in range(n_frames):
        for c in range(channels):
            source = t + (1 if c < channels // 3 else -1 if c < 2 * (channels // 3) else 0)
            if source // segment == t // segment:
                out[t, c] = features[source, c]
            elif edge == "repeat":
                out[t, c] = features[t, c]
    return out


def run_slowly(net: TsCan, clip: np.ndarray) -> np.ndarray:
    """One clip (frames, 6, size, size) by TS-CAN as its authors describe it; convolutions by explicit patches."""
    weights = {name: value.detach().double().numpy() for name, value in net.state_dict().items()}

    def convolve(x, name, padding=0):
        x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        kernel = weights[f"{name}.weight"]
        size = kernel.shape[-1]
        rows, columns = x.shape[2] - size + 1, x.shape[3] - size + 1
        out = np.empty((len(x), len(kernel), rows, columns))
        for i in range(rows):
            for j in range(columns):
                out[:, :, i, j] = np.einsum("ncij,ocij->no", x[:, :, i : i + size, j : j + size], kernel)
        return out + weights[f"{name}.bias"][:, None, None]

    def pool(x):
        rows, columns = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        x = x[:, :, :rows, :columns]
        return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4

    def gate(appearance, name):
        mask = 1 / (1 + np.exp(-convolve(appearance, name)))
        for frame in mask:
            frame *= frame.shape[1] * frame.shape[2] / 2 / frame.sum()
        return mask

    motion, appearance = clip[:, :3].astype(np.float64), clip[:, 3:].astype(np.float64)
    for stage in ("first", "second"):
        for layer, padding in (("same", 1), ("valid", 0)):
            motion = np.tanh(convolve(shift_slowly(motion, net.segment, net.edge), f"{stage}.motion_{layer}", padding))
            appearance = np.tanh(convolve(appearance, f"{stage}.appearance_{layer}", padding))
        motion = pool(motion * gate(appearance, f"{stage}.attention"))
        appearance = pool(appearance)
    features = motion.reshape(len(motion), -1)
    hidden = np.tanh(features @ weights["heads.bvp.hidden.weight"].T + weights["heads.bvp.hidden.bias"])
    return (hidden @ weights["heads.bvp.out.weight"].T + weights["heads.bvp.out.bias"])[:, 0]


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("segment", [1, 2, 4, 8])
def test_tscan_equals_the_slow_reference(segment, edge):
    net = make_net(segment=segment, edge=edge)
    clips = make_clips(net)
    with torch.no_grad():
        found = net(clips).numpy()
    assert found.shape == (2, 8)
    for clip, signal in zip(clips.numpy(), found, strict=True):
        np.testing.assert_allclose(signal, run_slowly(net, clip), atol=1e-5)


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("channels", [3, 4, 8, 32])
def test_tscan_shift_moves_thirds(channels, edge):
    features = torch.randn(12, channels, 2, 3)
    np.testing.assert_array_equal(temporal_shift(features, 4, edge), shift_slowly(features.numpy(), 4, edge))


@pytest.mark.parametrize("norm", ["divide", "rsqrt"])
def test_tscan_masks_sum_to_half_their_area(norm):
    mask = torch.rand(3, 1, 5, 7) + 0.01
    scaled = normalise_mask(mask, norm)
    torch.testing.assert_close(scaled.sum((1, 2, 3)), torch.full((3,), 5 * 7 / 2))
    torch.testing.assert_close(scaled / scaled[:, :, :1, :1], mask / mask[:, :, :1, :1])


def test_tscan_has_the_papers_parameters_layer_by_layer():
    found = {name: tuple(value.shape) for name, value in TsCan(160, 36).state_dict().items()}
    expected = {f"{layer}.weight": shape for layer, shape in SHAPES.items()}
    expected |= {f"{layer}.bias": shape[:1] for layer, shape in SHAPES.items()}
    assert found == expected
    assert sum(np.prod(shape) for shape in found.values()) == 532_899


@pytest.mark.parametrize(
    ("image_size", "side", "parameters"), [(36, 7, 532_899), (72, 16, 2_228_643), (96, 22, 4_096_419)]
)
def test_tscan_takes_other_images(image_size, side, parameters):
    net = TsCan(10, image_size).eval()
    assert net.last_side == side
    assert sum(value.numel() for value in net.parameters()) == parameters
    with torch.no_grad():
        assert net(torch.zeros(1, 10, 6, image_size, image_size)).shape == (1, 10)


def test_tscan_clips_do_not_see_each_other_and_may_be_longer():
    net = make_net()
    clips = make_clips(net, 3, 12)
    with torch.no_grad():
        together = net(clips)
        torch.testing.assert_close(together[1:2], net(clips[1:2]))
        # Segments are the only horizon.
        torch.testing.assert_close(together[:, 4:8], net(clips[:, 4:8]))


@pytest.mark.parametrize("edge", EDGES)
def test_tscan_needs_one_look_at_a_clip_with_one_appearance(edge):
    net = make_net(edge=edge)
    clips = make_clips(net, 3)
    one_look = OneLookTsCan(net)
    with torch.no_grad():
        assert (one_look(clips) - net(clips)).abs().max() > 1e-2
        clips[:, :, 3:] = clips[:, :1, 3:]
        torch.testing.assert_close(one_look(clips), net(clips), rtol=0, atol=1e-5)


def test_tscan_learns_through_its_dropout():
    net = make_net().train()
    clips = make_clips(net)
    assert not torch.equal(net(clips), net(clips))
    net(clips).sum().backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in net.parameters())


def test_tscan_answers_with_the_head_that_it_is_asked_for():
    net = make_net(tasks=("bvp", "resp"))
    clips = make_clips(net)
    with torch.no_grad():
        both = net.forward_tasks(clips)
        assert both.shape == (2, 8, 2)
        torch.testing.assert_close(net(clips), both[..., 0])
        net.answer = "resp"
        torch.testing.assert_close(net(clips), both[..., 1])
        single = make_net()
        single.load_state_dict({name: value for name, value in net.state_dict().items() if ".resp." not in name})
        torch.testing.assert_close(single(clips), both[..., 0])


def test_tscan_mtts_adds_one_head():
    net = TsCan(10, 36, tasks=("bvp", "resp"))
    assert sum(value.numel() for value in net.parameters()) == 532_899 + 3136 * 128 + 128 + 128 + 1


def test_tscan_exports_with_a_dynamic_batch():
    net = make_net()
    clips = make_clips(net, 3)
    program = torch.export.export(net, (clips,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(clips[:2]), net(clips[:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: make_net(n_frames=10),
            "clips of 10 frames are not a multiple of segment=4: change datamodule.n_frames",
        ),
        (lambda: make_net(segment=0), "not a multiple of segment=0"),
        (lambda: make_net(edge="wrap"), "edge 'wrap' must be one of"),
        (lambda: make_net(mask_norm="none"), "mask_norm 'none' must be one of"),
        (lambda: make_net(answer="resp"), r"answer 'resp' must be one of the tasks \('bvp',\)"),
        (lambda: make_net(widths=(2, 4)), "at least 3 channels"),
        (lambda: make_net(widths=(4, 4, 4)), "must be two"),
        (lambda: make_net(image_size=9), "image_size 9 is too small"),
        (lambda: make_net()(torch.zeros(1, 6, 6, 14, 14)), "clips of 6 frames are not a multiple of segment=4"),
        (lambda: make_net()(torch.zeros(1, 8, 6, 36, 36)), r"expected \(batch, frames, 6, 14, 14\): check datamodule"),
        (lambda: make_net()(torch.zeros(8, 6, 14, 14)), r"clips of shape \(8, 6, 14, 14\)"),
        (lambda: UnrolledTsCan(make_net(), 6), "clips of 6 frames are not a multiple of segment=4"),
    ],
)
def test_tscan_refuses_what_does_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()
