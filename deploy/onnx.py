"""Deploy target ONNX Runtime: net -> model.onnx, float or int8, and its session on the CPU.

Not offered, because ONNX Runtime 1.31 on a CPU would not run what the file stores: bfloat16 (no kernel for a
convolution or a matrix product) and 4-bit weights (a kernel for matrix products with constant weights alone; the nets
here hold nearly all of their weights in convolutions). ``float16`` is: half the bytes, and the speed of float32.
"""

import copy
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from deploy.artifact import Artifact, ArtifactError, OperatorCount, Session
from deploy.run_on_device import load_onnx

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import Tensor, nn

# torch and onnx are imported where they are needed: the process that measures loads this module without them.

PRECISIONS = ("float32", "float16", "int8", "int8_dynamic")
_LOAD_ERRORS = tuple(
    getattr(runtime_errors, name)
    for name in ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
)


def export_onnx(
    net: "nn.Module",
    path: str | Path,
    *,
    example: "Tensor",
    precision: str = "float32",
    calibration: np.ndarray | None = None,
    per_channel: bool = True,
    activations: str = "uint8",
    calibration_method: str = "minmax",
    percentile: float = 99.99,
    bias_correction: bool = False,
    float_nodes: Sequence[str] = (),
    int8_nodes: Sequence[str] = (),
    align_channels: int = 1,
    opset: int = 20,
    metadata: Mapping[str, str] | None = None,
    cache_dir: Path | None = None,
) -> Artifact:
    """Export a net as an ONNX file with a free batch dimension; the net itself is left as it is.

    Batch norms are folded into convolutions. The file appears whole or not at all.

    Parameters
    ----------
    net : nn.Module
        Maps (batch, leads, time) to logits (batch, classes), or clips (batch, frames, channels, height, width) to
        waves (batch, frames); exported in eval mode as float32.
    path : str or Path
        File to write; its folder is made.
    example : Tensor of shape (batch, leads, time) or (batch, frames, channels, height, width)
        Gives the shape of a window; values do not matter.
    precision : {"float32", "float16", "int8", "int8_dynamic"}
        "int8" is static quantize-dequantize of weights and activations; "int8_dynamic" quantizes linear
        layers only, so it does little for a convolutional net. "float16" stores half the bytes; input and logits
        stay float32, and a CPU without half-precision kernels multiplies in float32.
    calibration : ndarray of shape (n, leads, time), optional
        Normalised windows of the training split; needed for "int8", not used by the others.
    per_channel : bool, default True
        One weight scale for each output channel.
    activations : {"uint8", "int8"}
        uint8 for CPUs; symmetric int8 for TensorRT. For "int8" only.
    calibration_method : {"minmax", "entropy", "percentile", "none"}
        For "int8" only; "none" is int8 as it comes out without calibration, see `deploy.onnx_int8`.
    percentile : float, default 99.99
        Percent of the values that the method "percentile" keeps.
    bias_correction : bool, default False
        Take the mean error of every channel back in its bias. For "int8" only.
    float_nodes : sequence of str
        Nodes or modules (such as "features.0") that stay in float. For "int8" only.
    int8_nodes : sequence of str
        Where given, all other nodes stay in float. For "int8" only.
    align_channels : int, default 1
        Pad the channels between convolutions with zeros to a multiple of this. ONNX Runtime has faster
        integer kernels for multiples of 4 on CPUs with AVX512-VNNI. For "int8" only.
    opset : int, default 20
        ONNX operator set.
    metadata : mapping of str to str, optional
        Written into the file, such as fs, lead names, class names.
    cache_dir : Path, optional
        Folder of one net, one calibration (windows, method, percentile) and one target: the float graph and the ranges
        are kept there, so that further exports with other nodes in float skip the conversion and the calibration.

    Returns
    -------
    Artifact

    Raises
    ------
    ValueError
        If an option is unknown, int8 is asked for without calibration windows, metadata is not text, or the
        net still holds pruning masks.
    """
    from deploy.onnx_half import convert_to_float16
    from deploy.onnx_int8 import quantize_dynamic_int8, quantize_static_int8

    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}, expected one of {PRECISIONS!r}")
    if precision == "int8" and calibration is None and calibration_method != "none":
        raise ValueError("precision='int8' needs calibration windows of the training split, got calibration=None")
    for key, value in (metadata or {}).items():
        if key == "precision" or not isinstance(value, str):
            raise ValueError(f"metadata {key!r}: {value!r}, expected text under a key other than 'precision'")
    model = _find_float(net, example, opset, cache_dir)
    if precision == "int8":
        model = quantize_static_int8(
            model,
            calibration,
            activations=activations,
            per_channel=per_channel,
            calibration_method=calibration_method,
            percentile=percentile,
            bias_correction=bias_correction,
            float_nodes=float_nodes,
            int8_nodes=int8_nodes,
            align=align_channels,
            ranges=cache_dir / "ranges.json" if cache_dir else None,
        )
    elif precision == "float16":
        model = convert_to_float16(model)
    elif precision == "int8_dynamic":
        model = quantize_dynamic_int8(model, per_channel=per_channel)
    _write(model, Path(path), {**(metadata or {}), "precision": precision})
    return load_artifact(Path(path))


