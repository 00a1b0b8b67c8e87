"""Speed of stream.py: ResNet-15 int8 over a simulated Holter recording, filters and R peaks included, on one core.

The weights are random: speed does not depend on them. The stream runs in a fresh process that may use one core. Wall
time and CPU time both stand there, because the first means little on a busy machine. ``--record`` takes a real record.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.filters import Filters
from datamodules.synthetic_afdb import write_synthetic_afdb

PROJECT = Path(__file__).resolve().parents[1]
TARGET = 500
RUN = """
import json, os, sys, time
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import stream
def memory_kb(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
options = stream.StreamOptions(artifact=sys.argv[1], source=sys.argv[2], lead_names=[sys.argv[3]], resample=True)
before, start = memory_kb("VmRSS"), time.process_time()
summary = stream.run(options)
print(json.dumps({**summary, "cpu_s": time.process_time() - start, "grown_kb": memory_kb("VmHWM") - before}))
"""


def export_model(path: Path) -> None:
    """Export ResNet-15 in int8, with the contract of a model of single beats at 250 Hz."""
    import torch
    from omegaconf import OmegaConf

    from deploy.onnx import export_onnx
    from lightning_modules.nets.resnet1d import ResNet1d

    target = OmegaConf.load(PROJECT / "conf" / "deploy" / "onnx.yaml").targets.onnx
    shape: Any = OmegaConf.to_container(OmegaConf.load(PROJECT / "conf" / "model" / "resnet15.yaml").module.net)
    windows = {"cut": "beats", "filters": asdict(Filters()), "detector": "sleepecg"}
    facts = {
        "fs": 250,
        "lead_names": ["ECG1"],
        "class_names": ["other", "AFIB"],
        "exclusive": True,
        "windows": {**windows, "min_rr_s": 0.2, "max_rr_s": 3.0, "record_s": 36000.0},
        "mean_mv": [0.0],
        "std_mv": [0.3],
    }
    torch.manual_seed(0)
    export_onnx(
        ResNet1d(1, 2, 300, **shape),
        path,
        example=torch.zeros(2, 1, 300),
        precision="int8",
        calibration=np.random.default_rng(0).normal(size=(32, 1, 300)).astype(np.float32),
        metadata={"level": "beat", "data": "synthetic", **{name: json.dumps(fact) for name, fact in facts.items()}},
        **{key: value for key, value in target.items() if not key.startswith("_")},
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--record", type=Path, help="a .hea file instead of a simulated record")
    parser.add_argument("--lead", default="ECG1")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, record = Path(folder) / "resnet15-int8.onnx", arguments.record
        export_model(model)
        if record is None:
            root = write_synthetic_afdb(folder, n_records=1, hours=arguments.hours, n_without_signals=0, workers=1)
            record = next(root.glob("*.hea"))
        command = [sys.executable, "-c", RUN, str(model), str(record.resolve()), arguments.lead]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        output = subprocess.run(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(output.stdout.splitlines()[-1])
    seconds = found["duration_s"]
    print(
        f"{seconds / 3600:.2f} h, {found['n_decisions']} of {found['n_rpeaks']} beats decided by ResNet-15 int8:"
        f" {found['real_time_factor']:.0f}x real time by the clock, {seconds / found['cpu_s']:.0f}x by CPU time"
        f" (target {TARGET}x); delay p50 {found['delay_s']['p50']} s, at most {found['delay_s']['max']} s;"
        f" memory grown by {found['grown_kb'] / 1024:.1f} MiB"
    )


if __name__ == "__main__":
    main()
