"""Deploy target TensorRT: net -> symmetric Q/DQ ONNX -> engine for the GPU at hand, and its evaluation there.

A ``.engine`` file of this module is a header (magic, length, JSON) and the serialized engine behind it. Without CUDA or
the package ``tensorrt`` there is no engine: `export_tensorrt` then leaves the checked ONNX file and says how to go on.
"""

import importlib.util
import json
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deploy.artifact import Artifact, ArtifactError, NotMeasured, OperatorCount, Session, WeightCount

if TYPE_CHECKING:
    from torch import Tensor, nn

MAGIC = b"LHENGINE"
RUNTIME = "tensorrt"


def export_tensorrt(
    net: "nn.Module",
    path: str | Path,
    *,
    example: "Tensor",
    precision: str = "float32",
    calibration: np.ndarray | None = None,
    per_channel: bool = True,
    float16: bool = False,
    batch_sizes: Sequence[int] = (1, 1, 64),
    timing_cache: str | Path | None = None,
    calibration_method: str = "minmax",
    float_nodes: Sequence[str] = (),
    opset: int = 20,
    metadata: Mapping[str, str] | None = None,
) -> Artifact:
    """Export a net as a TensorRT engine for the GPU of this machine.

    Parameters
    ----------
    net : nn.Module
        Maps (batch, leads, time) to logits (batch, classes).
    path : str or Path
        Engine to write; the ONNX file that it is built from lies beside it.
    example : Tensor of shape (batch, leads, time)
        Gives the shape of a window.
    precision : {"float32", "int8"}
        "int8" is explicit quantization: symmetric Q/DQ with calibration windows.
    calibration, per_channel, calibration_method, float_nodes, opset, metadata
        As in `deploy.onnx.export_onnx`.
    float16 : bool, default False
        Let what is not int8 run in float16.
    batch_sizes : sequence of 3 int, default (1, 1, 64)
        Smallest, most frequent and largest batch of the optimisation profile.
    timing_cache : str or Path, optional
        File that keeps kernel timings, so that the next build is faster and picks the same kernels.

    Returns
    -------
    Artifact
        Its precision is "float16" for a float net with `float16`.

    Raises
    ------
    NotMeasured
        If this machine has no CUDA device or no ``tensorrt``: the ONNX file is there and checked, the message holds
        the ``trtexec`` line.
    ArtifactError
        If the ONNX file does not pass its checks or TensorRT cannot build from it.
    ValueError
        If an option is not one of those listed.
    """
    from deploy.engine_build import build_engine, check_onnx, describe_trtexec
    from deploy.onnx import count_macs as count_onnx
    from deploy.onnx import export_onnx

    if precision not in ("float32", "int8"):
        raise ValueError(f"precision={precision!r}, expected 'float32' or 'int8' (with float16: true for float16)")
    if len(batch_sizes) != 3 or sorted(batch_sizes) != list(batch_sizes) or batch_sizes[0] < 1:
        raise ValueError(f"batch_sizes={list(batch_sizes)!r}, expected smallest, most frequent and largest batch")
    path = Path(path)
    source = export_onnx(
        net,
        path.with_suffix(".onnx"),
        example=example,
        precision=precision,
        calibration=calibration,
        per_channel=per_channel,
        activations="int8",
        calibration_method=calibration_method,
        float_nodes=float_nodes,
        opset=opset,
        metadata=metadata,
    )
    checks = check_onnx(source.path)
    kept = "float16" if float16 and precision == "float32" else precision
    if missing := find_missing():
        line = describe_trtexec(source, batch_sizes, float16=float16, timing_cache=timing_cache)
        raise NotMeasured(
            source.path,
            RUNTIME,
            kept,
            f"{missing}; {source.path.name} is checked ({'; '.join(checks)}); on a machine with both: {line}",
        )
    engine, about = build_engine(source, batch_sizes, float16=float16, timing_cache=timing_cache)
    header = {
        "precision": kept,
        "input_shape": list(source.input_shape),
        "batch_sizes": list(batch_sizes),
        "count": _count_to_json(count_onnx(source.path)),
        "built": about,
        "metadata": dict(source.metadata),
    }
    write_engine(path, header, engine)
    return load_artifact(path)


