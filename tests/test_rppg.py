"""The module for clips of a face: its losses, a fit, what it refuses."""

from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_modules.nets.tscan import TsCan
from lightning_modules.rppg import RppgModule, mse_loss, negative_pearson_loss, pearson


def make_module(tasks=("bvp",), lr=5e-3, **options) -> RppgModule:
    torch.manual_seed(0)
    net = TsCan(10, 12, segment=5, widths=(4, 6), dense_width=8, dropout=(0.0, 0.0), tasks=tasks)
    return RppgModule(net, partial(torch.optim.Adam, lr=lr), **options)


def make_batch(n=24, tasks=0):
    """Clips in which the green channel of the motion carries the target."""
    random = torch.Generator().manual_seed(1)
    phase = 6.28 * torch.rand(n, 1, generator=random)
    target = torch.sin(1.1 * torch.arange(10) + phase)
    target = (target - target.mean(1, keepdim=True)) / target.std(1, keepdim=True)
    clips = 0.2 * torch.randn(n, 10, 6, 12, 12, generator=random)
    clips[:, :, 1] += target[:, :, None, None]
    if tasks:
        target = torch.stack([target] * tasks, -1)
    return clips, target, torch.arange(n)


def fit(module, batch, epochs=8, folder=None):
    loader = DataLoader(TensorDataset(*batch), batch_size=8)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    trainer.fit(module, loader, loader)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("tasks", [0, 2])
def test_rppg_pearson_equals_numpys(tasks):
    shape = (3, 20, tasks) if tasks else (3, 20)
    ours, theirs = torch.randn(shape), torch.randn(shape)
    found = pearson(ours, theirs).reshape(3, -1)
    for clip in range(3):
        for task in range(found.shape[1]):
            pair = (wave.reshape(3, 20, -1)[clip, :, task].numpy() for wave in (ours, theirs))
            assert found[clip, task] == pytest.approx(np.corrcoef(*pair)[0, 1], abs=1e-5)


def test_rppg_losses_know_a_perfect_wave():
    _, target, _ = batch = make_batch(4)
    assert negative_pearson_loss(3 * target + 1, batch) == pytest.approx(0, abs=1e-5)
    assert negative_pearson_loss(-target, batch) == pytest.approx(2, abs=1e-5)
    assert mse_loss(target + 2, batch) == pytest.approx(4, abs=1e-5)
    # A flat wave correlates with nothing, and has a gradient that is a number.
    flat = torch.zeros_like(target, requires_grad=True)
    loss = negative_pearson_loss(flat, batch)
    loss.backward()
    assert loss.item() == 1
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()


@pytest.mark.parametrize("loss", ["negative_pearson", "mse"])
def test_rppg_learns_a_pulse(loss, tmp_path):
    metrics = fit(make_module(loss=loss), make_batch(), folder=tmp_path)
    assert metrics["val/pearson"] > 0.8
    assert metrics["train/loss"] < 0.6


def test_rppg_trains_all_heads_where_there_are_targets(tmp_path):
    module = make_module(tasks=("bvp", "resp"))
    before = module.net.heads["resp"].out.weight.clone()
    fit(module, make_batch(8), 1, tmp_path)
    assert torch.equal(module.net.heads["resp"].out.weight, before)
    metrics = fit(module, make_batch(8, tasks=2), 1, tmp_path)
    assert not torch.equal(module.net.heads["resp"].out.weight, before)
    assert -1 <= metrics["val/pearson"] <= 1


def test_rppg_stops_when_the_loss_is_not_finite(tmp_path):
    clips, target, index = make_batch(8)
    target[3, 2] = torch.nan
    with pytest.raises(FloatingPointError, match=r"loss is nan in epoch 0, batch 0.*pulse waves for NaN"):
        fit(make_module(), (clips, target, index), 1, tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_module(loss="mae"), r"loss 'mae' must be one of \['mse', 'negative_pearson'\]"),
        (lambda: make_module(memory_format="x"), "memory_format 'x' must be one of"),
        (lambda: make_module()._signals(make_batch(2, tasks=2)), r"one column for each of \('bvp',\)"),
    ],
)
def test_rppg_refuses_what_does_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()
