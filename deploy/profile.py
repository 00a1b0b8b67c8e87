"""Weigh and time model files, as shipped: bytes, MACs, operators, latency, memory."""

import json
import os
import subprocess
import sys
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.artifact import Artifact, ArtifactError, OperatorCount, WeightCount, find_target


@dataclass(frozen=True)
class Latency:
    """Time of one call, in milliseconds.

    Attributes
    ----------
    p50_ms, p90_ms, p99_ms : float
        Percentiles of the wall time over all calls.
    n : int
        Number of calls.
    block_p50_ms, block_cpu_p50_ms : tuple of float
        Median wall and CPU time of each block of calls, in the order of measurement.
    energy_mj : float or None
        Energy of one call in millijoules: of the processor's packages (RAPL), other work included; None where the
        machine does not show it.
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    n: int
    block_p50_ms: tuple[float, ...]
    block_cpu_p50_ms: tuple[float, ...]
    energy_mj: float | None = None


@dataclass(frozen=True)
class Profile:
    """Weight and speed of one model file.

    Attributes
    ----------
    size_bytes : int
        Size of the file.
    compressed_bytes : int
        Its size after lossless compression by DEFLATE, as in a zip file.
    weights : WeightCount
        Of the operators with MACs, as stored in the file.
    macs : int
        Multiply-accumulates of one window, counted from the file's graph.
    int8_macs_share : float
        Share of them that run in int8, 0 to 1.
    operators : dict of str to int
        Operator type to number of nodes.
    threads : int
        Threads that the latency was measured with.
    latency : dict of int to Latency
        By batch size.
    peak_memory_bytes : int
        Growth of a fresh process by loading the file and running one window, the runtime's set-up included.
    measurement : str
        Id of the measuring process; only profiles that share it were interleaved.
    """

    size_bytes: int
    compressed_bytes: int
    weights: WeightCount
    macs: int
    int8_macs_share: float
    operators: dict[str, int]
    threads: int
    latency: dict[int, Latency]
    peak_memory_bytes: int
    measurement: str

    @property
    def sparse_bytes(self) -> int:
        """Size of the file if its weights were stored sparsely: a bit for each, and those that are not zero."""
        return self.size_bytes - self.weights.size_bytes + self.weights.sparse_bytes


def count_macs(path: str | Path) -> OperatorCount:
    """Count operators and multiply-accumulates of a model file at batch 1.

    Raises
    ------
    ArtifactError
        If the file is damaged or holds shapes that cannot be inferred.
    """
    path = Path(path)
    return find_target(path).count_macs(path)


def profile_artifacts(
    artifacts: Sequence[Artifact],
    *,
    batch_sizes: Sequence[int] = (1, 64),
    window_s: float = 10.0,
    threads: int = 1,
    warmup: int = 10,
) -> list[Profile]:
    """Profile model files side by side.

    One fresh process times all of them in turns of short blocks, so that ratios hold on a machine with other
    work; one more fresh process for each file gives its peak memory.

    Parameters
    ----------
    artifacts : sequence of Artifact
        Files to compare.
    batch_sizes : sequence of int, default (1, 64)
        Windows of a call.
    window_s : float, default 10
        Seconds of measurement for each file and batch size.
    threads : int, default 1
        Threads of the runtime.
    warmup : int, default 10
        Calls before the measurement.

    Returns
    -------
    list of Profile
        In the order of ``artifacts``.

    Raises
    ------
    ValueError
        If ``window_s``, ``threads`` or a batch size is not positive, or there is nothing to profile.
    ArtifactError
        If a file cannot be measured.
    """
    if not artifacts or not batch_sizes:
        raise ValueError("profile: no artifacts or no batch_sizes given, expected at least one of each")
    if not window_s > 0 or threads < 1 or min(batch_sizes) < 1:
        raise ValueError(
            f"profile.window_s={window_s!r}, threads={threads!r}, batch_sizes={list(batch_sizes)!r}: "
            "expected all of them positive"
        )
    counts = [count_macs(artifact.path) for artifact in artifacts]
    memory = [_run_worker({"measure": "peak_memory", "threads": threads}, [artifact]) for artifact in artifacts]
    timing = {"batch_sizes": list(batch_sizes), "window_s": window_s, "warmup": warmup, "threads": threads}
    latency = _run_worker({"measure": "latency", **timing}, artifacts)
    measurement = uuid.uuid4().hex
    return [
        Profile(
            size_bytes=artifact.size_bytes,
            compressed_bytes=len(zlib.compress(artifact.path.read_bytes(), level=9)),
            weights=counts[index].weights,
            macs=counts[index].macs,
            int8_macs_share=counts[index].int8_macs_share,
            operators=counts[index].operators,
            threads=threads,
            latency={int(size): _read_latency(rows[index]) for size, rows in latency.items()},
            peak_memory_bytes=memory[index],
            measurement=measurement,
        )
        for index, artifact in enumerate(artifacts)
    ]


def latency_ratio(profile: Profile, reference: Profile, batch_size: int) -> float:
    """Give the latency of one file over that of another: the median over pairs of neighbouring blocks.

    With one thread the CPU time of a call is its latency on a core of its own, so the ratio is taken from it:
    preemption by other work hits long calls more than short ones and would flatter the faster file. Where a
    call waits for other threads or devices, wall time it is.

    Raises
    ------
    ValueError
        If the two were not measured in turns by the same process, or not at this batch size.
    """
    if profile.measurement != reference.measurement:
        raise ValueError("latency_ratio: the profiles come from different measurements; profile both in one call")
    if batch_size not in profile.latency:
        raise ValueError(f"latency_ratio: batch_size={batch_size!r} was not measured, have {sorted(profile.latency)!r}")
    pair = (profile.latency[batch_size], reference.latency[batch_size])
    alone = profile.threads == 1 and all(_computes_itself(latency) for latency in pair)
    own, other = (np.asarray(item.block_cpu_p50_ms if alone else item.block_p50_ms) for item in pair)
    return float(np.median(own / other))


def _computes_itself(latency: Latency) -> bool:
    return max(latency.block_cpu_p50_ms) > 0.8 * min(latency.block_p50_ms)


def _read_latency(row: Mapping[str, Any]) -> Latency:
    return Latency(
        p50_ms=row["p50_ms"],
        p90_ms=row["p90_ms"],
        p99_ms=row["p99_ms"],
        n=row["n"],
        block_p50_ms=tuple(row["block_p50_ms"]),
        block_cpu_p50_ms=tuple(row["block_cpu_p50_ms"]),
        energy_mj=row["energy_mj"],
    )


def _run_worker(request: Mapping[str, Any], artifacts: Sequence[Artifact]) -> Any:
    models = {
        "paths": [str(artifact.path.resolve()) for artifact in artifacts],
        "input_shapes": [artifact.input_shape for artifact in artifacts],
    }
    root = str(Path(__file__).parents[1])
    known = os.environ.get("PYTHONPATH")
    done = subprocess.run(
        [sys.executable, "-m", "deploy.measure"],
        input=json.dumps({**request, **models}),
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{known}" if known else root},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        names = ", ".join(artifact.path.name for artifact in artifacts)
        raise ArtifactError(f"{names}: measuring {request['measure']} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)
