"""Training speed: our loop over a plain Conv1d Lightning loop, and over the best plain PyTorch loop with our net.

PTB-XL-shaped noise (12 leads, 10 s at 100 Hz, batch 64). The loops run in turns, a few batches each, so that
ratios hold on a busy machine. Two settings of ours: the same windows as the others, and the default
configuration, which trains on random 2.5 s crops. bfloat16 helps only where the CPU multiplies it in hardware; the
first line says whether it does.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Callable, Sequence
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

WIDTHS = {"student": (50, 150, 300), "teacher": (100, 250, 500, 1000)}
BATCH = 64
CLASS_NAMES = ("NORM", "MI", "STTC", "CD", "HYP")
LIMITS = {"student": 2.5, "teacher": 2.0}


def conv1d_net(widths: Sequence[int]) -> nn.Module:
    """Build the net as most people write it: Conv1d, batch norm, ReLU, pool, dropout."""
    layers: list[nn.Module] = []
    channels = 12
    for width in widths:
        layers += [nn.Conv1d(channels, width, 10), nn.BatchNorm1d(width), nn.ReLU(), nn.MaxPool1d(2), nn.Dropout(0.2)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, len(CLASS_NAMES)))


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
    return BATCH / median(clock.seconds[1:])


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


def time_plain_loop(net: nn.Module, signals: Tensor, targets: Tensor, precision: str) -> float:
    """Windows per second of the shortest loop around our net: data in memory, no loader, no logging."""
    net = net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    seconds = []
    for start in range(0, len(signals) - BATCH + 1, BATCH):
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            logits = net(signals[start : start + BATCH])
        loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), targets[start : start + BATCH])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
    return BATCH / median(seconds[1:])


def our_loader(signals: np.ndarray, targets: np.ndarray, crop_s: float | None) -> DataLoader:
    """Batch as EcgDataModule does in training."""
    windows = cast(EcgWindows, SimpleNamespace(signal_mv=signals, targets=targets))
    everything = np.arange(len(signals))
    normalizer = Normalizer(np.zeros(12, np.float32), np.ones(12, np.float32), everything)
    augment = EcgAugment(100, crop_s=crop_s)
    batches = EcgBatches(windows, everything, normalizer, augment, torch.Generator().manual_seed(0))
    return DataLoader(batches, BATCH, shuffle=True, drop_last=True, collate_fn=lambda batch: batch)


def compare(model: str, batches: int, rounds: int) -> dict[str, float]:
    """Median windows per second of each loop over several rounds."""
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(BATCH * batches, 12, 1000)).astype(np.float32)
    targets = (rng.random((len(signals), 5)) < 0.3).astype(np.float32)
    tensors = torch.from_numpy(signals), torch.from_numpy(targets)
    precision = pick_precision("auto")

    def ours(crop_s: float | None) -> float:
        net = Cnn1d(12, 5, 1000, WIDTHS[model])
        module = Classifier(net, CLASS_NAMES, partial(torch.optim.AdamW, lr=1e-3), criterion=bce_loss)
        return time_lightning(module, our_loader(signals, targets, crop_s), precision)

    loops: dict[str, Callable[[], float]] = {
        "conv1d": lambda: time_lightning(
            PlainModule(conv1d_net(WIDTHS[model])),
            DataLoader(TensorDataset(*tensors), BATCH, shuffle=True),
            "32-true",
        ),
        "plain": lambda: time_plain_loop(Cnn1d(12, 5, 1000, WIDTHS[model]), *tensors, precision),
        "ours": lambda: ours(None),
        "default": lambda: ours(2.5),
    }
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
    for model, limit in LIMITS.items():
        speed = compare(model, arguments.batches, arguments.rounds)
        print(
            f"  {model}: plain Conv1d Lightning {speed['conv1d']:.0f} windows/s"
            f" | ours, same windows {speed['ours'] / speed['conv1d']:.2f}x (target {limit:g}x with bfloat16)"
            f" | ours, default 2.5 s crops {speed['default'] / speed['conv1d']:.2f}x"
            f" | ours over a plain PyTorch loop {speed['ours'] / speed['plain']:.2f}x (target 0.95x)",
            flush=True,
        )


if __name__ == "__main__":
    main()
