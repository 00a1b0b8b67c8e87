"""Structured pruning: which channels may go, exactly what is left, and that the net does the same without them."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from composition.measurement import reloaded_outputs, torch_outputs
from compression.channels import choose_channels, count_bytes, count_macs, cut_channels, find_groups
from compression.pruning import PruneStructured
from compression.recipe import ExportSpec, Tools
from deploy.onnx import export_onnx
from deploy.onnx_macs import count_macs as count_file_macs
from lightning_modules.classifier import Classifier
from lightning_modules.fitting import fit_once
from lightning_modules.nets.cnn1d import Cnn1d
from tests.configs import CLASSIFIERS
from tests.exporting import randomise, run_torch
from tests.test_nets import FAMILIES, build_net, shapes_of
from tests.tiny import TinyDataModule, tiny_module, tiny_trainer

MODELS = CLASSIFIERS
EXAMPLE = torch.zeros(1, 12, 1000)


def make_tools(module, fit=None, data=None):
    return Tools(
        datamodule=data or TinyDataModule(),
        fit=fit or (lambda module, about, **options: module),
        rebuild=lambda: copy.deepcopy(module),
    )


def prune(module, **options):
    options = {"target_macs": 0.5, "max_epochs": 0} | options
    return PruneStructured(**options)(module, ExportSpec(), make_tools(module))[0]


def widths(net):
    return [layer.weight.shape[0] for layer in net.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]


@pytest.mark.parametrize("model", MODELS)
def test_every_net_loses_channels_and_keeps_its_heads(model):
    net = build_net(model).to("meta").eval()
    # Shapes alone: neither weights nor scores matter here.
    scored = build_net(model).eval()
    groups = find_groups(scored, EXAMPLE, "magnitude")
    drops = choose_channels(groups, 0.4, "layer", 8)
    smaller = cut_channels(net, EXAMPLE.to("meta"), drops)
    assert count_macs(smaller, EXAMPLE.to("meta")) < 0.8 * count_macs(net, EXAMPLE.to("meta"))
    assert count_bytes(smaller) < 0.8 * count_bytes(net)
    assert widths(smaller)[-1] == widths(net)[-1] == 5
    for group in groups:
        assert smaller.get_submodule(group.layer).weight.shape[0] == group.width - len(drops.get(group.layer, ()))
        assert group.layer not in drops or smaller.get_submodule(group.layer).weight.shape[0] % 8 == 0


def test_attentions_and_the_widths_that_feed_them_stay():
    layers = {group.layer for group in find_groups(build_net("cnn_vit"), EXAMPLE, "magnitude")}
    assert layers == {"stem.0", "stem.3", "blocks.0.perceptron.0.0", "blocks.1.perceptron.0.0"}
    layers = {group.layer for group in find_groups(build_net("attention_pool"), EXAMPLE, "magnitude")}
    assert layers == {"features.0", "features.4", "features.8"}


# Whose maps are added to those of a layer of resnet21, and the norms behind them.
ADDED = {
    "features.0": ("features.1", *(f"features.{block}.residual.{place}" for block in (3, 4) for place in (3, 4))),
    "features.3.residual.0": ("features.3.residual.1",),
    "features.4.residual.0": ("features.4.residual.1",),
}


def test_a_cut_net_answers_as_one_whose_channels_are_silent():
    net = randomise(build_net("resnet21")).eval()
    groups = find_groups(net, EXAMPLE, "magnitude")
    assert {group.layer for group in groups} == set(ADDED)
    drops = choose_channels(groups, 0.4, "layer", 8)
    silent = copy.deepcopy(net)
    for root, others in ADDED.items():
        for name in (root, *others):
            layer = silent.get_submodule(name)
            for values in (*layer.parameters(), getattr(layer, "running_mean", torch.zeros(24))):
                values.data[drops[root]] = 0
    windows = np.random.default_rng(0).standard_normal((4, 12, 1000), dtype=np.float32)
    expected = run_torch(silent, windows)
    np.testing.assert_allclose(run_torch(cut_channels(net, EXAMPLE, drops), windows), expected, atol=1e-5)
    assert np.abs(expected - run_torch(net, windows)).max() > 1e-2


def kept(width, dropped):
    return [channel for channel in range(width) if channel not in dropped]


def test_columns_of_a_map_laid_flat_go_with_their_channel():
    net = build_net("inception1d").eval()
    drops = {"features.15.point.0": [3], "features.15.long.2": [0, 63]}
    dense = cut_channels(net, EXAMPLE, drops).dense[0].weight
    channels = kept(256, [3, 128, 191])
    columns = net.dense[0].weight.unflatten(1, (256, 125))[:, channels].flatten(1)
    assert torch.equal(dense, columns)


def test_columns_of_means_and_spreads_go_with_their_channel():
    net = build_net("rr_tcn").eval()
    first = cut_channels(net, EXAMPLE, {"features.1": [3, 5]}).head[1].weight
    assert torch.equal(first, net.head[1].weight[:, kept(48, [3, 5, 27, 29])])


def test_half_the_macs_are_left_in_the_exported_file(tmp_path):
    module = student()
    pruned = prune(module)
    data = torch.zeros(2, 2, 64)
    before, after = (
        count_file_macs(export_onnx(net, tmp_path / f"{name}.onnx", example=data).path).macs
        for name, net in (("whole", module.net), ("pruned", pruned.net))
    )
    # 60 positions behind the first convolution, 26 behind the second.
    assert before == 60 * 2 * 5 * 24 + 26 * 24 * 5 * 40 + 2 * 40
    first, second = (pruned.net.features[place].out_channels for place in (0, 4))
    assert (first % 8, second % 8) == (0, 0)
    assert after == 60 * 2 * 5 * first + 26 * first * 5 * second + 2 * second
    assert 0.3 < after / before <= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("model", FAMILIES)
def test_the_file_has_the_macs_that_were_promised(model, tmp_path):
    net, example = randomise(build_net(model)).eval(), torch.zeros(1, *shapes_of(model)[0])
    smaller = cut_channels(net, example, choose_channels(find_groups(net, example, "magnitude"), 0.4, "global", 8))
    path = export_onnx(smaller, tmp_path / "m.onnx", example=example).path
    assert count_file_macs(path).macs == pytest.approx(count_macs(smaller, example), rel=1e-3)


def student():
    return tiny_module(widths=(24, 40), memory_format="channels_last")


def test_the_smallest_channels_go():
    module = tiny_module(widths=(16,))
    weight = module.net.features[0].weight
    weight.data[::2] *= 1e-3
    module.net.head.weight.data[:, ::2] *= 1e-3
    module.net.features[1].weight.data[::2] *= 1e-3
    pruned = prune(module, target_macs=None, pruning_ratio=0.5)
    assert torch.equal(pruned.net.features[0].weight, weight[1::2])


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "bn_scale"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_every_importance_and_scope_reaches_the_target(importance, scope):
    module = student()
    pruned = prune(module, importance=importance, scope=scope, target_macs=None, target_bytes=0.5)
    assert 0.3 < count_bytes(pruned.net) / count_bytes(module.net) <= 0.5


def test_taylor_keeps_what_the_loss_depends_on():
    """Large weights of a channel that nobody reads do not matter to the loss."""
    module = tiny_module(widths=(16,))
    module.net.features[0].weight.data[::2] *= 100
    module.net.head.weight.data[:, ::2] = 0
    pruned = prune(module, importance="taylor", target_macs=None, pruning_ratio=0.5)
    assert torch.equal(pruned.net.features[0].weight, module.net.features[0].weight[1::2])


def test_parts_add_up_to_the_whole_goal():
    seen = []

    def fit(module, about, **options):
        seen.append((about["part"], module.net.head.in_features))
        return module

    module = tiny_module(widths=(64,))
    step = PruneStructured(pruning_ratio=0.75, n_iterations=3, soft_weight=0, max_epochs=1)
    step(module, ExportSpec(), make_tools(module, fit))
    assert seen == [(1, 48), (2, 32), (3, 16)]


def test_a_pruned_net_is_an_ordinary_net():
    module = student()
    before = copy.deepcopy(module.net.state_dict())
    pruned = prune(module)
    assert all(torch.equal(value, before[name]) for name, value in module.net.state_dict().items())
    assert list(pruned.net.state_dict()) == list(before)
    assert pruned.net.features[4].weight.is_contiguous(memory_format=torch.channels_last)
    assert not pruned.net.features[4].weight.is_contiguous()
    windows = TinyDataModule().windows("val")
    assert np.array_equal(torch_outputs(pruned.net, windows), reloaded_outputs(pruned.net, windows))
    with torch.autocast("cpu", torch.bfloat16):
        pruned.net.train()(torch.from_numpy(windows)).sum().backward()


def test_fine_tuning_learns_from_the_labels_and_from_the_whole_net(tmp_path):
    abouts = []

    def fit(module, about, *, max_epochs, datamodule=None):
        abouts.append((dict(about), module.criterion))
        make_trainer = partial(tiny_trainer, epochs=max_epochs)
        fit_once(module, datamodule or TinyDataModule(), make_trainer, tmp_path, str(len(abouts)), 0, {})
        return module

    module = student()
    step = PruneStructured(target_macs=0.5, max_epochs=2, learning_rate=0.01)
    pruned, _ = step(module, ExportSpec(), make_tools(module, fit))
    (about, criterion), *_ = abouts
    assert (about["step"], about["label_weight"], about["parts"]["soft"]["weight"]) == ("prune_structured", 0.5, 0.5)
    assert type(criterion).__name__ == "DistillationLoss"
    assert pruned.criterion is pruned.label_loss
    assert not torch.equal(pruned.net.head.weight, prune(module).net.head.weight)


def test_a_loss_that_is_not_finite_ends_the_step_and_keeps_what_was_good(tmp_path):
    module = student()
    before = copy.deepcopy(module.net.state_dict())

    def fit(module, about, *, max_epochs, datamodule=None):
        plain = module.criterion

        def criterion(logits, batch):
            return plain(logits, batch) * (float("nan") if module.current_epoch == 1 else 1)

        module.criterion = criterion
        fit_once(module, TinyDataModule(), partial(tiny_trainer, epochs=max_epochs), tmp_path, "d", 0, {})
        return module

    step = PruneStructured(target_macs=0.5, max_epochs=3, soft_weight=0)
    with pytest.raises(FloatingPointError, match="loss is nan in epoch 1"):
        step(module, ExportSpec(), make_tools(module, fit))
    assert all(torch.equal(value, before[name]) for name, value in module.net.state_dict().items())
    assert not (tmp_path / "d" / "fit.json").exists()
    # The best epoch before.
    (checkpoint,) = (tmp_path / "d" / "checkpoints").glob("*.ckpt")
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_macs": 0}, r"target_macs is 0, it is a share and must lie within \(0, 1\)"),
        ({"target_macs": 1.0}, "target_macs is 1.0"),
        ({"target_macs": None, "pruning_ratio": 1.5}, "pruning_ratio is 1.5"),
        ({"target_macs": None, "target_bytes": -0.1}, "target_bytes is -0.1"),
        ({"target_bytes": 0.5}, "exactly one of pruning_ratio, target_macs and target_bytes"),
        ({"target_macs": None}, "exactly one of"),
        ({"importance": "luck"}, "importance is 'luck', it must be one of"),
        ({"scope": "net"}, "scope is 'net'"),
        ({"round_to": 0}, "round_to is 0"),
        ({"n_iterations": 0}, "n_iterations is 0"),
        ({"max_epochs": -1}, "max_epochs is -1"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"soft_weight": 1.1}, "soft_weight is 1.1"),
    ],
)
def test_pruning_refuses_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        PruneStructured(**({"target_macs": 0.5} | options))


def test_a_target_that_cannot_be_met_says_what_can():
    with pytest.raises(
        ValueError, match=r"target_macs=0.01 cannot be met: the smallest reachable is 0\.094 of the net"
    ):
        prune(student(), target_macs=0.01)


def test_a_ratio_that_drops_nothing_is_refused():
    with pytest.raises(ValueError, match=r"pruning_ratio=0.01 drops no channel .*'features.0': 24"):
        prune(student(), target_macs=None, pruning_ratio=0.01)


class Recurrent(nn.Module):
    """A convolution, and a layer that no channel can leave."""

    def __init__(self):
        super().__init__()
        self.stem, self.memory = nn.Conv2d(2, 16, (1, 5)), nn.GRU(16, 8, batch_first=True)
        self.middle, self.head = nn.Linear(8, 16), nn.Linear(16, 2)

    def forward(self, signal):
        states, _ = self.memory(self.stem(signal.unsqueeze(2)).squeeze(2).transpose(1, 2))
        return self.head(self.middle(states[:, -1]))


def test_a_layer_that_cannot_be_treated_is_named_and_may_be_protected():
    module = Classifier(Recurrent(), ("a", "b"), partial(torch.optim.Adam, lr=0.01))
    with pytest.raises(ValueError, match=r"layer 'memory' \(GRU\(16, 8.*cannot be pruned by channels: list it under"):
        prune(module)
    pruned = prune(module, target_macs=None, pruning_ratio=0.5, protect=["memory", "stem"])
    assert (pruned.net.middle.out_features, pruned.net.stem.out_channels) == (8, 16)


def test_a_grouped_convolution_is_named():
    module = tiny_module(widths=(16, 32))
    module.net.features[4] = nn.Conv2d(16, 32, (1, 5), groups=4)
    with pytest.raises(ValueError, match=r"layer 'features.4' \(Conv2d\(16, 32"):
        prune(module)


def test_a_protected_layer_must_exist():
    with pytest.raises(ValueError, match=r"protect names \['features.99'\]"):
        prune(student(), protect=["features.99"])


def test_bn_scale_names_the_layer_without_a_norm():
    net = Cnn1d(2, 2, 64, (16,), 5, batch_norm=False)
    module = Classifier(net, ("a", "b"), partial(torch.optim.Adam, lr=0.01))
    with pytest.raises(ValueError, match=r"layer 'features\.0' has no batch norm"):
        prune(module, importance="bn_scale")
