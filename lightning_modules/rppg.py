"""The LightningModule of nets that read the pulse from clips of a face."""

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional

from lightning_modules.nets.tscan import TsCan

# One training batch: clips (batch, frames, 6, size, size), target (batch, frames) or (batch, frames, tasks), index.
Batch = Sequence[Tensor]

MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
# Below it the product of two waves' powers counts as that of a flat one.
TINY = 1e-12


def pearson(signals: Tensor, target: Tensor) -> Tensor:
    """Pearson's correlation over the frames of each clip; 0 where a wave is flat.

    Shapes: signals, target (batch, frames, ...) -> (batch, ...).
    """
    ours, theirs = (wave - wave.mean(dim=1, keepdim=True) for wave in (signals, target))
    norms = ours.square().sum(dim=1) * theirs.square().sum(dim=1)
    # Before the root, whose slope at 0 is no number.
    return (ours * theirs).sum(dim=1) / norms.clamp(min=TINY).sqrt()


def negative_pearson_loss(signals: Tensor, batch: Batch) -> Tensor:
    """``1 - r`` of signals against the batch's targets, both (batch, frames, ...), mean over clips and tasks.

    Yu et al. 2019, BMVC (doi 10.48550/arXiv.1905.02419). Blind to scale and offset of the signal, so that it trains
    the shape of the wave. Differs: on the derivative of the wave, as a TS-CAN predicts it.
    """
    return 1 - pearson(signals, batch[1]).mean()


def mse_loss(signals: Tensor, batch: Batch) -> Tensor:
    """Squared error of signals against the batch's targets, both (batch, frames, ...), as TS-CAN was published.

    Liu et al. 2020 (doi 10.48550/arXiv.2006.03790); tasks weigh alike.
    """
    return functional.mse_loss(signals, batch[1])


LOSSES: dict[str, Callable[[Tensor, Batch], Tensor]] = {
    "negative_pearson": negative_pearson_loss,
    "mse": mse_loss,
}


class RppgModule(pl.LightningModule):
    """Train a net on clips of a face against the derivative of the pulse that a sensor saw.

    Where a batch's targets have an axis of tasks, all heads of the net learn; else the one that answers.

    Parameters
    ----------
    net : TsCan
        Maps (batch, frames, 6, size, size) to (batch, frames).
    optimizer : callable
        Called with the parameters (a partial from the config).
    scheduler : callable, optional
        Called with ``(optimizer, total_steps=...)``; stepped after every batch.
    loss : {"negative_pearson", "mse"}
        Against the targets; always that of validation.
    criterion : callable, optional
        ``criterion(signals, batch) -> loss`` in training, that of `loss` by default. Distillation brings its own.
    memory_format : {"channels_last", "contiguous"}
        Layout of the weights; which one is faster was measured for each model.
    monitor : str, default "val/pearson"
        The metric that picks the best epoch; larger is better.

    Raises
    ------
    ValueError
        If `loss` or `memory_format` is unknown, or targets do not fit the net's tasks.
    FloatingPointError
        In training, when the loss is not finite.
    """

    # What distillation asks of every module: outputs in the same order, and no softmax over them.
    class_names = ("bvp",)
    exclusive = False

    def __init__(
        self,
        net: TsCan,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None,
        loss: str = "negative_pearson",
        criterion: Callable[[Tensor, Batch], Tensor] | None = None,
        memory_format: str = "channels_last",
        monitor: str = "val/pearson",
    ) -> None:
        super().__init__()
        for key, value, allowed in (("loss", loss, LOSSES), ("memory_format", memory_format, MEMORY_FORMATS)):
            if value not in allowed:
                raise ValueError(f"{key} {value!r} must be one of {sorted(allowed)}")
        self.net = net.to(memory_format=MEMORY_FORMATS[memory_format])  # type: ignore[call-overload]
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.label_loss = LOSSES[loss]
        self.criterion = criterion or self.label_loss
        self.monitor = monitor

    def forward(self, clips: Tensor) -> Tensor:
        """Predict the derivative of the pulse (batch, frames) of clips (batch, frames, 6, size, size)."""
        return self.net(clips)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Loss of one batch, a scalar."""
        loss = self.criterion(self._signals(batch), batch)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss is {loss.item()} in epoch {self.current_epoch}, batch {batch_index}: lower the learning rate"
                " (optim.optimizer.lr), or check the videos and their pulse waves for NaN"
            )
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Log the plain loss, and the correlation of the pulse with its target, mean over clips."""
        signals, n = self._signals(batch), len(batch[0])
        correlation = pearson(signals, batch[1])
        if correlation.ndim == 2:
            correlation = correlation[:, self.net.tasks.index(self.net.answer)]
        self.log("val/loss", self.label_loss(signals, batch), batch_size=n)
        self.log("val/pearson", correlation.mean(), batch_size=n, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Optimizer and, where the config names one, a scheduler stepped per batch."""
        optimizer = self.optimizer(self.parameters())
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _signals(self, batch: Batch) -> Tensor:
        """Run the net on the clips, with an axis of tasks where the targets have one."""
        clips, target = batch[0], batch[1]
        if target.ndim == 2:
            return self(clips).float()
        if target.shape[2:] != (len(self.net.tasks),):
            raise ValueError(
                f"targets of shape {tuple(target.shape)}, expected (batch, frames) or one column for each of"
                f" {self.net.tasks}: check model.module.net.tasks"
            )
        return self.net.forward_tasks(clips).float()
