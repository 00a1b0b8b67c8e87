"""Latency of int8 over float, from the exported files, timed in turns in one fresh process; one thread, batch 1.

The weights are random and the windows are noise: speed does not depend on them.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from deploy.onnx import export_onnx
from deploy.profile import latency_ratio, profile_artifacts
from lightning_modules.nets.cnn1d import Cnn1d

PROJECT = Path(__file__).resolve().parents[1]
LIMIT = 0.30


def main() -> None:
    """Print the ratio of the student."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--window-s", type=float, default=10.0, help="seconds of measurement for each file")
    arguments = parser.parse_args()
    target = OmegaConf.load(PROJECT / "conf" / "deploy" / "onnx.yaml").targets.onnx
    options = {key: value for key, value in target.items() if not key.startswith("_")}
    torch.manual_seed(0)
    net, example = Cnn1d(12, 5, 1000, (50, 150, 300)), torch.zeros(2, 12, 1000)
    calibration = np.random.default_rng(0).normal(size=(32, 12, 1000)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        artifacts = [
            export_onnx(
                net,
                Path(folder) / f"{precision}.onnx",
                example=example,
                precision=precision,
                calibration=calibration if precision == "int8" else None,
                **options,
            )
            for precision in ("float32", "int8")
        ]
        single, quantized = profile_artifacts(artifacts, batch_sizes=(1,), window_s=arguments.window_s)
    ratio = latency_ratio(quantized, single, 1)
    print(
        f"student, ONNX Runtime: int8 / float latency {ratio:.3f} (target <= {LIMIT:g}),"
        f" bytes {quantized.size_bytes / single.size_bytes:.3f}, int8 share of MACs {quantized.int8_macs_share:.3f}"
    )


if __name__ == "__main__":
    main()
