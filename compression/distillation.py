"""Knowledge distillation: a student learns from what a fitted teacher answers, and from how it gets there."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compression.distillation_parts import Part, SoftTargets, project
from compression.feature_maps import Answer, Tap, find_layer
from compression.recipe import FOLDED, SHAPE, TRAINED, ZEROS, ExportSpec, Tools, fine_tune, weights_digest
from compression.teachers import BatchView, LateView, PairedData, check_same_windows, look_at_records
from lightning_modules.classifier import Batch, Classifier

VIEWS = ("record", "batch")
STARTS = ("fresh", "here")


@dataclass(frozen=True)
class Term:
    """A part of the loss with the layers that it compares, of the student and of the teacher; none for logits."""

    part: Part
    layer: str = ""
    teacher_layer: str = ""


class DistillationLoss(nn.Module):
    """``label_weight * labels + sum of weight * part``, with the projections that train beside the student.

    Parameters
    ----------
    terms : mapping of str to Term
    projections : nn.ModuleDict
        By name of the term; in no net, so that nothing exports them.
    label_weight : float
    student : Classifier
        Gives the loss of its labels, and whether its classes exclude each other.
    tap : Tap
        Of the student's layers.
    teacher : LateView or BatchView
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        projections: nn.ModuleDict,
        label_weight: float,
        student: Classifier,
        tap: Tap,
        teacher: LateView | BatchView,
    ) -> None:
        super().__init__()
        self.projections = projections
        self.terms = dict(terms)
        self.label_weight = label_weight
        self.label_loss, self.exclusive = student.label_loss, student.exclusive
        self.tap = tap
        # Neither is a module: the teacher's weights do not train.
        self.teacher = teacher

    def forward(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss of logits (batch, classes) and of the maps behind them, a scalar."""
        maps = self.tap.take()
        teacher_logits, teacher_maps = self.teacher(batch)
        loss = self.label_weight * self.label_loss(logits, batch)
        for name, term in self.terms.items():
            features = maps.get(term.layer)
            if features is not None and name in self.projections:
                features = self.projections[name](features)
            student = Answer(logits, features, self.exclusive)
            teacher = Answer(teacher_logits, teacher_maps.get(term.teacher_layer), self.exclusive)
            loss = loss + term.part.weight * term.part(student, teacher)
        return loss


@dataclass(frozen=True)
class Distill:
    """Fit a student under the recipe's teacher, with a weighted sum of labels and parts.

    Parameters
    ----------
    parts : mapping of str to Part
        See `compression.distillation_parts`; soft targets by default.
    label_weight : float
        Weight of the labels, not below 0.
    view : {"record", "batch"}
        What the teacher looks at: the whole window once (one pass over the training split; maps are averaged over
        time), or each augmented batch (one pass an epoch). Where the teacher has data of its own, such as more leads,
        the batch is the same crop of it.
    start : {"fresh", "here"}
        A new student of the same architecture, or the present weights, trained further.
    max_epochs : int, optional
        The model's own by default, for a fresh student; needed for ``here``.
    learning_rate : float, optional
        Highest of the cycle; needed for ``here``, the model's own for a fresh student.
    claims : mapping
        What the gate checks, see `compression.recipe.Step`.

    Raises
    ------
    ValueError
        If an option is out of its range; there is no teacher, or it has other classes or windows than the student; a
        fresh student would throw an earlier step away; a layer does not exist.
    """

    leaves: ClassVar[Sequence[str]] = (TRAINED,)

    parts: Mapping[str, Part] = field(default_factory=lambda: {"soft": SoftTargets()})
    label_weight: float = 0.7
    view: str = "record"
    start: str = "fresh"
    max_epochs: int | None = None
    learning_rate: float | None = None
    claims: Mapping[str, float] = field(default_factory=dict)
    name: str = "distill"

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("parts is empty: a distillation without a part learns nothing from its teacher")
        if not self.label_weight >= 0:
            raise ValueError(f"label_weight is {self.label_weight!r}, it must not be below 0")
        for key, value, allowed in (("view", self.view, VIEWS), ("start", self.start, STARTS)):
            if value not in allowed:
                raise ValueError(f"{key} is {value!r}, it must be one of {allowed}")
        if self.start == "here" and not (self.max_epochs and self.learning_rate):
            raise ValueError(
                f"start=here continues for max_epochs ({self.max_epochs!r}) under learning_rate"
                f" ({self.learning_rate!r}): give both"
            )
        if self.start == "fresh" and self.learning_rate is not None:
            raise ValueError(
                f"learning_rate is {self.learning_rate!r}, but start=fresh trains as the student's own fit does: leave"
                " it out, or set start=here"
            )
        for name, part in self.parts.items():
            if part.over_time and self.view == "record":
                raise ValueError(
                    f"part {name!r} compares maps over time, but view=record keeps their mean over the whole window"
                    " while the student sees a crop: set view=batch"
                )

    @property
    def refuses(self) -> Mapping[str, str]:
        """What earlier steps may not have left: a fresh student keeps nothing, a trained one no zeros."""
        if self.start == "fresh":
            undone = (
                f"a fresh student would throw away what that step did; put {self.name!r} first, or set start=here to"
                " train on from its weights"
            )
            return dict.fromkeys((SHAPE, ZEROS, FOLDED, TRAINED), undone)
        return {
            ZEROS: f"training does not hold the zeros; put {self.name!r} before",
            FOLDED: f"a net trains worse without its norms; put {self.name!r} before",
        }

    def __call__(self, module: Classifier, spec: ExportSpec, tools: Tools) -> tuple[Classifier, ExportSpec]:
        """Return a student that holds its plain loss again: the teacher and the projections stay behind."""
        teacher = self._check(module, tools)
        student = tools.rebuild()
        if self.start == "here":
            student.net = copy.deepcopy(module.net)
        with ExitStack() as stack:
            terms, projections = self._find_terms(student, teacher, tools)
            tap = stack.enter_context(Tap(student.net, {term.layer for term in terms.values() if term.layer}))
            layers = {term.teacher_layer for term in terms.values() if term.teacher_layer}
            view: LateView | BatchView
            if self.view == "record":
                view = LateView(partial(look_at_records, teacher, tools.teacher_data or tools.datamodule, layers))
            else:
                view = BatchView(teacher, stack.enter_context(Tap(teacher.net, layers)))
                if tools.teacher_data is not None:
                    paired = PairedData(tools.datamodule, tools.teacher_data)
                    tools = replace(tools, fit=partial(tools.fit, datamodule=paired))
            plain = student.criterion
            student.criterion = DistillationLoss(terms, projections, self.label_weight, student, tap, view)
            student = self._fit(student, tools, self._about(teacher, tools))
            del student.criterion
            student.criterion = plain
        return student, spec

    def _check(self, module: Classifier, tools: Tools) -> Classifier:
        if tools.teacher is None:
            raise ValueError(f"step {self.name!r} needs a teacher: include conf/compression/distill.yaml in the recipe")
        if self.start == "fresh" and tools.history:
            raise ValueError(
                f"step {self.name!r} (start=fresh) comes after {tools.history[-1]!r}: a fresh student would throw away"
                f" what that step did; put {self.name!r} first, or set start=here to train on from its weights"
            )
        teacher = tools.teacher.eval()
        if tuple(teacher.class_names) != tuple(module.class_names):
            raise ValueError(
                f"the teacher knows {teacher.class_names}, the student {module.class_names}: distillation needs the"
                " same classes in the same order; choose another teacher (model@compression.teacher=...)"
            )
        if tools.teacher_data is not None:
            check_same_windows(tools.datamodule, tools.teacher_data)
        return teacher

    def _find_terms(
        self, student: Classifier, teacher: Classifier, tools: Tools
    ) -> tuple[dict[str, Term], nn.ModuleDict]:
        """Find the layers of each part, and make the projections between them."""
        position = tools.datamodule.splits["train"][:1]
        ours, theirs = (
            torch.from_numpy(data.windows("train", position))
            for data in (tools.datamodule, tools.teacher_data or tools.datamodule)
        )
        terms, projections = {}, nn.ModuleDict()
        for name, part in self.parts.items():
            terms[name] = Term(part)
            options = vars(part)
            if "layer" in options:
                key = f"parts.{name}"
                layer, width = find_layer(student.net, options["layer"], ours, f"{key}.layer")
                taught, n_taught = find_layer(teacher.net, options["teacher_layer"], theirs, f"{key}.teacher_layer")
                terms[name] = Term(part, layer, taught)
                if part.learns:
                    projections[name] = project(width, n_taught)
        return terms, projections

    def _about(self, teacher: Classifier, tools: Tools) -> dict[str, Any]:
        """Everything that the student's weights depend on beside its own config and data."""
        about = {
            "step": self.name,
            "parts": {name: {"part": type(part).__name__, **vars(part)} for name, part in self.parts.items()},
            "label_weight": self.label_weight,
            "view": self.view,
            "start": self.start,
            "teacher": weights_digest(teacher),
        }
        if tools.teacher_data is not None:
            about["teacher_data"] = tools.teacher_data.preprocessing_digest
        return about

    def _fit(self, student: Classifier, tools: Tools, about: Mapping[str, Any]) -> Classifier:
        if self.start == "here" and self.max_epochs and self.learning_rate:
            return fine_tune(student, tools, about, max_epochs=self.max_epochs, learning_rate=self.learning_rate)
        return tools.fit(student, about, max_epochs=self.max_epochs)
