"""Quantization-aware training: a faithful simulation, an ordinary net afterwards, a real int8 file."""

from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import pytest
import torch
from hydra.utils import instantiate

from compression.fake_quant import Int8Simulation, quantize_activation, quantize_weight
from compression.qat import QatInt8
from compression.recipe import ExportSpec, Tools
from deploy.artifact import predict
from deploy.onnx import export_onnx
from deploy.onnx_macs import count_macs
from lightning_modules.nets.cnn1d import Cnn1d
from lightning_modules.nets.cnn_vit import CnnVit
from tests.configs import CLASSIFIERS, compose_config
from tests.exporting import Residual, make_small, make_small_windows, randomise, relative_noise, run_torch
from tests.tiny import TinyDataModule, tiny_module, tiny_trainer


def fit_for_real(folder, seen, module, about, *, max_epochs=None, datamodule=None, precision="32-true"):
    seen.append((dict(about), sorted(module.net.state_dict())))
    trainer = tiny_trainer(folder, max_epochs)
    if precision != "32-true":
        trainer = type(trainer)(
            max_epochs=max_epochs,
            precision=precision,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    trainer.fit(module, datamodule=datamodule or TinyDataModule())
    return module.eval()


def make_tools(folder, seen, rebuild=tiny_module, **options):
    return Tools(datamodule=TinyDataModule(), fit=partial(fit_for_real, folder, seen, **options), rebuild=rebuild)


def test_weights_are_rounded_per_channel_and_gradients_pass():
    weight = torch.tensor([[[1.27, 0.012]], [[127.0, 1.4]]], requires_grad=True)
    rounded = quantize_weight(weight)
    torch.testing.assert_close(rounded, torch.tensor([[[1.27, 0.01]], [[127.0, 1.0]]]))
    rounded.sum().backward()
    torch.testing.assert_close(weight.grad, torch.ones_like(weight))


def test_folding_a_norm_leaves_the_integers_of_a_weight_alone():
    weight, scale = torch.randn(6, 3, 1, 5), torch.rand(6).view(-1, 1, 1, 1) + 0.5
    torch.testing.assert_close(quantize_weight(weight * scale), quantize_weight(weight) * scale)


def test_activations_take_256_levels_with_zero_among_them():
    low, high = torch.tensor(-1.0), torch.tensor(4.0)
    levels = quantize_activation(torch.linspace(-2, 5, 5001), low, high).unique()
    assert len(levels) == 256
    assert 0.0 in levels
    assert levels.min() == pytest.approx(-1, abs=0.02)


def simulate(tmp_path, net):
    """Answers of a net in float, of its int8 file, and of its simulation."""
    windows = make_small_windows()
    artifact = export_onnx(
        net, tmp_path / "m.onnx", example=torch.zeros(2, 3, 64), precision="int8", calibration=windows
    )
    exact = run_torch(net, windows)
    with Int8Simulation(net) as simulation:
        simulation.calibrate(torch.from_numpy(windows))
        simulated = run_torch(net, windows)
    np.testing.assert_array_equal(run_torch(net, windows), exact)
    return exact, predict(artifact, windows, threads=1), simulated


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_simulation_is_nearer_to_the_int8_file_than_float_is(tmp_path, seed):
    torch.manual_seed(seed)
    exact, expected, simulated = simulate(tmp_path, make_small().eval())
    assert np.square(simulated - expected).mean() < 0.8 * np.square(exact - expected).mean()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_simulation_errs_as_much_as_the_int8_file(tmp_path, seed):
    torch.manual_seed(seed)
    exact, expected, simulated = simulate(tmp_path, randomise(Residual()).eval())
    assert 0.4 < np.square(simulated - exact).mean() / np.square(expected - exact).mean() < 2.5


@pytest.mark.parametrize(
    "make", [lambda: CnnVit(2, 2, 64, (4, 8), (3, 3), (2, 2), depth=1, heads=2), lambda: Cnn1d(2, 2, 64, (4, 6), 5)]
)
def test_simulation_trains_every_weight_in_bfloat16_too(make):
    net = make().train()
    with Int8Simulation(net) as simulation, torch.autocast("cpu", torch.bfloat16):
        simulation.calibrate(torch.randn(8, 2, 64))
        before = [low.clone() for low, _ in simulation.ranges]
        net(torch.randn(8, 2, 64) * 3).float().square().sum().backward()
        assert len(simulation.ranges) == len(before)
        assert all(value.grad is not None and value.grad.isfinite().all() for value in net.parameters())
        assert not torch.equal(simulation.ranges[0][0], before[0])


def test_frozen_simulation_moves_neither_norms_nor_ranges():
    net = Cnn1d(2, 2, 64, (4, 6), 5).train()
    with Int8Simulation(net) as simulation:
        simulation.calibrate(torch.randn(8, 2, 64))
        simulation.frozen = True
        statistics = net.features[1].running_mean.clone()
        ranges = list(simulation.ranges)
        net(torch.randn(8, 2, 64) * 3)
        assert simulation.ranges == ranges
        torch.testing.assert_close(net.features[1].running_mean, statistics)


@pytest.mark.parametrize(("float_weight", "precision"), [(0.0, "32-true"), (0.5, "bf16-mixed")])
def test_qat_gives_an_ordinary_net_and_a_real_int8_file(tmp_path, float_weight, precision):
    module, seen = tiny_module(widths=(6, 8)).eval(), []
    plain = sorted(module.net.state_dict())
    before = {name: value.clone() for name, value in module.net.state_dict().items()}
    step = QatInt8(max_epochs=2, learning_rate=0.01, float_weight=float_weight, n_calibration=32)
    tools = make_tools(tmp_path, seen, lambda: tiny_module(widths=(6, 8)), precision=precision)
    student, spec = step(module, ExportSpec(), tools)
    # Every fit sees, and keeps, the state dict of the plain net.
    ((about, names),) = seen
    assert names == plain == sorted(student.net.state_dict())
    assert about["step"] == "qat_int8"
    assert "start" in about
    assert "forward" not in vars(student.net)
    assert not student.net._forward_pre_hooks
    assert student.criterion is student.label_loss
    assert all(torch.equal(value, before[name]) for name, value in module.net.state_dict().items())
    assert not torch.equal(student.net.features[0].weight, before["features.0.weight"])
    data = TinyDataModule()
    artifact = export_onnx(
        student.net,
        tmp_path / "m.onnx",
        example=torch.zeros(2, 2, 64),
        calibration=data.windows("train", np.array(spec.calibration_positions)),
        **spec.export_options,
    )
    assert count_macs(artifact.path).int8_macs_share == 1.0
    model = onnx.load(artifact.path)
    stored = {weight.name: weight.data_type for weight in model.graph.initializer}
    assert {node.domain for node in model.graph.node} == {""}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    producers = {output: node for node in model.graph.node for output in node.output}
    assert all(stored[producers[conv.input[1]].input[0]] == onnx.TensorProto.INT8 for conv in convs)
    assert relative_noise(student.net, artifact, data.windows("val")) < 0.1


def test_qat_survives_structured_pruning(tmp_path):
    """The net is narrower than what its config builds."""
    module = tiny_module(widths=(3,)).eval()
    student, _ = QatInt8(max_epochs=1, n_calibration=16)(module, ExportSpec(), make_tools(tmp_path, []))
    assert student.net.features[0].weight.shape[0] == 3


def test_qat_stops_at_a_loss_that_is_not_finite(tmp_path):
    module = tiny_module().eval()
    with torch.no_grad():
        module.net.head.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="loss is nan"):
        QatInt8(max_epochs=1, n_calibration=16)(module, ExportSpec(), make_tools(tmp_path, []))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": 0}, "max_epochs is 0"),
        ({"n_calibration": 0}, "n_calibration is 0"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"float_weight": 1.0}, "float_weight is 1.0"),
        ({"calibration_method": "none"}, "calibration_method is 'none'"),
    ],
)
def test_qat_refuses_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        QatInt8(**options)


def test_qat_refuses_a_calibration_of_another_unit(tmp_path):
    tools = make_tools(tmp_path, [])
    data = TinyDataModule()
    honest = data.calibration
    data.calibration = lambda n, seed: (honest(n, seed)[0], honest(n, seed)[1] / 1000)
    with pytest.raises(ValueError, match="another unit"):
        QatInt8()(tiny_module(), ExportSpec(), replace(tools, datamodule=data))


@pytest.mark.slow
@pytest.mark.parametrize("model", [name for name in CLASSIFIERS if name != "cnn1d_teacher"])
def test_simulation_trains_every_model(model):
    data = "afdb_rr" if model == "rr_tcn" else "ptbxl"
    config = compose_config(f"model={model}", f"datamodule={data}")
    net = randomise(instantiate(config.model.module.net)).train()
    windows = 0.8 + 0.1 * torch.randn(4, config.datamodule.n_leads, config.datamodule.n_samples)
    with Int8Simulation(net) as simulation:
        simulation.calibrate(windows)
        net(windows).square().sum().backward()
    assert all(value.grad is not None for value in net.parameters())
