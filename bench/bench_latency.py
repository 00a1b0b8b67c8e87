"""Latency of int8 over float, from the exported files, timed in turns in one fresh process; one thread, batch 1.

Student and ResNet-15, on ONNX Runtime and on LiteRT, and the seconds that it takes to export, quantize and evaluate one
on as many windows as PTB-XL's fold 9 holds. The weights are random and the windows are noise: speed does not depend on
them.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from deploy.artifact import Artifact, NotMeasured, predict
from deploy.profile import latency_ratio, profile_artifacts

CONF = Path(__file__).resolve().parents[1] / "conf"
LIMITS = {"cnn1d_student": 0.30, "resnet15": 0.60}
N_WINDOWS, SECONDS = 2146, 60
DATA = {"cnn1d_student": "ptbxl", "resnet15": "mitdb_intra"}


def main() -> None:
    """Print the ratios of every net on every target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--window-s", type=float, default=10.0, help="seconds of measurement for each file")
    arguments = parser.parse_args()
    for model, limit in LIMITS.items():
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            config = compose("config", overrides=[f"model={model}", f"datamodule={DATA[model]}", "deploy=all"])
        for target in config.deploy.timed:
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                try:
                    artifacts = export_pair(config, target, Path(folder))
                except NotMeasured as reason:
                    print(f"{model}, {target}: not measured: {reason}")
                    continue
                windows = np.zeros((N_WINDOWS, *artifacts[1].input_shape), dtype=np.float32)
                for artifact in artifacts:
                    predict(artifact, windows)
                seconds = time.perf_counter() - start
                single, quantized = profile_artifacts(artifacts, batch_sizes=(1,), window_s=arguments.window_s)
            ratio = latency_ratio(quantized, single, 1)
            print(
                f"{model}, {target}: int8 / float latency {ratio:.3f} (target <= {limit:g}),"
                f" bytes {quantized.size_bytes / single.size_bytes:.3f},"
                f" int8 share of MACs {quantized.int8_macs_share:.3f};"
                f" export, quantization and evaluation of both {seconds:.0f} s (target {SECONDS} s)"
            )


def export_pair(config: DictConfig, target: str, folder: Path) -> list[Artifact]:
    """Float and int8 file of a net with random weights."""
    torch.manual_seed(0)
    net, export = instantiate(config.model.module.net), instantiate(config.deploy.targets[target])
    shape = (config.datamodule.n_leads, config.model.module.net.n_samples)
    calibration = np.random.default_rng(0).normal(size=(32, *shape)).astype(np.float32)
    ending = export.func.__module__.rpartition(".")[2]
    return [
        export(
            net,
            folder / f"{precision}.{ending}",
            example=torch.zeros(2, *shape),
            precision=precision,
            calibration=calibration if precision == "int8" else None,
        )
        for precision in ("float32", "int8")
    ]


if __name__ == "__main__":
    main()
