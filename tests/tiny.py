"""A data module that fits in a test: 2 leads, 64 samples, 2 classes that a small net learns in a second."""

from functools import partial
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_modules.classifier import Classifier
from lightning_modules.nets.cnn1d import Cnn1d

CLASS_NAMES = ("a", "b")


class TinyDataModule(pl.LightningDataModule):
    """The part of EcgDataModule's interface that fits and recipes use."""

    def __init__(self, n: int = 160, exclusive: bool = False) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.all_targets = (rng.random((n, 2)) < 0.5).astype(np.float32)
        if exclusive:
            self.all_targets[:, 0] = 1 - self.all_targets[:, 1]
        noise = rng.normal(0, 0.5, (n, 2, 64))
        wave = np.sin(np.arange(64) / 3)
        self.signals = (noise + self.all_targets[:, :, None] * wave).astype(np.float32)
        self.splits = {"train": np.arange(0, n // 2), "val": np.arange(n // 2, n)}

    def windows(self, split, positions=None):
        return self.signals[self.splits[split] if positions is None else positions]

    def targets(self, split):
        return self.all_targets[self.splits[split]]

    def calibration(self, n, seed):
        positions = np.sort(np.random.default_rng(seed).choice(self.splits["train"], min(n, 80), replace=False))
        return positions, self.signals[positions]

    def loader(self, split, shuffle):
        index = torch.from_numpy(self.splits[split])
        data = TensorDataset(torch.from_numpy(self.signals)[index], torch.from_numpy(self.all_targets)[index], index)
        return DataLoader(data, batch_size=16, shuffle=shuffle)

    def train_dataloader(self):
        return self.loader("train", True)

    def val_dataloader(self):
        return self.loader("val", False)


def tiny_module(widths=(4,), lr=0.02, seed=0, **options) -> Classifier:
    torch.manual_seed(seed)
    net = Cnn1d(2, len(CLASS_NAMES), 64, widths, 5, dropout=0.0)
    return Classifier(net, CLASS_NAMES, partial(torch.optim.Adam, lr=lr), **options)


def tiny_trainer(folder: Path, epochs: int = 3) -> pl.Trainer:
    checkpoint = pl.callbacks.ModelCheckpoint(
        folder / "checkpoints", monitor="val/auroc_macro", mode="max", save_weights_only=True
    )
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[checkpoint],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
