import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deploy.artifact import Artifact, ArtifactError
from deploy.edgetpu import NOT_COMPILED, check_edgetpu, explain_operator, parse_log, place_operators
from deploy.tflite_file import Graph, Operator, Tensor
from tests.tflite_files import write_small_float, write_small_int8

# In the form of version 16; the figures are made up.
UNSPECIFIED = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
LOG = f"""Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 87 ms.

Input model: model.tflite
Input size: 6.00KiB
Output model: model_edgetpu.tflite
Output size: 40.10KiB
On-chip memory used for caching model parameters: 4.00KiB
On-chip memory remaining for caching model parameters: 7.91MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 6
Operation log: model_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will instead
run on the CPU, which is slower. For details, visit g.co/coral/model-reqs.
Number of operations that will run on Edge TPU: 4
Number of operations that will run on CPU: 2

Operator                       Count      Status

CONV_2D                        2          Mapped to Edge TPU
MAX_POOL_2D                    1          More than one subgraph is not supported
MAX_POOL_2D                    1          Mapped to Edge TPU
MEAN                           1          Mapped to Edge TPU
FULLY_CONNECTED                1          {UNSPECIFIED}
Compilation child process completed within timeout period.
Compilation succeeded!
"""


def make_graph(
    kind: str,
    *inputs: Tensor,
    output: tuple[int, ...] = (1, 4),
    dtype: str = "INT8",
    activation: str = "NONE",
    **options: Any,
) -> Graph:
    tensors = (*inputs, Tensor("out", output, False, dtype, b""))
    reads = tuple(range(len(inputs)))
    operator = Operator(
        f"{kind} layer #0", kind, "layer", reads, (len(inputs),), activation, SimpleNamespace(**options), custom=False
    )
    return Graph(tensors, (operator,), (0,), (len(inputs),), {})


def data(*shape: int, dtype: str = "INT8", dynamic: bool = False) -> Tensor:
    return Tensor("data", shape, dynamic, dtype, b"")


def constant(*values: int, shape: tuple[int, ...] | None = None) -> Tensor:
    array = np.asarray(values, np.int32)
    return Tensor("constant", shape or array.shape, False, "INT32", array.tobytes())


WEIGHTS = Tensor("weights", (4, 1, 1, 4), False, "INT8", bytes(16))
ZEROS, ONES = (Tensor("stored", (1, 4), False, "INT8", bytes([value] * 4)) for value in (0, 1))


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (make_graph("DIV", data(1, 4), data(1, 4)), "not among the supported operations"),
        (make_graph("TRANSPOSE", data(1, 4), constant(1, 0)), "not among the supported operations"),
        (make_graph("ADD", data(1, 4, dtype="FLOAT32"), data(1, 4)), "works on FLOAT32"),
        (make_graph("ADD", data(1, 4, dynamic=True), data(1, 4)), "'data' has a dynamic shape"),
        (make_graph("ADD", data(10, 8, 8, 4), data(1, 8, 8, 4)), "only the three innermost dimensions may exceed 1"),
        (make_graph("MAX_POOL_2D", data(1, 1, 8, 4), activation="RELU"), "fused RELU"),
        (make_graph("CONV_2D", data(1, 1, 8, 4), WEIGHTS, dilationHFactor=1, dilationWFactor=2), "dilation 1 x 2"),
        (make_graph("FULLY_CONNECTED", data(5, 4), ONES, output=(5, 4), weightsFormat=0), r"output of shape \(5, 4\)"),
        (make_graph("FULLY_CONNECTED", data(1, 4), ONES, weightsFormat=1), "shuffled weights"),
        (make_graph("CONCATENATION", data(1, 4), ONES), "a constant among the inputs"),
        (make_graph("MEAN", data(1, 1, 8, 6), constant(3)), "a depth of 6, expected a multiple of 4"),
        (make_graph("SUM", data(1, 1, 8, 4), constant(0)), "reduces the batch dimension"),
        (make_graph("PAD", data(1, 4), constant(1, 0, 0, 0, shape=(2, 2))), "pads the batch dimension"),
        (make_graph("SOFTMAX", data(1, 8, 4)), "expected one dimension of at most 16,000"),
        (make_graph("SQUEEZE", data(5, 1, 4)), "expected ones in front only"),
        (make_graph("SPLIT", constant(0), data(4, 4)), "splits the batch dimension"),
        (make_graph("PACK", data(1, 4), axis=0), "packs along the batch dimension"),
        (
            make_graph("STRIDED_SLICE", data(1, 4), *(constant(0),) * 2, constant(2), ellipsisMask=0, newAxisMask=0),
            "strides other than 1",
        ),
    ],
)
def test_edgetpu_explains_what_it_does_not_run(graph: Graph, reason: str) -> None:
    placement = place_operators(graph)[0]
    assert not placement.on_tpu
    with pytest.raises(AssertionError, match=reason):
        assert not explain_operator(graph, graph.operators[0]), explain_operator(graph, graph.operators[0])


