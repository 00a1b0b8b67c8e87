import os
import subprocess
import sys
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.artifact import Artifact, ArtifactError, Session, WeightCount, load_artifact
from deploy.measure import time_interleaved
from deploy.profile import Latency, Profile, count_macs, latency_ratio, profile_artifacts

FLOAT = TensorProto.FLOAT


def write_graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    shapes: tuple[list[int | str], list[int | str]],
    weights: dict[str, np.ndarray],
) -> Artifact:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, shapes[0])],
        [helper.make_tensor_value_info("y", FLOAT, shapes[1])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"precision": "float32"})
    onnx.save(model, path)
    return load_artifact(path)


def write_conv(path: Path, width: int) -> Artifact:
    weights = {"w": np.ones((width, 4, 5), np.float32)}
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    return write_graph(path, [node], (["batch", 4, 100], ["batch", width, 96]), weights)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("node", "shape", "weights", "expected"),
    [
        (helper.make_node("Conv", ["x", "w"], ["y"]), ["n", 4, 100], zeros(8, 4, 5), 96 * 8 * 4 * 5),
        (helper.make_node("Conv", ["x", "w"], ["y"], strides=[2]), ["n", 4, 100], zeros(8, 4, 5), 48 * 160),
        (helper.make_node("Conv", ["x", "w"], ["y"], group=4), ["n", 4, 100], zeros(4, 1, 5), 96 * 4 * 5),
        (helper.make_node("Conv", ["x", "w"], ["y"]), ["n", 4, 9, 9], zeros(8, 4, 3, 3), 49 * 8 * 4 * 9),
        (helper.make_node("ConvTranspose", ["x", "w"], ["y"]), ["n", 4, 10], zeros(4, 8, 3), 10 * 4 * 8 * 3),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), ["n", 30], zeros(5, 30), 150),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), ["n", 7, 30], zeros(30, 5), 7 * 30 * 5),
        (helper.make_node("Relu", ["x"], ["y"]), ["n", 7, 30], None, 0),
    ],
)
def test_profile_count_macs_equals_the_hand_count(
    tmp_path: Path, node: onnx.NodeProto, shape: list[int | str], weights: np.ndarray | None, expected: int
) -> None:
    artifact = write_graph(
        tmp_path / "m.onnx",
        [node],
        (shape, ["n", *"abc"[: len(shape) - 1]]),
        {} if weights is None else {"w": weights},
    )
    count = count_macs(artifact.path)
    assert count.macs == expected
    assert count.int8_macs_share == 0.0
    assert count.operators == {node.op_type: 1}


def quantized_gemm(data_type: type, weight_type: type) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    weights = {
        "s": np.float32(0.1),
        "xz": np.asarray(0, data_type),
        "wz": np.asarray(0, weight_type),
        "w": np.ones((30, 5), weight_type),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "wz"], ["wd"]),
        helper.make_node("Gemm", ["xd", "wd"], ["y"]),
    ]
    return nodes, {name: np.asarray(value) for name, value in weights.items()}


@pytest.mark.parametrize(
    ("data_type", "weight_type", "share"),
    [(np.uint8, np.int8, 1.0), (np.int8, np.int8, 1.0), (np.uint8, np.int16, 0.0), (np.int16, np.int8, 0.0)],
)
def test_profile_int8_share_needs_eight_bits_on_both_sides(
    tmp_path: Path, data_type: type, weight_type: type, share: float
) -> None:
    nodes, weights = quantized_gemm(data_type, weight_type)
    # 16 bits came with opset 21.
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 30])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10),
        tmp_path / "m.onnx",
    )
    assert count_macs(tmp_path / "m.onnx").int8_macs_share == share


def test_profile_int8_share_ignores_weights_alone_in_int8(tmp_path: Path) -> None:
    nodes, weights = quantized_gemm(np.uint8, np.int8)
    nodes[-1].input[0] = "x"
    artifact = write_graph(tmp_path / "m.onnx", nodes[2:], (["n", 30], ["n", 5]), weights)
    assert count_macs(artifact.path).macs == 150
    assert count_macs(artifact.path).int8_macs_share == 0.0


