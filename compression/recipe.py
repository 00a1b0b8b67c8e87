"""A recipe: ordered steps, each of which takes and returns a module and what its export must carry out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lightning_modules.classifier import Classifier


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
    """Fit a module under a name; ``about`` holds what its weights depend on beside the module's own config."""

    def __call__(self, module: Classifier, about: Mapping[str, Any]) -> Classifier:
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
    """

    datamodule: Any
    fit: Fit
    rebuild: Callable[[], Classifier]
    teacher: Classifier | None = None


class Step(Protocol):
    """One verb with its frozen options.

    ``claims`` are what the gate checks on the exported file against the row before the step: ``size_ratio``,
    ``latency_ratio``, ``macs_ratio``, ``params_ratio`` (at most) and ``int8_macs_share`` (at least).
    """

    name: str
    claims: Mapping[str, float]

    def __call__(self, module: Classifier, spec: ExportSpec, tools: Tools) -> tuple[Classifier, ExportSpec]:
        """Return the module and the specification after this step."""
        ...


@dataclass(frozen=True)
class Stage:
    """A model as it stands after some steps, ready for export."""

    recipe: str
    module: Classifier
    spec: ExportSpec = field(default_factory=ExportSpec)
    claims: Mapping[str, float] = field(default_factory=dict)


def apply_steps(module: Classifier, steps: Sequence[Step], tools: Tools) -> Iterator[Stage]:
    """Yield the model after each step; the float model itself is not among them.

    Raises
    ------
    ValueError
        If a step comes after one that fixes the exported numbers: a quantized file cannot be trained further.
    """
    spec = ExportSpec()
    names: list[str] = []
    for step in steps:
        if spec.precision != "float32":
            raise ValueError(
                f"step {step.name!r} comes after {names[-1]!r}, which makes the file {spec.precision}; put it before"
            )
        module, spec = step(module, spec, tools)
        names.append(step.name)
        yield Stage("_".join(names), module, spec, step.claims)