def find_missing() -> str:
    """Say what this machine lacks to build and run engines; an empty text where nothing is missing."""
    import torch

    lacking = []
    if not torch.cuda.is_available():
        lacking.append("no CUDA device")
    if importlib.util.find_spec("tensorrt") is None:
        lacking.append("the package tensorrt is not installed (pip install tensorrt, or NVIDIA's JetPack)")
    return " and ".join(lacking)


def load_artifact(path: Path) -> Artifact:
    """Read the contract from the header of an engine file; nothing is loaded onto a GPU.

    Raises
    ------
    ArtifactError
        If it is not a whole file of `export_tensorrt`.
    """
    header, _ = read_engine(path)
    built = {f"tensorrt.{name}": str(value) for name, value in header["built"].items()}
    return Artifact(path, RUNTIME, header["precision"], tuple(header["input_shape"]), {**header["metadata"], **built})


def open_session(path: Path, *, threads: int = 0) -> Session:
    """Load an engine onto the GPU; `threads` has no meaning there.

    Returns
    -------
    callable
        Maps float32 (n, leads, time) to float32 logits (n, classes).

    Raises
    ------
    ArtifactError
        If the file is damaged, this machine lacks CUDA or TensorRT, or the engine was built for another GPU or version.
    """
    from deploy.engine_build import run_engine

    header, engine = read_engine(path)
    if missing := find_missing():
        raise ArtifactError(f"{path.name}: {missing}, so this engine cannot run here")
    return run_engine(path.name, engine, header["batch_sizes"])


def count_macs(path: Path) -> OperatorCount:
    """Give operators and MACs of the ONNX file that an engine was built from; the engine itself tells no MACs."""
    count = read_engine(path)[0]["count"]
    return OperatorCount(
        count["node_macs"], frozenset(count["int8_nodes"]), count["operators"], WeightCount(**count["weights"])
    )


def find_asymmetric(path: Path) -> list[str]:
    """Name the quantizers of an ONNX file that have a zero point or unsigned values: TensorRT takes none of them.

    Raises
    ------
    ArtifactError
        If the file is damaged.
    """
    from onnx import numpy_helper

    from deploy.onnx_macs import read_model

    graph = read_model(path).graph
    stored = {weight.name: weight for weight in graph.initializer}
    wrong = []
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        # Without a zero point the values are unsigned.
        zero = numpy_helper.to_array(stored[node.input[2]]) if len(node.input) > 2 else np.zeros(1, np.uint8)
        if zero.dtype != np.int8 or np.any(zero):
            wrong.append(node.name)
    return wrong


def write_engine(path: Path, header: Mapping[str, Any], engine: bytes) -> None:
    """Write header and engine; the file appears whole or not at all."""
    text = json.dumps(header, sort_keys=True).encode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".engine_") as folder:
        part = Path(folder, path.name)
        part.write_bytes(MAGIC + struct.pack("<QQ", len(text), len(engine)) + text + engine)
        part.replace(path)


def read_engine(path: Path) -> tuple[dict[str, Any], bytes]:
    """Split an engine file into its header and the serialized engine.

    Raises
    ------
    ArtifactError
        If it is not a whole file of `write_engine`.
    """
    content = path.read_bytes()
    start = len(MAGIC) + 16
    if not content.startswith(MAGIC) or len(content) < start:
        raise ArtifactError(f"{path.name}: not an engine of this project; export it again with deploy=tensorrt")
    n_text, n_engine = struct.unpack("<QQ", content[len(MAGIC) : start])
    if len(content) != start + n_text + n_engine:
        raise ArtifactError(
            f"{path.name}: has {len(content)} bytes, its header says {start + n_text + n_engine}: export it again"
        )
    header: dict[str, Any] = json.loads(content[start : start + n_text])
    return header, content[start + n_text :]


def _count_to_json(count: OperatorCount) -> dict[str, Any]:
    return {
        "node_macs": count.node_macs,
        "int8_nodes": sorted(count.int8_nodes),
        "operators": count.operators,
        "weights": asdict(count.weights),
    }
