"""Unstructured and N:M pruning: single weights become zero, for good, and no mask is left behind."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from compression.fine_tuning import check_fine_tuning, recover
from compression.recipe import FOLDED, ZEROS, ExportSpec, Tools
from lightning_modules.classifier import Classifier

_REFUSES = {FOLDED: "a net trains worse without its norms; fold them afterwards"}


@dataclass(frozen=True)
class PruneUnstructured:
    """Set the smallest weights of the whole net to zero, more in every part, and fine-tune the others.

    Parameters
    ----------
    sparsity : float
        Share of the weights of convolutions and linear layers that are zero in the end, within (0, 1).
    n_iterations : int, default 3
        Parts in which it is reached, each with its fine-tuning; most goes in the first.
    protect : sequence of str
        Layers that keep all weights.
    max_epochs, learning_rate, soft_weight
        Of the fine-tuning after each part, see `compression.fine_tuning.recover`.
    claims : mapping
        What the gate checks, see `compression.recipe.Step`.

    Raises
    ------
    ValueError
        If an option is out of its range, or `protect` names no layer with weights.

    Notes
    -----
    Gradual schedule after Zhu & Gupta 2017 (doi 10.48550/arXiv.1710.01878).
    """

    leaves: ClassVar[Sequence[str]] = (ZEROS,)
    refuses: ClassVar[Mapping[str, str]] = _REFUSES

    sparsity: float = 0.7
    n_iterations: int = 3
    protect: Sequence[str] = ()
    max_epochs: int = 3
    learning_rate: float = 1e-3
    soft_weight: float = 0.5
    claims: Mapping[str, float] = field(default_factory=dict)
    name: str = "prune_unstructured"

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity is {self.sparsity!r}, it is a share and must lie within (0, 1)")
        if self.n_iterations < 1:
            raise ValueError(f"n_iterations is {self.n_iterations!r}, it must be at least 1")
        check_fine_tuning(self.max_epochs, self.learning_rate, self.soft_weight)

    def __call__(self, module: Classifier, spec: ExportSpec, tools: Tools) -> tuple[Classifier, ExportSpec]:
        """Return a module with zeros; the one that came in stays as it is."""
        pruned = _copy(module, tools)
        for part in range(1, self.n_iterations + 1):
            share = self.sparsity * (1 - (1 - part / self.n_iterations) ** 3)
            zero_smallest([weight for _, weight in weights_of(pruned.net, self.protect)], share)
            pruned = recover(
                pruned,
                module,
                tools,
                {"step": self.name, "part": part},
                max_epochs=self.max_epochs,
                learning_rate=self.learning_rate,
                soft_weight=self.soft_weight,
                hold_zeros=True,
            )
        return pruned.eval(), spec


@dataclass(frozen=True)
class PruneNM:
    """Keep the `n` largest of every `m` weights along the input channels, and fine-tune them.

    The pattern that sparse tensor cores read (2:4). Channels that fill no group of `m` keep their weights, and so does
    a layer with fewer than `m` inputs.

    Parameters
    ----------
    n, m : int, default 2 and 4
    protect : sequence of str
        Layers that keep all weights.
    max_epochs, learning_rate, soft_weight
        Of the fine-tuning, see `compression.fine_tuning.recover`.
    claims : mapping
        What the gate checks, see `compression.recipe.Step`.

    Raises
    ------
    ValueError
        If `n` does not lie within 1 and `m` - 1, or no layer has `m` inputs.

    Notes
    -----
    After Mishra et al. 2021 (doi 10.48550/arXiv.2104.08378).
    """

    leaves: ClassVar[Sequence[str]] = (ZEROS,)
    refuses: ClassVar[Mapping[str, str]] = _REFUSES

    n: int = 2
    m: int = 4
    protect: Sequence[str] = ()
    max_epochs: int = 6
    learning_rate: float = 1e-3
    soft_weight: float = 0.5
    claims: Mapping[str, float] = field(default_factory=dict)
    name: str = "prune_n_m"

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise ValueError(f"n={self.n!r} of m={self.m!r} weights are kept: n must lie within 1 and m - 1")
        check_fine_tuning(self.max_epochs, self.learning_rate, self.soft_weight)

    def __call__(self, module: Classifier, spec: ExportSpec, tools: Tools) -> tuple[Classifier, ExportSpec]:
        """Return a module with zeros; the one that came in stays as it is."""
        pruned = _copy(module, tools)
        wide = [weight for _, weight in weights_of(pruned.net, self.protect) if weight.shape[1] >= self.m]
        if not wide:
            raise ValueError(f"no layer of {type(pruned.net).__name__} has m={self.m!r} input channels to choose among")
        for weight in wide:
            zero_n_m(weight, self.n, self.m)
        pruned = recover(
            pruned,
            module,
            tools,
            {"step": self.name},
            max_epochs=self.max_epochs,
            learning_rate=self.learning_rate,
            soft_weight=self.soft_weight,
            hold_zeros=True,
        )
        return pruned.eval(), spec


@dataclass(frozen=True)
class PruneMasksReloaded:
    """Do as paper P3 seems to have done, so that the gate can be seen to fail it; not meant for use.

    Each layer's smallest weights are masked, the state dict with its masks is loaded into a fresh net with
    ``strict=False``: no name of a weight fits, so all of them stay as they were initialised.

    Parameters
    ----------
    amount : float, default 0.2
        Share of every layer's weights that is masked, within (0, 1).
    claims : mapping
        What the gate checks, see `compression.recipe.Step`.

    Raises
    ------
    ValueError
        If `amount` is out of its range.
    """

    leaves: ClassVar[Sequence[str]] = (ZEROS,)
    refuses: ClassVar[Mapping[str, str]] = {}

    amount: float = 0.2
    claims: Mapping[str, float] = field(default_factory=dict)
    name: str = "prune_masks_reloaded"

    def __post_init__(self) -> None:
        if not 0 < self.amount < 1:
            raise ValueError(f"amount is {self.amount!r}, it is a share and must lie within (0, 1)")

    def __call__(self, module: Classifier, spec: ExportSpec, tools: Tools) -> tuple[Classifier, ExportSpec]:
        """Return a fresh module into which the masked state dict was loaded."""
        # torch.nn.utils.prune does not take weights in channels_last.
        masked = copy.deepcopy(module.net).to(memory_format=torch.contiguous_format)
        for layer in masked.modules():
            if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
                prune.l1_unstructured(layer, "weight", amount=self.amount)
        fresh = tools.rebuild()
        fresh.net.load_state_dict(masked.state_dict(), strict=False)
        return fresh.eval(), spec


def weights_of(net: nn.Module, protect: Sequence[str] = ()) -> Iterator[tuple[str, Tensor]]:
    """Yield name and weight (outputs, inputs, ...) of every convolution and linear layer that is not protected.

    Raises
    ------
    ValueError
        If `protect` names something else.
    """
    layers = {
        name: module.weight
        for name, module in net.named_modules()
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear))
    }
    if unknown := set(protect) - set(layers):
        raise ValueError(f"protect names {sorted(unknown)!r}, expected some of {list(layers)!r}")
    yield from ((name, weight) for name, weight in layers.items() if name not in protect)


@torch.no_grad()
def zero_smallest(weights: Sequence[Tensor], share: float) -> None:
    """Set the share of all values that is smallest in magnitude to zero, in place."""
    sizes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    count = round(share * len(sizes))
    gone = torch.zeros(len(sizes), dtype=torch.bool)
    gone[sizes.argsort(stable=True)[:count]] = True
    for weight, part in zip(weights, gone.split([weight.numel() for weight in weights]), strict=True):
        weight.masked_fill_(part.view(weight.shape), 0.0)


@torch.no_grad()
def zero_n_m(weight: Tensor, n: int, m: int) -> None:
    """Keep the `n` largest of every `m` neighbours along axis 1, in place; an incomplete group at the end stays."""
    whole = weight.shape[1] // m * m
    # (outputs, groups, m, ...)
    groups = weight[:, :whole].unflatten(1, (-1, m))
    smallest = groups.abs().argsort(dim=2, stable=True).argsort(dim=2) < m - n
    weight[:, :whole] = groups.masked_fill(smallest, 0.0).flatten(1, 2)


def _copy(module: Classifier, tools: Tools) -> Classifier:
    own = tools.rebuild()
    own.net = copy.deepcopy(module.net).cpu()
    return own
