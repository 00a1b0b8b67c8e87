"""Recipes of quantization: what they ask for, how they find the layer that did it, and what they refuse."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from compression.calibration import check_calibration
from compression.distillation import Distill
from compression.equalization import equalize_layers
from compression.quantization import Float16, PtqInt8, PtqUncalibrated, QuantizeDynamic
from compression.recipe import Evaluation, ExportSpec, Tools
from compression.sensitivity import sqnr_db
from lightning_modules.nets.cnn1d import Cnn1d
from tests.exporting import Residual, randomise, run_torch
from tests.tiny import TinyDataModule, tiny_module

LAYERS = {"features.0": 100, "features.4": 300, "head": 10}


class FakeFiles:
    """Evaluates no file: each layer in int8 costs what it is said to cost."""

    def __init__(self, costs):
        self.costs, self.asked = costs, []

    def __call__(self, module, spec, *, n_windows=None):
        self.asked.append(spec)
        layers = [] if spec.precision == "float32" else [*(spec.int8_nodes or LAYERS)]
        cost = sum(self.costs[layer] for layer in layers if layer not in spec.float_nodes)
        share = sum(LAYERS[layer] for layer in layers if layer not in spec.float_nodes) / sum(LAYERS.values())
        return Evaluation(0.9 - cost, np.array([[1.0 + 10 * cost, -1.0]]), LAYERS, share)


def tools(evaluate=None, reports=None):
    return Tools(
        datamodule=TinyDataModule(),
        fit=lambda module, about, **options: module,
        rebuild=tiny_module,
        evaluate=evaluate,
        log_report=reports.append if reports is not None else None,
    )


def test_ptq_asks_for_its_options_and_evaluates_nothing_by_itself():
    step = PtqInt8(8, per_channel=False, calibration_method="percentile", percentile=99.0, bias_correction=True)
    module = tiny_module()
    same, spec = step(module, ExportSpec(), tools())
    assert same is module
    assert spec.export_options == {
        "precision": "int8",
        "per_channel": False,
        "calibration_method": "percentile",
        "percentile": 99.0,
        "bias_correction": True,
    }
    assert len(spec.calibration_positions) == 8


def test_ptq_by_default_asks_the_exporter_for_nothing_new():
    _, spec = PtqInt8(8)(tiny_module(), ExportSpec(), tools())
    assert spec.export_options == {"precision": "int8"}


def test_accuracy_control_keeps_the_worst_layer_in_float_until_the_limit_holds():
    files, reports = FakeFiles({"features.0": 0.03, "features.4": 0.001, "head": 0.004}), []
    _, spec = PtqInt8(8, max_drop=0.006)(tiny_module(), ExportSpec(), tools(files, reports))
    assert spec.float_nodes == ("features.0",)
    (report,) = reports
    assert [layer.layer for layer in report.layers] == ["features.0", "head", "features.4"]
    assert report.layers[0].drop == pytest.approx(0.03)
    assert report.kept == ("features.0",)
    assert (report.float_metric, report.int8_metric) == (pytest.approx(0.9), pytest.approx(0.865))
    assert report.metric == pytest.approx(0.895)
    assert report.int8_macs_share == pytest.approx(310 / 410)
    assert [asked.int8_nodes for asked in files.asked if asked.int8_nodes] == [(layer,) for layer in LAYERS]


def test_accuracy_control_leaves_a_good_file_alone():
    reports = []
    files = FakeFiles(dict.fromkeys(LAYERS, 1e-4))
    _, spec = PtqInt8(8, max_drop=0.001)(tiny_module(), ExportSpec(), tools(files, reports))
    assert spec.float_nodes == ()
    assert reports[0].kept == ()


def test_sensitivity_alone_changes_nothing():
    reports = []
    files = FakeFiles(dict.fromkeys(LAYERS, 0.1))
    _, spec = PtqInt8(8, sensitivity=True)(tiny_module(), ExportSpec(), tools(files, reports))
    assert spec.float_nodes == ()
    assert len(reports[0].layers) == 3


def test_accuracy_control_says_what_could_be_reached():
    class Lossy(FakeFiles):
        def __call__(self, module, spec, *, n_windows=None):
            result = super().__call__(module, spec, n_windows=n_windows)
            return result if spec.precision == "float32" else replace(result, metric=result.metric - 0.02)

    files = Lossy(dict.fromkeys(LAYERS, 0.01))
    with pytest.raises(ValueError, match=r"max_drop=0.001: the smallest drop on validation is 0.02000, even with"):
        PtqInt8(8, max_drop=0.001)(tiny_module(), ExportSpec(), tools(files, []))


def test_accuracy_control_needs_an_evaluation():
    with pytest.raises(ValueError, match="'ptq_int8' with max_drop or sensitivity needs evaluate"):
        PtqInt8(8, max_drop=0.1)(tiny_module(), ExportSpec(), tools())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_calibration": 0}, "n_calibration is 0"),
        ({"calibration_method": "none"}, "calibration_method is 'none'"),
        ({"percentile": 50}, "percentile is 50"),
        ({"max_drop": 0}, "max_drop is 0"),
        ({"sensitivity_windows": 0}, "sensitivity_windows is 0"),
    ],
)
def test_ptq_refuses_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        PtqInt8(**options)


def spoil(change):
    """A data module whose calibration is not what it should be."""
    data = TinyDataModule()
    honest = data.calibration
    data.calibration = lambda n, seed: change(*honest(n, seed), data)
    return replace(tools(), datamodule=data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda positions, windows, data: (positions[:0], windows[:0]), "0 windows at 0 places"),
        (lambda positions, windows, data: (data.splits["val"][:8], windows), r"\[80, .*not in the training split"),
        (lambda positions, windows, data: (positions, windows / 1000), r"0\.00\d+ times.*another unit"),
        (lambda positions, windows, data: (positions, windows * 1000), r"(1e\+03|9\d\d) times.*another unit"),
        (lambda positions, windows, data: (positions, windows[:, :, :32]), "expected the same leads, fs and window_s"),
    ],
)
def test_ptq_refuses_a_calibration_that_is_not_like_the_training_windows(change, message):
    with pytest.raises(ValueError, match=message):
        PtqInt8(8)(tiny_module(), ExportSpec(), spoil(change))


def test_calibration_of_nan_is_refused():
    windows = np.random.default_rng(0).normal(size=(8, 2, 64))
    with pytest.raises(ValueError, match="nan times the root mean square"):
        check_calibration(np.arange(8), windows * np.nan, np.arange(8), windows)


def test_negatives_and_half_precision_ask_for_what_they_are():
    for step, expected in (
        (Float16(), {"precision": "float16"}),
        (QuantizeDynamic(), {"precision": "int8_dynamic"}),
        (PtqUncalibrated(), {"precision": "int8", "calibration_method": "none"}),
    ):
        _, spec = step(tiny_module(), ExportSpec(), tools())
        assert spec.export_options == expected
        assert spec.calibration_positions == ()


def test_teacher_with_other_classes_is_refused():
    teacher = tiny_module()
    teacher.class_names = ("a", "c")
    with pytest.raises(ValueError, match=r"the teacher knows \('a', 'c'\), the student \('a', 'b'\)"):
        Distill()(tiny_module(), ExportSpec(), replace(tools(), teacher=teacher))


def test_sqnr_counts_in_decibels():
    reference = np.array([[3.0, -4.0]])
    assert sqnr_db(reference, reference) == float("inf")
    assert sqnr_db(reference, reference * 1.1) == pytest.approx(20)


def uneven(net):
    """Channels whose weights differ a hundredfold, as after training without weight decay."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(torch.logspace(-1, 1, len(module.weight)).view(-1, 1, 1, 1))
    return net


