"""Clips that fit in a test: 10x10 pixels whose green flickers with a known pulse, and a module that learns them."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

FS = 30.0
N_FRAMES = 120
SIZE = 10


class TinyVideoData(pl.LightningDataModule):
    """The part of VideoDataModule's interface that the way of `train.py` uses; one video for each person."""

    def __init__(self, *, n_subjects=20, n_clips=3, n_test=11, noise=0.3, seed=0, max_drop=0.3, **facts):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.fs, self.n_frames, self.image_size, self.input_variant = FS, N_FRAMES, SIZE, "normalized_difference"
        self.kind, self.name, self.level = "synthetic", "tiny_video", "clip"
        self.leaky, self.pooled, self.max_drop, self.seed = False, False, max_drop, seed
        self.rates_bpm = np.linspace(55, 120, n_subjects)[rng.permutation(n_subjects)]
        time_s = np.arange(n_clips * N_FRAMES + 1) / FS
        waves = np.sin(2 * np.pi * self.rates_bpm[:, None] / 60 * time_s + rng.uniform(0, 6, (n_subjects, 1)))
        self.traces_rgb = 0.5 + 0.01 * waves[..., None] * [0.3, 1.0, 0.5] + rng.normal(0, 0.001, (*waves.shape, 3))
        steps = np.diff(waves, axis=1).reshape(n_subjects * n_clips, N_FRAMES)
        self.derivatives = ((steps - steps.mean(1, keepdims=True)) / steps.std(1, keepdims=True)).astype(np.float32)
        self.clips = rng.normal(0, noise, (len(steps), N_FRAMES, 6, SIZE, SIZE)).astype(np.float32)
        self.clips[:, :, 1] += self.derivatives[:, :, None, None]
        self.owner = np.repeat(np.arange(n_subjects), n_clips)
        self.starts_s = np.tile(np.arange(n_clips) * N_FRAMES / FS, n_subjects)
        sides = np.split(np.arange(n_subjects), [n_subjects - n_test - 4, n_subjects - n_test])
        at = dict(zip(("train", "val", "test"), sides, strict=True))
        self.splits = {side: np.flatnonzero(np.isin(self.owner, members)) for side, members in at.items()}
        self.data_digest, self.split_digest, self.preprocessing_digest = f"data-{seed}", f"split-{seed}", "none"
        self.counts = {"records": n_subjects}
        self.leakage = SimpleNamespace(n_records=len(self.owner), n_subjects=n_subjects)
        self.training_settings = {"batch_size": 4, "seed": seed}

    def setup(self, stage=None):
        pass

    def windows(self, split, positions=None):
        return self.clips[self.splits[split] if positions is None else positions]

    def targets(self, split):
        return self.derivatives[self.splits[split]]

    def hr(self, split):
        return self.rates_bpm[self.owner[self.splits[split]]]

    def record_ids(self, split):
        return np.char.add("v", self.owner[self.splits[split]].astype(str))

    def subject_ids(self, split):
        return np.char.add("p", self.owner[self.splits[split]].astype(str))

    def times_s(self, split):
        return self.starts_s[self.splits[split]]

    def video_hr(self, split):
        return {f"v{owner}": float(self.rates_bpm[owner]) for owner in np.unique(self.owner[self.splits[split]])}

    def traces(self, split):
        time_s = np.arange(self.traces_rgb.shape[1]) / FS
        owners = np.unique(self.owner[self.splits[split]])
        return {f"v{owner}": {"times_s": time_s, "rgb": self.traces_rgb[owner]} for owner in owners}

    def calibration(self, n, seed):
        positions = np.sort(np.random.default_rng(seed).choice(self.splits["train"], min(n, 12), replace=False))
        return positions, self.clips[positions]

    def loader(self, split, shuffle):
        index = torch.from_numpy(self.splits[split])
        data = TensorDataset(torch.from_numpy(self.clips)[index], torch.from_numpy(self.derivatives)[index], index)
        return DataLoader(data, batch_size=4, shuffle=shuffle)

    def train_dataloader(self):
        return self.loader("train", True)

    def val_dataloader(self):
        return self.loader("val", False)


def tiny_pulse_module(seed=0, lr=0.01):
    from lightning_modules.nets.tscan import TsCan
    from lightning_modules.rppg import RppgModule

    torch.manual_seed(seed)
    net = TsCan(N_FRAMES, SIZE, widths=(4, 4), dense_width=8, dropout=(0.0, 0.0))
    return RppgModule(net, partial(torch.optim.Adam, lr=lr))
