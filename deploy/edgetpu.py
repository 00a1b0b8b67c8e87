"""Which operators of a TensorFlow Lite file the Edge TPU of a Coral board would run, and which its CPU.

The rules are those of the table of supported operations and of the model requirements in Coral's documentation,
"TensorFlow models on the Edge TPU" (https://coral.ai/docs/edgetpu/models-intro/). They are necessary and not
sufficient: the compiler may leave an operator to the CPU for reasons that are not published. Where
``edgetpu_compiler`` is on the path, it has the last word.
"""

import math
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deploy.artifact import ArtifactError
from deploy.tflite_file import Graph, Operator, Tensor, read_graph
from deploy.tflite_macs import operator_macs

COMPILER = "edgetpu_compiler"
NOT_COMPILED = "checked against the operator list, not compiled"
_COMPILER_S = 300
_SOFTMAX_ELEMENTS = 16_000
# Oldest version of the Edge TPU runtime, after the table; what is not listed here runs on all of them.
_SINCE = {
    **dict.fromkeys(("EXPAND_DIMS", "PACK", "PRELU", "QUANTIZE", "SUM", "TRANSPOSE_CONV"), 13),
    **dict.fromkeys(("REDUCE_MAX", "REDUCE_MIN", "RSQRT", "SQUARED_DIFFERENCE", "UNIDIRECTIONAL_SEQUENCE_LSTM"), 14),
}


@dataclass(frozen=True)
class Placement:
    """Where an operator runs.

    Attributes
    ----------
    operator, layer : str
        Kind, and modules of the net.
    on_tpu : bool
    reason : str
        Why not on the TPU; what the compiler says where it ran.
    macs : int
        Multiply-accumulates for one window.
    """

    operator: str
    layer: str
    on_tpu: bool
    reason: str
    macs: int


@dataclass(frozen=True)
class EdgeTpuReport:
    """Placement of all operators of a file.

    Attributes
    ----------
    placements : tuple of Placement
        In the order in which they run.
    how : str
        `NOT_COMPILED`, or the version of the compiler that said so.
    min_runtime : int or None
        Oldest version of the Edge TPU runtime that knows the operators on the TPU; None where all of them do.
    compiled : Path or None
        File for the Edge TPU, where it was compiled.
    """

    placements: tuple[Placement, ...]
    how: str
    min_runtime: int | None
    compiled: Path | None = None

    @property
    def macs_share(self) -> float:
        """Share of the multiply-accumulates on the TPU, 0 to 1."""
        total = sum(item.macs for item in self.placements)
        return sum(item.macs for item in self.placements if item.on_tpu) / total if total else 0.0

    @property
    def n_on_tpu(self) -> int:
        """Operators on the TPU."""
        return sum(item.on_tpu for item in self.placements)

    @property
    def summary(self) -> str:
        """One sentence for the reader."""
        first = next((item for item in self.placements if not item.on_tpu), None)
        why = f"; first on the CPU: {first.operator} ({first.layer}): {first.reason}" if first else ""
        return (
            f"Edge TPU: {self.n_on_tpu} of {len(self.placements)} operators and {self.macs_share:.1%} of the MACs"
            f" ({self.how}){why}"
        )

    def to_markdown(self) -> str:
        """Operators with device and reason as a Markdown table."""
        lines = ["| # | operator | layer | runs on | MACs | reason |", "|---:|---|---|---|---:|---|"]
        lines += [
            f"| {index} | {item.operator} | {item.layer} | {'TPU' if item.on_tpu else 'CPU'} | {item.macs:,}"
            f" | {item.reason} |"
            for index, item in enumerate(self.placements)
        ]
        runtime = f" Needs runtime {self.min_runtime} or newer." if self.min_runtime else ""
        return f"{self.summary}.{runtime}\n\n" + "\n".join(lines) + "\n"


def check_edgetpu(path: Path) -> EdgeTpuReport:
    """Place the operators of a TensorFlow Lite file on TPU and CPU.

    By the published rules; by the compiler where `edgetpu_compiler` is on the path, which then leaves the compiled file
    beside the source as ``<name>_edgetpu.tflite``.

    Raises
    ------
    ArtifactError
        If the file is damaged, or the compiler fails on it.
    """
    graph = read_graph(path)
    placements = place_operators(graph)
    since = (_SINCE[item.operator] for item in placements if item.on_tpu and item.operator in _SINCE)
    runtime = max(since, default=None)
    report = EdgeTpuReport(tuple(placements), NOT_COMPILED, runtime)
    compiler = shutil.which(COMPILER)
    return report if compiler is None else _compile(compiler, path, report)


