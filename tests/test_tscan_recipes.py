"""Recipes on a TS-CAN: what a step takes away is gone, and nothing else has moved."""

import copy
from functools import partial

import numpy as np
import pytest
import torch

from compression.channels import choose_channels, cut_channels, find_groups
from compression.fine_tuning import match_answers
from compression.pruning import PruneStructured
from compression.qat import QatInt8
from compression.quantization import PtqInt8
from compression.recipe import ExportSpec, Tools
from compression.wave_parts import WaveMatch
from deploy.artifact import predict
from deploy.onnx import export_onnx
from deploy.profile import count_macs
from lightning_modules.nets.tscan import TsCan
from lightning_modules.rppg import RppgModule
from tests.tiny_video import N_FRAMES, SIZE, TinyVideoData

LAYERS = ("motion_same", "motion_valid", "appearance_same", "appearance_valid")
GROUPS = {f"{stage}.{layer}" for stage in ("first", "second") for layer in LAYERS}


def make_module(widths=(24, 32), **options):
    torch.manual_seed(0)
    net = TsCan(N_FRAMES, SIZE, widths=widths, dense_width=16, **options)
    for value in net.parameters():
        torch.nn.init.normal_(value, std=0.3)
    return RppgModule(net, partial(torch.optim.Adam, lr=0.01)).eval()


def make_tools(module, fit=None):
    return Tools(
        datamodule=TinyVideoData(n_subjects=16, n_clips=1, n_test=8),
        fit=fit or (lambda module, about, **options: module),
        rebuild=lambda: copy.deepcopy(module),
    )


def fit_one_batch(module, about, **options):
    """Take one step of the optimizer."""
    batch = next(iter(TinyVideoData(n_subjects=16, n_clips=1, n_test=8).train_dataloader()))
    optimizer = module.optimizer(module.parameters())
    module.criterion(module(batch[0]), batch).backward()
    optimizer.step()
    return module.eval()


def example():
    return torch.randn(2, 20, 6, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("edge", ["zero", "repeat"])
def test_a_pruned_tscan_answers_as_one_whose_channels_are_silent(edge):
    net = make_module(edge=edge).net
    groups = find_groups(net, example(), "magnitude")
    assert {group.layer for group in groups} >= {*GROUPS, "heads.bvp.hidden"}
    drops = choose_channels(groups, 0.4, "layer", 8)
    assert set(drops) >= GROUPS
    silent = copy.deepcopy(net)
    for name, channels in drops.items():
        for values in silent.get_submodule(name).parameters():
            values.data[channels] = 0
    smaller = cut_channels(net, example(), drops)
    with torch.no_grad():
        expected = silent(example())
        torch.testing.assert_close(smaller(example()), expected, rtol=0, atol=1e-5)
        assert (expected - net(example())).abs().max() > 1e-2
    assert {smaller.get_submodule(name).weight.shape[0] for name in GROUPS} == {16}
    # The traced net has its own methods again.
    assert "_shift" not in vars(net)
    assert "look" not in vars(net.first)


@pytest.mark.parametrize("shifted", ["first.motion_same", "first.motion_valid", "second.motion_same"])
def test_each_third_of_a_shifted_map_loses_its_share(shifted):
    groups = find_groups(make_module().net, example(), "magnitude")
    assert {group.layer for group in groups if group.in_thirds} == {
        "first.motion_same",
        "first.motion_valid",
        "second.motion_same",
    }
    (group,) = [group for group in groups if group.layer == shifted]
    gone = np.array(choose_channels([group], 1 / 3, "layer", 8)[shifted])
    left = group.width - len(gone)
    fold = group.width // 3
    assert [fold - ((gone >= at) & (gone < at + fold)).sum() for at in (0, fold)] == [left // 3] * 2


def test_half_the_macs_of_a_tscan_are_left_in_its_file(tmp_path):
    module = make_module()
    step = PruneStructured(target_macs=0.6, max_epochs=0)
    pruned, _ = step(module, ExportSpec(), make_tools(module))
    files = [
        export_onnx(each.net, tmp_path / f"{name}.onnx", example=example())
        for name, each in (("whole", module), ("pruned", pruned))
    ]
    assert count_macs(files[1].path).macs <= 0.6 * count_macs(files[0].path).macs
    assert files[1].size_bytes < 0.8 * files[0].size_bytes
    with torch.no_grad():
        np.testing.assert_allclose(predict(files[1], example().numpy()), pruned.net(example()), atol=1e-4)


def test_a_head_that_does_not_answer_is_named_before_pruning():
    net = make_module(tasks=("bvp", "resp")).net
    with pytest.raises(ValueError, match=r"layers \['heads.resp.hidden', 'heads.resp.out'\] do not run"):
        find_groups(net, example(), "magnitude")


def test_waves_are_matched_by_their_shape():
    assert isinstance(match_answers(make_module(), 0.5), WaveMatch)


@pytest.mark.parametrize("float_weight", [0.0, 0.5])
def test_qat_trains_a_tscan_and_asks_for_int8(float_weight):
    module = make_module()
    step = QatInt8(max_epochs=1, n_calibration=2, float_weight=float_weight)
    student, spec = step(module, ExportSpec(), make_tools(module, fit_one_batch))
    assert spec.precision == "int8"
    assert len(spec.calibration_positions) == 2
    assert student.net.state_dict().keys() == module.net.state_dict().keys()
    assert not torch.equal(student.net.first.motion_same.weight, module.net.first.motion_same.weight)
    assert "forward" not in vars(student.net)


def test_an_int8_tscan_is_small_and_in_int8(tmp_path):
    module = make_module()
    tools = make_tools(module)
    _, spec = PtqInt8(n_calibration=2)(module, ExportSpec(), tools)
    calibration = tools.datamodule.windows("train", np.array(spec.calibration_positions))
    single, small = (
        export_onnx(module.net, tmp_path / f"{bits}.onnx", example=example(), precision=bits, calibration=windows)
        for bits, windows in (("float32", None), ("int8", calibration[:, :20]))
    )
    assert count_macs(small.path).int8_macs_share > 0.9
    weights = [count_macs(file.path).weights.size_bytes for file in (small, single)]
    assert weights[0] < 0.3 * weights[1]
    # Windows like those that fixed the ranges: others would be cut off.
    answers = [predict(file, calibration[:, :20]) for file in (small, single)]
    assert np.sqrt(np.mean((answers[0] - answers[1]) ** 2)) < 0.15 * answers[1].std()
