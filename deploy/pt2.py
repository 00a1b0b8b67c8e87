"""Deploy target torchao: net -> PT2E int8 program (``model.pt2``), compiled by inductor where it is loaded.

A server path for x86 processors: the file holds an exported program with quantizers, and inductor turns it into
oneDNN's int8 kernels at load, which takes a C++ compiler and 10 s or more. Nets must hold their convolutions as Conv2d.
"""

import copy
import json
import logging
import math
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deploy.artifact import Artifact, ArtifactError, OperatorCount, Session, WeightCount

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

CONTRACT = "lightheart.json"
MAX_BATCH = 1 << 20
# Calls of the graph that multiply, each with its data and its weights first.
MULTIPLIERS = ("conv1d", "conv2d", "linear", "matmul", "bmm", "mm", "addmm")
UNCOUNTED = ("matmul", "bmm", "mm", "addmm", "conv3d", "lstm", "gru", "scaled_dot_product_attention", "einsum")


def export_torchao(
    net: "nn.Module",
    path: str | Path,
    *,
    example: "Tensor",
    precision: str = "float32",
    calibration: np.ndarray | None = None,
    per_channel: bool = True,
    float_nodes: Sequence[str] = (),
    compiled: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> Artifact:
    """Export a net as a PyTorch program with a free batch dimension.

    Parameters
    ----------
    net : nn.Module
        Maps (batch, leads, time) to logits (batch, classes); exported in eval mode as float32.
    path : str or Path
        File to write.
    example : Tensor of shape (batch, leads, time)
        Gives the shape of a window.
    precision : {"float32", "int8"}
        "int8" is PT2E with torchao's quantizer for x86 and inductor: activations uint8, weights int8 per channel.
    calibration : ndarray of shape (n, leads, time), optional
        Normalised windows of the training split; needed for "int8".
    per_channel, float_nodes
        This quantizer knows neither one scale per tensor nor nodes in float: True and nothing.
    compiled : bool, default True
        Compile with inductor where the file is loaded; False interprets it, slowly, with the same answers.
    metadata : mapping of str to str, optional
        Written into the file.

    Returns
    -------
    Artifact

    Raises
    ------
    ValueError
        If an option is not one of those listed, or int8 is asked for without calibration windows.
    """
    import torch

    if precision not in ("float32", "int8"):
        raise ValueError(f"precision={precision!r}, expected 'float32' or 'int8'")
    if precision == "int8" and (calibration is None or len(calibration) == 0):
        raise ValueError("precision='int8' needs calibration windows of the training split")
    if precision == "int8" and (not per_channel or float_nodes):
        raise ValueError(f"per_channel={per_channel!r}, float_nodes={list(float_nodes)!r}: expected True and none")
    twin = copy.deepcopy(net).to("cpu", torch.float32).eval()
    twin = twin.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with _quiet(), torch.no_grad():
        program = _export(twin, example)
        if precision == "int8" and calibration is not None:
            program = _export(_quantize(program, calibration), example)
        contract = {
            "precision": precision,
            "input_shape": list(example.shape[1:]),
            "compiled": compiled,
            "metadata": dict(metadata or {}),
        }
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".pt2_") as folder:
            part = Path(folder, path.name)
            torch.export.save(program, part, extra_files={CONTRACT: json.dumps(contract)})
            part.replace(path)
    return load_artifact(path)


def load_artifact(path: Path) -> Artifact:
    """Read the contract of a file; errors as in `open_session`."""
    contract = _read_contract(path)
    metadata = {**contract["metadata"], "compiled": str(contract["compiled"]).lower()}
    return Artifact(path, "torch-inductor", contract["precision"], tuple(contract["input_shape"]), metadata)


def open_session(path: Path, *, threads: int = 0) -> Session:
    """Load a program and compile it.

    Parameters
    ----------
    path : Path
    threads : int, default 0
        Threads of torch in this process; 0 leaves them as they are.

    Returns
    -------
    callable
        Maps float32 (n, leads, time) to float32 logits (n, classes). The first call compiles, and so does the first
        one with a single window.

    Raises
    ------
    ArtifactError
        If the file is damaged or was not written by `export_torchao`.
    """
    import torch
    import torch._inductor.config

    compiled = _read_contract(path)["compiled"]
    if threads:
        torch.set_num_threads(threads)
    with _quiet():
        module = _load(path).module(check_guards=False)
    run = torch.compile(module, dynamic=True) if compiled else module

    def answer(signal: np.ndarray) -> np.ndarray:
        # As an option of torch.compile it comes too late: by then the weights are inputs, which cannot be packed.
        with _quiet(), torch.no_grad(), torch._inductor.config.patch(freezing=True):
            logits: np.ndarray = run(torch.from_numpy(np.ascontiguousarray(signal, dtype=np.float32))).numpy()
        return logits

    return answer


