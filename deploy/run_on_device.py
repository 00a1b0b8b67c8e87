"""Check, evaluate and time the model of this folder on the device that it lies on; write ``device.json``.

Run as ``python3 run_on_device.py``. Needs Python 3.9, numpy and one runtime (see requirements.txt), nothing else of the
project. Exit codes: 0 done; 1 options; 2 a file of the bundle is missing or altered; 3 the model answers differently
than on the workstation; 4 the runtime is missing or too old; 5 the runtime cannot load or run the model.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import importlib
import json
import math
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence  # noqa: UP035 - one import for every Python since 3.9

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]
BAD_OPTIONS, DAMAGED, DIFFERENT, NO_RUNTIME, NOT_LOADED = 1, 2, 3, 4, 5
MODULES = {
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
    "onnxruntime": "onnxruntime",
    "tensorrt": "tensorrt",
}
# Rails of a Jetson that carry the whole board.
RAILS = ("VDD_IN", "VIN_SYS_5V0", "POM_5V_IN", "VIN")
SENSORS_EVERY_S = 0.5


class Stop(Exception):  # noqa: N818 - ends the program with a code
    """End the program with an exit code and one line for the reader."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def digest(path: Path) -> str:
    """SHA-256 of a file as hexadecimal text."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_bundle(folder: Path) -> dict[str, Any]:
    """Read bundle.json and hold every file that it lists against its digest."""
    manifest = folder / "bundle.json"
    try:
        bundle: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
        files = dict(bundle["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Stop(DAMAGED, f"bundle.json cannot be read ({error}): copy the whole folder again") from error
    root = folder.resolve()
    for name, expected in sorted(files.items()):
        path = (root / name).resolve()
        if path.parent != root:
            raise Stop(DAMAGED, f"bundle.json lists {name!r}, which leaves the folder: do not trust this bundle")
        if not path.is_file():
            raise Stop(DAMAGED, f"{name} is missing: copy the whole folder again")
        found = digest(path)
        if found != expected:
            raise Stop(DAMAGED, f"{name} was altered: SHA-256 {found}, expected {expected}: copy it again")
    bundle["digest"] = digest(manifest)
    return bundle


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read an .npz of the bundle; no pickled objects."""
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def version_numbers(text: str) -> tuple[int, ...]:
    """Numbers at the front of a version: "2.14.0.post1" gives (2, 14, 0)."""
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def find_version(name: str, module: Any) -> str:
    """Version of an installed runtime, as its package says, or else its module."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        # A system's own packages may have another name.
        package = sys.modules[module.__name__.partition(".")[0]]
        return str(getattr(package, "__version__", "0"))


def find_runtime(accepted: Mapping[str, str], wanted: str | None = None) -> tuple[str, str, Any]:
    """Import the first accepted runtime that is installed and new enough: its name, version and module."""
    if wanted is not None and wanted not in accepted:
        raise Stop(BAD_OPTIONS, f"--runtime {wanted}: this model runs on {' or '.join(accepted)}")
    problems = []
    for name in [wanted] if wanted else accepted:
        try:
            module = importlib.import_module(MODULES[name])
        except ImportError as error:
            problems.append(f"{name} is not there ({error})")
            continue
        version = find_version(name, module)
        if version_numbers(version) >= version_numbers(accepted[name]):
            return name, version, module
        problems.append(f"{name} {version} is too old, this model needs {accepted[name]} or newer")
    raise Stop(NO_RUNTIME, f"{'; '.join(problems)}: python3 -m pip install -r requirements.txt")


def open_model(path: Path, name: str, module: Any, options: argparse.Namespace) -> tuple[Run, dict[str, Any]]:
    """Load the model: a function from one window (leads, time) to its logits, and facts about how it runs."""
    if name == "onnxruntime":
        return open_onnx(path, module, options.threads)
    if name == "tensorrt":
        return open_tensorrt(path, module)
    return open_tflite(path, module, options.threads, options.delegate)


def open_tflite(path: Path, module: Any, threads: int, delegate: str | None) -> tuple[Run, dict[str, Any]]:
    """Load a .tflite file, with the delegate of an accelerator where one is named."""
    delegates = [module.load_delegate(delegate)] if delegate else []
    interpreter = module.Interpreter(model_path=str(path), num_threads=threads, experimental_delegates=delegates)
    interpreter.allocate_tensors()
    entry, leave = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    shape = tuple(int(size) for size in entry["shape"])

    def run(window: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(entry["index"], quantize(lay_out(window, shape), entry))
        interpreter.invoke()
        return dequantize(interpreter.get_tensor(leave["index"]), leave).reshape(-1)

    return run, {"delegate": delegate, "compiled_for_edge_tpu": b"edgetpu-custom-op" in path.read_bytes()}


def lay_out(window: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bring a window (leads, time) into an input's shape: dimensions of 1 added, leads first or last."""
    core = tuple(size for size in shape if size != 1)
    for form in (window, window.T) if window.ndim == 2 else (window,):
        if tuple(size for size in form.shape if size != 1) == core:
            return np.ascontiguousarray(form).reshape(shape)
    raise ValueError(f"the model takes {shape}, a window has {window.shape}")


