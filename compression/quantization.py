"""Quantization steps. The exported file is quantized by the target's own quantizer; a step says with what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from compression.recipe import ExportSpec, Tools
from lightning_modules.classifier import Classifier


@dataclass(frozen=True)
class PtqInt8:
    """Static post-training quantization to int8 weights and activations.

    Parameters
    ----------
    n_calibration : int
        Training windows that fix the activation ranges (min-max).
    per_channel : bool
        One weight scale per output channel.
    float_nodes : sequence of str
        Modules that stay in float, such as ``features.0``.
    seed : int
        Draws the calibration windows.
    claims : mapping
        What the gate checks, see `compression.recipe.Step`.

    Raises
    ------
    ValueError
        If `n_calibration` is not positive.
    """

    makes: ClassVar[str] = "int8"

    n_calibration: int = 256
    per_channel: bool = True
    float_nodes: Sequence[str] = ()
    seed: int = 0
    claims: Mapping[str, float] = field(default_factory=dict)
    name: str = "ptq_int8"

    def __post_init__(self) -> None:
        if self.n_calibration < 1:
            raise ValueError(f"n_calibration is {self.n_calibration!r}: int8 needs at least one training window")

    def __call__(self, module: Classifier, spec: ExportSpec, tools: Tools) -> tuple[Classifier, ExportSpec]:
        """Leave the module as it is and ask for an int8 file, calibrated on training windows."""
        positions, _ = tools.datamodule.calibration(self.n_calibration, self.seed)
        return module, replace(
            spec,
            precision="int8",
            per_channel=self.per_channel,
            float_nodes=tuple(self.float_nodes),
            calibration_positions=tuple(int(position) for position in positions),
        )
