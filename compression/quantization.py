"""Quantization: the exported file's own quantizer does the work, the step says with what.

`PtqInt8` is post-training quantization done right; `PtqUncalibrated` and `QuantizeDynamic` are what goes wrong with it
and stay as documented negatives. 4-bit weights and bfloat16 are not offered, see `deploy.onnx`.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from compression.calibration import draw_calibration
from compression.equalization import equalize_layers
from compression.recipe import Evaluate, ExportSpec, Tools
from compression.sensitivity import SensitivityReport, keep_in_float, measure_layers
from lightning_modules.classifier import Classifier

METHODS = ("minmax", "entropy", "percentile")


@dataclass(frozen=True)
class PtqInt8:
    """Static post-training quantization to int8 weights and activations.

    Parameters
    ----------
    n_calibration : int
        Training windows that fix the activation ranges.
    per_channel : bool
        One weight scale per output channel.
    calibration_method : {"minmax", "entropy", "percentile"}
        How a range is made from what a tensor was seen to hold.
    percentile : float
        Percent of the values that "percentile" keeps, above 50.
    bias_correction : bool
        Take the mean error of every channel back in its bias.
    equalize : bool
        Cross-layer equalisation before, see `compression.equalization`; helps with one scale per tensor.
    float_nodes : sequence of str
        Modules that stay in float, such as ``features.0``.
    max_drop : float, optional
        Accuracy control: the most that macro AUROC on validation may fall below the float file's. The most sensitive
        layers stay in float until it holds. Without it nothing is evaluated.
    sensitivity : bool
        Measure and log what each layer loses when it alone is quantized; always done where ``max_drop`` is needed.
    sensitivity_windows : int, optional
        Validation windows for that; all of them where it is None. ``max_drop`` is held on all of them.
    seed : int
        Draws the calibration windows.
    claims : mapping
        What the gate checks, see `compression.recipe.Step`.

    Raises
    ------
    ValueError
        If an option is out of its range, the calibration is not like the training windows, or ``max_drop`` cannot be
        held.
    """

    makes: ClassVar[str] = "int8"

    n_calibration: int = 256
    per_channel: bool = True
    calibration_method: str = "minmax"
    percentile: float = 99.99
    bias_correction: bool = False
    equalize: bool = False
    float_nodes: Sequence[str] = ()
    max_drop: float | None = None
    sensitivity: bool = False
    sensitivity_windows: int | None = 512
    seed: int = 0
    claims: Mapping[str, float] = field(default_factory=dict)
    name: str = "ptq_int8"

    def __post_init__(self) -> None:
        if self.n_calibration < 1:
            raise ValueError(f"n_calibration is {self.n_calibration!r}: int8 needs at least one training window")
        if self.calibration_method not in METHODS:
            raise ValueError(f"calibration_method is {self.calibration_method!r}, it must be one of {METHODS}")
        if not 50 < self.percentile <= 100:
            raise ValueError(f"percentile is {self.percentile!r}, it must be above 50 and at most 100")
        if self.max_drop is not None and not 0 < self.max_drop < 1:
            raise ValueError(f"max_drop is {self.max_drop!r}, it must be between 0 and 1, or null for no control")
        if self.sensitivity_windows is not None and self.sensitivity_windows < 1:
            raise ValueError(
                f"sensitivity_windows is {self.sensitivity_windows!r}: expected 1 or more, or null for all"
            )

    def __call__(self, module: Classifier, spec: ExportSpec, tools: Tools) -> tuple[Classifier, ExportSpec]:
        """Ask for an int8 file, calibrated on training windows; the module changes by equalisation alone."""
        positions, windows = draw_calibration(tools.datamodule, self.n_calibration, self.seed)
        if self.equalize:
            equalized = tools.rebuild()
            equalized.net = copy.deepcopy(module.net).cpu().float()
            equalize_layers(equalized.net, torch.from_numpy(windows[:1]).expand(2, -1, -1))
            module = equalized.eval()
        spec = replace(
            spec,
            precision="int8",
            per_channel=self.per_channel,
            calibration_positions=positions,
            calibration_method=self.calibration_method,
            percentile=self.percentile,
            bias_correction=self.bias_correction,
            float_nodes=tuple(self.float_nodes),
        )
        if self.max_drop is None and not self.sensitivity:
            return module, spec
        if tools.evaluate is None or tools.log_report is None:
            raise ValueError(f"step {self.name!r} with max_drop or sensitivity needs evaluate and log_report")
        report, spec = self._look_into_layers(module, spec, tools.evaluate)
        tools.log_report(report)
        return module, spec

    def _look_into_layers(
        self, module: Classifier, spec: ExportSpec, evaluate: Evaluate
    ) -> tuple[SensitivityReport, ExportSpec]:
        """Measure the layers, and put as many of them back into float as the limit asks for."""
        exact, full = evaluate(module, ExportSpec()), evaluate(module, spec)
        layers = measure_layers(module, spec, evaluate, self.sensitivity_windows)
        last = full
        if self.max_drop is not None:
            order = [item.layer for item in layers]
            spec, last = keep_in_float(module, spec, evaluate, order, exact.metric, self.max_drop)
        report = SensitivityReport(
            layers=layers,
            n_windows=min(self.sensitivity_windows or len(exact.scores), len(exact.scores)),
            float_metric=exact.metric,
            int8_metric=full.metric,
            kept=spec.float_nodes[len(self.float_nodes) :],
            metric=last.metric,
            int8_macs_share=last.int8_macs_share,
        )
        return report, spec


@dataclass(frozen=True)
class Float16:
    """Half precision: weights and activations as float16, input and logits as float32.

    Half the bytes. Speed only where the processor multiplies float16; elsewhere the runtime converts the weights once
    when it loads the file and runs in float32, so the recipe claims bytes alone.
    """

    makes: ClassVar[str] = "float16"

    claims: Mapping[str, float] = field(default_factory=dict)
    name: str = "fp16"

    def __call__(self, module: Classifier, spec: ExportSpec, tools: Tools) -> tuple[Classifier, ExportSpec]:
        """Leave the module as it is and ask for a float16 file."""
        return module, replace(spec, precision="float16")


@dataclass(frozen=True)
class PtqUncalibrated:
    """A negative: static int8 whose observers never saw a window, so that every activation has scale 1, zero point 0.

    That is what PyTorch's static quantization gives where ``convert`` follows ``prepare`` with no pass over data
    between: its observers warn and answer with these defaults. Negative values are cut off, the others rounded to whole
    numbers. Size and speed are those of a good int8 file: only the answers tell.
    """

    makes: ClassVar[str] = "int8"

    claims: Mapping[str, float] = field(default_factory=dict)
    name: str = "ptq_uncalibrated"

    def __call__(self, module: Classifier, spec: ExportSpec, tools: Tools) -> tuple[Classifier, ExportSpec]:
        """Leave the module as it is and ask for an int8 file without calibration."""
        return module, replace(spec, precision="int8", calibration_method="none")


@dataclass(frozen=True)
class QuantizeDynamic:
    """A negative: dynamic quantization, which treats linear layers only and leaves a convolutional net as it was."""

    makes: ClassVar[str] = "int8_dynamic"

    claims: Mapping[str, float] = field(default_factory=dict)
    name: str = "quantize_dynamic"

    def __call__(self, module: Classifier, spec: ExportSpec, tools: Tools) -> tuple[Classifier, ExportSpec]:
        """Leave the module as it is and ask for a dynamically quantized file."""
        return module, replace(spec, precision="int8_dynamic")