@pytest.mark.parametrize(
    "graph",
    [
        make_graph("ADD", data(1, 8, 8, 4), data(1, 8, 8, 4)),
        make_graph("CONV_2D", data(1, 1, 8, 4), WEIGHTS, dilationHFactor=1, dilationWFactor=1),
        make_graph("CONCATENATION", data(1, 4), ZEROS),
        make_graph("MEAN", data(1, 1, 8, 6), constant(1, 2)),
        make_graph("PAD", data(1, 4), constant(0, 0, 1, 0, shape=(2, 2))),
        make_graph("SOFTMAX", data(1, 1, 1, 4)),
        make_graph("SQUEEZE", data(1, 5, 4)),
        make_graph("RSQRT", data(1, 4)),
    ],
)
def test_edgetpu_runs_what_keeps_the_limits(graph: Graph) -> None:
    assert place_operators(graph)[0].on_tpu


def test_edgetpu_everything_behind_the_first_gap_runs_on_the_cpu() -> None:
    tensors = tuple(Tensor(f"t{index}", (1, 4), False, "INT8", b"") for index in range(5))
    kinds = ("ADD", "DIV", "ADD", "MUL")
    operators = tuple(
        Operator(f"{kind} #{at}", kind, f"m{at}", (at,), (at + 1,), "NONE", None, False)
        for at, kind in enumerate(kinds)
    )
    placements = place_operators(Graph(tensors, operators, (0,), (4,), {}))
    assert [item.on_tpu for item in placements] == [True, False, False, False]
    assert placements[2].reason == "behind DIV (m1), which the TPU does not run"


def test_edgetpu_quantize_of_a_float_input_does_not_cut() -> None:
    tensors = (data(1, 4, dtype="FLOAT32"), data(1, 4), data(1, 4))
    operators = (
        Operator("q", "QUANTIZE", "in", (0,), (1,), "NONE", None, False),
        Operator("a", "ADD", "m", (1,), (2,), "NONE", None, False),
    )
    assert [item.on_tpu for item in place_operators(Graph(tensors, operators, (0,), (2,), {}))] == [False, True]


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return write_small_int8(tmp_path / "model.tflite")


def test_edgetpu_maps_the_whole_int8_file(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    report = check_edgetpu(artifact.path)
    assert (report.n_on_tpu, report.macs_share, report.how) == (6, 1.0, NOT_COMPILED)
    assert "6 of 6 operators and 100.0% of the MACs (checked against the operator list, not compiled)" in report.summary
    assert "| 0 | CONV_2D | features.0 features.1 features.3 | TPU | 5,400 |  |" in report.to_markdown()


def test_edgetpu_maps_nothing_of_a_float_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    report = check_edgetpu(write_small_float(tmp_path / "model.tflite").path)
    assert (report.n_on_tpu, report.macs_share) == (0, 0.0)
    assert "first on the CPU: CONV_2D" in report.summary


def install_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch, log: str, code: int = 0) -> None:
    folder.mkdir()
    (folder / "log").write_text(log)
    program = folder / "edgetpu_compiler"
    program.write_text(f'#!/bin/sh\ncat "{folder}/log"\n: > "$3/model_edgetpu.tflite"\nexit {code}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_edgetpu_compiler_has_the_last_word(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_compiler(tmp_path / "bin", monkeypatch, LOG)
    report = check_edgetpu(artifact.path)
    assert report.how == "compiled by Edge TPU Compiler 16.0.384591198"
    assert report.compiled == artifact.path.with_name("model_edgetpu.tflite")
    assert [item.on_tpu for item in report.placements] == [True, True, True, False, True, False]
    assert report.placements[3].reason == "More than one subgraph is not supported"
    assert report.macs_share == pytest.approx(1 - 40 / 13_240)


@pytest.mark.parametrize(
    ("log", "code", "message"),
    [
        (
            "Edge TPU Compiler version 16.0.384591198\nInternal compiler error. Aborting!\n",
            1,
            "Internal compiler error",
        ),
        ("Edge TPU Compiler version 16.0.384591198\nCompilation failed!\n", 0, "Compilation failed"),
        (LOG.replace("MEAN      ", "RESHAPE   "), 0, "lists operators"),
        ("", 1, "no output"),
    ],
)
def test_edgetpu_compiler_that_fails_is_an_error(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, code: int, message: str
) -> None:
    install_compiler(tmp_path / "bin", monkeypatch, log, code)
    with pytest.raises(ArtifactError, match=message):
        check_edgetpu(artifact.path)


def test_edgetpu_log_is_read_line_by_line() -> None:
    version, rows = parse_log(LOG)
    assert version == "16.0.384591198"
    assert rows[1] == ("MAX_POOL_2D", 1, "More than one subgraph is not supported")
    assert sum(count for _, count, _ in rows) == 6
