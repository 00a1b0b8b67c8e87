"""Every model of conf/model: shape, parameter count, torch.export, ONNX in float32 and int8."""

import numpy as np
import onnx
import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from deploy.artifact import predict
from deploy.gate import PARITY_LIMITS
from deploy.onnx import export_onnx
from deploy.onnx_macs import count_macs
from lightning_modules.nets.attention1d import AttentionCnn1d, TemporalAttentionPool
from lightning_modules.nets.cnn1d import Cnn1d
from lightning_modules.nets.cnn_vit import CnnVit, SelfAttention
from lightning_modules.nets.inception1d import Inception1d
from lightning_modules.nets.layers import same_conv
from lightning_modules.nets.resnet1d import ResNet1d
from lightning_modules.nets.rr_tcn import RrTcn
from lightning_modules.nets.small1d import Small1d
from tests.configs import CLASSIFIERS, RPPG_FACTS, RPPG_MODELS, compose_config, names_of
from tests.exporting import quantize, randomise, run_torch

MODELS = names_of("model")
# Trainable parameters at 12 leads, 1000 samples and 5 classes, or at 36x36 pixels; widths that P3 does not print meet
# its rounded totals.
EXACT = {
    "attention_pool": 110_181,
    "attention_se": 113_965,
    "attention_small": 99_781,
    "cnn1d_124k": 124_025,
    "cnn1d_1m2": 1_199_625,
    "cnn1d_1m5": 1_517_055,
    "cnn1d_260k": 258_055,
    "cnn1d_57k": 56_955,
    "cnn1d_915k": 914_895,
    "cnn1d_plain": 429_505,
    "cnn1d_student": 534_005,
    "cnn1d_teacher": 6_522_555,
    "cnn_vit": 104_565,
    "inception1d": 4_265_189,
    "mtts_can": 934_564,
    "resnet15": 22_457,
    "resnet21": 12_293,
    "resnet25": 26_921,
    "rr_tcn": 11_861,
    "small1d": 94_911,
    "tscan": 532_899,
    "tscan_narrow": 133_843,
}
ROUNDED = {"cnn1d_1m2": 1.2e6, "cnn1d_915k": 915e3, "cnn1d_260k": 260e3, "cnn1d_124k": 124e3, "cnn1d_57k": 57e3}
# As the papers count: Keras adds the running mean and variance of the batch norms.
BEATS = ("datamodule.n_leads=1", "datamodule.n_classes=2", "datamodule.n_samples=300")
KERAS = {
    "resnet15": (21_698, BEATS),
    "resnet21": (11_138, BEATS),
    "resnet25": (26_978, BEATS),
    "inception1d": (4_266_277, ()),
}
# One of each kind; the rest of the cross is slow.
FAMILIES = ("cnn1d_57k", "resnet15", "attention_se", "attention_pool", "cnn_vit", "rr_tcn", "small1d", "tscan_narrow")
EXPORTED = [name if name in FAMILIES else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]


def build_net(model: str, *overrides: str) -> nn.Module:
    facts = RPPG_FACTS if model in RPPG_MODELS else ()
    return instantiate(compose_config(f"model={model}", "datamodule=ptbxl", *facts, *overrides).model.module.net)


