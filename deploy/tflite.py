"""Deploy target TensorFlow Lite: net -> model.tflite, float or int8, and its session in LiteRT on the CPU."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deploy.artifact import Artifact, ArtifactError, OperatorCount, Session
from deploy.tflite_file import Graph, open_interpreter, read_graph, write_metadata
from deploy.tflite_layout import CLIP_SHAPE, arrange, read_input_shape

if TYPE_CHECKING:
    from torch import Tensor, nn

# torch and the converter are imported where they are needed: the process that measures loads this module without them.

PRECISIONS = ("float32", "float16", "int8", "int8_dynamic")
_OWN_KEYS = ("precision", CLIP_SHAPE)


def export_tflite(
    net: "nn.Module",
    path: str | Path,
    *,
    example: "Tensor",
    precision: str = "float32",
    calibration: np.ndarray | None = None,
    per_channel: bool = True,
    float_nodes: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
    clip_form: "Callable[[nn.Module], nn.Module] | None" = None,
) -> Artifact:
    """Export a net as a TensorFlow Lite file for one window of fixed shape; the net itself is left as it is.

    Batch norms are folded, and the input is (1, 1, time, leads), channels last. A file for clips of video takes some
    frames a call, see `clip_form`. The file appears whole or not at all.

    Parameters
    ----------
    net : nn.Module
        Maps (batch, leads, time) to logits (batch, classes), or (batch, frames, channels, height, width) to waves
        (batch, frames); exported in eval mode.
    path : str or Path
        File to write; its folder is made.
    example : Tensor of shape (batch, leads, time) or (batch, frames, channels, height, width)
        Gives the shape of a window or clip; values do not matter.
    precision : {"float32", "float16", "int8", "int8_dynamic"}
        "int8" is full-integer with int8 input and output; "int8_dynamic" stores int8 weights and leaves the quantizing
        of activations to the runtime; "float16" only stores weights in float16.
    calibration : ndarray of shape (n, leads, time) or (n, frames, channels, height, width), optional
        Normalised windows of the training split; needed for "int8", not used by the others.
    per_channel : bool, default True
        One weight scale for each output channel.
    float_nodes : sequence of str
        Modules (such as "features.0") or kinds of operators (such as "SOFTMAX") that stay in float. For "int8" only.
    metadata : mapping of str to str, optional
        Written into the file, such as fs, lead names, class names.
    clip_form : callable, optional
        Writes a net for clips down as what one call runs: a module with ``n_frames``, the frames of a call, and
        ``input_shape``, in one of the two layouts of `deploy.tflite_layout.arrange`. A clip takes as many calls as it
        holds such parts, which must not depend on each other. Not asked for windows.

    Returns
    -------
    Artifact

    Raises
    ------
    ValueError
        If an option is unknown, int8 is asked for without calibration windows, metadata is not text, the net still
        holds pruning masks, it holds an operator that TensorFlow Lite lacks: named with its layer; or if a clip is
        not a whole number of calls, or the net has no such form.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}, expected one of {PRECISIONS!r}")
    if precision == "int8" and calibration is None:
        raise ValueError("precision='int8' needs calibration windows of the training split, got calibration=None")
    for key, value in (metadata or {}).items():
        if key in _OWN_KEYS or not isinstance(value, str):
            raise ValueError(f"metadata {key!r}: {value!r}, expected text under a key other than {_OWN_KEYS!r}")
    if example.ndim not in (3, 5):
        raise ValueError(
            f"example of shape {tuple(example.shape)!r}, expected (batch, leads, time) or"
            " (batch, frames, channels, height, width)"
        )
    from deploy.tflite_prepare import convert_clips, convert_windows

    if example.ndim == 3:
        content, own = convert_windows(net, *example.shape[1:]), {}
    else:
        content = convert_clips(net, clip_form, example.shape[1])
        own = {CLIP_SHAPE: json.dumps(list(example.shape[1:]))}
    check_operators(read_graph(content, Path(path).name), Path(path).name)
    if precision != "float32":
        from deploy.tflite_int8 import cast_float16, quantize_dynamic_int8, quantize_static_int8

        if precision == "int8" and calibration is not None:
            content = quantize_static_int8(content, calibration, per_channel=per_channel, float_nodes=float_nodes)
        elif precision == "int8_dynamic":
            content = quantize_dynamic_int8(content, per_channel=per_channel)
        else:
            content = cast_float16(content)
    _write(write_metadata(content, {**(metadata or {}), **own, "precision": precision}), Path(path))
    return load_artifact(Path(path))