def count_macs(path: Path) -> OperatorCount:
    """Count operators and multiply-accumulates of a program for one window.

    Raises
    ------
    ArtifactError
        If the file is damaged, or it multiplies in a way that is not counted here.
    """
    program = _load(path)
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    operators = dict(Counter(_operator(node) for node in calls))
    if uncounted := sorted(set(operators) & set(UNCOUNTED)):
        raise ArtifactError(f"{path.name}: MACs of {uncounted!r} are not counted; add them to deploy.pt2")
    values = {**program.state_dict, **program.constants}
    stored = {**program.graph_signature.inputs_to_parameters, **program.graph_signature.inputs_to_buffers}
    node_macs: dict[str, int] = {}
    int8_nodes: set[str] = set()
    weights: list[np.ndarray] = []
    for node in calls:
        if _operator(node) not in MULTIPLIERS:
            continue
        data, weight = node.args[:2]
        # Weights are (out, in / group, kernel...): every output value takes one product of all but the first.
        node_macs[node.name] = math.prod(node.meta["val"].shape[1:]) * math.prod(weight.meta["val"].shape[1:])
        if all(_operator(item).startswith("dequantize") for item in (data, weight)):
            int8_nodes.add(node.name)
            weight = weight.args[0]
        name = stored.get(weight.name, weight.name)
        if name in values:
            weights.append(values[name].detach().numpy())
    nonzero = [int(np.count_nonzero(item)) for item in weights]
    count = WeightCount(
        values=sum(item.size for item in weights),
        nonzero=sum(nonzero),
        size_bytes=sum(item.nbytes for item in weights),
        nonzero_bytes=sum(number * item.itemsize for number, item in zip(nonzero, weights, strict=True)),
    )
    return OperatorCount({name: int(macs) for name, macs in node_macs.items()}, frozenset(int8_nodes), operators, count)


def _operator(node: Any) -> str:
    """Name of a call without its namespace and overload; empty for what is no call."""
    return str(node.target).split(".")[1] if node.op == "call_function" and "." in str(node.target) else ""


def _export(module: "nn.Module", example: "Tensor") -> "ExportedProgram":
    import torch

    # torch.export takes a dimension of size 1 for a constant.
    signal = torch.zeros(2, *example.shape[1:])
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    return torch.export.export(module, (signal,), dynamic_shapes=({0: batch},))


def _quantize(program: "ExportedProgram", calibration: np.ndarray) -> "nn.Module":
    """Put quantizers into a program, with ranges from calibration windows."""
    import torch

    _require_torchao()
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(program.module(check_guards=False), quantizer)
    for part in torch.from_numpy(np.ascontiguousarray(calibration, dtype=np.float32)).split(32):
        prepared(part)
    converted: nn.Module = convert_pt2e(prepared)
    return converted


def _require_torchao() -> None:
    """Import torchao, which registers the operators of the quantizers."""
    try:
        with _quiet():
            import_module("torchao.quantization.pt2e.quantize_pt2e")
    except ImportError as error:
        raise ArtifactError(f"deploy=torchao needs torchao ({error}): pip install -e '.[server]'") from error


def _read_contract(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(f"extra/{CONTRACT}")]
            if len(names) != 1:
                raise ArtifactError(f"{path.name}: no program of this project; export it again with deploy=torchao")
            contract: dict[str, Any] = json.loads(archive.read(names[0]))
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{path}: not a whole program ({error}); export it again") from error
    return contract


def _load(path: Path) -> "ExportedProgram":
    import torch

    _require_torchao()
    try:
        return torch.export.load(path)
    except Exception as error:
        # torch raises what its readers raise.
        raise ArtifactError(f"{path}: torch cannot load it ({error}); export it again") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence remarks of torch and torchao about themselves."""
    logs = [logging.getLogger(name) for name in ("torch.utils._pytree", "torchao", "torch.export")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