def load_artifact(path: Path) -> Artifact:
    """Read precision, input shape and metadata out of an ONNX file.

    Raises
    ------
    ArtifactError
        If ONNX Runtime cannot load the file, or it was not written by `export_onnx`.
    """
    session = _load(path, threads=1)
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = tuple(inputs[0].shape[1:])
    if (
        "precision" not in metadata
        or len(inputs) != 1
        or len(outputs) != 1
        or not all(isinstance(n, int) for n in shape)
    ):
        raise ArtifactError(
            f"{path.name}: metadata {sorted(metadata)!r}, {len(inputs)} inputs, {len(outputs)} outputs, "
            f"windows of {shape!r}: expected a file of export_onnx (one input, fixed shape, 'precision' set)"
        )
    precision = metadata.pop("precision")
    return Artifact(path, "onnxruntime", precision, shape, metadata)


def open_session(path: Path, *, threads: int = 0, provider: str = "CPUExecutionProvider") -> Session:
    """Load an ONNX file into ONNX Runtime.

    Parameters
    ----------
    path : Path
        The file.
    threads : int, default 0
        Threads inside an operator; 0 takes all cores. Idle threads sleep instead of spinning, so that several
        sessions in a process do not disturb each other.
    provider : str, default "CPUExecutionProvider"
        Execution provider that has to run the model. ONNX Runtime itself would fall back silently.

    Returns
    -------
    callable
        Maps float32 (n, leads, time) to float32 logits (n, classes).

    Raises
    ------
    ArtifactError
        If the file cannot be loaded or the provider is not there.
    """
    session = _load(path, threads=threads, provider=provider, to_run=True)
    name = session.get_inputs()[0].name
    return lambda signal: session.run(None, {name: signal})[0]


def count_macs(path: Path) -> OperatorCount:
    """Count the operators and multiply-accumulates of an ONNX file, see `deploy.onnx_macs.count_macs`."""
    from deploy.onnx_macs import count_macs as count

    return count(path)


def _load(
    path: Path, *, threads: int, provider: str = "CPUExecutionProvider", to_run: bool = False
) -> onnxruntime.InferenceSession:
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise ArtifactError(f"{path.name}: provider {provider!r} is not available, expected one of {available!r}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        if to_run:
            session = load_onnx(onnxruntime, str(path), options, provider)
        else:
            session = onnxruntime.InferenceSession(path, options, providers=[provider])
    except _LOAD_ERRORS as error:
        raise ArtifactError(f"{path}: ONNX Runtime cannot load it ({error}); export it again") from error
    if session.get_providers()[0] != provider:
        raise ArtifactError(f"{path.name}: runs on {session.get_providers()!r}, expected {provider!r}")
    return session


def _find_float(net: "nn.Module", example: "Tensor", opset: int, cache_dir: Path | None) -> "ModelProto":
    """Convert the net, or read the graph that an earlier export with this folder kept."""
    import onnx

    if cache_dir is None:
        return _export_float(net, example, opset)
    kept = cache_dir / "float.onnx"
    if not kept.is_file():
        _write(_export_float(net, example, opset), kept, {})
    return onnx.load(kept)


def _export_float(net: "nn.Module", example: "Tensor", opset: int) -> "ModelProto":
    import torch

    from deploy.onnx_graph import prepare_graph

    if example.ndim < 3:
        raise ValueError(
            f"example of shape {tuple(example.shape)!r}, expected (batch, leads, time) or (batch, frames, ...)"
        )
    try:
        twin = copy.deepcopy(net).to("cpu", torch.float32).eval()
    except RuntimeError as error:
        # torch refuses to copy weights that are computed from others.
        raise ValueError("net holds masked or normed weights; make them permanent before export") from error
    twin = twin.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    # torch.export takes a dimension of size 1 for a constant.
    signal = torch.zeros(2, *example.shape[1:])
    with _quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            twin,
            (signal,),
            dynamo=True,
            opset_version=opset,
            input_names=["signal"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model: ModelProto = program.model_proto
    prepare_graph(model)
    return model


def _write(model: "ModelProto", path: Path, metadata: Mapping[str, str]) -> None:
    """Write beside the goal, then rename: a full disk or a crash leaves no half file."""
    import onnx

    onnx.helper.set_model_props(model, dict(metadata))
    model.producer_name = "lightheart"
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".onnx_") as folder:
        part = Path(folder, path.name)
        onnx.save(model, part)
        os.replace(part, path)  # noqa: PTH105 - same folder, atomic


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the two remarks of the exporter that concern neither the net nor the file."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)  # "torchvision is not installed"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        log.setLevel(level)
