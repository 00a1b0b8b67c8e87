"""Every model of conf/model: shape, parameter count, export."""

import pytest
import torch
from hydra.utils import instantiate

from lightning_modules.nets.cnn1d import Cnn1d
from tests.configs import compose_config, names_of

# Trainable parameters at 12 leads and 5 classes; the widths that the paper does not print meet its rounded totals.
EXACT = {"cnn1d_teacher": 6_522_555, "cnn1d_student": 534_005, "cnn1d_plain": 429_505, "cnn1d_1m5": 1_517_055}
EXACT |= {"cnn1d_260k": 258_055, "cnn1d_57k": 56_955}
ROUNDED = {"cnn1d_1m2": 1.2e6, "cnn1d_915k": 915e3, "cnn1d_260k": 260e3, "cnn1d_124k": 124e3, "cnn1d_57k": 57e3}
MODELS = [name for name in names_of("model") if name != "cnn1d"]


def build_net(model: str) -> torch.nn.Module:
    return instantiate(compose_config(f"model={model}", "datamodule=ptbxl").model.module.net)


def count(net: torch.nn.Module) -> int:
    return sum(value.numel() for value in net.parameters() if value.requires_grad)


@pytest.mark.parametrize("model", sorted(EXACT))
def test_net_has_the_papers_parameter_count(model):
    assert count(build_net(model)) == EXACT[model]


@pytest.mark.parametrize("model", sorted(ROUNDED))
def test_net_meets_the_rounded_total_within_one_percent(model):
    assert count(build_net(model)) == pytest.approx(ROUNDED[model], rel=0.01)


@pytest.mark.parametrize("model", MODELS)
def test_net_maps_batch_leads_time_to_logits(model):
    net = build_net(model).eval()
    assert net(torch.zeros(2, 12, 1000)).shape == (2, 5)


@pytest.mark.parametrize("model", MODELS)
def test_net_exports_with_a_dynamic_batch(model):
    net = build_net(model).eval()
    windows = torch.randn(3, 12, 1000)
    program = torch.export.export(net, (windows,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(windows[:2]), net(windows[:2]), rtol=1e-4, atol=1e-5)


def test_net_equals_the_order_of_the_paper():
    """ReLU before or after the max pool gives the same numbers."""
    net = Cnn1d(12, 5, 200, (4, 6), 5).eval()
    signal = torch.randn(2, 12, 200)
    x = signal.unsqueeze(2)
    for convolution, norm in ((net.features[0], net.features[1]), (net.features[5], net.features[6])):
        x = torch.nn.functional.max_pool2d(torch.relu(norm(convolution(x))), (1, 2))
    torch.testing.assert_close(net(signal), net.head(x.mean((2, 3))))


def test_net_refuses_a_window_shorter_than_its_blocks():
    with pytest.raises(ValueError, match="n_samples=40 is too short"):
        Cnn1d(12, 5, 40, (4, 4, 4))


def test_net_refuses_lists_of_different_length():
    with pytest.raises(ValueError, match="same length"):
        Cnn1d(12, 5, 1000, (4, 4), (5, 5, 5))
