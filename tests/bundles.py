"""Bundles and measurements that the tests of several modules share."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np

from deploy.artifact import Artifact, load_artifact, predict
from deploy.bundle import Content, Slice
from deploy.devices import find_device
from deploy.onnx import export_onnx
from deploy.run_on_device import digest
from tests.exporting import make_small, make_small_windows

CLASS_NAMES = ("a", "b", "c", "d")
CONTRACT = {
    "lead_names": '["I", "II", "V1"]',
    "fs": "100",
    "unit": "mV",
    "mean_mv": "[0.0, 0.1, 0.2]",
    "std_mv": "[1.0, 2.0, 3.0]",
}


def export_small(folder: Path) -> Artifact:
    return export_onnx(make_small(), folder / "small.onnx", example=_example(), metadata=CONTRACT)


def _example() -> Any:
    import torch

    return torch.zeros(2, 3, 64)


def make_content(artifact: Artifact) -> Content:
    """Content of a bundle for a cpu, of the small net on its 16 windows."""
    windows = make_small_windows()
    logits = predict(artifact, windows, threads=1)
    targets = (np.random.default_rng(3).random(logits.shape) < 0.5).astype(np.float32)
    return Content(
        run_id="run1",
        artifact=load_artifact(artifact.path),
        device=find_device("cpu"),
        test=Slice(np.arange(16), windows, targets, logits >= 0),
        preprocessing={"fs": 100, "unit": "mV", "lead_names": ["I", "II", "V1"]},
        reading={"class_names": list(CLASS_NAMES), "thresholds": [0.5] * 4, "exclusive": False, "level": "record"},
        dataset="ptbxl",
        data="real",
        card="# small\n",
    )


def load_script(folder: Path) -> Any:
    """Import the script that lies in a bundle."""
    spec = importlib.util.spec_from_file_location("bundled_script", folder / "run_on_device.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sign(folder: Path) -> None:
    """Bring bundle.json in line with files that a test has changed."""
    path = folder / "bundle.json"
    bundle = json.loads(path.read_text())
    bundle["files"] = {name: digest(folder / name) for name in bundle["files"]}
    path.write_text(json.dumps(bundle))


def example_report(logits: Any, positions: Any, **changes: Any) -> dict[str, Any]:
    """A device.json of a plausible board; changes by dotted name."""
    report: dict[str, Any] = {
        "format": 1,
        "bundle": {"run_id": "run1", "device": "raspberry_pi", "digest": "b1"},
        "artifact_digest": "f1",
        "measured_at": "2026-11-27T12:00:00Z",
        "machine": {"board": "Raspberry Pi 5", "machine": "aarch64"},
        "runtime": {"name": "ai-edge-litert", "version": "2.3.0", "threads": 1},
        "loading_ms": 4.0,
        "peak_memory_bytes": 9_000_000,
        "golden": {"n": 8, "max_abs": 1e-6, "tolerance": 1e-4},
        "slice": {"n": len(positions), "positions": list(positions), "logits": np.asarray(logits).tolist()},
        "latency_ms": {
            **{"first": 3.0, "warmup_calls": 500, "min": 1.8, "mean": 2.0, "p50": 1.9, "p90": 2.4, "p99": 3.1},
            **{"n": 5000, "seconds": 10.1},
        },
        "throughput_per_s": 5000 / 10.1,
        "temperature_c": {"first": 48.0, "last": 55.0, "max": 56.0},
        "power_w": 4.0,
        "power_source": "INA3221, rail of the whole board",
        "energy_mj": 4.0 * 10.1 / 5000 * 1e3,
    }
    for name, value in changes.items():
        *parents, key = name.split(".")
        node = report
        for parent in parents:
            node = node[parent]
        node[key] = value
    return report