def test_profile_counts_the_zeros_among_float_weights_and_no_biases(tmp_path: Path) -> None:
    kernel = np.ones((8, 4, 5), np.float32)
    kernel[:, :, :2] = 0
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"])]
    artifact = write_graph(tmp_path / "m.onnx", nodes, (["n", 4, 9], ["n", 8, 5]), {"w": kernel, "b": zeros(8)})
    weights = count_macs(artifact.path).weights
    assert weights == WeightCount(values=160, nonzero=96, size_bytes=640, nonzero_bytes=384)
    assert weights.sparsity == pytest.approx(0.4)
    assert weights.sparse_bytes == 160 // 8 + 384


def test_profile_counts_the_zeros_among_quantized_weights(tmp_path: Path) -> None:
    nodes, weights = quantized_gemm(np.uint8, np.int8)
    stored = next(name for name, value in weights.items() if value.size == 150)
    weights[stored] = np.arange(150, dtype=np.int8).reshape(weights[stored].shape) % 3
    artifact = write_graph(tmp_path / "m.onnx", nodes, (["n", 30], ["n", 5]), weights)
    assert count_macs(artifact.path).weights == WeightCount(150, 100, 150, 100)


def test_profile_zeros_compress(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).normal(size=(64, 4, 5)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    artifacts = [
        write_graph(tmp_path / f"{name}.onnx", [node], (["batch", 4, 100], ["batch", 64, 96]), {"w": values})
        for name, values in (("dense", kernel), ("sparse", np.where(np.abs(kernel) < 1, 0, kernel)))
    ]
    dense, sparse = profile_artifacts(artifacts, batch_sizes=[1], window_s=0.02, warmup=1)
    assert dense.size_bytes == sparse.size_bytes
    assert sparse.compressed_bytes < 0.6 * dense.compressed_bytes
    assert sparse.sparse_bytes == sparse.size_bytes - kernel.nbytes + kernel.size // 8 + 4 * sparse.weights.nonzero


def test_profile_count_macs_refuses_what_it_cannot_count(tmp_path: Path) -> None:
    weights = {"w": zeros(1, 16, 3), "r": zeros(1, 16, 4)}
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4)
    artifact = write_graph(tmp_path / "m.onnx", [node], (["t", 1, 3], ["t", 1, 1, 4]), weights)
    with pytest.raises(ArtifactError, match=r"MACs of \['LSTM'\] are not counted"):
        count_macs(artifact.path)


def test_profile_count_macs_refuses_unknown_shapes(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 4, "time"])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 8, "rest"])],
        [numpy_helper.from_array(zeros(8, 4, 5), "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        tmp_path / "m.onnx",
    )
    with pytest.raises(ArtifactError, match="no shape of 'y'"):
        count_macs(tmp_path / "m.onnx")


def test_profile_count_macs_refuses_a_truncated_file(tmp_path: Path) -> None:
    path = write_conv(tmp_path / "m.onnx", 8).path
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ArtifactError, match="not a whole ONNX model"):
        count_macs(path)


def test_profile_measures_every_artifact_side_by_side(tmp_path: Path) -> None:
    artifacts = [write_conv(tmp_path / f"{width}.onnx", width) for width in (8, 256)]
    small, large = profile_artifacts(artifacts, batch_sizes=(1, 4), window_s=0.25, warmup=2)
    assert (small.macs, large.macs) == (8 * 96 * 20, 256 * 96 * 20)
    assert (small.size_bytes, large.size_bytes) == tuple(artifact.size_bytes for artifact in artifacts)
    for profile in (small, large):
        assert profile.threads == 1
        assert set(profile.latency) == {1, 4}
        assert profile.peak_memory_bytes > 0
        for latency in profile.latency.values():
            assert 0 < latency.p50_ms <= latency.p90_ms <= latency.p99_ms
            assert latency.n >= len(latency.block_p50_ms) >= 5
    assert len(small.latency[1].block_p50_ms) == len(large.latency[1].block_p50_ms)
    assert latency_ratio(small, large, 1) < 1 < latency_ratio(large, small, 4)
    assert latency_ratio(small, small, 1) == 1.0


