import struct
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from deploy import engine, engine_build
from deploy.artifact import ArtifactError, NotMeasured, load_artifact, predict
from deploy.engine import count_macs, export_tensorrt, find_asymmetric, find_missing, read_engine, write_engine
from deploy.onnx import export_onnx
from tests.exporting import make_small, make_small_windows, quantize, run_torch

HEADER = {
    "precision": "int8",
    "input_shape": [3, 64],
    "batch_sizes": [1, 1, 4],
    "count": {
        "node_macs": {"conv": 10, "linear": 30},
        "int8_nodes": ["linear"],
        "operators": {"Conv": 1, "Gemm": 1},
        "weights": {"values": 4, "nonzero": 3, "size_bytes": 4, "nonzero_bytes": 3},
    },
    "built": {"version": "10.3.0", "gpu": "Orin"},
    "metadata": {"fs": "100"},
}
EXAMPLE = torch.zeros(2, 3, 64)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    return export_onnx(make_small(), folder / "float.onnx", example=EXAMPLE)


@pytest.fixture(scope="module")
def symmetric(source):
    return quantize(source, make_small_windows(), source.path.with_name("s8.onnx"), activations="int8")


@pytest.fixture
def path(tmp_path):
    write_engine(tmp_path / "model.engine", HEADER, b"plan")
    return tmp_path / "model.engine"


def test_engine_files_carry_their_contract(path):
    artifact = load_artifact(path)
    assert (artifact.runtime, artifact.precision, artifact.input_shape) == ("tensorrt", "int8", (3, 64))
    assert artifact.metadata == {"fs": "100", "tensorrt.version": "10.3.0", "tensorrt.gpu": "Orin"}
    assert read_engine(path)[1] == b"plan"
    assert count_macs(path).int8_macs_share == 0.75
    assert [item.name for item in path.parent.iterdir()] == ["model.engine"]


@pytest.mark.parametrize("damage", [b"", b"TFL3", b"LHENGINE"])
def test_a_file_that_is_no_engine_is_refused(path, damage):
    path.write_bytes(damage)
    with pytest.raises(ArtifactError, match="not an engine of this project"):
        load_artifact(path)


def test_a_truncated_engine_is_refused(path):
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="its header says"):
        load_artifact(path)
    path.write_bytes(engine.MAGIC + struct.pack("<QQ", 10, 10))
    with pytest.raises(ArtifactError, match="its header says"):
        load_artifact(path)


def test_an_engine_does_not_fall_back_to_another_runtime(path, monkeypatch):
    monkeypatch.setattr(engine, "find_missing", lambda: "no CUDA device")
    with pytest.raises(ArtifactError, match="no CUDA device, so this engine cannot run here"):
        predict(load_artifact(path), make_small_windows())


def test_without_cuda_there_is_a_checked_file_and_no_figure(source, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "find_missing", lambda: "no CUDA device")
    monkeypatch.setattr("deploy.onnx.export_onnx", lambda net, path, **options: source)
    with pytest.raises(NotMeasured) as caught:
        export_tensorrt(make_small(), tmp_path / "model.engine", example=EXAMPLE, float16=True, timing_cache="t.cache")
    outcome = caught.value
    assert outcome.path == source.path
    assert (outcome.runtime, outcome.precision) == ("tensorrt", "float16")
    assert "no CUDA device; float.onnx is checked (onnx.checker" in outcome.reason
    assert (
        "trtexec --onnx=float.onnx --minShapes=signal:1x3x64 --optShapes=signal:1x3x64 --maxShapes=signal:64x3x64"
        " --fp16 --timingCacheFile=t.cache --saveEngine=float.plan"
    ) in outcome.reason
    assert not list(tmp_path.glob("*.engine"))


def test_trtexec_asks_for_int8_where_the_file_is_int8(symmetric):
    line = engine_build.describe_trtexec(symmetric, (1, 2, 8), float16=False, timing_cache=None)
    assert "--int8" in line
    assert "--fp16" not in line
    assert "--optShapes=signal:2x3x64" in line


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    assert find_missing().startswith("no CUDA device and the package tensorrt is not installed")


