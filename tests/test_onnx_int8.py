from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from deploy.artifact import Artifact, predict
from deploy.onnx import export_onnx
from deploy.onnx_int8 import _Windows, quantize_dynamic_int8
from deploy.onnx_macs import count_macs
from lightning_modules.nets.attention1d import AttentionCnn1d
from lightning_modules.nets.cnn1d import Cnn1d
from tests.configs import CLASSIFIERS, compose_config
from tests.exporting import (
    Residual,
    make_small,
    make_small_windows,
    quantize,
    randomise,
    relative_noise,
    run_torch,
    save,
)

# Hand count of the student: positions * filters * inputs * kernel, and the linear layer.
STUDENT_MACS = 991 * 50 * 12 * 10 + 486 * 150 * 50 * 10 + 234 * 300 * 150 * 10 + 300 * 5


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((24, 12, 1000), dtype=np.float32)


@pytest.fixture(scope="module")
def student() -> nn.Module:
    return randomise(Cnn1d(12, 5, 1000, (50, 150, 300)))


@pytest.fixture(scope="module")
def student_float(student: nn.Module, windows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("float") / "model.onnx"
    return export_onnx(student, path, example=torch.from_numpy(windows[:1]), metadata={"fs": "100"})


@pytest.fixture(scope="module")
def student_int8(student_float: Artifact, windows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return quantize(student_float, windows, tmp_path_factory.mktemp("int8") / "model.onnx", align=4)


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return make_small()


@pytest.fixture(scope="module")
def small_windows() -> np.ndarray:
    return make_small_windows()


@pytest.fixture(scope="module")
def small_float(small: nn.Module, small_windows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("small") / "model.onnx"
    return export_onnx(small, path, example=torch.from_numpy(small_windows[:2]))


def test_onnx_int8_float_agrees_with_torch_for_any_batch(
    student: nn.Module, student_float: Artifact, windows: np.ndarray
) -> None:
    expected = run_torch(student, windows)
    for size in (1, 5, 24):
        logits = predict(student_float, windows, threads=1, batch_size=size)
        np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_onnx_int8_float_graph_is_folded_and_fusible(student_float: Artifact) -> None:
    count = count_macs(student_float.path)
    assert count.macs == STUDENT_MACS == 147_697_500
    assert count.int8_macs_share == 0.0
    assert count.operators == {
        "Unsqueeze": 1,
        "Conv": 3,
        "Relu": 3,
        "MaxPool": 3,
        "GlobalAveragePool": 1,
        "Reshape": 1,
        "Gemm": 1,
    }
    operators = [node.op_type for node in onnx.load(student_float.path).graph.node]
    assert operators[1:4] == ["Conv", "Relu", "MaxPool"]


def test_onnx_int8_file_holds_no_paths_of_the_exporting_machine(
    student_float: Artifact, student_int8: Artifact
) -> None:
    for artifact in (student_float, student_int8):
        content = artifact.path.read_bytes()
        assert b".py" not in content
        assert str(Path(__file__).parents[1]).encode() not in content


def test_onnx_int8_is_small_covered_and_close(
    student: nn.Module, student_float: Artifact, student_int8: Artifact, windows: np.ndarray
) -> None:
    assert student_int8.precision == "int8"
    assert student_int8.size_bytes <= 0.27 * student_float.size_bytes
    count = count_macs(student_int8.path)
    assert count.int8_macs_share >= 0.9
    # Channels 50 and 150 become 52 and 152.
    assert count.macs == 991 * 52 * 120 + 486 * 152 * 520 + 234 * 300 * 1520 + 1500
    assert count.macs <= 1.03 * STUDENT_MACS
    assert relative_noise(student, student_int8, windows) < 0.05


def test_onnx_int8_runs_in_integer_kernels(student_int8: Artifact, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(student_int8.path, options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert operators.count("QLinearConv") == 3
    assert operators.count("QGemm") == 1
    assert not {"Conv", "FusedConv", "Relu", "Gemm", "ReduceMean"} & set(operators)
    # One way in; a second pair would mean that something in between runs in float.
    assert operators.count("QuantizeLinear") == 1
    assert operators.count("DequantizeLinear") <= 1


def test_onnx_int8_logits_are_not_rounded_to_256_levels(student_int8: Artifact, windows: np.ndarray) -> None:
    model = onnx.load(student_int8.path)
    producer = {output: node.op_type for node in model.graph.node for output in node.output}
    assert producer[model.graph.output[0].name] == "Gemm"


def test_onnx_int8_symmetric_int8_has_no_zero_points_and_joins_relu(
    small: nn.Module, small_float: Artifact, small_windows: np.ndarray, tmp_path: Path
) -> None:
    artifact = quantize(small_float, small_windows, tmp_path / "s8.onnx", activations="int8")
    graph = onnx.load(artifact.path).graph
    weights = {weight.name: onnx.numpy_helper.to_array(weight) for weight in graph.initializer}
    producer = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero_point = weights[node.input[2]]
            assert zero_point.dtype == np.int8, node.name
            assert not zero_point.any()
        if node.op_type == "Relu":
            assert producer[node.input[0]].op_type == "Conv"
        if node.op_type in ("Conv", "Gemm"):
            assert weights[node.input[2]].dtype == np.float32
    assert count_macs(artifact.path).int8_macs_share == 1.0
    assert relative_noise(small, artifact, small_windows) < 0.1


def test_onnx_int8_dynamic_int8_covers_the_linear_layer_only(
    small: nn.Module, small_float: Artifact, small_windows: np.ndarray, tmp_path: Path
) -> None:
    artifact = save(quantize_dynamic_int8(onnx.load(small_float.path)), tmp_path / "d.onnx")
    count = count_macs(artifact.path)
    assert count.int8_macs_share == pytest.approx(10 * 4 / count.macs)
    assert relative_noise(small, artifact, small_windows) < 0.05


def test_onnx_int8_float_nodes_stay_in_float(small_float: Artifact, small_windows: np.ndarray, tmp_path: Path) -> None:
    whole = quantize(small_float, small_windows, tmp_path / "w.onnx")
    partly = quantize(small_float, small_windows, tmp_path / "p.onnx", float_nodes=["features.0"])
    first = 60 * 6 * 3 * 5
    count = count_macs(partly.path)
    assert count_macs(whole.path).int8_macs_share == 1.0
    assert count.int8_macs_share == pytest.approx(1 - first / count.macs)
    with pytest.raises(ValueError, match=r"float_nodes: no node or module \['features.99'\].*'head'"):
        quantize(small_float, small_windows, tmp_path / "x.onnx", float_nodes=["features.99"])


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_onnx_int8_other_calibration_methods_work(
    small: nn.Module, small_float: Artifact, small_windows: np.ndarray, tmp_path: Path, method: str
) -> None:
    artifact = quantize(small_float, small_windows, tmp_path / "m.onnx", calibration_method=method)
    assert relative_noise(small, artifact, small_windows) < 0.3


def test_onnx_int8_aligned_channels_leave_the_outputs_alone(
    small_float: Artifact, small_windows: np.ndarray, tmp_path: Path
) -> None:
    plain = quantize(small_float, small_windows, tmp_path / "p.onnx")
    aligned = quantize(small_float, small_windows, tmp_path / "a.onnx", align=4)
    np.testing.assert_allclose(
        predict(aligned, small_windows, threads=1), predict(plain, small_windows, threads=1), atol=1e-6
    )
    shapes = [tuple(w.dims) for w in onnx.load(aligned.path).graph.initializer if len(w.dims) == 4]
    assert sorted(shapes) == [(8, 3, 1, 5), (10, 8, 1, 5)]


def test_onnx_int8_residual_net_survives_the_rewriting(small_windows: np.ndarray, tmp_path: Path) -> None:
    net = randomise(Residual())
    example = torch.from_numpy(small_windows[:2])
    artifact = export_onnx(net, tmp_path / "f.onnx", example=example)
    np.testing.assert_allclose(predict(artifact, small_windows, threads=1), run_torch(net, small_windows), atol=1e-5)
    for options in ({}, {"activations": "int8"}, {"align": 4}):
        int8 = quantize(artifact, small_windows, tmp_path / "q.onnx", **options)
        assert relative_noise(net, int8, small_windows) < 0.1, options
        assert count_macs(int8.path).int8_macs_share == 1.0, options


def test_onnx_int8_constant_on_the_left_of_a_product_has_one_scale(small_windows: np.ndarray, tmp_path: Path) -> None:
    net = randomise(AttentionCnn1d(3, 4, 64, (8, 8), kernel_size=5, pool_heads=2))
    artifact = export_onnx(net, tmp_path / "f.onnx", example=torch.from_numpy(small_windows[:2]))
    int8 = quantize(artifact, small_windows, tmp_path / "q.onnx")
    graph = onnx.load(int8.path).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    writers = {node.output[0]: node for node in graph.node}
    lefts = [writers[node.input[0]] for node in graph.node if node.op_type == "MatMul"]
    (queries,) = (node for node in lefts if node.input[0] in weights)
    assert list(weights[queries.input[1]].dims) == []
    # ONNX Runtime has no exact kernel for several, and says so when it runs.
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(int8.path, options, providers=["CPUExecutionProvider"])
    session.run(None, {session.get_inputs()[0].name: small_windows})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activations": "int9"}, "activations='int9', expected one of"),
        ({"calibration_method": "guess"}, "calibration_method='guess', expected one of"),
        ({"align": 0}, "align_channels=0, expected at least 1"),
    ],
)
def test_onnx_int8_unknown_quantizer_options_are_refused(
    small_float: Artifact, small_windows: np.ndarray, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(small_float, small_windows, tmp_path / "m.onnx", **options)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: w[:, :2], r"calibration of shape \(16, 2, 64\)"),
        (lambda w: w[:0], r"calibration of shape \(0, 3, 64\)"),
        (np.zeros_like, "not constant"),
        (lambda w: np.where(w > 2, np.nan, w), "expected finite windows"),
    ],
)
def test_onnx_int8_calibration_that_calibrates_nothing_is_refused(
    small_float: Artifact,
    small_windows: np.ndarray,
    tmp_path: Path,
    spoil: Callable[[np.ndarray], np.ndarray],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(small_float, spoil(small_windows), tmp_path / "m.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("model", CLASSIFIERS)
def test_onnx_int8_keeps_the_byte_limit_of_every_model(tmp_path, model):
    config = compose_config(f"model={model}", "datamodule=ptbxl")
    net, export = instantiate(config.model.module.net), instantiate(config.deploy.targets.onnx)
    windows = np.random.default_rng(0).normal(size=(4, 12, 1000)).astype(np.float32)
    example = torch.zeros(2, 12, 1000)
    single = export(net, tmp_path / "float32.onnx", example=example)
    quantized = export(net, tmp_path / "int8.onnx", example=example, precision="int8", calibration=windows)
    assert quantized.size_bytes <= config.model.limits.int8.size_ratio * single.size_bytes


@pytest.mark.parametrize(
    ("shape", "sizes"), [((70, 2, 8), [32, 32, 6]), ((3, 20, 6, 4, 4), [1, 1, 1]), ((5, 10, 6, 4, 4), [3, 2])]
)
def test_calibration_holds_32_windows_or_frames_at_once(shape, sizes):
    windows = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    batches = []
    reader = _Windows("input", windows)
    while (fed := reader.get_next()) is not None:
        batches.append(fed["input"])
    assert [len(batch) for batch in batches] == sizes
    assert len(reader) == len(sizes)
    np.testing.assert_array_equal(np.concatenate(batches), windows)
