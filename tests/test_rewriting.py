"""Low-rank factors and folded norms: what is written anew answers as before."""

import numpy as np
import pytest
import torch
from torch import nn

from compression import rewriting
from compression.recipe import ExportSpec
from compression.rewriting import BnFold, LowRank, fold_norms
from lightning_modules.nets.cnn1d import Cnn1d
from lightning_modules.nets.layers import same_conv
from tests.configs import CLASSIFIERS
from tests.exporting import randomise, run_torch
from tests.test_nets import build_net
from tests.test_pruning import make_tools, student
from tests.tiny import TinyDataModule, tiny_module

WINDOWS = np.random.default_rng(0).standard_normal((2, 12, 1000), dtype=np.float32)
UNFOLDABLE = {"inception1d": "features.10", "cnn1d_plain": "Cnn1d has no batch norm to fold"}


@pytest.mark.parametrize("model", [name for name in CLASSIFIERS if name not in UNFOLDABLE])
def test_folded_nets_answer_as_before_without_norms(model):
    net = randomise(build_net(model)).eval()
    folded = fold_norms(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    expected = run_torch(net, WINDOWS)
    np.testing.assert_allclose(run_torch(folded, WINDOWS), expected, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize(("model", "named"), UNFOLDABLE.items())
def test_norms_that_cannot_be_folded_are_named(model, named):
    with pytest.raises(ValueError, match=named):
        fold_norms(build_net(model))


def test_bn_fold_leaves_the_module_that_came_in_as_it_is():
    module = student()
    folded, spec = BnFold()(module, ExportSpec(), make_tools(module))
    assert isinstance(module.net.features[1], nn.BatchNorm2d)
    assert isinstance(folded.net.features[1], nn.Identity)
    assert spec == ExportSpec()
    assert folded.net.features[4].weight.is_contiguous(memory_format=torch.channels_last)


def factorise(module, **options):
    return LowRank(**({"max_epochs": 0, "rank_ratio": 0.25} | options))(module, ExportSpec(), make_tools(module))[0]


def test_low_rank_has_its_ranks_and_touches_only_what_saves():
    module = student()
    thin = factorise(module)
    # 40 x 120 has rank 40, a quarter of it rounded up to 16: 16 * 160 values in the place of 4,800. 24 x 10 saves not.
    first, second = thin.net.features[4]
    assert (tuple(first.weight.shape), tuple(second.weight.shape)) == ((16, 24, 1, 5), (40, 16, 1, 1))
    assert first.bias is None
    assert torch.equal(second.bias, module.net.features[4].bias)
    assert isinstance(thin.net.features[0], nn.Conv2d)
    assert isinstance(thin.net.head, nn.Linear)
    assert isinstance(module.net.features[4], nn.Conv2d)
    assert first.weight.is_contiguous(memory_format=torch.channels_last)


def test_low_rank_of_a_low_rank_layer_changes_nothing():
    module = student()
    weight = module.net.features[4].weight
    left, right = torch.randn(40, 8), torch.randn(8, 120)
    weight.data.copy_((left @ right).view(weight.shape) / 30)
    thin = factorise(module, rank_ratio=None, energy=0.9999)
    assert thin.net.features[4][0].out_channels == 8
    windows = TinyDataModule().windows("val")
    np.testing.assert_allclose(run_torch(thin.net, windows), run_torch(module.net, windows), atol=1e-4)


def test_low_rank_takes_linear_layers_too():
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
    module = tiny_module()
    module.net = net
    thin = factorise(module)
    assert [tuple(layer.weight.shape) for layer in thin.net[0]] == [(8, 64), (32, 8)]


def test_energy_keeps_its_share():
    module = student()
    loose, tight = (factorise(module, rank_ratio=None, energy=energy).net.features[4] for energy in (0.3, 0.6))
    assert loose[0].out_channels < tight[0].out_channels
    product = tight[1].weight.flatten(1) @ tight[0].weight.flatten(1)
    whole = module.net.features[4].weight.flatten(1)
    assert 1 - (whole - product).square().sum() / whole.square().sum() >= 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"energy": 0.9, "rank_ratio": 0.5}, "expected one of energy"),
        ({}, "expected one of energy"),
        ({"energy": 1.0}, r"energy is 1\.0, it is a share"),
        ({"rank_ratio": 0}, "rank_ratio is 0"),
        ({"rank_ratio": 0.5, "round_to": 0}, "round_to is 0"),
        ({"rank_ratio": 0.5, "learning_rate": -1}, "learning_rate is -1"),
    ],
)
def test_low_rank_refuses_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        LowRank(**options)


def test_low_rank_says_when_nothing_is_saved():
    with pytest.raises(ValueError, match=r"saves nothing: ranks \{'features\.0': 10, 'features\.4': 40"):
        factorise(student(), rank_ratio=0.95)
    with pytest.raises(ValueError, match=r"protect names \['features\.99'\]"):
        factorise(student(), protect=["features.99"])


def test_factors_of_full_rank_answer_as_the_strided_layer():
    torch.manual_seed(0)
    layer = same_conv(16, 24, 7, stride=2)
    parts = torch.linalg.svd(layer.weight.detach().double().flatten(1), full_matrices=False)
    windows = torch.randn(2, 16, 1, 50)
    torch.testing.assert_close(rewriting.factorise(layer, *parts, 24)(windows), layer(windows), atol=1e-5, rtol=0)


def test_a_plain_net_is_told_apart():
    with pytest.raises(ValueError, match="leave bn_fold out"):
        fold_norms(Cnn1d(2, 2, 64, (4,), 5, batch_norm=False))
