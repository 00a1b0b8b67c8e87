"""Structured pruning: whole channels go, and what is left is an ordinary net with smaller layers."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from compression.channels import (
    IMPORTANCES,
    SCOPES,
    Group,
    choose_channels,
    count_bytes,
    count_macs,
    cut_channels,
    find_groups,
)
from compression.fine_tuning import check_fine_tuning, recover
from compression.recipe import FOLDED, SHAPE, ZEROS, ExportSpec, Tools
from lightning_modules.classifier import Classifier

_GRADIENT_BATCH = 64
_CLIP_BATCH = 4  # of video, some hundred images each
_STEPS = 1000  # ratios that are tried lie this finely


@dataclass(frozen=True)
class PruneStructured:
    """Drop the channels that matter least, in groups that a dependency graph ties together, and fine-tune.

    Exactly one of `pruning_ratio`, `target_macs` and `target_bytes` says how much. The layer of the logits, attentions
    and the widths that feed them keep their channels.

    Parameters
    ----------
    pruning_ratio : float, optional
        Share of the channels to drop, within (0, 1).
    target_macs : float, optional
        Most that may be left of the net's multiply-accumulates, as a share within (0, 1).
    target_bytes : float, optional
        The same of the bytes of its weights.
    importance : {"magnitude", "taylor", "bn_scale"}
        See `compression.channels.find_groups`.
    scope : {"layer", "global"}
        Every layer loses the same share, or all channels are ranked together.
    round_to : int, default 8
        Widths that change become a multiple of this, and none falls below it.
    n_iterations : int, default 1
        Parts in which the goal is reached, each with its fine-tuning.
    protect : sequence of str
        Modules that keep their widths, such as ``features.0``.
    n_windows : int, default 512
        Training windows that give the gradients of "taylor".
    seed : int
        Draws these windows.
    max_epochs, learning_rate, soft_weight
        Of the fine-tuning after each part, see `compression.fine_tuning.recover`.
    claims : mapping
        What the gate checks, see `compression.recipe.Step`.

    Raises
    ------
    ValueError
        If an option is out of its range, a layer cannot be treated, or the target cannot be met: with the smallest
        share that can.

    Notes
    -----
    After DepGraph (Fang et al. 2023, doi 10.1109/CVPR52729.2023.01544), through Torch-Pruning.
    """

    leaves: ClassVar[Sequence[str]] = (SHAPE,)

    pruning_ratio: float | None = None
    target_macs: float | None = None
    target_bytes: float | None = None
    importance: str = "magnitude"
    scope: str = "layer"
    round_to: int = 8
    n_iterations: int = 1
    protect: Sequence[str] = ()
    n_windows: int = 512
    seed: int = 0
    max_epochs: int = 12
    learning_rate: float = 3e-3
    soft_weight: float = 0.5
    claims: Mapping[str, float] = field(default_factory=dict)
    name: str = "prune_structured"

    def __post_init__(self) -> None:
        goals = {key: getattr(self, key) for key in ("pruning_ratio", "target_macs", "target_bytes")}
        given = {key: value for key, value in goals.items() if value is not None}
        if len(given) != 1:
            raise ValueError(f"expected exactly one of pruning_ratio, target_macs and target_bytes, got {goals!r}")
        for key, value in given.items():
            if not 0 < value < 1:
                raise ValueError(f"{key} is {value!r}, it is a share and must lie within (0, 1)")
        for key, value, allowed in (("importance", self.importance, IMPORTANCES), ("scope", self.scope, SCOPES)):
            if value not in allowed:
                raise ValueError(f"{key} is {value!r}, it must be one of {allowed}")
        for key in ("round_to", "n_iterations", "n_windows"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} is {getattr(self, key)!r}, it must be at least 1")
        check_fine_tuning(self.max_epochs, self.learning_rate, self.soft_weight)

    @property
    def refuses(self) -> Mapping[str, str]:
        """What earlier steps may not have left."""
        return {
            ZEROS: "channels are chosen and trained without regard to single zeros; prune whole channels first",
            FOLDED: "a net trains worse without its norms, and bn_scale has none to ask; fold them afterwards",
        }

    def __call__(self, module: Classifier, spec: ExportSpec, tools: Tools) -> tuple[Classifier, ExportSpec]:
        """Return a smaller module; the one that came in stays as it is."""
        pruned = tools.rebuild()
        pruned.net = copy.deepcopy(module.net).cpu().eval()
        example = torch.from_numpy(tools.datamodule.windows("train", tools.datamodule.splits["train"][:1]))
        whole = self._cost(pruned.net, example)
        for part in range(1, self.n_iterations + 1):
            groups = find_groups(self._with_gradients(pruned, tools), example, self.importance, self.protect)
            if not groups:
                raise ValueError(f"{type(pruned.net).__name__} has no layer whose channels may go: protect less")
            drops = self._choose(pruned.net, example, groups, whole, part)
            pruned.net = cut_channels(pruned.net, example, drops)
            pruned = recover(
                pruned,
                module,
                tools,
                {"step": self.name, "part": part},
                max_epochs=self.max_epochs,
                learning_rate=self.learning_rate,
                soft_weight=self.soft_weight,
            )
        return pruned.eval(), spec

    def _cost(self, net: nn.Module, example: Tensor) -> int:
        """Count what the target limits."""
        if self.target_bytes is not None:
            return count_bytes(net)
        return count_macs(copy.deepcopy(net).to("meta"), example.to("meta"))

    def _choose(
        self, net: nn.Module, example: Tensor, groups: Sequence[Group], whole: int, part: int
    ) -> dict[str, list[int]]:
        """Choose what goes in this part: the share of channels, or the least that meets the target."""
        done = part / self.n_iterations
        if self.pruning_ratio is not None:
            gone = self.pruning_ratio * (part - 1) / self.n_iterations
            ratio = 1 - (1 - self.pruning_ratio * done) / (1 - gone)
            drops = choose_channels(groups, ratio, self.scope, self.round_to)
            if not drops and part == self.n_iterations == 1:
                widths = {group.layer: group.width for group in groups}
                raise ValueError(
                    f"pruning_ratio={self.pruning_ratio!r} drops no channel where widths {widths!r} become multiples of"
                    f" round_to={self.round_to!r}: raise the one, or lower the other"
                )
            return drops
        key, target = ("target_macs", self.target_macs) if self.target_macs else ("target_bytes", self.target_bytes)
        share = self._weigh(net, example, groups, whole)
        smallest = share(_STEPS)
        if target is None or smallest > target:
            raise ValueError(
                f"{key}={target!r} cannot be met: the smallest reachable is {smallest:.3f} of the net's"
                f" {key.removeprefix('target_')}, with every width that may change at round_to={self.round_to!r}; raise"
                " the target, or protect less"
            )
        limit = 1 - (1 - target) * done
        low, high = 0, _STEPS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if share(middle) <= limit else (middle, high)
        return choose_channels(groups, high / _STEPS if share(0) > limit else 0.0, self.scope, self.round_to)

    def _weigh(self, net: nn.Module, example: Tensor, groups: Sequence[Group], whole: int) -> Callable[[int], float]:
        """Give the share of the whole net's cost that is left after a ratio, in steps; nothing is computed for it."""
        # No data: a copy of the shapes alone.
        shapes, window = copy.deepcopy(net).to("meta"), example.to("meta")

        @cache
        def cost(widths: tuple[tuple[str, int], ...]) -> float:
            drops = {layer: range(count) for layer, count in widths}
            return self._cost(cut_channels(shapes, window, drops), window) / whole

        def share(step: int) -> float:
            drops = choose_channels(groups, step / _STEPS, self.scope, self.round_to)
            return cost(tuple((layer, len(channels)) for layer, channels in drops.items()))

        return share

    def _with_gradients(self, module: Classifier, tools: Tools) -> nn.Module:
        """Give the net, for "taylor" with the gradients of its loss on training windows."""
        net = copy.deepcopy(module.net)
        if self.importance != "taylor":
            return net
        data = tools.datamodule
        train = np.asarray(data.splits["train"])
        drawn = np.sort(np.random.default_rng(self.seed).permutation(len(train))[: self.n_windows])
        signal, target = (
            torch.from_numpy(np.ascontiguousarray(values))
            for values in (data.windows("train", train[drawn]), data.targets("train")[drawn])
        )
        size = _GRADIENT_BATCH if signal.ndim == 3 else _CLIP_BATCH
        for windows, targets in zip(signal.split(size), target.split(size), strict=True):
            batch: Any = (windows, targets)
            (module.label_loss(net(windows), batch) * len(windows)).backward()
        return net
