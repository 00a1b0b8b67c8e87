"""Knowledge distillation: a student learns from the probabilities of a fitted teacher."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compression.recipe import ExportSpec, Tools, weights_digest
from lightning_modules.classifier import Batch, Classifier, bce_loss, softmax_loss

VIEWS = ("record", "batch")


@dataclass(frozen=True)
class SoftTargetLoss:
    """``(1 - alpha) CE(labels) + alpha T^2 KL(softmax(teacher / T) || softmax(student / T))``, mean over the batch.

    Hinton et al. 2015 (doi 10.48550/arXiv.1503.02531). Where classes are not exclusive, with a sigmoid per class and
    binary cross-entropies, mean over batch and classes, in the place of the softmax; that differs from the
    divergence by the teacher's entropy, which has no gradient.

    Attributes
    ----------
    teacher : callable
        ``teacher(batch) -> logits`` (batch, classes), without gradient.
    """

    teacher: "RecordView | BatchView"
    temperature: float
    alpha: float
    exclusive: bool = False

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss of logits (batch, classes), a scalar."""
        student, teacher = logits / self.temperature, self.teacher(batch) / self.temperature
        if self.exclusive:
            log_student, log_teacher = student.log_softmax(dim=1), teacher.log_softmax(dim=1)
            distilled = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
        else:
            distilled = functional.binary_cross_entropy_with_logits(student, teacher.sigmoid())
        label_loss = softmax_loss if self.exclusive else bce_loss
        return (1 - self.alpha) * label_loss(logits, batch) + self.alpha * self.temperature**2 * distilled


@dataclass(frozen=True)
class RecordView:
    """The teacher's logits on the whole, unaugmented windows, computed once: (windows, classes) by batch index."""

    logits: Tensor

    def __call__(self, batch: Batch) -> Tensor:
        """Look the batch's windows up."""
        return self.logits[batch[2].cpu()].to(batch[1].device)


@dataclass(frozen=True)
class BatchView:
    """The teacher on the very batch that the student sees."""

    module: Classifier

    def __call__(self, batch: Batch) -> Tensor:
        """Run the teacher, without gradient."""
        with torch.no_grad():
            return self.module.to(batch[0].device)(batch[0]).float()


@dataclass(frozen=True)
class Distill:
    """Fit a fresh student with soft targets of the recipe's teacher.

    Parameters
    ----------
    temperature : float
        Above 0; softens both sides.
    alpha : float
        Weight of the soft part, within [0, 1].
    view : {"record", "batch"}
        What the teacher looks at: the whole window once (one pass over the training split), or each augmented
        batch (one pass an epoch).
    claims : mapping
        What the gate checks, see `compression.recipe.Step`.

    Raises
    ------
    ValueError
        If an option is out of its range, there is no teacher, or it has other classes than the student.
    """

    temperature: float = 2.0
    alpha: float = 0.7
    view: str = "record"
    claims: Mapping[str, float] = field(default_factory=dict)
    name: str = "distill"

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature!r}, it must be above 0")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha!r}, it must lie within [0, 1]")
        if self.view not in VIEWS:
            raise ValueError(f"view is {self.view!r}, it must be one of {VIEWS}")

    def __call__(self, module: Classifier, spec: ExportSpec, tools: Tools) -> tuple[Classifier, ExportSpec]:
        """Return a student of the same architecture, fitted from scratch under the teacher."""
        if tools.teacher is None:
            raise ValueError("step 'distill' needs a teacher: include conf/compression/distill.yaml in the recipe")
        teacher = tools.teacher.eval()
        if tuple(teacher.class_names) != tuple(module.class_names):
            raise ValueError(
                f"the teacher knows {teacher.class_names}, the student {module.class_names}: distillation needs the"
                " same classes in the same order; choose another teacher (model@compression.teacher=...)"
            )
        student = tools.rebuild()
        source = RecordView(record_logits(teacher, tools.datamodule)) if self.view == "record" else BatchView(teacher)
        student.criterion = SoftTargetLoss(source, self.temperature, self.alpha, student.exclusive)
        about = {"step": self.name, "temperature": self.temperature, "alpha": self.alpha, "view": self.view}
        return tools.fit(student, {**about, "teacher": weights_digest(teacher)}), spec


def record_logits(module: Classifier, datamodule: Any, batch_size: int = 64) -> Tensor:
    """Logits of `module` on every training window, by position in the data set: (positions, classes)."""
    positions = torch.as_tensor(datamodule.splits["train"])
    logits = torch.full((int(positions.max()) + 1, len(module.class_names)), torch.nan)
    with torch.inference_mode():
        for chunk in positions.split(batch_size):
            windows = torch.from_numpy(datamodule.windows("train", chunk.numpy()))
            logits[chunk] = module(windows.to(module.device)).float().cpu()
    return logits
