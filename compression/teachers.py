"""How a student's loss sees its teacher: each record once, or the very stretch of signal that the student sees."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from compression.feature_maps import Tap
from lightning_modules.classifier import Batch, Classifier

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class RecordView:
    """The teacher's answers to the whole, unaugmented windows, computed once and looked up by batch index.

    Attributes
    ----------
    logits : Tensor
        (windows, classes).
    maps : mapping of str to Tensor
        Maps averaged over time, by layer, (windows, channels, 1).
    """

    logits: Tensor
    maps: Mapping[str, Tensor] = field(default_factory=dict)

    def __call__(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Give logits (batch, classes) and the maps by layer."""
        rows, device = batch[2].cpu(), batch[1].device
        return self.logits[rows].to(device), {name: value[rows].to(device) for name, value in self.maps.items()}


@dataclass
class LateView:
    """A `RecordView` that is computed when the first batch asks for it: a fit that is found again never does.

    Attributes
    ----------
    look : callable
        Computes it.
    """

    look: Callable[[], RecordView]

    @cached_property
    def _view(self) -> RecordView:
        return self.look()

    def __call__(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Give logits (batch, classes) and the maps by layer."""
        return self._view(batch)


@dataclass(frozen=True)
class BatchView:
    """The teacher on the batch that the student sees, or on the same stretch of its own leads.

    The latter is the fourth item of a batch, see `PairedData`.
    """

    module: Classifier
    tap: Tap

    def __call__(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the teacher, without gradient: logits (batch, classes) and maps (batch, channels, time) by layer."""
        signal = batch[3] if len(batch) > 3 else batch[0]
        with torch.no_grad():
            return self.module.to(signal.device)(signal).float(), self.tap.take()


def look_at_records(
    module: Classifier, datamodule: Any, layers: Collection[str] = (), batch_size: int = 64
) -> RecordView:
    """Run `module` on every training window; other positions of the data set hold NaN."""
    positions = torch.as_tensor(datamodule.splits["train"])
    answers: dict[str, Tensor] = {}
    # In the numbers of the teacher's weights, whatever precision a student trains in around it.
    plain = torch.autocast(module.device.type, enabled=False)
    with torch.inference_mode(), plain, Tap(module.net, layers) as tap:
        for chunk in positions.split(batch_size):
            windows = torch.from_numpy(datamodule.windows("train", chunk.numpy()))
            logits = module(windows.to(module.device)).float()
            pooled = {name: value.mean(dim=2, keepdim=True) for name, value in tap.take().items()}
            for name, value in {"": logits, **pooled}.items():
                if name not in answers:
                    answers[name] = torch.full((int(positions.max()) + 1, *value.shape[1:]), torch.nan)
                answers[name][chunk] = value.cpu()
    return RecordView(answers.pop(""), answers)


def check_same_windows(student: Any, teacher: Any) -> None:
    """Refuse two data modules that do not hold the same windows, in the same order, on the same sides.

    Raises
    ------
    ValueError
        If classes or kind differ, or a side has other records; the message names the first.
    """
    for name in ("class_names", "exclusive", "level"):
        ours, theirs = getattr(student, name), getattr(teacher, name)
        if ours != theirs:
            raise ValueError(
                f"{name} is {theirs!r} in the teacher's data (compression.teacher.data), {ours!r} in the student's:"
                " both must look at the same windows and labels"
            )
    for side in SPLITS:
        ours, theirs = student.record_ids(side), teacher.record_ids(side)
        if len(ours) != len(theirs):
            raise ValueError(
                f"the teacher's data (compression.teacher.data) have {len(theirs)} windows on the side {side!r}, the"
                f" student's {len(ours)}: both must be the same records"
            )
        aligned = (ours == theirs) & (student.splits[side] == teacher.splits[side])
        times = student.times_s(side), teacher.times_s(side)
        if times[0] is not None and times[1] is not None:
            aligned &= times[0] == times[1]
        if not aligned.all():
            at = int(np.argmin(aligned))
            raise ValueError(
                f"window {at} of the side {side!r} is of record {str(ours[at])!r} for the student and"
                f" {str(theirs[at])!r} for the teacher (compression.teacher.data), or lies elsewhere: both must be"
                " the same records in the same order"
            )


class PairedData(pl.LightningDataModule):
    """Training batches of the teacher's data, out of which the student gets its own leads: the same crop for both.

    Batches are (signal, target, index, teacher's signal); validation is the student's own. With the same seed and
    crop they hold the very signals that the student's own loader would give.

    Parameters
    ----------
    student, teacher : EcgDataModule
        Set up, with the same windows; the student's leads are among the teacher's.

    Raises
    ------
    ValueError
        If a lead of the student is not among the teacher's, or rate or length differ.
    """

    def __init__(self, student: Any, teacher: Any) -> None:
        super().__init__()
        if absent := [name for name in student.lead_names if name not in teacher.lead_names]:
            raise ValueError(
                f"leads {absent} of the student are not among the teacher's {list(teacher.lead_names)}: with"
                " view=batch both see one crop; add them to compression.teacher.data.lead_names or take view=record"
            )
        if (student.fs, student.n_samples) != (teacher.fs, teacher.n_samples):
            raise ValueError(
                f"the teacher's windows have {teacher.n_samples} samples at {teacher.fs} Hz, the student's"
                f" {student.n_samples} at {student.fs}: with view=batch both see one crop; take view=record"
            )
        self.student, self.teacher = student, teacher
        self.kind = student.kind
        self.data_digest, self.split_digest = student.data_digest, student.split_digest
        self.preprocessing_digest = student.preprocessing_digest
        self.leads = torch.tensor([teacher.lead_names.index(name) for name in student.lead_names])
        ours, theirs = student.normalizer, teacher.normalizer
        # From the teacher's standard deviations to mV, and on to the student's.
        self.scale = torch.from_numpy(theirs.std_mv[self.leads] / ours.std_mv)[:, None]
        self.shift = torch.from_numpy((theirs.mean_mv[self.leads] - ours.mean_mv) / ours.std_mv)[:, None]

    @property
    def training_settings(self) -> dict[str, Any]:
        """What shapes the training batches: the settings of the teacher's loader, and its preprocessing."""
        return {**self.teacher.training_settings, "paired_with": self.teacher.preprocessing_digest}

    def train_dataloader(self) -> "PairedBatches":
        """Return the shuffled, augmented batches for both."""
        return PairedBatches(self.teacher.train_dataloader(), self.leads, self.scale, self.shift)

    def val_dataloader(self) -> Any:
        """Return the student's validation batches."""
        return self.student.val_dataloader()


@dataclass(frozen=True)
class PairedBatches:
    """Batches of a loader (signal, target, index) as (student's signal, target, index, signal).

    Attributes
    ----------
    loader : DataLoader
    leads : Tensor of int64
        Rows that the student sees, (leads,).
    scale, shift : Tensor
        Make them what they are under the student's normaliser, (leads, 1).
    """

    loader: Any
    leads: Tensor
    scale: Tensor
    shift: Tensor

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yield the batches of an epoch."""
        for signal, target, index in self.loader:
            yield signal[:, self.leads] * self.scale + self.shift, target, index, signal
