"""A recipe: ordered steps, each of which takes and returns a module and what its export must carry out."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch

from lightning_modules.classifier import Classifier

# What a step leaves in a net, for the steps after it.
SHAPE = "shape"  # other layers than the model's own
ZEROS = "zeros"  # single weights that must stay zero
FOLDED = "folded"  # no batch norms
TRAINED = "trained"  # weights from more than the labels


@dataclass(frozen=True)
class ExportSpec:
    """What a file format must carry out after export.

    Attributes
    ----------
    precision : str
        Of the exported file: ``float32``, ``int8``, ...
    per_channel : bool
        One weight scale per output channel instead of one per tensor.
    calibration_positions : tuple of int
        Windows of the *training* split that fix the activation ranges.
    float_nodes : tuple of str
        Nodes that stay in float.
    """

    precision: str = "float32"
    per_channel: bool = True
    calibration_positions: tuple[int, ...] = ()
    float_nodes: tuple[str, ...] = ()


class Fit(Protocol):
    """Fit a module in place; ``about`` holds what its weights depend on beside the model's own config.

    ``max_epochs`` takes the place of the model's own, ``datamodule`` that of the job's data.
    """

    def __call__(
        self, module: Classifier, about: Mapping[str, Any], *, max_epochs: int | None = None, datamodule: Any = None
    ) -> Classifier:
        """Return the module with fitted weights."""
        ...


@dataclass(frozen=True)
class Tools:
    """What a step may use.

    Attributes
    ----------
    datamodule : LightningDataModule
        Set up; gives windows, targets and calibration windows.
    fit : Fit
        Fits once per digest.
    rebuild : callable
        A freshly initialised module of the model that is being compressed.
    teacher : Classifier or None
        The fitted teacher of the recipe, if it has one.
    teacher_data : LightningDataModule or None
        What the teacher sees of the same windows, where that is not what the student sees.
    history : tuple of str
        Names of the steps before this one.
    """

    datamodule: Any
    fit: Fit
    rebuild: Callable[[], Classifier]
    teacher: Classifier | None = None
    teacher_data: Any = None
    history: tuple[str, ...] = ()


class Step(Protocol):
    """One verb with its frozen options.

    ``claims`` are what the gate checks on the exported file against the row before the step: ``size_ratio``,
    ``latency_ratio``, ``macs_ratio``, ``params_ratio``, ``compressed_ratio`` (at most), ``int8_macs_share`` and
    ``sparsity`` (at least).

    A step may say with ``leaves`` what it leaves in a net (`SHAPE`, `ZEROS`, `FOLDED`, `TRAINED`), with ``refuses``
    what earlier steps may not have left, each with the reason, and with ``makes`` the precision that it fixes.
    """

    name: str
    claims: Mapping[str, float]

    def __call__(self, module: Classifier, spec: ExportSpec, tools: Tools) -> tuple[Classifier, ExportSpec]:
        """Return the module and the specification after this step."""
        ...


def fine_tune(
    module: Classifier, tools: Tools, about: Mapping[str, Any], *, max_epochs: int, learning_rate: float
) -> Classifier:
    """Train `module` further from the weights that it holds, in one short cycle.

    Parameters
    ----------
    module : Classifier
        Trained in place.
    tools : Tools
    about : mapping
        Options of the step; the weights to start from are added.
    max_epochs : int
    learning_rate : float
        Highest of the cycle.
    """
    module.optimizer = partial(module.optimizer, lr=learning_rate)
    module.scheduler = partial(_short_cycle, learning_rate=learning_rate)
    start = {"start": weights_digest(module), "learning_rate": learning_rate}
    return tools.fit(module.train(), {**about, **start}, max_epochs=max_epochs)


def _short_cycle(
    optimizer: torch.optim.Optimizer, *, total_steps: int, learning_rate: float
) -> torch.optim.lr_scheduler.LRScheduler:
    # torch divides by zero where the way up is exactly one step long.
    pct_start = 0.1 if total_steps > 10 else 0.3
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps, pct_start=pct_start)


def weights_digest(module: Classifier) -> str:
    """Digest of the module's weights: two teachers with the same weights are the same teacher."""
    digest = hashlib.sha256()
    for name, value in sorted(module.net.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Stage:
    """A model as it stands after some steps, ready for export."""

    recipe: str
    module: Classifier
    spec: ExportSpec = field(default_factory=ExportSpec)
    claims: Mapping[str, float] = field(default_factory=dict)


def check_order(steps: Sequence[Step]) -> None:
    """Refuse an order in which a step undoes, or cannot work with, what an earlier one did.

    Raises
    ------
    ValueError
        With both steps and the reason.
    """
    for position, step in enumerate(steps):
        for earlier in steps[:position]:
            if precision := getattr(earlier, "makes", ""):
                raise ValueError(_after_precision(step.name, earlier.name, precision))
            for trait in getattr(earlier, "leaves", ()):
                if reason := getattr(step, "refuses", {}).get(trait):
                    raise ValueError(f"step {step.name!r} comes after {earlier.name!r}: {reason}")


def _after_precision(name: str, earlier: str, precision: str) -> str:
    return f"step {name!r} comes after {earlier!r}, which makes the file {precision}; put it before"


def apply_steps(module: Classifier, steps: Sequence[Step], tools: Tools) -> Iterator[Stage]:
    """Yield the model after each step; the float model itself is not among them.

    Raises
    ------
    ValueError
        Before anything is trained, if the order makes no sense, see `check_order`; or if a step comes after one that
        fixed the exported numbers: a quantized file cannot be trained further.
    """
    check_order(steps)
    spec = ExportSpec()
    names: list[str] = []
    for step in steps:
        if spec.precision != "float32":
            raise ValueError(_after_precision(step.name, names[-1], spec.precision))
        module, spec = step(module, spec, replace(tools, history=tuple(names)))
        names.append(step.name)
        yield Stage("_".join(names), module, spec, step.claims)
