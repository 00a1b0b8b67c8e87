"""Time and bytes of every operator of a model file."""

import json
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.artifact import Artifact, ArtifactError
from deploy.run_on_device import load_onnx

HOW = {
    "onnxruntime": "ONNX Runtime's profiler, in the graph as the runtime has optimised it",
    "litert": "each operator in a file of its own; what the runtime gains by joining operators does not show",
}
"""By runtime: how times are measured."""


@dataclass(frozen=True)
class OperatorTime:
    """One operator of a file.

    Attributes
    ----------
    operator, layer : str
        Kind, and the name in the file or the modules of the net.
    weight_bytes, output_bytes : int
        Of stored values that it reads, and of what it puts out.
    time_ms : float or None
        Median of its calls; None where it was not measured.
    """

    operator: str
    layer: str
    weight_bytes: int
    output_bytes: int
    time_ms: float | None


def time_operators(artifact: Artifact, *, calls: int = 30) -> list[OperatorTime]:
    """Time every operator of a model file for one window, on one thread.

    Parameters
    ----------
    artifact : Artifact
    calls : int, default 30
        Calls of which the median is taken; a few more come before.

    Returns
    -------
    list of OperatorTime
        In the order in which they run; how it is measured stands in `HOW`.

    Raises
    ------
    ArtifactError
        If the runtime has no way to time its operators.
    """
    timer = _TIMERS.get(artifact.runtime)
    if timer is None:
        raise ArtifactError(
            f"{artifact.path.name}: operators of {artifact.runtime!r} cannot be timed; set deploy.profile.layers=false"
        )
    return timer(artifact, calls)


def tabulate_times(times: Sequence[OperatorTime], runtime: str) -> str:
    """Operators with bytes and times as a Markdown table."""
    total = sum(item.time_ms or 0.0 for item in times)
    lines = [
        f"One window, one thread: {HOW[runtime]}.",
        "",
        "| # | operator | layer | weights (bytes) | output (bytes) | ms | share |",
        "|---:|---|---|---:|---:|---:|---:|",
    ]
    for index, item in enumerate(times):
        measured = "not measured | " if item.time_ms is None else f"{item.time_ms:.4f} | {item.time_ms / total:.1%}"
        lines.append(
            f"| {index} | {item.operator} | {item.layer} | {item.weight_bytes:,} | {item.output_bytes:,} | {measured} |"
        )
    return "\n".join(lines) + "\n"


def _time_onnx(artifact: Artifact, calls: int) -> list[OperatorTime]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix="lightheart-") as folder:
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = load_onnx(onnxruntime, str(artifact.path), options)
        signal = {session.get_inputs()[0].name: np.zeros((1, *artifact.input_shape), np.float32)}
        for _ in range(_warmup(calls) + calls):
            session.run(None, signal)
        events = json.loads(Path(session.end_profiling()).read_text())
    durations: dict[str, list[float]] = defaultdict(list)
    facts: dict[str, dict[str, str]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            durations[name].append(event["dur"] / 1e3)
            facts[name] = event["args"]
    return [
        OperatorTime(
            operator=facts[name]["op_name"],
            layer=name,
            weight_bytes=int(facts[name].get("parameter_size", 0)),
            output_bytes=int(facts[name].get("output_size", 0)),
            time_ms=float(np.median(values[-calls:])),
        )
        for name, values in durations.items()
    ]


def _time_tflite(artifact: Artifact, calls: int) -> list[OperatorTime]:
    from deploy.tflite_file import Graph, Tensor, isolate_operators, open_interpreter, read_graph

    content = artifact.path.read_bytes()
    graph: Graph = read_graph(content, artifact.path.name)
    times = []
    for operator, part in zip(graph.operators, isolate_operators(content), strict=True):
        interpreter = open_interpreter(part, f"{artifact.path.name}: {operator.name}", threads=1)
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))

        def size(tensor: Tensor) -> int:
            return math.prod(tensor.shape) * _WIDTHS.get(tensor.dtype, 1)

        times.append(
            OperatorTime(
                operator=operator.kind,
                layer=operator.layer,
                weight_bytes=sum(len(graph.tensors[position].data) for position in operator.inputs),
                output_bytes=sum(size(graph.tensors[position]) for position in operator.outputs),
                time_ms=_median_ms(interpreter.invoke, calls),
            )
        )
    return times


def _median_ms(call: Callable[[], object], calls: int) -> float:
    taken = []
    for _ in range(_warmup(calls) + calls):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[-calls:])) * 1e3


def _warmup(calls: int) -> int:
    return max(2, calls // 10)


_WIDTHS = {"FLOAT32": 4, "INT32": 4, "FLOAT16": 2, "INT16": 2, "INT64": 8, "FLOAT64": 8}
_TIMERS: dict[str, Callable[[Artifact, int], list[OperatorTime]]] = {
    "onnxruntime": _time_onnx,
    "litert": _time_tflite,
}