def load_artifact(path: Path) -> Artifact:
    """Read precision, input shape and metadata out of a TensorFlow Lite file.

    Raises
    ------
    ArtifactError
        If LiteRT cannot load the file, its shapes are not fixed, or it was not written by `export_tflite`.
    """
    graph = read_graph(path)
    check_static(graph, path.name)
    shape = read_input_shape(graph, path.name)
    metadata = {key: value for key, value in (graph.metadata or {}).items() if key not in _OWN_KEYS}
    return Artifact(path, "litert", (graph.metadata or {})["precision"], shape, metadata)


def open_session(path: Path, *, threads: int = 0) -> Session:
    """Load a TensorFlow Lite file into LiteRT.

    The file is for one window: a batch runs window by window, which was measured to be as fast as a resized input. A
    clip runs part by part where the file is for some of its frames.

    Parameters
    ----------
    path : Path
        The file.
    threads : int, default 0
        Threads inside an operator; 0 leaves the choice to the runtime, which takes one.

    Returns
    -------
    callable
        Maps float32 (n, leads, time) to float32 logits (n, classes), or clips (n, frames, channels, height, width) to
        waves (n, frames): quantizes what goes in, dequantizes what comes out.

    Raises
    ------
    ArtifactError
        If the file cannot be loaded.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: no such model file; export it first")
    interpreter = open_interpreter(path.read_bytes(), path.name, threads=threads)
    try:
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path.name}: LiteRT cannot prepare it ({error}); export it again") from error
    (source,), (goal,) = interpreter.get_input_details(), interpreter.get_output_details()
    start, end = source["index"], goal["index"]
    width, shape = goal["shape"][-1], tuple(int(size) for size in source["shape"])
    integer_in, integer_out = source["dtype"] == np.int8, goal["dtype"] == np.int8
    out_scale, out_zero = goal["quantization"]

    def run(signal: np.ndarray) -> np.ndarray:
        values = _quantize(signal, *source["quantization"]) if integer_in else signal
        calls = arrange(values, shape)
        answers = np.empty((len(calls), width), goal["dtype"])
        for index, call in enumerate(calls):
            interpreter.set_tensor(start, np.ascontiguousarray(call))
            interpreter.invoke()
            answers[index] = interpreter.get_tensor(end)[0]
        answers = answers.reshape(len(signal), -1)
        return (answers.astype(np.float32) - out_zero) * np.float32(out_scale) if integer_out else answers

    return run


def count_macs(path: Path) -> OperatorCount:
    """Count operators and multiply-accumulates of the file, see `deploy.tflite_macs.count_macs`."""
    from deploy.tflite_macs import count_macs as count

    return count(path)


def check_operators(graph: Graph, name: str) -> None:
    """Refuse operators that are none of the runtime's own.

    Raises
    ------
    ValueError
        If there are any; the message names them with their layers.
    """
    lacking = [
        f"{operator.kind} (layer {operator.layer!r})"
        for operator in graph.operators
        if operator.custom or operator.kind.startswith("STABLEHLO")
    ]
    if lacking:
        raise ValueError(
            f"{name}: TensorFlow Lite lacks {', '.join(lacking)}; write the layer with other operators, or export to"
            " another target"
        )


def check_static(graph: Graph, name: str) -> None:
    """Refuse free dimensions.

    Raises
    ------
    ArtifactError
        If a tensor has one; the message names it.
    """
    free = [tensor.name for tensor in graph.tensors if tensor.dynamic]
    if free:
        raise ArtifactError(
            f"{name}: the shapes of {free[:3]!r} are dynamic, expected fixed ones; convert it for one window"
        )


def _quantize(signal: np.ndarray, scale: float, zero: int) -> np.ndarray:
    scaled = signal * np.float32(1 / scale)
    np.rint(scaled, out=scaled)
    scaled += zero
    return np.clip(scaled, -128, 127, out=scaled).astype(np.int8)


def _write(content: bytes, path: Path) -> None:
    """Write beside the goal, then rename: a full disk or a crash leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tflite_") as folder:
        part = Path(folder, path.name)
        part.write_bytes(content)
        os.replace(part, path)  # noqa: PTH105 - same folder, atomic
