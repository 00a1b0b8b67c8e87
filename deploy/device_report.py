"""A device.json that came home: read, and refused where its figures cannot be."""

import hashlib
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.bundle import BundleError
from deploy.devices import DEVICES

MIN_SECONDS = 10.0
# Beyond what any device of this kind does; a figure outside is a mistake, not a record.
MAX_MACS_PER_S, MAX_MEMORY_BYTES, MAX_POWER_W, TEMPERATURES_C = 1e15, 2**40, 2000.0, (-60.0, 150.0)
MAX_LATENCY_MS = 3.6e6
# Sums and quotients of the same measurement may differ by what lies between the calls.
SLACK = 0.02


@dataclass(frozen=True, eq=False)
class DeviceReport:
    """What a device measured.

    Attributes
    ----------
    run_id, device, artifact_digest : str
        Where the model came from.
    source_digest : str
        SHA-256 of the text of device.json.
    text : str
        That text.
    runtime : str
        Name and version.
    threads : int
    p50_ms, p90_ms, p99_ms : float
    peak_memory_bytes : int or None
    energy_mj : float or None
        Of one window.
    positions : ndarray of int64, shape (n,)
        Windows of the test side.
    logits : ndarray of float64, shape (n, classes)
    """

    run_id: str
    device: str
    artifact_digest: str
    source_digest: str
    text: str
    runtime: str
    threads: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    peak_memory_bytes: int | None
    energy_mj: float | None
    positions: NDArray[np.int64]
    logits: NDArray[np.float64]


def read_report(path: Path | str, macs: int | None = None) -> DeviceReport:
    """Read a device.json, or the one in a folder or zip file that came back, and check its figures.

    Parameters
    ----------
    path : Path or str
        device.json, a folder with it, or a zip file with it.
    macs : int, optional
        Multiply-accumulates of the model, to hold the latency against.

    Raises
    ------
    BundleError
        If it cannot be read, a figure is missing or cannot be, or a zip entry leaves its folder.
    """
    path = Path(path)
    text = _read_text(path)
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
        report = _parse(values, text)
        _check_figures(values, report, macs)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise BundleError(f"{path}: {what}; run run_on_device.py again and bring home what it writes") from error
    return report


def _read_text(path: Path) -> str:
    try:
        if path.is_dir():
            path = path / "device.json"
        if path.suffix != ".zip":
            return path.read_text(encoding="utf-8")
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if _leaves_folder(name):
                    raise BundleError(f"{path}: entry {name!r} leaves the folder, so nothing in it is taken")
            found = [name for name in archive.namelist() if PurePosixPath(name).name == "device.json"]
            if len(found) != 1:
                raise BundleError(f"{path}: holds {len(found)} files device.json, expected one")
            return archive.read(found[0]).decode("utf-8")
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: cannot be read ({error})") from error


def _leaves_folder(name: str) -> bool:
    """Whether an entry would land outside on any system."""
    forms = (PurePosixPath(name), PureWindowsPath(name))
    return any(form.anchor or ".." in form.parts for form in forms)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"holds {name}, which no measurement gives")


def _parse(values: Mapping[str, Any], text: str) -> DeviceReport:
    if values["format"] != 1:
        raise ValueError(f"has format {values['format']!r}, expected 1")
    latency, runtime, test = values["latency_ms"], values["runtime"], values["slice"]
    logits = np.asarray(test["logits"], dtype=np.float64)
    positions = np.asarray(test["positions"])
    if positions.dtype.kind != "i" or logits.ndim != 2 or positions.shape != logits.shape[:1] or not len(positions):
        raise ValueError(f"slice: logits of shape {logits.shape} for positions of shape {positions.shape}")
    if len(np.unique(positions)) != len(positions) or positions.min() < 0:
        raise ValueError("slice: positions repeat or are negative")
    if values["bundle"]["device"] not in DEVICES:
        raise ValueError(f"bundle.device is {values['bundle']['device']!r}, expected one of {sorted(DEVICES)}")
    memory = values["peak_memory_bytes"]
    return DeviceReport(
        run_id=str(values["bundle"]["run_id"]),
        device=str(values["bundle"]["device"]),
        artifact_digest=str(values["artifact_digest"]),
        source_digest=hashlib.sha256(text.encode("utf-8")).hexdigest(),
        text=text,
        runtime=f"{runtime['name']} {runtime['version']}",
        threads=int(runtime["threads"]),
        p50_ms=float(latency["p50"]),
        p90_ms=float(latency["p90"]),
        p99_ms=float(latency["p99"]),
        peak_memory_bytes=None if memory is None else int(memory),
        energy_mj=None if values["energy_mj"] is None else float(values["energy_mj"]),
        positions=positions.astype(np.int64),
        logits=logits,
    )


def _check_figures(values: Mapping[str, Any], report: DeviceReport, macs: int | None) -> None:
    """Refuse what cannot be; every message names the figure."""
    latency, golden, power = values["latency_ms"], values["golden"], values["power_w"]
    for name in ("min", "mean", "p50", "p90", "p99", "first"):
        _within(f"latency_ms.{name}", latency[name], 0, MAX_LATENCY_MS)
    order = [latency[name] for name in ("min", "p50", "p90", "p99")]
    if order != sorted(order):
        raise ValueError(f"latency_ms: min, p50, p90, p99 are {order}, expected them to rise")
    _within("latency_ms.seconds", latency["seconds"], MIN_SECONDS, math.inf)
    _within("latency_ms.n", latency["n"], 1, math.inf)
    if latency["n"] * latency["mean"] > latency["seconds"] * 1e3 * (1 + SLACK):
        raise ValueError(
            f"latency_ms: {latency['n']} calls of {latency['mean']:g} ms do not fit into {latency['seconds']:g} s"
        )
    _close("throughput_per_s", values["throughput_per_s"], latency["n"] / latency["seconds"])
    if macs is not None and latency["min"] * MAX_MACS_PER_S < macs * 1e3:
        raise ValueError(f"latency_ms.min is {latency['min']:g}, and no device does {macs:,} MACs in that time")
    _within("runtime.threads", report.threads, 1, 4096)
    _within("golden.n", golden["n"], 1, math.inf)
    _within("golden.max_abs", golden["max_abs"], 0, golden["tolerance"])
    if not np.isfinite(report.logits).all():
        raise ValueError("slice.logits are not all finite")
    if report.peak_memory_bytes is not None:
        _within("peak_memory_bytes", report.peak_memory_bytes, 0, MAX_MEMORY_BYTES)
    for name, degrees in (values["temperature_c"] or {}).items():
        _within(f"temperature_c.{name}", degrees, *TEMPERATURES_C)
    if (power is None) != (report.energy_mj is None):
        raise ValueError(f"power_w is {power!r} and energy_mj is {report.energy_mj!r}: one gives the other")
    if power is not None and report.energy_mj is not None:
        _within("power_w", power, 0, MAX_POWER_W)
        _close("energy_mj", report.energy_mj, power * latency["seconds"] / latency["n"] * 1e3)


def _within(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}, expected {low:g} to {high:g}")


def _close(name: str, value: float, expected: float) -> None:
    if not abs(value - expected) <= SLACK * abs(expected):
        raise ValueError(f"{name} is {value!r}, but the other figures give {expected:g}")
