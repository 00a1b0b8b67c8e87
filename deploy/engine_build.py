"""The parts of the TensorRT target that need TensorRT, or stand in for it: checks, builder, runner."""

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.artifact import Artifact, ArtifactError, Session
from deploy.engine import find_asymmetric

WORKSPACE_BYTES = 1 << 30
POLYGRAPHY_S = 300


def check_onnx(path: Path) -> list[str]:
    """Check an ONNX file as far as that goes without TensorRT; what passed and what could not be done.

    Raises
    ------
    ArtifactError
        If the file is damaged, has asymmetric quantizers, or polygraphy finds a fault.
    """
    # Reading it includes onnx.checker.
    if nodes := find_asymmetric(path):
        raise ArtifactError(f"{path.name}: {nodes[0]!r} has a zero point, and TensorRT takes symmetric int8 only")
    done = ["onnx.checker", "symmetric Q/DQ"]
    if importlib.util.find_spec("polygraphy") is None:
        return [*done, "polygraphy is not installed"]
    _run_polygraphy(path, "inspect", "model")
    done.append("polygraphy inspect")
    if importlib.util.find_spec("onnx_graphsurgeon") is None:
        return [*done, "no polygraphy lint, which needs onnx-graphsurgeon"]
    _run_polygraphy(path, "check", "lint")
    return [*done, "polygraphy lint"]


def _run_polygraphy(path: Path, *command: str) -> None:
    code = "import sys; from polygraphy.tools import main; sys.exit(main())"
    # Nothing is installed on the way.
    environment = {**os.environ, "POLYGRAPHY_AUTOINSTALL_DEPS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, *command, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=POLYGRAPHY_S,
    )
    if done.returncode != 0:
        raise ArtifactError(
            f"{path.name}: polygraphy {' '.join(command)}: {(done.stdout + done.stderr)[-1500:].strip()}"
        )


def describe_trtexec(
    source: Artifact, batch_sizes: Sequence[int], *, float16: bool, timing_cache: str | Path | None
) -> str:
    """Write the command that builds the same engine with NVIDIA's own tool."""
    shape = "x".join(str(size) for size in source.input_shape)
    least, usual, most = (f"signal:{size}x{shape}" for size in batch_sizes)
    flags = [
        f"--onnx={source.path.name}",
        f"--minShapes={least}",
        f"--optShapes={usual}",
        f"--maxShapes={most}",
        *(["--int8"] if source.precision.startswith("int8") else []),
        *(["--fp16"] if float16 else []),
        *([f"--timingCacheFile={timing_cache}"] if timing_cache else []),
        f"--saveEngine={source.path.stem}.plan",
    ]
    return " ".join(["trtexec", *flags])


def build_engine(
    source: Artifact, batch_sizes: Sequence[int], *, float16: bool, timing_cache: str | Path | None
) -> tuple[bytes, dict[str, str]]:
    """Build an engine from a checked ONNX file: its bytes, and with what it was built.

    Raises
    ------
    ArtifactError
        If TensorRT cannot parse the file or build from it.
    """
    trt = importlib.import_module("tensorrt")
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(source.path.read_bytes()):
        reasons = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise ArtifactError(f"{source.path.name}: TensorRT cannot take it: {reasons}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    _set_precisions(trt, config, source, float16)
    signal = network.get_input(0).name
    profile = builder.create_optimization_profile()
    profile.set_shape(signal, *((size, *source.input_shape) for size in batch_sizes))
    config.add_optimization_profile(profile)
    cache_path = None if timing_cache is None else Path(timing_cache)
    known = cache_path.read_bytes() if cache_path is not None and cache_path.is_file() else b""
    cache = config.create_timing_cache(known)
    config.set_timing_cache(cache, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ArtifactError(f"{source.path.name}: TensorRT built no engine; its log on standard error says why")
    if cache_path is not None:
        cache_path.parent.mkdir(parents=True, exist_ok=True)
        cache_path.write_bytes(bytes(config.get_timing_cache().serialize()))
    return bytes(plan), {"version": str(trt.__version__), **_describe_gpu()}


def _set_precisions(trt: Any, config: Any, source: Artifact, float16: bool) -> None:
    """Ask for the numbers that the engine may use, and for no others."""
    if not float16 and hasattr(trt.BuilderFlag, "TF32"):
        # On by default, with the 10 bits of float16.
        config.clear_flag(trt.BuilderFlag.TF32)
    wanted = [*(["INT8"] if source.precision.startswith("int8") else []), *(["FP16"] if float16 else [])]
    for name in wanted:
        if hasattr(trt.BuilderFlag, name):
            config.set_flag(getattr(trt.BuilderFlag, name))
        elif name == "FP16":
            raise ArtifactError(
                f"{source.path.name}: TensorRT {trt.__version__} takes the types of the file as they are, and it has no"
                " float16: set float16=false, or use TensorRT 10"
            )


def _describe_gpu() -> dict[str, str]:
    import torch

    major, minor = torch.cuda.get_device_capability()
    return {"gpu": torch.cuda.get_device_name(), "compute_capability": f"{major}.{minor}"}


def run_engine(name: str, engine: bytes, batch_sizes: Sequence[int]) -> Session:
    """Load an engine onto the GPU, with torch's memory as its buffers; errors as in `deploy.engine.open_session`."""
    import torch

    trt = importlib.import_module("tensorrt")
    logger = trt.Logger(trt.Logger.WARNING)
    runtime = trt.Runtime(logger)
    loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        raise ArtifactError(
            f"{name}: TensorRT {trt.__version__} on {torch.cuda.get_device_name()} cannot load it; an engine runs only"
            " where it was built: export it again here"
        )
    context = loaded.create_execution_context()
    names = [loaded.get_tensor_name(index) for index in range(loaded.num_io_tensors)]
    entry, leave = (
        next(item for item in names if loaded.get_tensor_mode(item) == mode)
        for mode in (trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT)
    )
    stream = torch.cuda.Stream()
    least, most = batch_sizes[0], batch_sizes[-1]

    def run(signal: np.ndarray) -> np.ndarray:
        parts = [signal[start : start + most] for start in range(0, len(signal), most)]
        return np.concatenate([run_part(part) for part in parts])

    def run_part(part: np.ndarray) -> np.ndarray:
        n = len(part)
        # The profile has a smallest batch: what is missing is filled up and thrown away.
        filled = part if n >= least else np.concatenate([part, np.zeros((least - n, *part.shape[1:]), part.dtype)])
        with torch.cuda.stream(stream):
            source = torch.from_numpy(np.ascontiguousarray(filled, dtype=np.float32)).cuda()
            context.set_input_shape(entry, tuple(source.shape))
            answer = torch.empty(tuple(context.get_tensor_shape(leave)), dtype=torch.float32, device="cuda")
            context.set_tensor_address(entry, source.data_ptr())
            context.set_tensor_address(leave, answer.data_ptr())
            if not context.execute_async_v3(stream.cuda_stream):
                raise ArtifactError(f"{name}: TensorRT did not run the engine; its log on standard error says why")
        stream.synchronize()
        return answer.cpu().numpy()[:n]

    # The engine must live as long as what was made from it.
    run.keep = (runtime, loaded, context)  # type: ignore[attr-defined]
    return run
