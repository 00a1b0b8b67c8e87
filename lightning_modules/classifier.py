"""The LightningModule of every ECG classifier, multi-label or with exclusive classes."""

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MultilabelAUROC

# One training batch: signal (batch, leads, time), target (batch, classes), index (batch,).
Batch = Sequence[Tensor]

MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def bce_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Binary cross-entropy of logits (batch, classes) against the batch's targets, mean over both axes."""
    return functional.binary_cross_entropy_with_logits(logits, batch[1])


def softmax_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the softmax over logits (batch, classes) against the batch's targets, mean over the batch."""
    return functional.cross_entropy(logits, batch[1])


class Classifier(pl.LightningModule):
    """Train a net on windows with one sigmoid per class, or with a softmax over exclusive classes.

    Parameters
    ----------
    net : nn.Module
        Maps (batch, leads, time) to logits (batch, classes).
    class_names : sequence of str
        Names of the logits, in order.
    optimizer : callable
        Called with the parameters (a partial from the config).
    scheduler : callable, optional
        Called with ``(optimizer, total_steps=...)``; stepped after every batch.
    exclusive : bool, default False
        Every window has exactly one class.
    criterion : callable, optional
        ``criterion(logits, batch) -> loss``; `softmax_loss` for exclusive classes and `bce_loss` for others by
        default. Distillation brings its own.
    memory_format : {"channels_last", "contiguous"}
        Layout of the weights; which one is faster was measured for each model.
    monitor : str, default "val/auroc_macro"
        The metric that picks the best epoch; larger is better.

    Raises
    ------
    ValueError
        If `memory_format` is unknown.
    FloatingPointError
        In training, when the loss is not finite.
    """

    def __init__(
        self,
        net: nn.Module,
        class_names: Sequence[str],
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None,
        exclusive: bool = False,
        criterion: Callable[[Tensor, Batch], Tensor] | None = None,
        memory_format: str = "channels_last",
        monitor: str = "val/auroc_macro",
    ) -> None:
        super().__init__()
        if memory_format not in MEMORY_FORMATS:
            raise ValueError(f"memory_format {memory_format!r} must be one of {sorted(MEMORY_FORMATS)}")
        self.net = net.to(memory_format=MEMORY_FORMATS[memory_format])  # type: ignore[call-overload]
        self.class_names = tuple(class_names)
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.exclusive = exclusive
        self.label_loss = softmax_loss if exclusive else bce_loss
        self.criterion = criterion or self.label_loss
        self.monitor = monitor
        self.val_auroc = MultilabelAUROC(num_labels=len(self.class_names), average=None)

    def forward(self, signal: Tensor) -> Tensor:
        """Logits (batch, classes) of windows (batch, leads, time)."""
        return self.net(signal)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Loss of one batch, a scalar."""
        loss = self.criterion(self(batch[0]).float(), batch)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss is {loss.item()} in epoch {self.current_epoch}, batch {batch_index}: lower the learning rate"
                " (optim.optimizer.lr), or check the recordings for NaN"
            )
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Collect the scores of one batch; the loss is always the plain cross-entropy."""
        logits = self(batch[0]).float()
        self.log("val/loss", self.label_loss(logits, batch), batch_size=len(batch[0]))
        self.val_auroc.update(logits.softmax(dim=1) if self.exclusive else logits.sigmoid(), batch[1].long())

    def on_validation_epoch_end(self) -> None:
        """Log AUROC per class, one-vs-rest, and its mean."""
        per_class = self.val_auroc.compute()
        self.val_auroc.reset()
        for name, value in zip(self.class_names, per_class, strict=True):
            self.log(f"val/auroc_{name}", value)
        self.log("val/auroc_macro", per_class.mean(), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Optimizer and, where the config names one, a scheduler stepped per batch."""
        optimizer = self.optimizer(self.parameters())
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
