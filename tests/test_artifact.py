"""Artifacts built with the ONNX helpers alone: no exporter, so these tests are quick."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.artifact import Artifact, ArtifactError, load_artifact, predict

LEADS, TIME, CLASSES = 2, 16, 3


def write_linear(path: Path, *, metadata: dict[str, str] | None = None) -> np.ndarray:
    """Write a linear model on flattened windows; return its weights (leads * time, classes)."""
    weights = np.random.default_rng(0).standard_normal((LEADS * TIME, CLASSES)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["signal"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("signal", TensorProto.FLOAT, ["batch", LEADS, TIME])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"precision": "float32"} if metadata is None else metadata)
    onnx.save(model, path)
    return weights


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    write_linear(tmp_path / "model.onnx", metadata={"precision": "float32", "fs": "100"})
    return load_artifact(tmp_path / "model.onnx")


def test_artifact_contract_comes_from_the_file(artifact: Artifact) -> None:
    assert artifact.runtime == "onnxruntime"
    assert artifact.precision == "float32"
    assert artifact.input_shape == (LEADS, TIME)
    assert artifact.metadata == {"fs": "100"}
    assert artifact.size_bytes == len(artifact.path.read_bytes())


def test_artifact_digest_follows_the_content(artifact: Artifact, tmp_path: Path) -> None:
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(artifact.path.read_bytes())
    assert load_artifact(copy).digest == artifact.digest
    write_linear(copy, metadata={"precision": "float32", "fs": "500"})
    assert load_artifact(copy).digest != artifact.digest


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_artifact_predict_agrees_for_every_batch_size(tmp_path: Path, batch_size: int) -> None:
    weights = write_linear(tmp_path / "model.onnx")
    signal = np.random.default_rng(1).standard_normal((7, LEADS, TIME))
    logits = predict(load_artifact(tmp_path / "model.onnx"), signal, threads=1, batch_size=batch_size)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, signal.reshape(7, -1) @ weights, atol=1e-5)


def test_artifact_predict_takes_arrays_that_are_not_contiguous(artifact: Artifact) -> None:
    signal = np.random.default_rng(1).standard_normal((4, TIME, LEADS)).astype(np.float32)
    turned = signal.transpose(0, 2, 1)
    np.testing.assert_array_equal(predict(artifact, turned, threads=1), predict(artifact, turned.copy(), threads=1))


@pytest.mark.parametrize(
    "shape", [(4, TIME, LEADS), (4, LEADS, TIME + 1), (LEADS, TIME), (0, LEADS, TIME), (4, 1, LEADS, TIME)]
)
def test_artifact_predict_refuses_other_shapes(artifact: Artifact, shape: tuple[int, ...]) -> None:
    with pytest.raises(ArtifactError, match=r"model.onnx: input of shape .*expected \(n, \*\(2, 16\)\)"):
        predict(artifact, np.zeros(shape, np.float32))


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_artifact_truncated_file_is_refused(artifact: Artifact, kept: float) -> None:
    content = artifact.path.read_bytes()
    artifact.path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ArtifactError, match=r"model.onnx"):
        load_artifact(artifact.path)
    with pytest.raises(ArtifactError, match=r"model.onnx"):
        predict(artifact, np.zeros((1, LEADS, TIME), np.float32))


def test_artifact_garbage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(ArtifactError, match="cannot load it"):
        load_artifact(path)


def test_artifact_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such model file"):
        load_artifact(tmp_path / "absent.onnx")


@pytest.mark.parametrize("name", ["model.pth", "model", "model.gate", "model.profile"])
def test_artifact_unknown_format_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ArtifactError, match="no deploy target for the ending"):
        load_artifact(tmp_path / name)


def test_artifact_foreign_onnx_file_is_refused(tmp_path: Path) -> None:
    write_linear(tmp_path / "model.onnx", metadata={"fs": "100"})
    with pytest.raises(ArtifactError, match="expected a file of export_onnx"):
        load_artifact(tmp_path / "model.onnx")
