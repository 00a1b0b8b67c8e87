import inspect
import logging
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors
from torch import nn
from torch.nn.utils import prune

from deploy import onnx as target
from deploy.artifact import Artifact, ArtifactError, load_artifact, predict
from deploy.onnx import export_onnx
from lightning_modules.nets.cnn1d import Cnn1d
from tests.exporting import make_small, make_small_windows, quantize, randomise, relative_noise, run_torch

CONF = Path(__file__).parents[1] / "conf" / "deploy"


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return make_small()


@pytest.fixture(scope="module")
def small_windows() -> np.ndarray:
    return make_small_windows()


@pytest.fixture(scope="module")
def small_float(small: nn.Module, small_windows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("small") / "model.onnx"
    return export_onnx(small, path, example=torch.from_numpy(small_windows[:2]), metadata={"fs": "100"})


def test_onnx_metadata_round_trip(small_float: Artifact) -> None:
    again = load_artifact(small_float.path)
    assert again == small_float
    assert again.metadata == {"fs": "100"}
    assert again.precision == "float32"
    assert again.input_shape == (3, 64)


def test_onnx_export_leaves_the_net_alone(small_windows: np.ndarray, tmp_path: Path) -> None:
    net = randomise(Cnn1d(3, 4, 64, (6, 10), kernel_sizes=5)).to(torch.bfloat16)
    net = net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    artifact = export_onnx(net, tmp_path / "m.onnx", example=torch.from_numpy(small_windows[:1]))
    assert net.training
    assert next(net.parameters()).dtype == torch.bfloat16
    assert next(net.parameters()).is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    np.testing.assert_allclose(
        predict(artifact, small_windows, threads=1), run_torch(net.float(), small_windows), atol=1e-5
    )


def test_onnx_export_is_reproducible(
    small: nn.Module, small_float: Artifact, small_windows: np.ndarray, tmp_path: Path
) -> None:
    example = torch.from_numpy(small_windows[:2])
    again = export_onnx(small, tmp_path / "f.onnx", example=example, metadata={"fs": "100"})
    assert again.digest == small_float.digest
    first, second = (quantize(small_float, small_windows, tmp_path / f"{name}.onnx") for name in "ab")
    assert first.digest == second.digest


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("int4", "precision='int4', expected one of"),
        ("int8", "needs calibration windows of the training split, got calibration=None"),
    ],
)
def test_onnx_precision_without_means_is_refused(
    small: nn.Module, small_windows: np.ndarray, tmp_path: Path, precision: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        export_onnx(small, tmp_path / "m.onnx", example=torch.from_numpy(small_windows), precision=precision)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("metadata", [{"fs": 100}, {"precision": "float32"}])
def test_onnx_metadata_that_would_not_come_back_is_refused(
    small: nn.Module, small_windows: np.ndarray, tmp_path: Path, metadata: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"metadata {next(iter(metadata))!r}"):
        export_onnx(small, tmp_path / "m.onnx", example=torch.from_numpy(small_windows), metadata=metadata)


def test_onnx_failed_write_leaves_nothing(
    small_float: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = onnx.load(small_float.path), tmp_path / "m.onnx"
    path.write_bytes(b"the model of yesterday")

    def full(model: onnx.ModelProto, part: Path) -> None:
        Path(part).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "save", full)
    with pytest.raises(OSError, match="No space left"):
        target._write(model, path, {})
    assert [item.name for item in tmp_path.iterdir()] == ["m.onnx"]
    assert path.read_bytes() == b"the model of yesterday"


def test_onnx_net_with_masks_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    prune.l1_unstructured(net[1], "weight", amount=0.5)
    with pytest.raises(ValueError, match="make them permanent before export"):
        export_onnx(net, tmp_path / "m.onnx", example=torch.zeros(2, 2, 3))


def test_onnx_provider_is_asserted(small_float: Artifact) -> None:
    with pytest.raises(ArtifactError, match="provider 'TensorrtExecutionProvider' is not available"):
        target.open_session(small_float.path, provider="TensorrtExecutionProvider")


def test_onnx_config_exports_a_quiet_int8_file(
    small: nn.Module,
    small_windows: np.ndarray,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = yaml.safe_load((CONF / "onnx.yaml").read_text())
    export = hydra.utils.instantiate(config["targets"]["onnx"])
    example = torch.from_numpy(small_windows[:1])
    with caplog.at_level(logging.WARNING):
        artifact = export(small, tmp_path / "m.onnx", example=example, precision="int8", calibration=small_windows)
    assert caplog.records == []
    assert capfd.readouterr().out == ""
    assert artifact.precision == "int8"
    assert relative_noise(small, artifact, small_windows) < 0.1


def test_int8_kernels_answer_as_the_graph_says(
    small_float: Artifact, small_windows: np.ndarray, tmp_path: Path
) -> None:
    """The fast kernels of a CPU without VNNI would saturate."""
    artifact = quantize(small_float, small_windows, tmp_path / "int8.onnx")
    options = onnxruntime.SessionOptions()
    # Without fusion every operator computes in float between its quantizers.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(artifact.path, options, providers=["CPUExecutionProvider"])
    (expected,) = plain.run(None, {plain.get_inputs()[0].name: small_windows})
    np.testing.assert_allclose(predict(artifact, small_windows), expected, atol=0.05 * expected.std())


def test_a_file_that_the_exact_kernels_refuse_runs_without_them(
    small_float: Artifact, small_windows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = quantize(small_float, small_windows, tmp_path / "int8.onnx")
    expected, asked = predict(artifact, small_windows), []

    class Refusing(onnxruntime.InferenceSession):
        def run(self, *given: Any, **options: Any) -> Any:
            asked.append(self.get_session_options().get_session_config_entry("session.x64quantprecision"))
            if asked[-1] == "1":
                raise runtime_errors.Fail("no such kernel")
            return super().run(*given, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Refusing)
    answers = predict(artifact, small_windows)
    assert asked == ["1", "0"]
    assert answers.shape == expected.shape


def test_onnx_configs_hold_options_of_the_exporter() -> None:
    known = set(inspect.signature(export_onnx).parameters) | {"_target_", "_partial_"}
    for name in ("onnx", "onnx_s8"):
        config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
        assert set(config["targets"]["onnx"]) <= known, name
    symmetric = yaml.safe_load((CONF / "onnx_s8.yaml").read_text())
    assert symmetric["defaults"] == ["onnx", "_self_"]
    assert symmetric["targets"]["onnx"]["activations"] == "int8"