def place_operators(graph: Graph) -> list[Placement]:
    """Apply the published rules to every operator.

    The compiler cuts the graph once: everything behind the first operator that is not supported runs on the CPU. A
    QUANTIZE of a float input, which the CPU does before the TPU starts, does not cut.
    """
    placements: list[Placement] = []
    cut = ""
    for operator in graph.operators:
        reason = explain_operator(graph, operator)
        enters = operator.kind == "QUANTIZE" and set(operator.inputs) <= set(graph.inputs)
        if reason and not cut and not enters:
            cut = f"behind {operator.kind} ({operator.layer}), which the TPU does not run"
        elif cut:
            reason = reason or cut
        placements.append(Placement(operator.kind, operator.layer, not reason, reason, operator_macs(graph, operator)))
    return placements


def explain_operator(graph: Graph, operator: Operator) -> str:
    """Tell why the TPU does not run an operator; empty where nothing published speaks against it."""
    limit = _LIMITS.get(operator.kind)
    if limit is None:
        return "not among the supported operations"
    for position in (*operator.inputs, *operator.outputs):
        tensor = graph.tensors[position]
        if tensor.dynamic:
            return f"{tensor.name!r} has a dynamic shape"
        if tensor.dtype not in ("INT8", "UINT8") and not (tensor.dtype == "INT32" and tensor.data):
            return f"works on {tensor.dtype}, expected 8-bit integers"
        if not tensor.data and any(size > 1 for size in tensor.shape[:-3]):
            return f"tensor of shape {tensor.shape!r}: only the three innermost dimensions may exceed 1"
    return limit(graph, operator)


def parse_log(log: str) -> tuple[str, list[tuple[str, int, str]]]:
    """Read what the compiler printed.

    Parameters
    ----------
    log : str
        Standard output of ``edgetpu_compiler --show_operations``.

    Returns
    -------
    str
        Its version.
    list of (operator, count, status)

    Raises
    ------
    ValueError
        If it did not compile, or holds no table of operators.
    """
    version = re.search(r"Edge TPU Compiler version (\S+)", log)
    rows = re.findall(r"^([A-Z][A-Z0-9_]*|CUSTOM\S*)[ \t]+(\d+)[ \t]+(\S.*?)[ \t]*$", log, re.MULTILINE)
    if "Model compiled successfully" not in log or version is None or not rows:
        raise ValueError(log.strip()[-500:] or "no output")
    return version[1], [(kind, int(count), status) for kind, count, status in rows]


def _compile(compiler: str, path: Path, report: EdgeTpuReport) -> EdgeTpuReport:
    command = [compiler, "--show_operations", "--out_dir", str(path.parent), str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILER_S, check=False)
        version, rows = parse_log(done.stdout if done.returncode == 0 else done.stdout + done.stderr)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise ArtifactError(f"{path.name}: {COMPILER} failed: {error}") from error
    placements = _place_as_compiled(report.placements, rows)
    compiled = path.with_name(f"{path.stem}_edgetpu.tflite")
    how = f"compiled by Edge TPU Compiler {version}"
    return replace(report, placements=placements, how=how, compiled=compiled if compiled.is_file() else None)


def _place_as_compiled(placements: Sequence[Placement], rows: Sequence[tuple[str, int, str]]) -> tuple[Placement, ...]:
    """Give every operator its line of the log; as the TPU's part comes first, so do the mapped ones of a kind."""
    statuses: dict[str, list[str]] = {}
    for kind, count, status in sorted(rows, key=lambda row: not row[2].startswith("Mapped")):
        statuses.setdefault(kind, []).extend([status] * count)
    found = Counter(item.operator for item in placements)
    if {kind: len(items) for kind, items in statuses.items()} != dict(found):
        listed = {kind: len(items) for kind, items in statuses.items()}
        raise ArtifactError(f"{COMPILER} lists operators {listed!r}, the file holds {dict(found)!r}")
    result = []
    for item in placements:
        status = statuses[item.operator].pop(0)
        mapped = status.startswith("Mapped")
        result.append(replace(item, on_tpu=mapped, reason="" if mapped else status))
    return tuple(result)


# The limits of the table, one function for each kind: a reason, or nothing.

Limit = Callable[[Graph, Operator], str]


