"""Parts of a distillation loss for nets whose outputs are a wave over time, such as the pulse of a face."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from compression.distillation_parts import check_weight
from compression.feature_maps import Answer
from lightning_modules.rppg import pearson


@dataclass(frozen=True)
class WaveMatch:
    """``1 - r`` of the student's wave against the teacher's, mean over the batch.

    The teacher's wave carries what the sensor's does not: how the pulse looks in this very video, and when. Blind to
    scale and offset, as the loss of the labels is.

    Parameters
    ----------
    weight : float
    """

    weight: float = 0.5
    learns: ClassVar[bool] = False
    over_time: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_weight(self.weight)

    def __call__(self, student: Answer, teacher: Answer) -> Tensor:
        """Distance of waves (batch, frames)."""
        return 1 - pearson(student.logits, teacher.logits).mean()
