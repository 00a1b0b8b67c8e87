"""The TensorFlow Lite target on a small net; the nets of conf/model are in test_targets.py."""

import copy
import inspect
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.nn.utils import prune

from deploy import tflite as target
from deploy.artifact import Artifact, ArtifactError, load_artifact, predict
from deploy.profile import count_macs, profile_artifacts
from deploy.tflite import check_operators, check_static, export_tflite
from deploy.tflite_file import Graph, Operator, Tensor, read_graph, write_metadata
from deploy.tflite_int8 import cast_float16, quantize_dynamic_int8, quantize_static_int8
from deploy.tflite_macs import find_float
from tests.exporting import Residual, make_small_windows, randomise, relative_noise, run_torch
from tests.tflite_files import save_tflite, small_net, write_small_float, write_small_int8

CONF = Path(__file__).parents[1] / "conf" / "deploy"
SMALL_MACS = 60 * 6 * 3 * 5 + 26 * 10 * 6 * 5 + 10 * 4


def dtypes(artifact: Artifact) -> set[str]:
    graph = read_graph(artifact.path)
    used = {position for operator in graph.operators for position in (*operator.inputs, *operator.outputs)}
    return {graph.tensors[position].dtype for position in used}


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return small_net()


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    return make_small_windows()


@pytest.fixture(scope="module")
def small_float(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write_small_float(tmp_path_factory.mktemp("small") / "model.tflite")


@pytest.fixture(scope="module")
def small_int8(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write_small_int8(tmp_path_factory.mktemp("int8") / "model.tflite")


def test_tflite_float_agrees_with_torch_and_holds_the_contract(
    small: nn.Module, small_float: Artifact, windows: np.ndarray
) -> None:
    assert load_artifact(small_float.path) == small_float
    assert (small_float.runtime, small_float.precision, small_float.input_shape) == ("litert", "float32", (3, 64))
    assert small_float.metadata == {"fs": "100"}
    for size in (1, 5, 16):
        logits = predict(small_float, windows, batch_size=size)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, run_torch(small, windows), atol=1e-5)


def test_tflite_graph_is_folded_channels_last_and_named_by_layer(small_float: Artifact, small_int8: Artifact) -> None:
    expected = ["CONV_2D", "MAX_POOL_2D", "CONV_2D", "MAX_POOL_2D", "MEAN", "FULLY_CONNECTED"]
    for artifact in (small_float, small_int8):
        graph = read_graph(artifact.path)
        assert [operator.kind for operator in graph.operators] == expected
        assert [operator.activation for operator in graph.operators] == ["RELU", "NONE", "RELU", "NONE", "NONE", "NONE"]
        assert graph.operators[0].layer == "features.0 features.1 features.3"
        assert graph.tensors[graph.inputs[0]].shape == (1, 1, 64, 3)
        assert not any(tensor.dynamic for tensor in graph.tensors)
        content = artifact.path.read_bytes()
        assert b".py" not in content
        assert str(Path(__file__).parents[1]).encode() not in content


def test_tflite_int8_is_integer_from_end_to_end(small: nn.Module, small_int8: Artifact, windows: np.ndarray) -> None:
    assert dtypes(small_int8) == {"INT8", "INT32"}
    count = count_macs(small_int8.path)
    assert (count.macs, count.int8_macs_share) == (SMALL_MACS, 1.0)
    assert count.weights.values == count.weights.size_bytes == 6 * 3 * 5 + 10 * 6 * 5 + 40
    assert relative_noise(small, small_int8, windows) < 0.05


def test_tflite_dynamic_range_keeps_float_data(
    small: nn.Module, small_float: Artifact, windows: np.ndarray, tmp_path: Path
) -> None:
    artifact = save_tflite(quantize_dynamic_int8(small_float.path.read_bytes()), tmp_path / "d.tflite", "int8_dynamic")
    count = count_macs(artifact.path)
    assert count.int8_macs_share == 0.0
    assert count.weights.size_bytes == count.weights.values
    assert relative_noise(small, artifact, windows) < 0.05


def test_tflite_float16_halves_the_weights(
    small: nn.Module, small_float: Artifact, windows: np.ndarray, tmp_path: Path
) -> None:
    artifact = save_tflite(cast_float16(small_float.path.read_bytes()), tmp_path / "h.tflite", "float16")
    weights = count_macs(artifact.path).weights
    assert weights.size_bytes == 2 * weights.values
    assert count_macs(artifact.path).macs == SMALL_MACS
    assert 0 < relative_noise(small, artifact, windows) < 5e-3


def test_tflite_float_nodes_stay_in_float(small_float: Artifact, windows: np.ndarray, tmp_path: Path) -> None:
    content = small_float.path.read_bytes()
    partly = save_tflite(quantize_static_int8(content, windows, float_nodes=["features.0"]), tmp_path / "p.tflite")
    assert count_macs(partly.path).int8_macs_share == pytest.approx(1 - 60 * 6 * 3 * 5 / SMALL_MACS)
    with pytest.raises(ValueError, match=r"float_nodes: no module or operator \['features.99'\].*'head'"):
        quantize_static_int8(content, windows, float_nodes=["features.99"])


def test_tflite_one_scale_for_all_channels_is_coarser(
    small: nn.Module, small_float: Artifact, small_int8: Artifact, windows: np.ndarray, tmp_path: Path
) -> None:
    content = quantize_static_int8(small_float.path.read_bytes(), windows, per_channel=False)
    artifact = save_tflite(content, tmp_path / "t.tflite")
    assert artifact.size_bytes < small_int8.size_bytes
    assert relative_noise(small, artifact, windows) < 0.1


def test_tflite_residual_net_survives(windows: np.ndarray, tmp_path: Path) -> None:
    net = randomise(Residual())
    example = torch.from_numpy(windows[:1])
    artifact = export_tflite(net, tmp_path / "r.tflite", example=example, precision="int8", calibration=windows)
    # The quantizer leaves the largest value in float; the convolutions beside it are not touched by that.
    assert [operator.kind for operator in find_float(read_graph(artifact.path))] == ["REDUCE_MAX"]
    assert count_macs(artifact.path).int8_macs_share == 1.0
    assert relative_noise(net, artifact, windows) < 0.1


def test_tflite_export_leaves_the_net_alone_and_is_reproducible(
    small_float: Artifact, windows: np.ndarray, tmp_path: Path
) -> None:
    net = copy.deepcopy(small_net()).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    again = export_tflite(net, tmp_path / "m.tflite", example=torch.from_numpy(windows[:1]), metadata={"fs": "100"})
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert again.digest == small_float.digest


class Hybrid(nn.Module):
    """A norm that no convolution can take in, and a map laid flat in front of a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, (1, 5)), nn.BatchNorm2d(4)
        self.dense, self.last, self.head = nn.Linear(120, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        maps = self.norm(nn.functional.max_pool2d(torch.relu(self.conv(signal.unsqueeze(2))), (1, 2)))
        return self.head(self.last(torch.relu(self.dense(maps.flatten(1)))))


def test_tflite_norms_and_flat_maps_cost_no_transposes(windows: np.ndarray, tmp_path: Path) -> None:
    net = randomise(Hybrid()).eval()
    nn.init.normal_(net.get_buffer("last.running_mean"))
    artifact = export_tflite(net, tmp_path / "h.tflite", example=torch.from_numpy(windows[:1]))
    np.testing.assert_allclose(predict(artifact, windows), run_torch(net, windows), atol=1e-5)
    operators = count_macs(artifact.path).operators
    assert "TRANSPOSE" not in operators
    assert (operators["MUL"], operators["ADD"], operators["FULLY_CONNECTED"]) == (1, 1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "precision='int4', expected one of"),
        ({"precision": "int8"}, "needs calibration windows of the training split, got calibration=None"),
        ({"metadata": {"fs": 100}}, "metadata 'fs': 100"),
        ({"metadata": {"precision": "int8"}}, "metadata 'precision'"),
    ],
)
def test_tflite_options_without_means_are_refused(
    small: nn.Module, windows: np.ndarray, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        export_tflite(small, tmp_path / "m.tflite", example=torch.from_numpy(windows), **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: w[:, :2], r"calibration of shape \(16, 2, 64\)"),
        (lambda w: w[:0], r"calibration of shape \(0, 3, 64\)"),
        (np.zeros_like, "not constant"),
        (lambda w: np.where(w > 2, np.nan, w), "expected finite windows"),
    ],
)
def test_tflite_calibration_that_calibrates_nothing_is_refused(
    small_float: Artifact, windows: np.ndarray, spoil: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        quantize_static_int8(small_float.path.read_bytes(), spoil(windows))


def test_tflite_net_with_masks_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    prune.l1_unstructured(net[1], "weight", amount=0.5)
    with pytest.raises(ValueError, match="make them permanent before export"):
        export_tflite(net, tmp_path / "m.tflite", example=torch.zeros(2, 2, 3))


class Lacking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.median = nn.Conv1d(3, 2, 5), Median()

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return self.median(self.conv(signal))


class Median(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.median(-1).values


def test_tflite_operator_that_the_target_lacks_is_named_with_its_layer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"TensorFlow Lite lacks the operator 'aten.median.*' of layer 'median'"):
        export_tflite(Lacking(), tmp_path / "m.tflite", example=torch.zeros(1, 3, 64))
    assert list(tmp_path.iterdir()) == []


def test_tflite_custom_operators_are_named_with_their_layers() -> None:
    operator = Operator("FlexErf act #0", "FlexErf", "act", (), (), "NONE", None, custom=True)
    with pytest.raises(ValueError, match=r"m.tflite: TensorFlow Lite lacks FlexErf \(layer 'act'\)"):
        check_operators(Graph((), (operator,), (), (), None), "m.tflite")


def test_tflite_dynamic_shapes_are_refused() -> None:
    tensor = Tensor("signal", (1, 1, 1, 3), True, "FLOAT32", b"")
    with pytest.raises(ArtifactError, match=r"the shapes of \['signal'\] are dynamic"):
        check_static(Graph((tensor,), (), (0,), (0,), {}), "m.tflite")


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_tflite_truncated_file_is_refused(small_int8: Artifact, tmp_path: Path, kept: float) -> None:
    content = small_int8.path.read_bytes()
    path = tmp_path / "m.tflite"
    path.write_bytes(content[: int(kept * len(content))])
    for read in (load_artifact, count_macs):
        with pytest.raises(ArtifactError, match=r"m.tflite"):
            read(path)
    artifact = Artifact(path, "litert", "int8", (3, 64))
    with pytest.raises(ArtifactError, match=r"m.tflite"):
        predict(artifact, np.zeros((1, 3, 64), np.float32))


def test_tflite_garbage_and_foreign_files_are_refused(small_float: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(ArtifactError, match="LiteRT cannot load it"):
        load_artifact(path)
    path.write_bytes(write_metadata(small_float.path.read_bytes(), {"fs": "100"}))
    with pytest.raises(ArtifactError, match="expected a file of export_tflite"):
        load_artifact(path)


def test_tflite_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such model file"):
        load_artifact(tmp_path / "m.tflite")
    with pytest.raises(ArtifactError, match="no such model file"):
        target.open_session(tmp_path / "m.tflite")


def test_tflite_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"the model of yesterday")

    def full(part: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        target._write(b"new", path)
    assert [item.name for item in tmp_path.iterdir()] == ["m.tflite"]
    assert path.read_bytes() == b"the model of yesterday"


def test_tflite_config_exports_a_quiet_int8_file(
    windows: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((CONF / "tflite.yaml").read_text())
    assert set(config["targets"]["tflite"]) <= {*inspect.signature(export_tflite).parameters, "_target_", "_partial_"}
    export = hydra.utils.instantiate(config["targets"]["tflite"])
    with caplog.at_level(logging.WARNING):
        artifact = export(
            small_net(), tmp_path / "m.tflite", example=torch.zeros(1, 3, 64), precision="int8", calibration=windows
        )
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")
    assert artifact.precision == "int8"


def test_tflite_is_profiled_beside_another_file(small_float: Artifact, small_int8: Artifact) -> None:
    single, quantized = profile_artifacts([small_float, small_int8], batch_sizes=[1], window_s=0.1, warmup=1)
    assert quantized.weights.size_bytes * 4 == single.weights.size_bytes
    assert single.latency[1].p50_ms > 0
    assert single.peak_memory_bytes > 0


def test_tflite_worker_loads_no_training_framework() -> None:
    code = "import sys, deploy.measure, deploy.tflite, deploy.edgetpu; print({'torch', 'mlflow'} & set(sys.modules))"
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"