def quantize(values: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """Values as the input tensor wants them."""
    kind = np.dtype(details["dtype"])
    if kind.kind == "f":
        return values.astype(kind)
    scale, zero = details["quantization"]
    limits = np.iinfo(kind)
    return np.clip(np.rint(values / np.float32(scale)) + zero, limits.min, limits.max).astype(kind)


def dequantize(values: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """Logits of an output tensor."""
    if np.dtype(details["dtype"]).kind == "f":
        return np.array(values, dtype=np.float32)
    scale, zero = details["quantization"]
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)


def load_onnx(module: Any, model: str | bytes, options: Any, provider: str = "CPUExecutionProvider") -> Any:
    """Load an ONNX model so that its int8 kernels do not saturate.

    On x86 without VNNI the fast ones add two products in 16 bits. Elsewhere the option changes nothing. ONNX Runtime
    1.31 refuses, when it runs, some matrix products that it made exact: such a model gets the fast kernels.

    Parameters
    ----------
    module : module
        onnxruntime, of whatever version the device has.
    model : str or bytes
        File or content, with one input.
    options : SessionOptions
    provider : str
    """
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = module.InferenceSession(model, options, providers=[provider])
    signal = session.get_inputs()[0]
    window = np.zeros([size if isinstance(size, int) else 1 for size in signal.shape], np.float32)
    try:
        session.run(None, {signal.name: window})
    except module.capi.onnxruntime_pybind11_state.Fail:
        options.add_session_config_entry("session.x64quantprecision", "0")
        session = module.InferenceSession(model, options, providers=[provider])
    return session


def open_onnx(path: Path, module: Any, threads: int) -> tuple[Run, dict[str, Any]]:
    """Load an .onnx file into ONNX Runtime on the CPU."""
    options = module.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = load_onnx(module, str(path), options)
    name = session.get_inputs()[0].name

    def run(window: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {name: np.ascontiguousarray(window[None], dtype=np.float32)})[0][0])

    return run, {"providers": session.get_providers()}


def open_tensorrt(path: Path, trt: Any) -> tuple[Run, dict[str, Any]]:
    """Build an engine from the .onnx file for this device at batch 1 and load it; memory comes from libcudart."""
    cuda = load_cuda()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes()):
        raise ValueError("; ".join(str(parser.get_error(index)) for index in range(parser.num_errors)))
    config = builder.create_builder_config()
    kinds = {network.get_layer(index).type for index in range(network.num_layers)}
    # From TensorRT 11 on the types of the file hold, and there is no such flag.
    if trt.LayerType.QUANTIZE in kinds and hasattr(trt.BuilderFlag, "INT8"):
        config.set_flag(trt.BuilderFlag.INT8)
    entry, leave = network.get_input(0), network.get_output(0).name
    shape = (1, *tuple(entry.shape)[1:])
    profile = builder.create_optimization_profile()
    profile.set_shape(entry.name, shape, shape, shape)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ValueError("TensorRT built no engine; its log above says why")
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    context.set_input_shape(entry.name, shape)
    answer = np.empty(tuple(context.get_tensor_shape(leave)), np.float32)
    n_bytes = int(np.prod(shape)) * 4
    source, goal = allocate(cuda, n_bytes), allocate(cuda, answer.nbytes)
    context.set_tensor_address(entry.name, source.value)
    context.set_tensor_address(leave, goal.value)
    stream = ctypes.c_void_p()
    check_cuda(cuda.cudaStreamCreate(ctypes.byref(stream)), "cudaStreamCreate")
    alive = (runtime, engine, context)

    def run(window: np.ndarray) -> np.ndarray:
        values = np.ascontiguousarray(window[None], dtype=np.float32)
        check_cuda(cuda.cudaMemcpy(source, values.ctypes.data_as(ctypes.c_void_p), size_of(n_bytes), 1), "cudaMemcpy")
        if not alive[2].execute_async_v3(stream.value):
            raise ValueError("TensorRT did not run the engine; its log above says why")
        check_cuda(cuda.cudaStreamSynchronize(stream), "cudaStreamSynchronize")
        size = size_of(answer.nbytes)
        check_cuda(cuda.cudaMemcpy(answer.ctypes.data_as(ctypes.c_void_p), goal, size, 2), "cudaMemcpy")
        return answer[0].copy()

    return run, {"engine_bytes": int(plan.nbytes)}


