"""Worker process that times model files: numpy and the runtime are all that it loads.

Run as ``python -m deploy.measure``: a request as JSON on standard input, the answer as JSON on standard
output. ``deploy.profile`` writes the request; no training framework shares the process with the model.
"""

import contextlib
import json
import math
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.artifact import Session, find_target
from deploy.run_on_device import Rapl

# A block is long enough for a stable median and short enough that neighbours see the same machine.
_BLOCK_S = 0.1
_MIN_ROUNDS = 5
_WARMUP_S = 1.0


def _time_calls(session: Session, signal: np.ndarray, at_least: int, at_most: int, limit_s: float) -> np.ndarray:
    """Call until the limit has passed; give milliseconds as (wall or CPU, calls)."""
    calls: list[tuple[float, float]] = []
    begin = time.perf_counter()
    now = begin
    while len(calls) < at_least or (len(calls) < at_most and now - begin < limit_s):
        cpu, start = time.process_time(), time.perf_counter()
        session(signal)
        now = time.perf_counter()
        calls.append((now - start, time.process_time() - cpu))
    return np.asarray(calls).T * 1e3


def time_interleaved(
    sessions: Sequence[Session], signals: Sequence[np.ndarray], *, window_s: float, warmup: int
) -> list[dict[str, Any]]:
    """Time sessions in turns of short blocks, so that a drift of the machine meets all of them alike.

    Parameters
    ----------
    sessions : sequence of callables
        Loaded models.
    signals : sequence of ndarray
        Input of each session.
    window_s : float
        Seconds that each session is measured for, at least.
    warmup : int
        Calls before the measurement (fewer, but at least 2, where they take more than a second).

    Returns
    -------
    list of dict
        For each session: p50_ms, p90_ms, p99_ms over all calls, n calls, the medians of wall and CPU time of every
        block, and energy_mj: what the processor's packages used during its blocks, other work of the machine
        included, over its calls; None where the machine does not show it.
    """
    pairs = list(zip(sessions, signals, strict=True))
    warm = [_time_calls(run, signal, 2, max(warmup, 2), _WARMUP_S) for run, signal in pairs]
    slowest_s = max(float(wall[-1]) for wall, _ in warm) / 1e3
    block_s = min(max(_BLOCK_S, slowest_s), window_s / _MIN_ROUNDS)
    blocks: list[list[np.ndarray]] = [[] for _ in pairs]
    rapl = Rapl()
    joules = [0.0 for _ in pairs]
    for turn in range(math.ceil(window_s / block_s)):
        for step in range(len(pairs)):
            # Who goes first changes every round: the first call after a change of model runs on cold caches.
            position = (turn + step) % len(pairs)
            before = _read_joules(rapl)
            blocks[position].append(_time_calls(*pairs[position], 1, sys.maxsize, block_s))
            joules[position] += _read_joules(rapl) - before
    return [
        {
            **(row := _summarise(own)),
            "energy_mj": used / row["n"] * 1e3 if rapl.readable and np.isfinite(used) else None,
        }
        for own, used in zip(blocks, joules, strict=True)
    ]


def _read_joules(rapl: Rapl) -> float:
    """Joules since the counters were opened; constant where there are none."""
    if rapl.readable:
        rapl.update()
    return rapl.joules


def _summarise(blocks: Sequence[np.ndarray]) -> dict[str, Any]:
    wall_ms = np.concatenate([wall for wall, _ in blocks])
    p50, p90, p99 = np.percentile(wall_ms, (50, 90, 99))
    medians = np.asarray([np.median(block, axis=1) for block in blocks])
    return {
        "p50_ms": float(p50),
        "p90_ms": float(p90),
        "p99_ms": float(p99),
        "n": len(wall_ms),
        "block_p50_ms": medians[:, 0].tolist(),
        "block_cpu_p50_ms": medians[:, 1].tolist(),
    }


def _memory_bytes(field: str) -> int | None:
    """Read a field of /proc/self/status; None where the system has no such file."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    line = next((row for row in status.read_text().splitlines() if row.startswith(f"{field}:")), None)
    return None if line is None else int(line.split()[1]) * 1024


def read_peak_bytes() -> int:
    """Peak memory of this process."""
    # On Linux ru_maxrss survives exec: a child of a large parent starts with its peak. VmHWM does not.
    peak = _memory_bytes("VmHWM")
    if peak is not None:
        return peak
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_peak_memory(path: Path, input_shape: Sequence[int], *, threads: int) -> int:
    """Give the growth of this process's peak memory by loading a model and running batch 1, in bytes.

    Loading includes what the runtime sets up for its first model; the import of the runtime is left out.
    """
    target = find_target(path)
    signal = np.zeros((1, *input_shape), dtype=np.float32)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    before = _memory_bytes("VmRSS") or read_peak_bytes()
    session = target.open_session(path, threads=threads)
    session(signal)
    return max(read_peak_bytes() - before, 0)


def answer(request: Mapping[str, Any]) -> Any:
    """Do what a request of `deploy.profile` asks: its key "measure" is "latency" or "peak_memory"."""
    paths = [Path(path) for path in request["paths"]]
    shapes = request["input_shapes"]
    threads = int(request["threads"])
    if request["measure"] == "peak_memory":
        return measure_peak_memory(paths[0], shapes[0], threads=threads)
    sessions = [find_target(path).open_session(path, threads=threads) for path in paths]
    random = np.random.default_rng(0)
    latency: dict[str, list[dict[str, Any]]] = {}
    for size in request["batch_sizes"]:
        signals = [random.standard_normal((size, *shape), dtype=np.float32) for shape in shapes]
        latency[str(size)] = time_interleaved(
            sessions, signals, window_s=float(request["window_s"]), warmup=int(request["warmup"])
        )
    return latency


if __name__ == "__main__":
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
