"""What recipes ask of the ONNX exporter: parts in float, corrected biases, half precision, no calibration."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from deploy import onnx as target
from deploy.artifact import Artifact, predict
from deploy.onnx import export_onnx
from deploy.onnx_bias import correct_biases
from deploy.onnx_half import convert_to_float16
from deploy.onnx_int8 import quantize_static_int8
from deploy.onnx_macs import count_macs
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

EXAMPLE = torch.zeros(2, 3, 64)


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return make_small()


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    return make_small_windows()


@pytest.fixture(scope="module")
def small_float(small: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export_onnx(small, tmp_path_factory.mktemp("small") / "model.onnx", example=EXAMPLE)


def test_layers_are_named_after_the_modules_of_the_net(small_float: Artifact) -> None:
    count = count_macs(small_float.path)
    assert list(count.layer_macs) == ["features.0", "features.5", "head"]
    assert sum(count.layer_macs.values()) == count.macs


def test_one_layer_alone_is_the_only_one_in_int8(small_float: Artifact, windows: np.ndarray, tmp_path: Path) -> None:
    artifact = quantize(small_float, windows, tmp_path / "m.onnx", int8_nodes=["features.5"])
    count = count_macs(artifact.path)
    assert {count.layers[node] for node in count.int8_nodes} == {"features.5"}
    weights = {weight.name: weight.data_type for weight in onnx.load(artifact.path).graph.initializer}
    assert weights["features.0.weight"] == weights["head.weight"] == onnx.TensorProto.FLOAT
    with pytest.raises(ValueError, match=r"int8_nodes: no node or module \['features.9'\]"):
        quantize(small_float, windows, tmp_path / "x.onnx", int8_nodes=["features.9"])


def test_without_calibration_every_activation_has_scale_1(
    small: nn.Module, small_float: Artifact, windows: np.ndarray, tmp_path: Path
) -> None:
    artifact = save(
        quantize_static_int8(onnx.load(small_float.path), None, calibration_method="none"), tmp_path / "m.onnx"
    )
    graph = onnx.load(artifact.path).graph
    stored = {weight.name: onnx.numpy_helper.to_array(weight) for weight in graph.initializer}
    pairs = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert pairs
    assert all(stored[node.input[1]] == 1 and stored[node.input[2]] == 0 for node in pairs)
    assert count_macs(artifact.path).int8_macs_share == 1.0
    good = quantize(small_float, windows, tmp_path / "good.onnx")
    assert relative_noise(small, artifact, windows) > 10 * relative_noise(small, good, windows)
    with pytest.raises(ValueError, match="bias_correction needs calibration windows"):
        quantize_static_int8(onnx.load(small_float.path), None, calibration_method="none", bias_correction=True)


@pytest.mark.parametrize("options", [{}, {"activations": "int8"}, {"align": 4}])
def test_bias_correction_takes_the_mean_error_of_a_channel_back(
    small: nn.Module, small_float: Artifact, windows: np.ndarray, tmp_path: Path, options: dict
) -> None:
    rough = {"per_channel": False, **options}
    plain = quantize(small_float, windows, tmp_path / "p.onnx", **rough)
    corrected = quantize(small_float, windows, tmp_path / "c.onnx", bias_correction=True, **rough)
    expected = run_torch(small, windows)
    errors = [
        np.abs((predict(artifact, windows, threads=1) - expected).mean(axis=0)).max() for artifact in (plain, corrected)
    ]
    assert errors[1] < errors[0] / 3
    assert plain.size_bytes == corrected.size_bytes


def test_bias_correction_names_what_it_moved(small_float: Artifact, windows: np.ndarray) -> None:
    exact = onnx.load(small_float.path)
    quantized = quantize_static_int8(exact, windows, per_channel=False)
    shifts = correct_biases(exact, quantized, windows)
    assert len(shifts) == 3
    assert all(0 <= shift < 1 for shift in shifts.values())
    # What is left is below the steps of the biases.
    assert max(correct_biases(exact, quantized, windows).values()) < 1e-3 + max(shifts.values()) / 3


def test_percentile_must_leave_a_range(small_float: Artifact, windows: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="percentile=50, expected above 50"):
        quantize(small_float, windows, tmp_path / "m.onnx", calibration_method="percentile", percentile=50)


def test_a_lower_percentile_gives_narrower_ranges(
    small_float: Artifact, windows: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scales = []
    for percentile in (99.99, 90.0):
        options = {"calibration_method": "percentile", "percentile": percentile}
        graph = onnx.load(quantize(small_float, windows, tmp_path / "m.onnx", **options).path).graph
        stored = {weight.name: onnx.numpy_helper.to_array(weight) for weight in graph.initializer}
        scales.append(sum(float(stored[node.input[1]]) for node in graph.node if node.op_type == "QuantizeLinear"))
    assert scales[1] < 0.7 * scales[0]
    assert capsys.readouterr().out == ""


def test_cache_skips_conversion_and_calibration(
    small: nn.Module, windows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    options: dict[str, Any] = {"example": EXAMPLE, "precision": "int8", "calibration": windows}
    first = export_onnx(small, tmp_path / "a.onnx", cache_dir=cache, **options)
    assert (cache / "float.onnx").is_file()
    assert (cache / "ranges.json").is_file()

    def refuse(*arguments: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(target, "_export_float", refuse)
    second = export_onnx(small, tmp_path / "b.onnx", cache_dir=cache, **options)
    plain = export_onnx(small, tmp_path / "c.onnx", cache_dir=cache, example=EXAMPLE)
    np.testing.assert_array_equal(predict(first, windows, threads=1), predict(second, windows, threads=1))
    np.testing.assert_allclose(predict(plain, windows, threads=1), run_torch(small, windows), atol=1e-5)


@pytest.mark.parametrize("make", [make_small, lambda: randomise(Residual())])
def test_half_precision_stores_float16_and_speaks_float32(windows: np.ndarray, tmp_path: Path, make) -> None:
    net = make()
    artifact = export_onnx(net, tmp_path / "half.onnx", example=EXAMPLE, precision="float16")
    graph = onnx.load(artifact.path).graph
    floats = [weight.data_type for weight in graph.initializer if weight.data_type != onnx.TensorProto.INT64]
    assert floats
    assert set(floats) == {onnx.TensorProto.FLOAT16}
    assert {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)} == {onnx.TensorProto.FLOAT}
    assert artifact.precision == "float16"
    assert predict(artifact, windows, threads=1).dtype == np.float32
    assert relative_noise(net, artifact, windows) < 5e-3
    assert count_macs(artifact.path).int8_macs_share == 0


def test_half_precision_leaves_the_float_graph_alone(small_float: Artifact) -> None:
    model = onnx.load(small_float.path)
    before = model.SerializeToString()
    convert_to_float16(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("precision", ["bfloat16", "int4_weights"])
def test_what_the_runtime_does_not_run_is_not_offered(small: nn.Module, tmp_path: Path, precision: str) -> None:
    with pytest.raises(ValueError, match=f"precision='{precision}', expected one of"):
        export_onnx(small, tmp_path / "m.onnx", example=EXAMPLE, precision=precision)