def load_cuda() -> ctypes.CDLL:
    """Load CUDA's runtime library."""
    for name in ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise ValueError("there is no libcudart.so, and TensorRT needs CUDA: set LD_LIBRARY_PATH")


def size_of(n_bytes: int) -> ctypes.c_size_t:
    """Size as CUDA takes it."""
    return ctypes.c_size_t(n_bytes)


def check_cuda(status: int, what: str) -> None:
    """Refuse a CUDA call that failed."""
    if status != 0:
        raise ValueError(f"{what} failed with CUDA error {status}")


def allocate(cuda: ctypes.CDLL, n_bytes: int) -> ctypes.c_void_p:
    """Memory on the device."""
    pointer = ctypes.c_void_p()
    check_cuda(cuda.cudaMalloc(ctypes.byref(pointer), size_of(n_bytes)), "cudaMalloc")
    return pointer


def read_number(path: Path) -> float | None:
    """Read a number that the kernel shows in a file; None where it shows none."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def read_temperature(root: Path = Path("/sys")) -> float | None:
    """Read the highest temperature of all thermal zones in degrees Celsius."""
    values = [read_number(path) for path in root.glob("class/thermal/thermal_zone*/temp")]
    # Zones without a sensor show 0 or absurd values.
    known = [value / 1000 for value in values if value is not None and 0 < value < 200e3]
    return max(known) if known else None


def find_rail(root: Path = Path("/sys")) -> tuple[Path, Path] | None:
    """Find a Jetson's INA3221 channel for the whole board: its files of millivolts and milliamperes."""
    for label in sorted(root.glob("bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label")):
        channel = label.name[len("in") : -len("_label")]
        if label.read_text().strip() in RAILS:
            return label.with_name(f"in{channel}_input"), label.with_name(f"curr{channel}_input")
    return None


def read_power_w(rail: tuple[Path, Path]) -> float | None:
    """Read the power of a rail in watts."""
    millivolts, milliamperes = (read_number(path) for path in rail)
    return None if millivolts is None or milliamperes is None else millivolts * milliamperes / 1e6


class Rapl:
    """Energy counters of an x86 machine's packages; they wrap around, so read them often."""

    def __init__(self, root: Path = Path("/sys")) -> None:
        # intel-rapl:0:1 is a part of intel-rapl:0.
        zones = root.glob("class/powercap/intel-rapl:*")
        self.zones = sorted(zone for zone in zones if zone.name.count(":") == 1)
        self.last = [read_number(zone / "energy_uj") for zone in self.zones]
        self.readable = bool(self.zones) and None not in self.last
        self.joules = 0.0

    def update(self) -> None:
        """Add what was used since the last call."""
        for index, zone in enumerate(self.zones):
            now, last = read_number(zone / "energy_uj"), self.last[index]
            if now is None or last is None:
                self.readable = False
                return
            wrapped = (read_number(zone / "max_energy_range_uj") or math.nan) if now < last else 0.0
            self.joules += (now - last + wrapped) / 1e6
            self.last[index] = now


class Sensors:
    """Temperature and power, sampled between calls."""

    def __init__(self, root: Path = Path("/sys")) -> None:
        self.root, self.rail, self.rapl = root, find_rail(root), Rapl(root)
        self.temperatures: list[float | None] = []
        self.powers: list[float | None] = []

    def sample(self) -> None:
        """Read everything once."""
        self.temperatures.append(read_temperature(self.root))
        if self.rail:
            self.powers.append(read_power_w(self.rail))
        elif self.rapl.readable:
            self.rapl.update()

    def report(self, seconds: float, calls: int) -> dict[str, Any]:
        """Give what was found; None is "not measured"."""
        degrees = [value for value in self.temperatures if value is not None]
        watts, source = None, None
        known = [value for value in self.powers if value is not None]
        if known and len(known) == len(self.powers):
            watts, source = float(np.mean(known)), "INA3221, rail of the whole board"
        elif self.rapl.readable and math.isfinite(self.rapl.joules):
            watts, source = self.rapl.joules / seconds, "RAPL, processor packages"
        return {
            "temperature_c": {"first": degrees[0], "last": degrees[-1], "max": max(degrees)} if degrees else None,
            "power_w": watts,
            "power_source": source,
            "energy_mj": None if watts is None else watts * seconds / calls * 1e3,
        }


