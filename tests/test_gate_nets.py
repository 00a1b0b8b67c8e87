"""The gate on a small trained net: what must pass, and the three compressions that must fail."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch import nn
from torch.nn.utils import prune

from deploy.artifact import Artifact, predict
from deploy.gate import (
    Check,
    check_metric,
    check_parity,
    check_ratio,
    check_reload,
    check_share,
    judge,
)
from deploy.onnx import export_onnx
from deploy.profile import count_macs
from lightning_modules.nets.cnn1d import Cnn1d
from tests.exporting import quantize, run_torch

LEADS, TIME, CLASSES = 4, 128, 3
THRESHOLDS = np.full(CLASSES, 0.5)
MAX_DROP = 0.02


def make_toy(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make windows of noise in which every present class leaves a rhythm of its own."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, 2, (n, CLASSES)).astype(np.float32)
    time = np.arange(TIME) / TIME
    phases = random.uniform(0, 2 * np.pi, (n, CLASSES, 1))
    rhythms = np.sin(2 * np.pi * np.asarray([6, 14, 25])[None, :, None] * time + phases)
    signal = random.standard_normal((n, LEADS, TIME)) + 0.6 * (targets[:, :, None] * rhythms).sum(1)[:, None]
    return signal.astype(np.float32), targets


def make_net(seed: int) -> Cnn1d:
    torch.manual_seed(seed)
    return Cnn1d(LEADS, CLASSES, TIME, (16, 24), kernel_sizes=9, dropout=0.0)


def auroc_macro(targets: np.ndarray, logits: np.ndarray) -> float:
    positives = targets.sum(0)
    ranks = (rankdata(logits, axis=0) * targets).sum(0)
    return float(np.mean((ranks - positives * (positives + 1) / 2) / (positives * (len(targets) - positives))))


def paired_interval(targets: np.ndarray, logits: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Bootstrap the difference of the macro AUROC over records."""
    random = np.random.default_rng(0)
    differences = []
    for _ in range(100):
        drawn = random.integers(0, len(targets), len(targets))
        own, other = (auroc_macro(targets[drawn], scores[drawn]) for scores in (logits, reference))
        differences.append(own - other)
    low, high = np.percentile(differences, (2.5, 97.5))
    return float(low), float(high)


@pytest.fixture(scope="module")
def split() -> tuple[np.ndarray, np.ndarray]:
    return make_toy(400, seed=2)


@pytest.fixture(scope="module")
def train_windows() -> np.ndarray:
    return make_toy(512, seed=1)[0]


@pytest.fixture(scope="module")
def trained(split: tuple[np.ndarray, np.ndarray]) -> nn.Module:
    windows, targets = (torch.from_numpy(part) for part in make_toy(512, seed=1))
    net = make_net(seed=0).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for epoch in range(12):
        order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(64):
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(net(windows[rows]), targets[rows]).backward()
            optimizer.step()
    assert auroc_macro(split[1], run_torch(net, split[0])) > 0.9
    return net.eval()


def export(net: nn.Module, path: Path, **options: Any) -> Artifact:
    return export_onnx(net, path, example=torch.zeros(2, LEADS, TIME), **options)