def test_profile_failing_worker_names_file_and_cause(tmp_path: Path) -> None:
    artifact = replace(write_conv(tmp_path / "m.onnx", 8), input_shape=(3, 100))
    with pytest.raises(ArtifactError, match=r"(?s)m.onnx: measuring peak_memory failed: .*INVALID_ARGUMENT"):
        profile_artifacts([artifact], window_s=0.1)


@pytest.mark.parametrize("bad", [{"window_s": 0.0}, {"threads": 0}, {"batch_sizes": (0,)}, {"batch_sizes": ()}])
def test_profile_refuses_settings_that_measure_nothing(tmp_path: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="profile"):
        profile_artifacts([write_conv(tmp_path / "m.onnx", 8)], **bad)


def test_profile_worker_loads_no_training_framework() -> None:
    code = "import sys, deploy.measure, deploy.onnx; print({'torch', 'onnx', 'mlflow'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"


def make_profile(wall: tuple[float, ...], cpu: tuple[float, ...], *, threads: int = 1, name: str = "a") -> Profile:
    latency = Latency(1.0, 1.0, 1.0, 10, wall, cpu)
    return Profile(1, 1, WeightCount(), 1, 0.0, {}, threads, {1: latency}, 1, name)


def test_profile_latency_ratio_pairs_blocks_before_the_median() -> None:
    # The machine slows down tenfold half way; each pair still says 0.5.
    slow = make_profile((2.0, 2.0, 20.0, 20.0), (2.0, 2.0, 20.0, 20.0))
    fast = make_profile((1.0, 1.0, 10.0, 10.0), (1.0, 1.0, 10.0, 10.0))
    assert latency_ratio(fast, slow, 1) == 0.5


def test_profile_latency_ratio_is_blind_to_preemption_of_one_thread() -> None:
    slow = make_profile((9.0, 2.0, 9.0), (2.0, 2.0, 2.0))
    fast = make_profile((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    assert latency_ratio(fast, slow, 1) == 0.5


def test_profile_latency_ratio_takes_wall_time_where_the_work_is_elsewhere() -> None:
    waiting = make_profile((4.0, 4.0), (0.1, 0.1))
    assert latency_ratio(waiting, make_profile((8.0, 8.0), (8.0, 8.0)), 1) == 0.5
    many = make_profile((4.0, 4.0), (9.0, 9.0), threads=2)
    assert latency_ratio(many, make_profile((8.0, 8.0), (9.0, 9.0), threads=2), 1) == 0.5


def test_profile_latency_ratio_refuses_measurements_that_were_not_interleaved() -> None:
    with pytest.raises(ValueError, match="different measurements"):
        latency_ratio(make_profile((1.0,), (1.0,)), make_profile((1.0,), (1.0,), name="b"), 1)
    with pytest.raises(ValueError, match="batch_size=64 was not measured"):
        latency_ratio(make_profile((1.0,), (1.0,)), make_profile((1.0,), (1.0,)), 64)


def test_profile_interleaving_takes_turns() -> None:
    order: list[int] = []

    def session(index: int) -> Session:
        def run(signal: np.ndarray) -> np.ndarray:
            order.append(index)
            return signal

        return run

    rows = time_interleaved([session(0), session(1)], [zeros(1), zeros(1)], window_s=0.05, warmup=2)
    turns = [index for index, _ in groupby(order)]
    assert len(turns) >= 6
    assert [len(row["block_p50_ms"]) for row in rows] == [5, 5]