def memory_bytes(field: str) -> int | None:
    """Read a field of /proc/self/status in bytes; None where the system has no such file."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def forget_peak() -> bool:
    """Let the peak of memory count from now on; whether the system could."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def check_golden(run: Run, golden: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Hold the model's answers against those of the workstation; tell the largest difference."""
    expected, tolerance = golden["logits"], float(golden["tolerance"])
    found = np.stack([run(window) for window in golden["windows"]])
    if found.shape != expected.shape:
        raise Stop(DIFFERENT, f"the model answers in shape {found.shape}, expected {expected.shape}")
    difference = np.abs(found.astype(np.float64) - expected)
    difference[~np.isfinite(difference)] = np.inf
    window, column = np.unravel_index(int(np.argmax(difference)), difference.shape)
    worst = float(difference[window, column])
    if worst > tolerance:
        raise Stop(
            DIFFERENT,
            f"golden window {window}, class {column}: the model answers {found[window, column]:.6g} here and"
            f" {expected[window, column]:.6g} on the workstation, {worst:.3g} apart where {tolerance:.3g} is allowed;"
            f" {int((difference > tolerance).sum())} of {difference.size} values are too far",
        )
    return {"n": len(expected), "max_abs": worst, "tolerance": tolerance}


def decide(logits: np.ndarray, thresholds: np.ndarray, exclusive: bool) -> np.ndarray:
    """Decisions (n, classes) as on the workstation: exactly one a row where classes are exclusive."""
    scores = logits.astype(np.float64)
    if not exclusive:
        # exp of large negative logits would overflow, and tanh says the same.
        return np.asarray(0.5 + 0.5 * np.tanh(scores / 2) >= thresholds)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    if probabilities.shape[1] == 2:
        last = probabilities[:, 1] >= thresholds[1]
        return np.stack([~last, last], axis=1)
    return np.argmax(probabilities - thresholds, axis=1)[:, None] == np.arange(probabilities.shape[1])


