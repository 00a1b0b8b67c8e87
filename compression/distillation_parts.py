"""Parts of a distillation loss: what a student can take from a teacher. Each gives a scalar, 0 where it has it all."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from compression.feature_maps import Answer, match_time

TINY = 1e-12


class Part(Protocol):
    """One weighted term of the loss, a frozen dataclass; one that compares maps has ``layer`` and ``teacher_layer``.

    ``learns`` says whether a projection trains with the student (see `project`), ``over_time`` whether the maps must
    be of the same stretch of time.
    """

    learns: ClassVar[bool]
    over_time: ClassVar[bool]

    @property
    def weight(self) -> float:
        """Factor of the term, above 0."""
        ...

    def __call__(self, student: Answer, teacher: Answer) -> Tensor:
        """Loss of a batch, a scalar; not weighted."""
        ...


def check_weight(weight: float) -> None:
    """Refuse a weight that is not above 0."""
    if not weight > 0:
        raise ValueError(f"weight is {weight!r}, it must be above 0; leave the part out instead")


def project(inputs: int, outputs: int) -> nn.Module:
    """1x1 convolution from the student's channels to the teacher's, for maps (batch, channels, time).

    Its first weights are the same in every fit, whatever ran before.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Conv1d(inputs, outputs, 1)


@dataclass(frozen=True)
class SoftTargets:
    """Soft targets: ``T^2 KL(softmax(teacher / T) || softmax(student / T))``, mean over the batch.

    Hinton et al. 2015 (doi 10.48550/arXiv.1503.02531). Where classes are not exclusive, the divergence of a sigmoid
    per class in the place of the softmax, as in the multi-label distillation of MVKT-ECG (Qin et al. 2023, doi
    10.48550/arXiv.2301.12178); mean over batch and classes.

    Parameters
    ----------
    weight : float
    temperature : float
        Above 0; softens both sides.
    """

    weight: float = 0.3
    temperature: float = 2.0
    learns: ClassVar[bool] = False
    over_time: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature!r}, it must be above 0")

    def __call__(self, student: Answer, teacher: Answer) -> Tensor:
        """Divergence of logits (batch, classes)."""
        ours, theirs = student.logits / self.temperature, teacher.logits / self.temperature
        if student.exclusive:
            log_ours, log_theirs = ours.log_softmax(dim=1), theirs.log_softmax(dim=1)
            divergence = functional.kl_div(log_ours, log_theirs, reduction="batchmean", log_target=True)
        else:
            soft = theirs.sigmoid()
            entropy = functional.binary_cross_entropy_with_logits(theirs, soft)
            divergence = functional.binary_cross_entropy_with_logits(ours, soft) - entropy
        return self.temperature**2 * divergence


@dataclass(frozen=True)
class FeatureHint:
    """Hints: squared error of the student's map, projected to the teacher's channels, against the teacher's map.

    FitNets, Romero et al. 2015 (doi 10.48550/arXiv.1412.6550). Differs: trained together with the other parts and not
    in a stage before them; relative to the teacher's mean square, so that a weight means the same for every teacher.

    Parameters
    ----------
    weight : float
    layer, teacher_layer : str, optional
        Modules of the two nets; the last map before pooling by default.
    """

    weight: float = 1.0
    layer: str | None = None
    teacher_layer: str | None = None
    learns: ClassVar[bool] = True
    over_time: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_weight(self.weight)

    def __call__(self, student: Answer, teacher: Answer) -> Tensor:
        """Relative error of maps (batch, channels, time), the student's projected already."""
        ours, theirs = match_time(student.map, teacher.map)
        return functional.mse_loss(ours, theirs) / theirs.square().mean().clamp(min=TINY)


@dataclass(frozen=True)
class AttentionTransfer:
    """Attention transfer: squared distance of the two attention maps over time, each of unit length.

    The attention at a time is the mean over channels of the squared map. Zagoruyko & Komodakis 2017 (doi
    10.48550/arXiv.1612.03928), activation-based. Differs: one axis, time, in the place of two; the sum over it, mean
    over the batch, so that the length of the maps does not weigh.

    Parameters
    ----------
    weight : float
    layer, teacher_layer : str, optional
        Modules of the two nets; the last map before pooling by default.
    """

    weight: float = 1.0
    layer: str | None = None
    teacher_layer: str | None = None
    learns: ClassVar[bool] = False
    over_time: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_weight(self.weight)

    def __call__(self, student: Answer, teacher: Answer) -> Tensor:
        """Distance of maps (batch, channels, time)."""
        attention = (item.map.square().mean(dim=1, keepdim=True) for item in (student, teacher))
        ours, theirs = (functional.normalize(item.flatten(1), dim=1) for item in match_time(*attention))
        return (ours - theirs).square().sum(dim=1).mean()


@dataclass(frozen=True)
class Relational:
    """Relations between the windows of a batch: their distances, and the angles that three of them form.

    Park et al. 2019 (doi 10.1109/CVPR.2019.00409): Huber losses of distances over their mean, and of cosines. An
    embedding is a map averaged over time; no projection is needed, as only relations are compared.

    Parameters
    ----------
    weight : float
    distance, angle : float
        Weights of the two, not below 0 and not both 0; the paper's ratio is 1 to 2.
    layer, teacher_layer : str, optional
        Modules of the two nets; the last map before pooling by default.
    """

    weight: float = 1.0
    distance: float = 1.0
    angle: float = 2.0
    layer: str | None = None
    teacher_layer: str | None = None
    learns: ClassVar[bool] = False
    over_time: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if min(self.distance, self.angle) < 0 or self.distance == self.angle == 0:
            raise ValueError(f"distance {self.distance!r} and angle {self.angle!r} must not be below 0, nor both be 0")

    def __call__(self, student: Answer, teacher: Answer) -> Tensor:
        """Loss of the relations in maps (batch, channels, time)."""
        ours, theirs = student.map.mean(dim=-1), teacher.map.mean(dim=-1)
        loss = ours.new_zeros(())
        if self.distance:
            loss = loss + self.distance * functional.smooth_l1_loss(distances(ours), distances(theirs))
        if self.angle:
            loss = loss + self.angle * functional.smooth_l1_loss(cosines(ours), cosines(theirs))
        return loss


def distances(embeddings: Tensor) -> Tensor:
    """Distances between embeddings (batch, d) over their mean, for each pair once: (batch * (batch - 1) / 2,)."""
    first, second = torch.triu_indices(len(embeddings), len(embeddings), 1, device=embeddings.device)
    # The root has no finite slope at 0.
    lengths = (embeddings[first] - embeddings[second]).square().sum(dim=1).clamp(min=TINY).sqrt()
    return lengths / lengths.mean()


def cosines(embeddings: Tensor) -> Tensor:
    """Cosine of the angle at each embedding (batch, d) between each two others: (batch, batch, batch)."""
    # towards[j, i] points from j to i.
    towards = functional.normalize(embeddings.unsqueeze(0) - embeddings.unsqueeze(1), dim=2)
    return towards @ towards.transpose(1, 2)
