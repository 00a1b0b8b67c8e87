"""Exports of untrained nets, shared by the tests of the deploy targets."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from deploy.artifact import Artifact, load_artifact, predict
from deploy.onnx_int8 import quantize_static_int8
from lightning_modules.nets.cnn1d import Cnn1d


def make_small() -> nn.Module:
    """Make a net of two blocks for windows of (3, 64) and four classes."""
    return randomise(Cnn1d(3, 4, 64, (6, 10), kernel_sizes=5))


def make_small_windows() -> np.ndarray:
    """Make 16 windows for the small net."""
    return np.random.default_rng(1).standard_normal((16, 3, 64), dtype=np.float32)


class Residual(nn.Module):
    """Channels that meet in an addition, and a ReLU in front of a pool that someone else reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = (
            nn.Conv2d(3, 6, (1, 5), padding="same"),
            nn.Conv2d(6, 6, (1, 3), padding="same"),
        )
        self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(12, 4)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        stem = self.stem(signal.unsqueeze(2))
        pooled = nn.functional.max_pool2d(stem, (1, 2))
        block = self.norm(self.block(torch.relu(pooled))) + pooled
        return self.head(torch.cat([block.amax((2, 3)), block.mean((2, 3))], 1))


def randomise(net: nn.Module) -> nn.Module:
    """Give batch norms statistics as after training: fresh ones hide folding errors."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.get_buffer("running_mean"), std=0.3)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return net


def draw_windows(shape: tuple[int, ...], classes: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Make windows of noise with one wave for each class that they show, and the classes."""
    random = np.random.default_rng(0)
    targets = (random.random((n, classes)) < 0.5).astype(np.float32)
    phase = np.linspace(0, 2 * np.pi, shape[-1]) * np.arange(2, 2 + 2 * classes, 2)[:, None]
    waves = np.sin(phase[None] + random.uniform(0, 2 * np.pi, (n, classes, 1)))
    signal = np.einsum("nc,nct->nt", targets, waves)[:, None]
    return (signal + 0.5 * random.normal(size=(n, *shape))).astype(np.float32), targets


def fit_briefly(
    net: nn.Module, windows: np.ndarray, targets: np.ndarray, loss: float = 0.6, most: int = 300
) -> nn.Module:
    """Train until the loss is clearly below that of chance, .69: untrained answers are constant up to rounding."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(net.train().parameters(), lr=1e-3)
    for step in range(most):
        batch = slice(step * 16 % len(windows), step * 16 % len(windows) + 16)
        logits = net(torch.from_numpy(windows[batch]))
        reached = nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(targets[batch]))
        if step >= 20 and reached < loss:
            return net.eval()
        reached.backward()
        optimizer.step()
        optimizer.zero_grad()
    raise AssertionError(f"the loss is still {reached:.2f} after {most} steps")


def run_torch(net: nn.Module, windows: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return net.eval()(torch.from_numpy(windows)).numpy()


def relative_noise(net: nn.Module, artifact: Artifact, windows: np.ndarray) -> float:
    expected = run_torch(net, windows)
    return float(np.sqrt(np.mean((predict(artifact, windows, threads=1) - expected) ** 2)) / expected.std())


def save(model: onnx.ModelProto, path: Path) -> Artifact:
    onnx.helper.set_model_props(model, {"precision": "int8"})
    onnx.save(model, path)
    return load_artifact(path)


def quantize(artifact: Artifact, calibration: np.ndarray, path: Path, **options: Any) -> Artifact:
    """Quantize an exported float file: the export of the same net again would take most of the time."""
    return save(quantize_static_int8(onnx.load(artifact.path), calibration, **options), path)