def _free(graph: Graph, operator: Operator) -> str:
    return ""


def _no_activation(graph: Graph, operator: Operator) -> str:
    return "" if operator.activation == "NONE" else f"fused {operator.activation}, expected no activation"


def _convolution(graph: Graph, operator: Operator) -> str:
    across, along = operator.options.dilationHFactor, operator.options.dilationWFactor
    return "" if across == along else f"dilation {across} x {along}, expected the same both ways"


def _fully_connected(graph: Graph, operator: Operator) -> str:
    if operator.options.weightsFormat != 0:
        return "shuffled weights, expected the default format"
    shape = graph.tensors[operator.outputs[0]].shape
    return "" if math.prod(shape[:-1]) == 1 else f"output of shape {shape!r}, expected one dimension"


def _concatenation(graph: Graph, operator: Operator) -> str:
    stored = [graph.tensors[position] for position in operator.inputs if graph.tensors[position].data]
    if stored and (len(operator.inputs) != 2 or any(_real_values(tensor).any() for tensor in stored)):
        return "a constant among the inputs that is no padding with zeros"
    return _no_activation(graph, operator)


def _reduction(graph: Graph, operator: Operator) -> str:
    source = graph.tensors[operator.inputs[0]]
    axes = _read_axes(graph.tensors[operator.inputs[1]], len(source.shape))
    if 0 in axes and len(source.shape) == 4:
        return "reduces the batch dimension"
    depth = source.shape[-1]
    if operator.kind == "MEAN" and len(source.shape) - 1 in axes and depth % 4:
        return f"reduces a depth of {depth}, expected a multiple of 4"
    return ""


def _pad(graph: Graph, operator: Operator) -> str:
    amounts = graph.tensors[operator.inputs[1]]
    if not amounts.data:
        return "pads by what is computed"
    return "pads the batch dimension" if len(amounts.shape) == 2 and amounts.values[0].any() else ""


def _softmax(graph: Graph, operator: Operator) -> str:
    shape = graph.tensors[operator.inputs[0]].shape
    if math.prod(shape[:-1]) > 1 or shape[-1] > _SOFTMAX_ELEMENTS:
        return f"input of shape {shape!r}, expected one dimension of at most {_SOFTMAX_ELEMENTS:,} elements"
    return ""


def _squeeze(graph: Graph, operator: Operator) -> str:
    shape = graph.tensors[operator.inputs[0]].shape
    inner = shape[next((at for at, size in enumerate(shape) if size > 1), len(shape)) :]
    return "" if 1 not in inner else f"input of shape {shape!r}, expected ones in front only"


def _strided_slice(graph: Graph, operator: Operator) -> str:
    strides, options = graph.tensors[operator.inputs[3]], operator.options
    if not strides.data or (strides.values != 1).any() or options.ellipsisMask or options.newAxisMask:
        return "strides other than 1, or a mask of new or left-out axes"
    return ""


def _pack(graph: Graph, operator: Operator) -> str:
    return "" if operator.options.axis != 0 else "packs along the batch dimension"


def _split(graph: Graph, operator: Operator) -> str:
    axis = graph.tensors[operator.inputs[0]]
    return "splits the batch dimension" if axis.data and int(axis.values.reshape(-1)[0]) == 0 else ""


def _read_axes(tensor: Tensor, rank: int) -> set[int]:
    return {int(axis) % rank for axis in tensor.values.reshape(-1)} if tensor.data else set(range(rank))


def _real_values(tensor: Tensor) -> np.ndarray:
    return tensor.values.astype(np.int32) - tensor.zero_point


_LIMITS: dict[str, Limit] = {
    **dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"), _free),
    **dict.fromkeys(("LOGISTIC", "TANH", "RELU", "RELU6", "RELU_N1_TO_1", "RSQRT", "L2_NORMALIZATION"), _free),
    **dict.fromkeys(
        ("RESHAPE", "EXPAND_DIMS", "SLICE", "SPACE_TO_DEPTH", "PRELU", "TRANSPOSE_CONV", "QUANTIZE"), _free
    ),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "UNIDIRECTIONAL_SEQUENCE_LSTM"), _free),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _no_activation),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), _convolution),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), _reduction),
    "CONCATENATION": _concatenation,
    "FULLY_CONNECTED": _fully_connected,
    "PACK": _pack,
    "PAD": _pad,
    "SOFTMAX": _softmax,
    "SPLIT": _split,
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
}