def evaluate(run: Run, test: Mapping[str, np.ndarray], bundle: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate the test slice: logits for the way home, and plain figures for the reader."""
    logits = np.stack([run(window) for window in test["windows"]])
    if not np.isfinite(logits).all():
        raise Stop(DIFFERENT, "the model gives values that are not finite on the test slice")
    decisions = decide(logits, np.asarray(bundle["thresholds"]), bundle["exclusive"])
    truth = test["targets"] > 0
    hits, total = (decisions & truth).sum(axis=0), decisions.sum(axis=0) + truth.sum(axis=0)
    f1 = [float(2 * hit / both) if both else None for hit, both in zip(hits, total)]  # noqa: B905 - 3.9 has no strict
    return {
        "n": len(logits),
        "positions": test["positions"].tolist(),
        "logits": logits.astype(float).tolist(),
        "f1": dict(zip(bundle["class_names"], f1)),  # noqa: B905 - as above
        "flipped_decisions": float((decisions != (test["decisions"] > 0)).mean()),
    }


def time_model(run: Run, windows: np.ndarray, seconds: float, warmup_s: float, sensors: Sensors) -> dict[str, Any]:
    """Call for at least `seconds`, one window at a time; milliseconds, and what the sensors saw."""
    begin = time.perf_counter()
    run(windows[0])
    first_ms = (time.perf_counter() - begin) * 1e3
    n_warm = 1
    while time.perf_counter() - begin < warmup_s:
        run(windows[n_warm % len(windows)])
        n_warm += 1
    calls: list[float] = []
    sensors.sample()
    # What was used until here is not part of the measurement.
    sensors.rapl.joules = 0.0
    start = now = sampled = time.perf_counter()
    while now - start < seconds:
        before = time.perf_counter()
        run(windows[len(calls) % len(windows)])
        now = time.perf_counter()
        calls.append((now - before) * 1e3)
        if now - sampled >= SENSORS_EVERY_S:
            sensors.sample()
            sampled = now
    sensors.sample()
    elapsed = time.perf_counter() - start
    p50, p90, p99 = (float(value) for value in np.percentile(calls, (50, 90, 99)))
    latency = {"first": first_ms, "warmup_calls": n_warm, "min": min(calls), "mean": float(np.mean(calls))}
    latency.update(p50=p50, p90=p90, p99=p99, n=len(calls), seconds=elapsed)
    return {
        "latency_ms": latency,
        "throughput_per_s": len(calls) / elapsed,
        **sensors.report(elapsed, len(calls)),
    }


def describe_machine() -> dict[str, Any]:
    """Give what the board says about itself."""
    board = None
    with contextlib.suppress(OSError):
        board = Path("/proc/device-tree/model").read_bytes().rstrip(b"\0").decode("utf-8", "replace")
    return {
        "board": board,
        "machine": platform.machine(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Do everything in order; the content of device.json."""
    bundle = read_bundle(folder)
    name, version, module = find_runtime(bundle["runtimes"], options.runtime)
    model = bundle["delegated"] if options.delegate and bundle["delegated"] else bundle["model"]
    golden, test = read_arrays(folder / "golden.npz"), read_arrays(folder / "slice.npz")
    counted, before = forget_peak(), memory_bytes("VmRSS")
    begin = time.perf_counter()
    try:
        run, facts = open_model(folder / model, name, module, options)
        loading_ms = (time.perf_counter() - begin) * 1e3
        run(golden["windows"][0])
    except Exception as error:
        # Runtimes raise what they like: all of it means that this model does not run here.
        raise Stop(NOT_LOADED, f"{name} {version} cannot run {model}: {error}") from error
    peak = memory_bytes("VmHWM")
    return {
        "format": 1,
        "bundle": {key: bundle[key] for key in ("run_id", "device", "digest")},
        "artifact_digest": bundle["files"][bundle["model"]],
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": describe_machine(),
        "runtime": {"name": name, "version": version, "threads": options.threads, "file": model, **facts},
        "loading_ms": loading_ms,
        "peak_memory_bytes": max(peak - before, 0) if counted and peak and before else None,
        "golden": check_golden(run, golden),
        "slice": evaluate(run, test, bundle),
        **time_model(run, test["windows"], options.seconds, options.warmup_seconds, Sensors()),
    }


def tell(report: Mapping[str, Any]) -> list[str]:
    """Lines for the reader."""
    runtime, golden, test, latency = (report[key] for key in ("runtime", "golden", "slice", "latency_ms"))
    memory, degrees, watts = report["peak_memory_bytes"], report["temperature_c"], report["power_w"]
    f1 = ", ".join(f"{name} {'-' if value is None else format(value, '.3f')}" for name, value in test["f1"].items())
    energy = "" if watts is None else f"{watts:.2f} W, {report['energy_mj']:.3f} mJ a window ({report['power_source']})"
    return [
        f"runtime      {runtime['name']} {runtime['version']}, {runtime['threads']} thread(s)",
        f"golden       {golden['n']} windows agree: {golden['max_abs']:.3g} apart at most,"
        f" {golden['tolerance']:.3g} allowed",
        f"test slice   {test['n']} windows, F1 {f1}; {test['flipped_decisions']:.2%} of decisions differ from the"
        " workstation's",
        f"latency      p50 {latency['p50']:.3f}, p90 {latency['p90']:.3f}, p99 {latency['p99']:.3f} ms"
        f" ({latency['n']} calls in {latency['seconds']:.1f} s)",
        f"throughput   {report['throughput_per_s']:.1f} windows/s",
        f"peak memory  {'not measured' if memory is None else f'{memory / 1e6:.1f} MB'}",
        f"temperature  {'not measured' if degrees is None else '{first:.1f} to {last:.1f} C'.format(**degrees)}",
        f"power        {energy or 'not measured'}",
    ]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Check, evaluate and time the model of this folder on this device.")
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing")
    parser.add_argument("--warmup-seconds", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runtime", choices=sorted(MODULES), help="instead of the first one that is installed")
    parser.add_argument("--delegate", help="library of an accelerator, such as libedgetpu.so.1")
    parser.add_argument("--output", type=Path, default=Path("device.json"))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    options = parse(arguments)
    try:
        if options.seconds <= 0 or options.threads < 1:
            raise Stop(BAD_OPTIONS, "--seconds and --threads must be positive")
        report = measure(Path(__file__).resolve().parent, options)
    except Stop as stop:
        print(f"run_on_device.py: {stop}", file=sys.stderr)
        return stop.code
    options.output.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print("\n".join(tell(report)))
    print(f"wrote {options.output}: take it home and run python bundle.py ingest {options.output.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
