"""Quantization-aware training: the weights learn to live with 8 bits, the target's own quantizer makes the file."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from compression.calibration import draw_calibration
from compression.fake_quant import Int8Simulation
from compression.feature_maps import Answer
from compression.fine_tuning import match_answers
from compression.quantization import METHODS
from compression.recipe import FOLDED, ZEROS, ExportSpec, Tools, fine_tune
from lightning_modules.classifier import Batch, Classifier


@dataclass(frozen=True)
class QatInt8:
    """Fine-tune the float weights under simulated int8, then ask for an int8 file.

    The simulation does what the exporters do (see `compression.fake_quant`): symmetric int8 weights per output channel
    and 8-bit activations, both with straight-through gradients. It leaves nothing in the net, so that the file comes
    out of the same quantizer, calibrated in the same way, as that of `compression.quantization.PtqInt8`, on every
    target. Jacob et al. 2018 (doi 10.1109/CVPR.2018.00286); batch norms are frozen late, as there.

    torchao's PT2E flow was not taken: it yields a captured graph with quantizers of its own, out of which the weights
    would have to be led back into a net that ONNX Runtime and TFLite quantize by their own rules, and such a graph has
    no state dict that fits a plain net.

    Parameters
    ----------
    max_epochs : int
    learning_rate : float
        Highest of the cycle.
    freeze_epoch : int
        From this epoch on (the first is 0) batch norms and ranges stay as they are.
    float_weight : float
        Weight of the float net's own soft targets in the loss, 0 to below 1; the labels have the rest.
    n_calibration : int
        Training windows that fix the activation ranges, of the simulation's start and of the file.
    calibration_method : {"minmax", "entropy", "percentile"}
        Of the file, as in `compression.quantization.PtqInt8`.
    seed : int
        Draws the calibration windows.
    claims : mapping
        What the gate checks, see `compression.recipe.Step`.

    Raises
    ------
    ValueError
        If an option is out of its range, or the calibration is not like the training windows.
    FloatingPointError
        If the loss is not finite.
    """

    makes: ClassVar[str] = "int8"
    refuses: ClassVar[Mapping[str, str]] = {
        ZEROS: "training does not hold the zeros; use ptq_int8",
        FOLDED: "a net trains worse without its norms, and the exporter folds them anyway",
    }

    max_epochs: int = 2
    learning_rate: float = 3e-4
    freeze_epoch: int = 1
    float_weight: float = 0.0
    n_calibration: int = 256
    calibration_method: str = "minmax"
    seed: int = 0
    claims: Mapping[str, float] = field(default_factory=dict)
    name: str = "qat_int8"

    def __post_init__(self) -> None:
        for option in ("max_epochs", "n_calibration"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} is {getattr(self, option)!r}, it must be at least 1")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate!r}, it must be above 0")
        if not 0 <= self.float_weight < 1:
            raise ValueError(f"float_weight is {self.float_weight!r}, it must be at least 0 and below 1")
        if self.calibration_method not in METHODS:
            raise ValueError(f"calibration_method is {self.calibration_method!r}, it must be one of {METHODS}")

    def __call__(self, module: Classifier, spec: ExportSpec, tools: Tools) -> tuple[Classifier, ExportSpec]:
        """Return a trained copy of the module, an ordinary float net, and ask for an int8 file."""
        positions, windows = draw_calibration(tools.datamodule, self.n_calibration, self.seed)
        student = tools.rebuild()
        student.net = copy.deepcopy(module.net)
        plain = student.criterion
        if self.float_weight:
            student.criterion = FloatGuide(module.eval(), student, self.float_weight)
        with Int8Simulation(student.net) as simulation:
            signal = torch.from_numpy(windows).to(next(student.net.parameters()).device)
            # A clip of video is some hundred images.
            simulation.calibrate(signal, batch_size=64 if signal.ndim == 3 else 4)
            hook = student.net.register_forward_pre_hook(lambda *_: self._freeze(simulation, student))
            try:
                student = fine_tune(
                    student, tools, self._about(), max_epochs=self.max_epochs, learning_rate=self.learning_rate
                )
            finally:
                hook.remove()
        student.criterion = plain
        return student, replace(
            spec, precision="int8", calibration_positions=positions, calibration_method=self.calibration_method
        )

    def _freeze(self, simulation: Int8Simulation, student: Classifier) -> None:
        simulation.frozen = student.training and student.current_epoch >= self.freeze_epoch

    def _about(self) -> dict[str, object]:
        """Everything that the weights depend on beside the start and the data."""
        options = ("freeze_epoch", "float_weight", "n_calibration", "seed")
        return {"step": self.name, **{option: getattr(self, option) for option in options}}


class FloatGuide:
    """A loss of labels and of the float net's own answers.

    Parameters
    ----------
    teacher : Classifier
        In evaluation mode; its weights do not train.
    student : Classifier
        Gives the loss of its labels, and whether its classes exclude each other.
    weight : float
        Of the soft targets; the labels have the rest.
    """

    def __init__(self, teacher: Classifier, student: Classifier, weight: float) -> None:
        self.teacher, self.label_loss, self.exclusive = teacher, student.label_loss, student.exclusive
        self.soft = match_answers(student, weight)

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss of logits (batch, classes), a scalar."""
        with torch.no_grad():
            theirs = self.teacher.to(logits.device)(batch[0]).float()
        soft = self.soft(Answer(logits, None, self.exclusive), Answer(theirs, None, self.exclusive))
        return (1 - self.soft.weight) * self.label_loss(logits, batch) + self.soft.weight * soft