def test_asymmetric_quantizers_are_named(source, symmetric):
    assert find_asymmetric(symmetric.path) == []
    unsigned = quantize(source, make_small_windows(), source.path.with_name("u8.onnx"), activations="uint8")
    assert find_asymmetric(unsigned.path)
    with pytest.raises(ArtifactError, match="has a zero point, and TensorRT takes symmetric int8 only"):
        engine_build.check_onnx(unsigned.path)


def test_a_jetson_takes_symmetric_files_only(source, symmetric):
    from deploy.devices import find_device, refuse_artifact

    unsigned = quantize(source, make_small_windows(), source.path.with_name("u8.onnx"), activations="uint8")
    jetson = find_device("jetson_orin_nano")
    assert refuse_artifact(jetson, symmetric) == ""
    assert "deploy=onnx_s8" in refuse_artifact(jetson, unsigned)


def test_a_corrupt_onnx_file_is_refused(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"nothing of this is a model")
    with pytest.raises(ArtifactError, match="not a whole ONNX model"):
        engine_build.check_onnx(tmp_path / "broken.onnx")


def test_polygraphy_has_looked_at_the_file(symmetric):
    pytest.importorskip("polygraphy")
    assert "polygraphy inspect" in engine_build.check_onnx(symmetric.path)


def test_polygraphy_may_find_a_fault(tmp_path):
    pytest.importorskip("polygraphy")
    with pytest.raises(ArtifactError, match="polygraphy inspect model"):
        engine_build._run_polygraphy(tmp_path / "absent.onnx", "inspect", "model")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "precision='int4'"),
        ({"batch_sizes": (4, 1, 2)}, "batch_sizes="),
        ({"batch_sizes": (1, 2)}, "batch_sizes="),
    ],
)
def test_unknown_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export_tensorrt(make_small(), tmp_path / "x.engine", example=EXAMPLE, **options)


def make_tensorrt(**flags):
    """A stand-in whose parser refuses every file."""
    parser = SimpleNamespace(parse=lambda data: False, num_errors=1, get_error=lambda index: "no importer for Odd")
    builder = SimpleNamespace(create_network=lambda flags: None)
    logger = type("Logger", (), {"WARNING": 1, "__init__": lambda self, level: None})
    return SimpleNamespace(
        __version__="11.0",
        Logger=logger,
        Builder=lambda logger: builder,
        OnnxParser=lambda network, logger: parser,
        BuilderFlag=SimpleNamespace(**flags),
    )


def test_an_operator_that_tensorrt_lacks_is_named(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", make_tensorrt())
    with pytest.raises(ArtifactError, match="TensorRT cannot take it: no importer for Odd"):
        engine_build.build_engine(source, (1, 1, 4), float16=False, timing_cache=None)


def test_precisions_are_asked_for_and_never_passed_over(source, symmetric):
    def asked(artifact, float16, *known):
        on, off = [], []
        config = SimpleNamespace(set_flag=on.append, clear_flag=off.append)
        trt = make_tensorrt(**{name: name for name in known})
        engine_build._set_precisions(trt, config, artifact, float16)
        return on, off

    assert asked(source, False, "INT8", "FP16", "TF32") == ([], ["TF32"])
    assert asked(symmetric, True, "INT8", "FP16", "TF32") == (["INT8", "FP16"], [])
    # From TensorRT 11 on a file with Q/DQ is int8 without being asked.
    assert asked(symmetric, False) == ([], [])
    with pytest.raises(ArtifactError, match="set float16=false, or use TensorRT 10"):
        asked(source, True)


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "float16"), [("float32", False), ("float32", True), ("int8", False)])
def test_an_engine_agrees_with_torch(tmp_path, precision, float16):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pytest.importorskip("tensorrt")
    net, windows = make_small(), make_small_windows()
    artifact = export_tensorrt(
        net,
        tmp_path / "model.engine",
        example=EXAMPLE,
        precision=precision,
        calibration=windows,
        float16=float16,
        batch_sizes=(1, 1, 8),
        timing_cache=tmp_path / "timing.cache",
    )
    expected = run_torch(net, windows)
    noise = np.sqrt(np.mean((predict(artifact, windows) - expected) ** 2)) / expected.std()
    assert noise < {"float32": 1e-4, "float16": 1e-2, "int8": 0.2}[artifact.precision]
    assert (tmp_path / "timing.cache").stat().st_size > 0
    assert onnx.load(tmp_path / "model.onnx")
