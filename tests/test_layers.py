from dataclasses import replace
from pathlib import Path

import pytest
import torch

from composition.reports import check_devices, report_layers
from deploy.artifact import Artifact, ArtifactError
from deploy.layers import OperatorTime, tabulate_times, time_operators
from deploy.onnx import export_onnx
from tests.tflite_files import small_net, write_small_float, write_small_int8


@pytest.fixture
def int8(tmp_path: Path) -> Artifact:
    return write_small_int8(tmp_path / "model.tflite")


@pytest.mark.parametrize("write", [write_small_float, write_small_int8])
def test_layers_times_every_operator_of_a_tflite_file(tmp_path: Path, write) -> None:
    artifact = write(tmp_path / "model.tflite")
    times = time_operators(artifact, calls=5)
    assert [item.operator for item in times] == [
        *("CONV_2D", "MAX_POOL_2D", "CONV_2D", "MAX_POOL_2D", "MEAN", "FULLY_CONNECTED")
    ]
    assert all(item.time_ms is not None and item.time_ms > 0 for item in times)
    width = 4 if artifact.precision == "float32" else 1
    assert times[0].output_bytes == width * 60 * 6
    # Weights, and a bias of 32 bits.
    assert times[-1].weight_bytes == width * 40 + 4 * 4


def test_layers_times_every_operator_of_an_onnx_file(tmp_path: Path) -> None:
    artifact = export_onnx(small_net(), tmp_path / "model.onnx", example=torch.zeros(2, 3, 64))
    times = time_operators(artifact, calls=5)
    convolutions = [item for item in times if "Conv" in item.operator]
    assert len(convolutions) == 2
    # ONNX Runtime pads channels to the width of its registers.
    assert convolutions[0].weight_bytes >= 4 * (6 * 3 * 5 + 6)
    assert convolutions[0].output_bytes >= 4 * 60 * 6
    assert all(item.time_ms is not None and item.time_ms >= 0 for item in times)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_layers_of_an_unknown_runtime_are_refused(int8: Artifact) -> None:
    with pytest.raises(ArtifactError, match=r"operators of 'tensorrt' cannot be timed; set deploy"):
        time_operators(replace(int8, runtime="tensorrt"))


def test_layers_table_says_what_was_not_measured() -> None:
    times = [OperatorTime("CONV_2D", "a", 10, 20, 0.75), OperatorTime("ADD", "b", 0, 20, None)]
    table = tabulate_times(times, "litert")
    assert "| 0 | CONV_2D | a | 10 | 20 | 0.7500 | 100.0% |" in table
    assert "| 1 | ADD | b | 0 | 20 | not measured |" in table


def test_layers_report_is_a_table_and_a_plot(int8: Artifact) -> None:
    texts, figures = report_layers(int8, "small")
    assert texts["layers.md"].count("CONV_2D") == 2
    assert len(figures["layers.png"].axes) == 2
    assert len(figures["layers.png"].axes[0].patches) == texts["layers.md"].count("\n| ") - 1


def test_devices_are_checked_for_int8_files_of_litert_only(int8: Artifact, tmp_path: Path) -> None:
    checks, texts = check_devices(int8)
    figures = [(check.name, check.status, check.value) for check in checks]
    assert figures == [("float_operators", "INFO", 0.0), ("edgetpu", "INFO", 1.0)]
    assert "not compiled" in texts["edgetpu.md"]
    assert check_devices(write_small_float(tmp_path / "float.tflite")) == ([], {})
