"""Any artifact behind one interface: every target's file against torch, by the same four figures."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from composition.classification import auroc_difference
from deploy.artifact import Artifact, load_artifact, predict
from deploy.gate import PARITY_LIMITS, check_parity
from deploy.profile import count_macs
from tests.configs import CLASSIFIERS, compose_config
from tests.exporting import draw_windows, fit_briefly, make_small, make_small_windows, run_torch

TARGETS = ("onnx", "tflite")  # TensorRT has tests of its own, which need a GPU
PRECISIONS = ("float32", "int8")


def export(net: nn.Module, target: str, precision: str, folder: Path, calibration: np.ndarray) -> Artifact:
    write = instantiate(compose_config("deploy=all").deploy.targets[target])
    path = folder / f"model.{write.func.__module__.rpartition('.')[2]}"
    example = torch.zeros(2, *calibration.shape[1:])
    write(net, path, example=example, precision=precision, calibration=calibration if precision == "int8" else None)
    return load_artifact(path)


def compare(net: nn.Module, artifact: Artifact, windows: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Largest difference, noise over signal, share of flipped decisions, change of macro AUROC; all within limits."""
    expected, logits = run_torch(net, windows), predict(artifact, windows)
    names = [str(column) for column in range(logits.shape[1])]
    delta = auroc_difference(logits, expected, targets, names)
    assert delta is not None
    # Untrained nets answer near zero: deciding at the median tells their answers apart.
    thresholds = 1 / (1 + np.exp(-np.median(expected, axis=0)))
    checks = check_parity(expected, logits, thresholds, artifact.precision, delta_auroc=delta)
    assert [check.status for check in checks if check.name != "parity/flipped"].count("FAIL") == 0, checks
    return {check.name: float(check.value or 0) for check in checks}


def decibels(noise: float) -> float:
    """Signal to quantization noise."""
    return -20 * np.log10(max(noise, 1e-12))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("target", TARGETS)
def test_targets_agree_with_torch(target: str, precision: str, tmp_path: Path) -> None:
    windows, net = make_small_windows(), make_small()
    artifact = export(net, target, precision, tmp_path, windows)
    # Sixteen windows rank too coarsely for an AUROC.
    expected, logits = run_torch(net, windows), predict(artifact, windows)
    noise = float(np.sqrt(np.mean((logits - expected) ** 2)) / expected.std())
    assert decibels(noise) > (80 if precision == "float32" else 25)


def test_targets_limits_cover_every_precision() -> None:
    assert {"float32", "float16", "int8"} <= set(PARITY_LIMITS)


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", CLASSIFIERS)
@pytest.mark.parametrize("target", TARGETS)
def test_targets_agree_with_torch_on_every_net(target: str, model: str, precision: str, tmp_path: Path) -> None:
    data = "afdb_rr" if model == "rr_tcn" else "ptbxl"
    config = compose_config(f"model={model}", f"datamodule={data}")
    torch.manual_seed(0)
    shape = (config.datamodule.n_leads, config.model.module.net.n_samples)
    windows, targets = draw_windows(shape, config.datamodule.n_classes, 256)
    net = fit_briefly(instantiate(config.model.module.net), windows, targets)
    artifact = export(net, target, precision, tmp_path, windows[:64])
    figures = compare(net, artifact, windows, targets)
    assert decibels(figures["parity/noise"]) > (80 if precision == "float32" else 15)
    assert figures["parity/flipped"] <= (0.001 if precision == "float32" else 0.15)
    if precision == "int8":
        assert count_macs(artifact.path).int8_macs_share >= 0.9


@pytest.mark.realdata
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", ["cnn1d_student", "resnet15", "small1d"])
@pytest.mark.parametrize("target", TARGETS)
def test_targets_agree_with_torch_on_real_windows(
    target: str, model: str, precision: str, tmp_path: Path, ptbxl_windows: tuple[np.ndarray, np.ndarray]
) -> None:
    config = compose_config(f"model={model}", "datamodule=ptbxl")
    torch.manual_seed(0)
    net = instantiate(config.model.module.net).eval()
    windows, targets = ptbxl_windows
    artifact = export(net, target, precision, tmp_path, windows[:64])
    figures = compare(net, artifact, windows, targets)
    assert decibels(figures["parity/noise"]) > (80 if precision == "float32" else 15)
    assert figures["parity/flipped"] <= (0.001 if precision == "float32" else 0.15)


@pytest.fixture(scope="module")
def ptbxl_windows(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """Windows of a test fold and what they show; weights are untrained, so only differences mean something."""
    root = Path(os.environ["LIGHTHEART_DATA"]).absolute() / "ptbxl"
    config = compose_config(
        "datamodule=ptbxl", f"datamodule.root={root}", "datamodule.folds={train:[1],val:[2],test:[8]}"
    )
    config.paths.cache = str(tmp_path_factory.mktemp("cache"))
    datamodule = instantiate(config.datamodule)
    datamodule.setup()
    return datamodule.windows("test")[:256], datamodule.targets("test")[:256]
