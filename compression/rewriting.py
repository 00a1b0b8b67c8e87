"""Steps that write a net anew with the same inputs and outputs: low-rank factors, folded batch norms."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from compression.fine_tuning import check_fine_tuning, recover
from compression.recipe import FOLDED, SHAPE, ZEROS, ExportSpec, Tools
from lightning_modules.classifier import Classifier

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class LowRank:
    """Replace wide convolutions and linear layers by two thin ones where that saves multiply-accumulates.

    A convolution (outputs, inputs, 1, k) becomes one to `rank` channels with the same kernel and stride, and a 1x1
    convolution; the weights come from the singular value decomposition of (outputs, inputs * k).

    Parameters
    ----------
    energy : float, optional
        Share of the squared singular values that is kept at least, within (0, 1).
    rank_ratio : float, optional
        Share of the full rank that is kept, within (0, 1). Give one of the two.
    round_to : int, default 8
        Ranks are a multiple of this, rounded up.
    protect : sequence of str
        Layers that stay as they are.
    max_epochs, learning_rate, soft_weight
        Of the fine-tuning, see `compression.fine_tuning.recover`.
    claims : mapping
        What the gate checks, see `compression.recipe.Step`.

    Raises
    ------
    ValueError
        If an option is out of its range, or no layer would save anything.

    Notes
    -----
    After Zhang et al. 2016 (doi 10.1109/TPAMI.2015.2502579). Differs: weights are decomposed, not responses.
    """

    leaves: ClassVar[Sequence[str]] = (SHAPE,)
    refuses: ClassVar[Mapping[str, str]] = {
        ZEROS: "factors of a matrix with zeros have none; factorise first",
        FOLDED: "a net trains worse without its norms; fold them afterwards",
    }

    energy: float | None = None
    rank_ratio: float | None = None
    round_to: int = 8
    protect: Sequence[str] = ()
    max_epochs: int = 6
    learning_rate: float = 1e-3
    soft_weight: float = 0.5
    claims: Mapping[str, float] = field(default_factory=dict)
    name: str = "low_rank"

    def __post_init__(self) -> None:
        if (self.energy is None) == (self.rank_ratio is None):
            raise ValueError(f"expected one of energy ({self.energy!r}) and rank_ratio ({self.rank_ratio!r})")
        for key, value in (("energy", self.energy), ("rank_ratio", self.rank_ratio)):
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{key} is {value!r}, it is a share and must lie within (0, 1)")
        if self.round_to < 1:
            raise ValueError(f"round_to is {self.round_to!r}, it must be at least 1")
        check_fine_tuning(self.max_epochs, self.learning_rate, self.soft_weight)

    def __call__(self, module: Classifier, spec: ExportSpec, tools: Tools) -> tuple[Classifier, ExportSpec]:
        """Return a module with thinner layers; the one that came in stays as it is."""
        thin = tools.rebuild()
        thin.net = copy.deepcopy(module.net).cpu()
        if unknown := set(self.protect) - set(dict(thin.net.named_modules())):
            raise ValueError(f"protect names {sorted(unknown)!r}, which this net lacks")
        wanted: dict[str, int] = {}
        for name, layer in list(thin.net.named_modules()):
            if name in self.protect or not isinstance(layer, (nn.Conv2d, nn.Linear)) or getattr(layer, "groups", 1) > 1:
                continue
            left, values, right = torch.linalg.svd(layer.weight.detach().double().flatten(1), full_matrices=False)
            wanted[name] = rank = self._rank(values)
            if rank * sum(layer.weight.flatten(1).shape) < layer.weight.numel():
                thin.net.set_submodule(name, factorise(layer, left, values, right, rank))
        if not any(isinstance(thin.net.get_submodule(name), nn.Sequential) for name in wanted):
            raise ValueError(
                f"low_rank saves nothing: ranks {wanted!r} are too high for every layer; lower energy"
                f" ({self.energy!r}) or rank_ratio ({self.rank_ratio!r})"
            )
        thin = recover(
            thin,
            module,
            tools,
            {"step": self.name},
            max_epochs=self.max_epochs,
            learning_rate=self.learning_rate,
            soft_weight=self.soft_weight,
        )
        return thin.eval(), spec

    def _rank(self, values: Tensor) -> int:
        if self.energy is None:
            rank = (self.rank_ratio or 0.0) * len(values)
        else:
            kept = values.square().cumsum(0) / values.square().sum().clamp_min(1e-30)
            rank = int((kept < self.energy).sum()) + 1
        return min(-int(-rank // self.round_to) * self.round_to, len(values))


@dataclass(frozen=True)
class BnFold:
    """Fold every batch norm into the layer before it; the net answers as before, without norms.

    Export does this too: as a step of its own it shows that nothing else changes.

    Parameters
    ----------
    claims : mapping
        What the gate checks, see `compression.recipe.Step`.

    Raises
    ------
    ValueError
        If the net has no batch norm, or one that does not directly follow a convolution or linear layer.
    """

    leaves: ClassVar[Sequence[str]] = (FOLDED,)
    refuses: ClassVar[Mapping[str, str]] = {FOLDED: "there is no norm left to fold"}

    claims: Mapping[str, float] = field(default_factory=dict)
    name: str = "bn_fold"

    def __call__(self, module: Classifier, spec: ExportSpec, tools: Tools) -> tuple[Classifier, ExportSpec]:
        """Return a module without norms; the one that came in stays as it is."""
        folded = tools.rebuild()
        folded.net = fold_norms(module.net)
        return folded.eval(), spec


def factorise(layer: nn.Conv2d | nn.Linear, left: Tensor, values: Tensor, right: Tensor, rank: int) -> nn.Sequential:
    """Give two layers in the place of one, from the singular value decomposition of its weights.

    Shapes: left (outputs, r), values (r,), right (r, inputs * kernel); the first `rank` of them are used.
    """
    root = values[:rank].sqrt()
    inner = right[:rank] * root[:, None]
    outer = left[:, :rank] * root
    first: nn.Module
    second: nn.Module
    if isinstance(layer, nn.Linear):
        first = nn.Linear(layer.in_features, rank, bias=False)
        second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
    else:
        size, stride, padding, dilation = (
            getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation")
        )
        first = nn.Conv2d(layer.in_channels, rank, size, stride, padding, dilation, bias=False)
        second = nn.Conv2d(rank, layer.out_channels, 1, bias=layer.bias is not None)
    for part, weight in ((first, inner), (second, outer)):
        own = part.get_parameter("weight")
        own.data = weight.to(own.dtype).reshape(own.shape)
    if layer.bias is not None:
        second.get_parameter("bias").data = layer.bias.detach().clone()
    pair = nn.Sequential(first, second)
    if layer.weight.ndim == 4 and not layer.weight.is_contiguous():
        pair = pair.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return pair.train(layer.training)


def fold_norms(net: nn.Module) -> nn.Module:
    """Give a copy of a net, in eval mode, whose batch norms lie in the layers before them.

    Raises
    ------
    ValueError
        As `BnFold`.
    """
    net = copy.deepcopy(net).eval()
    left = {module: name for name, module in net.named_modules() if isinstance(module, _NORMS)}
    if not left:
        raise ValueError(f"{type(net).__name__} has no batch norm to fold: leave bn_fold out for this model")
    for chain in [module for module in net.modules() if isinstance(module, nn.Sequential)]:
        for place, (layer, norm) in enumerate(zip(list(chain)[:-1], list(chain)[1:], strict=True)):
            if norm in left and isinstance(layer, (nn.Conv1d, nn.Conv2d)):
                chain[place] = fuse_conv_bn_eval(layer, norm)
            elif norm in left and isinstance(layer, nn.Linear):
                chain[place] = fuse_linear_bn_eval(layer, norm)
            else:
                continue
            chain[place + 1] = nn.Identity()
            del left[norm]
    if left:
        raise ValueError(
            f"layers {sorted(left.values())!r} are batch norms without a convolution or linear layer directly before"
            " them, so they cannot be folded: leave bn_fold out for this model"
        )
    return net
