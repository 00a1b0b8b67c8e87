"""Several nets that answer as one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Mean of the logits of several nets.

    Deep ensembles (Lakshminarayanan et al. 2017, doi 10.48550/arXiv.1612.01474). Differs: the mean of logits in the
    place of the mean of probabilities, so that the answer is one of logits as every net's is.

    Parameters
    ----------
    members : sequence of nn.Module
        Each maps (batch, leads, time) to logits (batch, classes).
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, signal: Tensor) -> Tensor:
        """Shapes: signal (batch, leads, time) -> logits (batch, classes)."""
        return torch.stack([member(signal) for member in self.members]).mean(dim=0)
