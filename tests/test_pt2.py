import numpy as np
import pytest
import torch

from deploy.artifact import ArtifactError, load_artifact, predict
from deploy.pt2 import count_macs, export_torchao
from tests.exporting import make_small, make_small_windows, relative_noise, run_torch

torchao = pytest.importorskip("torchao")
EXAMPLE = torch.zeros(2, 3, 64)
WINDOWS = make_small_windows()


@pytest.fixture(scope="module")
def net():
    return make_small()


@pytest.fixture(scope="module")
def artifacts(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pt2")
    return {
        precision: export_torchao(
            net,
            folder / f"{precision}.pt2",
            example=EXAMPLE,
            precision=precision,
            calibration=WINDOWS,
            compiled=False,
            metadata={"fs": "100"},
        )
        for precision in ("float32", "int8")
    }


def test_program_carries_its_contract(artifacts):
    artifact = load_artifact(artifacts["int8"].path)
    assert (artifact.runtime, artifact.precision, artifact.input_shape) == ("torch-inductor", "int8", (3, 64))
    assert artifact.metadata == {"fs": "100", "compiled": "false"}


def test_float_program_agrees_with_torch(net, artifacts):
    found = predict(artifacts["float32"], WINDOWS, threads=1, batch_size=5)
    assert np.abs(found - run_torch(net, WINDOWS)).max() < 1e-5


def test_int8_program_agrees_with_torch_up_to_rounding(net, artifacts):
    assert 0 < relative_noise(net, artifacts["int8"], WINDOWS) < 0.1


def test_macs_are_counted_from_the_program(artifacts):
    expected = 60 * 6 * 3 * 5 + 26 * 10 * 6 * 5 + 10 * 4
    for precision, share in (("float32", 0.0), ("int8", 1.0)):
        count = count_macs(artifacts[precision].path)
        assert count.macs == expected
        assert count.int8_macs_share == share
        assert count.weights.values == 6 * 3 * 5 + 10 * 6 * 5 + 4 * 10
        assert count.weights.size_bytes == count.weights.values * (4 if precision == "float32" else 1)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nothing"])
def test_a_corrupt_program_is_refused(tmp_path, content):
    (tmp_path / "x.pt2").write_bytes(content)
    with pytest.raises(ArtifactError, match="not a whole program"):
        load_artifact(tmp_path / "x.pt2")


def test_a_foreign_program_is_refused(net, tmp_path):
    torch.export.save(torch.export.export(net.eval(), (EXAMPLE,)), tmp_path / "x.pt2")
    with pytest.raises(ArtifactError, match="no program of this project"):
        load_artifact(tmp_path / "x.pt2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "precision='int4'"),
        ({"precision": "int8"}, "needs calibration windows"),
        ({"precision": "int8", "calibration": WINDOWS, "per_channel": False}, "per_channel=False"),
        ({"precision": "int8", "calibration": WINDOWS, "float_nodes": ["head"]}, r"float_nodes=\['head'\]"),
    ],
)
def test_unknown_options_are_refused(net, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export_torchao(net, tmp_path / "x.pt2", example=EXAMPLE, **options)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_compiled_program_gives_the_same_answers(net, artifacts, tmp_path, precision):
    compiled = export_torchao(
        net, tmp_path / "x.pt2", example=EXAMPLE, precision=precision, calibration=WINDOWS, compiled=True
    )
    difference = predict(compiled, WINDOWS, threads=1) - predict(artifacts[precision], WINDOWS, threads=1)
    spread = run_torch(net, WINDOWS).std()
    assert np.sqrt(np.mean(difference**2)) / spread < {"float32": 1e-5, "int8": 0.05}[precision]
