"""Training speed: our loop over a plain Conv1d Lightning loop, and over the best plain PyTorch loop with our net.

PTB-XL-shaped noise (12 leads, 10 s at 100 Hz, batch 64) for student and teacher, beats (300 samples, batch 128) for
ResNet-15. The loops run in turns, a few batches each, so that ratios hold on a busy machine. Two settings of ours: the
same windows as the others, and, on PTB-XL, the default configuration, which trains on random 2.5 s crops. bfloat16
helps only where the CPU multiplies it in hardware; the first line says whether it does.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from datamodules.augment import EcgAugment
from datamodules.batches import EcgBatches
from datamodules.normalize import Normalizer
from datamodules.records import EcgWindows
from lightning_modules.classifier import Classifier, bce_loss
from lightning_modules.fitting import pick_precision
from lightning_modules.nets.cnn1d import Cnn1d
from lightning_modules.nets.resnet1d import ResNet1d


class PlainBlock(nn.Module):
    """ResNet-15's block, as most people write it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(inputs, outputs, 7, padding=3), nn.Conv1d(outputs, outputs, 7, padding=3)
        self.shortcut = nn.Sequential(nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs))
        self.norms = nn.ModuleList([nn.BatchNorm1d(outputs), nn.BatchNorm1d(outputs)])

    def forward(self, features: Tensor) -> Tensor:
        """Shapes: (batch, inputs, time) -> (batch, outputs, time)."""
        hidden = torch.relu(self.norms[0](self.first(features)))
        return torch.relu(self.norms[1](self.second(hidden)) + self.shortcut(features))


def plain_resnet15() -> nn.Module:
    """Build ResNet-15 of Conv1d layers."""
    stem = [nn.Conv1d(1, 12, 7, padding=3), nn.BatchNorm1d(12), nn.ReLU()]
    return nn.Sequential(*stem, PlainBlock(12, 48), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(48, 2))


def plain_cnn(widths: Sequence[int]) -> nn.Module:
    """Build the CNN as most people write it: Conv1d, batch norm, ReLU, pool, dropout."""
    layers: list[nn.Module] = []
    channels = 12
    for width in widths:
        layers += [nn.Conv1d(channels, width, 10), nn.BatchNorm1d(width), nn.ReLU(), nn.MaxPool1d(2), nn.Dropout(0.2)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, 5))


@dataclass(frozen=True)
class Case:
    """One model with its windows, (leads, classes, samples) of each, and the ratio over the plain loop to reach."""

    shape: tuple[int, int, int]
    batch: int
    limit: float
    ours: Callable[[], nn.Module]
    plain: Callable[[], nn.Module]
    crop_s: float | None = None


STUDENT, TEACHER = (50, 150, 300), (100, 250, 500, 1000)
PTBXL, BEATS = (12, 5, 1000), (1, 2, 300)
CASES = {
    "student": Case(PTBXL, 64, 2.5, lambda: Cnn1d(*PTBXL, STUDENT), lambda: plain_cnn(STUDENT), 2.5),
    "teacher": Case(PTBXL, 64, 2.0, lambda: Cnn1d(*PTBXL, TEACHER), lambda: plain_cnn(TEACHER), 2.5),
    "resnet15": Case(BEATS, 128, 1.7, lambda: ResNet1d(*BEATS, 12, 7, [48], [[7, 7]], True, False), plain_resnet15),
}


class PlainModule(pl.LightningModule):
    """The shortest LightningModule for it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """Cross-entropy of one batch."""
        return nn.functional.binary_cross_entropy_with_logits(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, as ours."""
        return torch.optim.AdamW(self.parameters(), 1e-3)


def time_lightning(module: pl.LightningModule, loader: DataLoader, precision: str) -> float:
    """Windows per second of a Lightning fit; the first batch warms up."""
    clock = Clock()
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock],
    )
    trainer.fit(module, loader)
    return (loader.batch_size or 1) / median(clock.seconds[1:])


class Clock(pl.Callback):
    """Seconds from the end of one batch to the end of the next, loading included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.last = time.perf_counter()

    def on_train_batch_end(self, *arguments: object, **options: object) -> None:
        """Take the time."""
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now


def time_plain_loop(net: nn.Module, signals: Tensor, targets: Tensor, batch: int, precision: str) -> float:
    """Windows per second of the shortest loop around our net: data in memory, no loader, no logging."""
    net = net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    seconds = []
    for start in range(0, len(signals) - batch + 1, batch):
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            logits = net(signals[start : start + batch])
        loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), targets[start : start + batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
    return batch / median(seconds[1:])


def our_loader(signals: np.ndarray, targets: np.ndarray, batch: int, crop_s: float | None) -> DataLoader:
    """Batch as EcgDataModule does in training."""
    windows = cast(EcgWindows, SimpleNamespace(signal_mv=signals, targets=targets))
    everything = np.arange(len(signals))
    n_leads = signals.shape[1]
    normalizer = Normalizer(np.zeros(n_leads, np.float32), np.ones(n_leads, np.float32), everything)
    augment = None if crop_s is None else EcgAugment(100, crop_s=crop_s)
    batches = EcgBatches(windows, everything, normalizer, augment, torch.Generator().manual_seed(0))
    return DataLoader(batches, batch, shuffle=True, drop_last=True, collate_fn=lambda batch: batch)


def compare(case: Case, batches: int, rounds: int) -> dict[str, float]:
    """Median windows per second of each loop over several rounds."""
    n_leads, n_classes, n_samples = case.shape
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(case.batch * batches, n_leads, n_samples)).astype(np.float32)
    targets = (rng.random((len(signals), n_classes)) < 0.3).astype(np.float32)
    tensors = torch.from_numpy(signals), torch.from_numpy(targets)
    names = [f"class {number}" for number in range(n_classes)]
    precision = pick_precision("auto")

    def ours(crop_s: float | None) -> float:
        module = Classifier(case.ours(), names, partial(torch.optim.AdamW, lr=1e-3), criterion=bce_loss)
        return time_lightning(module, our_loader(signals, targets, case.batch, crop_s), precision)

    loops: dict[str, Callable[[], float]] = {
        "conv1d": lambda: time_lightning(
            PlainModule(case.plain()), DataLoader(TensorDataset(*tensors), case.batch, shuffle=True), "32-true"
        ),
        "plain": lambda: time_plain_loop(case.ours(), *tensors, case.batch, precision),
        "ours": lambda: ours(None),
    }
    if case.crop_s is not None:
        loops["default"] = lambda: ours(case.crop_s)
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            speeds[name].append(loop())
    return {name: median(values) for name, values in speeds.items()}


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    precision = pick_precision("auto")
    hardware = "in hardware" if precision == "bf16-mixed" else "NOT in hardware: everything runs in float32"
    print(f"training speed, {torch.get_num_threads()} threads, bfloat16 {hardware}")
    for model, case in CASES.items():
        speed = compare(case, arguments.batches * (1 if case.shape == PTBXL else 8), arguments.rounds)
        crops = f" | ours, default 2.5 s crops {speed['default'] / speed['conv1d']:.2f}x" if case.crop_s else ""
        print(
            f"  {model}: plain Conv1d Lightning {speed['conv1d']:.0f} windows/s"
            f" | ours, same windows {speed['ours'] / speed['conv1d']:.2f}x (target {case.limit:g}x with bfloat16)"
            f"{crops}"
            f" | ours over a plain PyTorch loop {speed['ours'] / speed['plain']:.2f}x (target 0.95x)",
            flush=True,
        )


if __name__ == "__main__":
    main()
