"""Zeros that stay zeros, in the file too; and the variant of paper P3 that only seems to prune."""

import copy
from functools import partial

import numpy as np
import onnx
import pytest
import torch

from composition.measurement import reloaded_outputs, torch_outputs
from compression.fine_tuning import holding_zeros
from compression.quantization import PtqInt8
from compression.recipe import ExportSpec, apply_steps
from compression.sparsity import PruneMasksReloaded, PruneNM, PruneUnstructured, weights_of, zero_n_m, zero_smallest
from deploy.gate import check_reload, check_share
from deploy.onnx import export_onnx
from deploy.profile import count_macs
from lightning_modules.fitting import fit_once
from tests.exporting import quantize, randomise
from tests.test_pruning import make_tools, student
from tests.tiny import TinyDataModule, tiny_module, tiny_trainer


def zeros(net):
    weights = [weight for _, weight in weights_of(net)]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def fitter(folder, seen):
    def fit(module, about, *, max_epochs, datamodule=None):
        seen.append((dict(about), zeros(module.net)))
        make_trainer = partial(tiny_trainer, epochs=max_epochs)
        fit_once(module, TinyDataModule(), make_trainer, folder, str(len(seen)), 0, {})
        return module

    return fit


@pytest.mark.parametrize("soft_weight", [0.0, 0.5])
def test_gradual_pruning_holds_its_zeros_through_training(tmp_path, soft_weight):
    module, seen = student(), []
    step = PruneUnstructured(sparsity=0.75, n_iterations=2, max_epochs=1, learning_rate=0.01, soft_weight=soft_weight)
    pruned, _ = step(module, ExportSpec(), make_tools(module, fitter(tmp_path, seen)))
    # Three quarters of .75 after half of the way, by the cubic schedule 1 - (1/2)^3.
    assert [share for _, share in seen] == pytest.approx([0.75 * 0.875, 0.75], abs=1e-3)
    assert zeros(pruned.net) == pytest.approx(0.75, abs=1e-3)
    assert all(about["hold_zeros"] for about, _ in seen)
    assert not torch.equal(pruned.net.head.weight, module.net.head.weight)
    assert list(pruned.net.state_dict()) == list(module.net.state_dict())
    windows = TinyDataModule().windows("val")
    assert check_reload(torch_outputs(pruned.net, windows), reloaded_outputs(pruned.net, windows)).status == "PASS"


def test_zeros_survive_export_and_quantization(tmp_path):
    module = student()
    randomise(module.net)
    steps = [PruneUnstructured(sparsity=0.75, max_epochs=0), PtqInt8(32)]
    *_, stage = apply_steps(module, steps, make_tools(module))
    example = torch.zeros(2, 2, 64)
    artifact = export_onnx(stage.module.net, tmp_path / "m.onnx", example=example)
    assert count_macs(artifact.path).weights.sparsity == pytest.approx(0.75, abs=1e-3)
    quantized = quantize(artifact, TinyDataModule().windows("train"), tmp_path / "int8.onnx")
    assert count_macs(quantized.path).weights.sparsity >= 0.75
    names = {weight.name for weight in onnx.load(artifact.path).graph.initializer}
    assert not any("mask" in name for name in names)


def test_the_smallest_of_all_weights_go():
    first, second = torch.tensor([[1.0, -5.0], [0.1, 3.0]]), torch.tensor([[0.2, -4.0]])
    zero_smallest([first, second], 0.5)
    assert first.tolist() == [[0.0, -5.0], [0.0, 3.0]]
    assert second.tolist() == [[0.0, -4.0]]


def test_two_of_four_neighbours_along_the_inputs_stay():
    weight = torch.tensor([[1.0, -4.0, 3.0, 2.0, 9.0, 0.5], [0.0, 0.0, 1.0, 0.0, 0.1, 0.2]])
    zero_n_m(weight, 2, 4)
    assert weight.tolist() == [
        pytest.approx([0.0, -4.0, 3.0, 0.0, 9.0, 0.5]),
        pytest.approx([0.0, 0.0, 1.0, 0.0, 0.1, 0.2]),
    ]


def test_n_m_leaves_the_pattern_in_every_wide_layer():
    module = tiny_module(widths=(16, 32), memory_format="channels_last")
    pruned, _ = PruneNM(max_epochs=0)(module, ExportSpec(), make_tools(module))
    layer = pruned.net.features[4].weight
    assert ((layer.unflatten(1, (-1, 4)) != 0).sum(2) == 2).all()
    assert layer.is_contiguous(memory_format=torch.channels_last)
    # Two leads fill no group of four.
    assert torch.equal(pruned.net.features[0].weight, module.net.features[0].weight)


def test_holding_zeros_lets_other_weights_and_biases_move():
    weight = torch.nn.Parameter(torch.tensor([[0.0, 1.0]]))
    bias = torch.nn.Parameter(torch.zeros(1))
    optimizer = holding_zeros(partial(torch.optim.SGD, lr=0.1))([weight, bias])
    (weight.sum() + bias.sum()).backward()
    optimizer.step()
    assert weight.tolist() == [[0.0, pytest.approx(0.9)]]
    assert bias.tolist() == [pytest.approx(-0.1)]


def test_reloaded_masks_leave_a_fresh_net_and_no_zeros(tmp_path):
    module = student()
    for value in module.net.parameters():
        value.data += 1
    fresh, _ = PruneMasksReloaded()(module, ExportSpec(), make_tools(student()))
    initial = dict(student().net.named_parameters())
    assert torch.equal(fresh.net.features[4].weight, initial["features.4.weight"])
    assert torch.equal(fresh.net.features[4].bias, module.net.features[4].bias)
    artifact = export_onnx(fresh.net, tmp_path / "m.onnx", example=torch.zeros(2, 2, 64))
    assert check_share("sparsity", count_macs(artifact.path).weights.sparsity, 0.19).status == "FAIL"


def test_steps_leave_the_module_that_came_in_as_it_is():
    module = student()
    before = copy.deepcopy(module.net.state_dict())
    for step in (PruneUnstructured(max_epochs=0), PruneNM(max_epochs=0), PruneMasksReloaded()):
        step(module, ExportSpec(), make_tools(module))
    assert all(torch.equal(value, before[name]) for name, value in module.net.state_dict().items())
    assert np.isfinite(torch_outputs(module.net, TinyDataModule().windows("val"))).all()


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (PruneUnstructured, {"sparsity": 0}, r"sparsity is 0, it is a share and must lie within \(0, 1\)"),
        (PruneUnstructured, {"sparsity": 1.0}, r"sparsity is 1\.0"),
        (PruneUnstructured, {"n_iterations": 0}, "n_iterations is 0"),
        (PruneUnstructured, {"soft_weight": -1}, "soft_weight is -1"),
        (PruneNM, {"n": 4}, "n=4 of m=4 weights are kept"),
        (PruneNM, {"n": 0}, "n=0 of m=4"),
        (PruneMasksReloaded, {"amount": 1.2}, r"amount is 1\.2"),
    ],
)
def test_zeros_refuse_options_out_of_range(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_zeros_name_what_they_cannot_treat():
    module = tiny_module(widths=(4,))
    with pytest.raises(
        ValueError, match=r"protect names \['features\.9'\], expected some of \['features\.0', 'head'\]"
    ):
        PruneUnstructured(protect=["features.9"])(module, ExportSpec(), make_tools(module))
    with pytest.raises(ValueError, match="no layer of Cnn1d has m=8 input channels"):
        PruneNM(m=8)(module, ExportSpec(), make_tools(module))