def spread(weight):
    sizes = weight.detach().abs().flatten(1).amax(1)
    return float(sizes.max() / sizes.min())


def test_equalisation_is_exact_and_evens_the_weights():
    net = uneven(randomise(Cnn1d(3, 4, 64, (6, 10), kernel_sizes=5, batch_norm=False))).eval()
    windows = np.random.default_rng(0).normal(size=(8, 3, 64)).astype(np.float32)
    before, uneven_by = run_torch(net, windows), spread(net.features[0].weight)
    pairs = equalize_layers(net, torch.from_numpy(windows[:2]))
    assert [(pair.first, pair.second) for pair in pairs] == [("features.0", "features.4"), ("features.4", "head")]
    np.testing.assert_allclose(run_torch(net, windows), before, atol=1e-5)
    assert spread(net.features[0].weight) < uneven_by / 5


def test_equalisation_goes_through_batch_norms_and_leaves_branches_alone():
    windows = np.random.default_rng(0).normal(size=(8, 3, 64)).astype(np.float32)
    net = randomise(Cnn1d(3, 4, 64, (6, 10), kernel_sizes=5)).eval()
    before = run_torch(net, windows)
    pairs = equalize_layers(net, torch.from_numpy(windows[:2]))
    assert [pair.norm for pair in pairs] == ["features.1", "features.6"]
    np.testing.assert_allclose(run_torch(net, windows), before, atol=1e-5)
    with pytest.raises(ValueError, match="Residual has no two layers in a row"):
        equalize_layers(randomise(Residual()), torch.from_numpy(windows[:2]))


def test_ptq_equalises_a_copy():
    module = tiny_module(widths=(4, 4))
    weights = copy.deepcopy(module.net.state_dict())
    other, _ = PtqInt8(8, equalize=True)(module, ExportSpec(), replace(tools(), rebuild=lambda: tiny_module((4, 4))))
    assert other is not module
    assert all(torch.equal(value, weights[name]) for name, value in module.net.state_dict().items())
    windows = TinyDataModule().windows("val")
    np.testing.assert_allclose(run_torch(other.net, windows), run_torch(module.net, windows), atol=1e-5)