def shapes_of(model: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape of a window and of what the net makes of it."""
    return ((10, 6, 36, 36), (10,)) if model in RPPG_MODELS else ((12, 1000), (5,))


def count(net: nn.Module) -> int:
    return sum(value.numel() for value in net.parameters() if value.requires_grad)


def count_keras(net: nn.Module) -> int:
    norms = [module for module in net.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    return count(net) + 2 * sum(norm.num_features for norm in norms)


@pytest.mark.parametrize("model", MODELS)
def test_net_has_its_parameter_count(model):
    assert count(build_net(model)) == EXACT[model]


@pytest.mark.parametrize("model", sorted(ROUNDED))
def test_net_meets_the_rounded_total_within_one_percent(model):
    assert EXACT[model] == pytest.approx(ROUNDED[model], rel=0.01)


@pytest.mark.parametrize("model", sorted(KERAS))
def test_net_has_the_papers_keras_count(model):
    expected, overrides = KERAS[model]
    assert count_keras(build_net(model, *overrides)) == expected


@pytest.mark.parametrize("model", ["attention_small", "rr_tcn", "small1d"])
def test_net_of_our_own_keeps_to_100k_parameters(model):
    assert EXACT[model] <= 100_000


@pytest.mark.parametrize(("model", "layers"), [("resnet15", 15), ("resnet21", 21), ("resnet25", 25)])
def test_resnet_has_the_layers_that_its_name_counts(model, layers):
    net = build_net(model, *BEATS)
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Linear)
    found = sum(isinstance(module, kinds) for module in net.modules())
    # Keras counts the input and the additions as layers too; its softmax is the last dense layer's activation.
    additions = sum(type(module).__name__ == "ResidualBlock" for module in net.modules())
    assert found + additions + 1 == layers


@pytest.mark.parametrize("model", MODELS)
def test_net_maps_windows_to_answers(model):
    net = build_net(model).eval()
    window, answer = shapes_of(model)
    assert net(torch.zeros(2, *window)).shape == (2, *answer)


@pytest.mark.parametrize("model", RPPG_MODELS)
def test_net_takes_the_facts_of_videos(model):
    net = build_net(model, "datamodule.n_frames=40", "datamodule.image_size=20", "model.module.net.segment=20").eval()
    assert net(torch.zeros(2, 40, 6, 20, 20)).shape == (2, 40)


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_net_takes_the_data_modules_facts(model):
    net = build_net(model, "datamodule.n_leads=2", "datamodule.n_classes=3", "datamodule.n_samples=300").eval()
    assert net(torch.zeros(2, 2, 300)).shape == (2, 3)


@pytest.mark.parametrize("model", [name for name in CLASSIFIERS if name != "inception1d"])
def test_net_trains_on_crops(model):
    net = build_net(model).train()
    net(torch.randn(4, 12, 250)).sum().backward()
    # A bias in front of a batch norm gets zeros, but everything takes part.
    assert all(value.grad is not None for value in net.parameters())


@pytest.mark.parametrize("model", MODELS)
def test_net_exports_with_a_dynamic_batch(model):
    net = build_net(model).eval()
    windows = torch.randn(3, *shapes_of(model)[0])
    program = torch.export.export(net, (windows,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(windows[:2]), net(windows[:2]), rtol=1e-4, atol=1e-5)


def make_waves() -> np.ndarray:
    """Make 48 windows of (12, 1000), each of a frequency of its own: noise looks the same to random weights."""
    random = np.random.default_rng(0)
    phases, gains = random.uniform(0, 2 * np.pi, (48, 12, 1)), random.standard_normal((48, 12, 1))
    cycles = np.geomspace(5, 200, 48)[:, None, None] * np.linspace(0, 1, 1000)
    return (gains * np.sin(2 * np.pi * cycles + phases)).astype(np.float32)


def make_clips() -> np.ndarray:
    """Make 6 clips of (10, 6, 36, 36), smooth in time and space, as a standardised face is."""
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.standard_normal((6, 6, 4, 5, 5), dtype=np.float32))
    fine = nn.functional.interpolate(coarse, (10, 36, 36), mode="trilinear", align_corners=True)
    return (1.5 * fine.transpose(1, 2)).contiguous().numpy()


def settle(net: nn.Module, windows: np.ndarray) -> nn.Module:
    """Give a net random weights that let the signal through, and batch norms the statistics of these windows."""
    randomise(net)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        net.train()(torch.from_numpy(windows))
    return net.eval()


@pytest.mark.parametrize("model", EXPORTED)
def test_net_runs_as_onnx_in_float_and_int8(model, tmp_path):
    windows = make_clips() if model in RPPG_MODELS else make_waves()
    net = settle(build_net(model), windows)
    exact = export_onnx(net, tmp_path / "float.onnx", example=torch.from_numpy(windows))
    quantized = quantize(exact, windows, tmp_path / "int8.onnx", align=4)
    expected = run_torch(net, windows)
    spread = float(expected.std(0).mean())
    for batch in (windows[:1], windows):
        own = expected[: len(batch)]
        np.testing.assert_allclose(predict(exact, batch, threads=1), own, rtol=0, atol=1e-3 * spread)
        noise = predict(quantized, batch, threads=1) - own
        assert np.sqrt(np.mean(noise**2)) < PARITY_LIMITS["int8"].noise * spread
    floats, integers = count_macs(exact.path), count_macs(quantized.path)
    # Channels padded with zeros for the integer kernels count too.
    assert floats.macs <= integers.macs <= 1.2 * floats.macs
    limits = compose_config(f"model={model}").model.limits.int8
    assert integers.int8_macs_share >= limits.int8_macs_share >= 0.9
    assert quantized.size_bytes <= limits.size_ratio * exact.size_bytes
    # Behind a quantize-dequantize pair, ONNX Runtime takes a softmax in 8 bits that rounds small weights to zero.
    graph = onnx.load(quantized.path).graph
    producers = {output: node.op_type for node in graph.node for output in node.output}
    assert {producers[node.input[0]] for node in graph.node if node.op_type == "Softmax"} <= {"MatMul"}
    if model == "small1d":
        assert floats.macs <= 15e6


def test_cnn1d_equals_the_order_of_the_paper():
    """ReLU before or after the max pool gives the same numbers."""
    net = Cnn1d(12, 5, 200, (4, 6), 5).eval()
    signal = torch.randn(2, 12, 200)
    x = signal.unsqueeze(2)
    for convolution, norm in ((net.features[0], net.features[1]), (net.features[5], net.features[6])):
        x = torch.nn.functional.max_pool2d(torch.relu(norm(convolution(x))), (1, 2))
    torch.testing.assert_close(net(signal), net.head(x.mean((2, 3))))


def test_cnn_vit_attention_equals_torchs_own():
    attention = SelfAttention(8, 2).eval()
    tokens = torch.randn(3, 8, 1, 5)
    query, key, value = (
        layer(tokens).reshape(3, 2, 4, 5).transpose(2, 3) for layer in (attention.query, attention.key, attention.value)
    )
    # The scale of the scores is part of the queries already.
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=1.0)
    torch.testing.assert_close(attention(tokens), attention.out(expected.transpose(2, 3).reshape(3, 8, 1, 5)))


def test_cnn_vit_sees_the_order_of_tokens():
    windows = np.random.default_rng(0).standard_normal((8, 1, 64), dtype=np.float32)
    net = settle(CnnVit(1, 2, 64, (4,), (1,), (1,), depth=1, heads=1), windows)
    signal = torch.from_numpy(windows)
    assert (net(signal) - net(signal.flip(-1))).abs().max() > 0.01
    net.positions.zero_()
    torch.testing.assert_close(net(signal), net(signal.flip(-1)), rtol=1e-4, atol=1e-5)


def test_attention1d_pools_by_its_weights():
    pool = TemporalAttentionPool(8, heads=2)
    features = torch.randn(3, 8, 1, 5)
    scores = pool.queries @ pool.hidden(features)[:, :, 0]
    for head, channels in enumerate((slice(0, 4), slice(4, 8))):
        weights = scores[:, head].softmax(-1)[:, None]
        torch.testing.assert_close(pool(features)[:, channels], (features[:, channels, 0] * weights).sum(-1))
    torch.nn.init.zeros_(pool.queries)
    torch.testing.assert_close(pool(features), features.mean((2, 3)))


def test_rr_tcn_is_blind_to_the_heart_rate():
    intervals_s = 0.5 + 0.5 * torch.rand(4, 1, 25)
    net = RrTcn(1, 2, 25).eval()
    logits, slower, other = (net((rr - 0.75) / 0.2) for rr in (intervals_s, 1.5 * intervals_s, intervals_s.flip(0)))
    torch.testing.assert_close(slower, logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(other, logits, rtol=1e-3)


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("length", [31, 32])
def test_layers_same_conv_keeps_the_length_up_to_its_stride(stride, length):
    assert same_conv(1, 1, 7, stride=stride)(torch.zeros(1, 1, 1, length)).shape[-1] == -(-length // stride)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cnn1d(12, 5, 40, (4, 4, 4)), "n_samples=40 is too short"),
        (lambda: Cnn1d(12, 5, 1000, (4, 4), (5, 5, 5)), "same length"),
        (lambda: AttentionCnn1d(12, 5, 7, (4, 4, 4)), "n_samples=7 is too short"),
        (lambda: AttentionCnn1d(12, 5, 64, (6,), pool_heads=4), "6 channels cannot be shared evenly between 4"),
        (lambda: CnnVit(12, 5, 64, (4, 4), (3,), (1, 1)), "same length"),
        (lambda: CnnVit(12, 5, 64, (6,), (3,), (1,), heads=4), "width=6 cannot be shared evenly between 4 heads"),
        (lambda: CnnVit(1, 2, 64, (4,), (3,), (1,), heads=1)(torch.zeros(1, 1, 65)), "65 samples make 65 tokens"),
        (lambda: Inception1d(12, 5, 7), "n_samples=7 is too short"),
        (lambda: Inception1d(2, 2, 64)(torch.zeros(1, 2, 32)), r"windows of 32 samples.*model\.crop_s=null"),
        (lambda: ResNet1d(1, 2, 300, 8, 3, [8, 8], [(3, 3)], True, False), "same length"),
        (lambda: ResNet1d(1, 2, 300, 8, 3, [16], [(3, 3)], False, False), "from 8 to 16 channels needs projection"),
        (lambda: RrTcn(1, 2, 25, kernel_size=4), "kernel 4 is even"),
        (lambda: RrTcn(1, 2, 25, stem_kernel=4), "kernel 4 is even"),
        (lambda: Small1d(12, 5, 1000, kernel_size=8), "kernel 8 is even"),
    ],
)
def test_net_refuses_what_does_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()