@pytest.fixture(scope="module")
def reference(trained: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export(trained, tmp_path_factory.mktemp("reference") / "model.onnx")


def check_everything(
    net: nn.Module, reference: Artifact, artifact: Artifact, split: tuple[np.ndarray, np.ndarray]
) -> dict[str, Check]:
    """Run the gate of an int8 recipe, but for the latency; this net is too small for the ratio of .27."""
    windows, targets = split
    expected, logits = run_torch(net, windows), predict(artifact, windows, threads=1)
    delta = auroc_macro(targets, logits) - auroc_macro(targets, expected)
    checks = [
        *check_parity(expected, logits, THRESHOLDS, artifact.precision, delta_auroc=delta),
        check_share("int8_macs_share", count_macs(artifact.path).int8_macs_share, 0.9),
        check_ratio("bytes", artifact.size_bytes, reference.size_bytes, at_most=0.6),
        check_metric(*paired_interval(targets, logits, expected), MAX_DROP),
    ]
    return {check.name: check for check in checks}


def failures(checks: dict[str, Check]) -> set[str]:
    return {name for name, check in checks.items() if check.status == "FAIL"}


def test_gate_nets_passes_calibrated_int8(
    trained: nn.Module,
    reference: Artifact,
    train_windows: np.ndarray,
    split: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
) -> None:
    artifact = export(trained, tmp_path / "m.onnx", precision="int8", calibration=train_windows[:100])
    checks = check_everything(trained, reference, artifact, split)
    assert judge(list(checks.values())).status == "PASS", judge(list(checks.values())).reasons


def test_gate_nets_fails_uncalibrated_int8(
    trained: nn.Module, reference: Artifact, split: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    artifact = export(trained, tmp_path / "m.onnx", precision="int8", calibration_method="none")
    checks = check_everything(trained, reference, artifact, split)
    assert failures(checks) >= {"parity/noise", "parity/flipped"}
    # Coverage and bytes are those of a good file: that is why they alone are no gate.
    assert checks["int8_macs_share"].status == checks["bytes"].status == "PASS"
    assert judge(list(checks.values())).status == "FAIL"


def test_gate_nets_fails_int8_calibrated_in_another_unit(
    trained: nn.Module,
    reference: Artifact,
    train_windows: np.ndarray,
    split: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
) -> None:
    # Ranges from windows in volts for a net that sees millivolts: as good as none.
    artifact = quantize(reference, train_windows[:100] / 1000, tmp_path / "m.onnx")
    checks = check_everything(trained, reference, artifact, split)
    assert failures(checks) >= {"parity/noise", "parity/flipped", "parity/delta_auroc", "test/auroc_macro"}
    assert checks["int8_macs_share"].status == "PASS"
    verdict = judge(list(checks.values()))
    assert verdict.status == "FAIL"
    assert len(verdict.reasons) == len(failures(checks))


def test_gate_nets_fails_dynamic_quantization_of_a_cnn(
    trained: nn.Module, reference: Artifact, split: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    artifact = export(trained, tmp_path / "m.onnx", precision="int8_dynamic")
    assert artifact.precision == "int8_dynamic"
    checks = check_everything(trained, reference, artifact, split)
    # The metric holds: that is why the metric alone is no gate.
    assert checks["test/auroc_macro"].status == "PASS"
    assert failures(checks) == {"int8_macs_share", "bytes"}
    assert judge(list(checks.values())).status == "FAIL"


def test_gate_nets_fails_masked_weights_in_a_fresh_net(
    trained: nn.Module, reference: Artifact, split: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    windows, targets = split
    masked = copy.deepcopy(trained)
    for module in masked.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            prune.l1_unstructured(module, "weight", amount=0.2)
    before = run_torch(masked, windows)
    torch.save(masked.state_dict(), tmp_path / "masked.pt")
    fresh = make_net(seed=1)
    fresh.load_state_dict(torch.load(tmp_path / "masked.pt", weights_only=True), strict=False)
    after = run_torch(fresh, windows)

    reload = check_reload(before, after)
    metric = check_metric(*paired_interval(targets, after, before), MAX_DROP)
    # The masks themselves take nothing away either: same MACs, and twice the bytes in the state dict.
    for module in masked.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            prune.remove(module, "weight")
    artifact = export(masked, tmp_path / "m.onnx")
    macs = check_ratio("macs", count_macs(artifact.path).macs, count_macs(reference.path).macs, at_most=0.8)
    size = check_ratio("bytes", artifact.size_bytes, reference.size_bytes, at_most=0.8)
    assert [check.status for check in (reload, metric, macs, size)] == ["FAIL"] * 4
    assert judge([reload, metric, macs, size]).status == "FAIL"


def test_gate_nets_reload_passes_an_honest_round_trip(
    trained: nn.Module, split: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    torch.save(trained.state_dict(), tmp_path / "whole.pt")
    fresh = make_net(seed=1)
    fresh.load_state_dict(torch.load(tmp_path / "whole.pt", weights_only=True))
    check = check_reload(run_torch(trained, split[0]), run_torch(fresh, split[0]))
    assert check.status == "PASS"
    assert check.value is not None
    assert check.value <= 1e-6
