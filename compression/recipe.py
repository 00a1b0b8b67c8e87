"""A recipe: ordered steps, each of which takes and returns a module and what its export must carry out."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_modules.classifier import Classifier

# What a step leaves in a net, for the steps after it.
SHAPE = "shape"  # other layers than the model's own
ZEROS = "zeros"  # single weights that must stay zero
FOLDED = "folded"  # no batch norms
TRAINED = "trained"  # weights from more than the labels


@dataclass(frozen=True)
class ExportSpec:
    """What a file format must carry out after export.

    The exporter gets what differs from the defaults here as keyword arguments of the same names, and the windows
    themselves as ``calibration``; an option that a target does not know is refused there.

    Attributes
    ----------
    precision : str
        Of the exported file: ``float32``, ``float16``, ``int8`` or ``int8_dynamic``.
    per_channel : bool
        One weight scale per output channel instead of one per tensor.
    calibration_positions : tuple of int
        Windows of the *training* split that fix the activation ranges.
    calibration_method : {"minmax", "entropy", "percentile", "none"}
        How the ranges are made; "none" is what an int8 file is without calibration.
    percentile : float
        Percent of the values that the method "percentile" keeps.
    bias_correction : bool
        Take the mean error of every channel back in its bias.
    float_nodes : tuple of str
        Layers that stay in float: modules of the net by name, or nodes of the file.
    int8_nodes : tuple of str
        Where given, all other layers stay in float.
    """

    precision: str = "float32"
    per_channel: bool = True
    calibration_positions: tuple[int, ...] = ()
    calibration_method: str = "minmax"
    percentile: float = 99.99
    bias_correction: bool = False
    float_nodes: tuple[str, ...] = ()
    int8_nodes: tuple[str, ...] = ()

    @property
    def export_options(self) -> dict[str, Any]:
        """Keyword arguments of an exporter: the precision, and what differs from the defaults."""
        options = {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name != "calibration_positions" and getattr(self, item.name) != item.default
        }
        return {"precision": self.precision, **options}


@dataclass(frozen=True)
class Evaluation:
    """An exported file on the validation split.

    Attributes
    ----------
    metric : float
        Macro AUROC; larger is better.
    scores : ndarray of shape (n, classes)
        Log odds.
    layer_macs : mapping of str to int
        Multiply-accumulates of one window by layer, in the order of the file.
    int8_macs_share : float
        Share of them that run in int8, 0 to 1.
    """

    metric: float
    scores: NDArray[np.floating]
    layer_macs: Mapping[str, int]
    int8_macs_share: float


class Evaluate(Protocol):
    """Export a model to the first target and evaluate the file on validation; the test split is never looked at.

    ``n_windows`` evaluates on as many validation windows, drawn once; on all of them by default.
    """

    def __call__(self, module: Classifier, spec: ExportSpec, *, n_windows: int | None = None) -> Evaluation:
        """Return what the file answers."""
        ...


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
    evaluate : Evaluate or None
        Evaluates an export of the model on validation.
    log_report : callable or None
        Logs what a step found out about its layers, a `compression.sensitivity.SensitivityReport`.
    """

    datamodule: Any
    fit: Fit
    rebuild: Callable[[], Classifier]
    teacher: Classifier | None = None
    teacher_data: Any = None
    history: tuple[str, ...] = ()
    evaluate: Evaluate | None = None
    log_report: Callable[[Any], None] | None = None


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
    module.scheduler = partial(_one_cycle, max_lr=learning_rate)
    start = {"start": weights_digest(module), "learning_rate": learning_rate}
    return tools.fit(module.train(), {**about, **start}, max_epochs=max_epochs)


def _one_cycle(
    optimizer: torch.optim.Optimizer, total_steps: int, max_lr: float
) -> torch.optim.lr_scheduler.LRScheduler:
    # OneCycleLR divides by zero where its rise, or its fall, takes a single step.
    steps = max(total_steps, 3)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=max_lr, total_steps=steps, pct_start=max(0.1, 2 / steps)
    )


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
