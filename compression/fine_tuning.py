"""Fine-tuning after a step that took something away: labels, and the net before the step as its own teacher."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from compression.distillation import Distill
from compression.distillation_parts import Part, SoftTargets
from compression.recipe import ExportSpec, Tools, fine_tune
from compression.wave_parts import WaveMatch
from lightning_modules.classifier import Classifier
from lightning_modules.rppg import RppgModule


def check_fine_tuning(max_epochs: int, learning_rate: float, soft_weight: float) -> None:
    """Refuse options of `recover` that are out of their range.

    Raises
    ------
    ValueError
        With the option and its range.
    """
    if max_epochs < 0:
        raise ValueError(f"max_epochs is {max_epochs!r}, it must not be below 0 (0: no fine-tuning)")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate is {learning_rate!r}, it must be above 0")
    if not 0 <= soft_weight <= 1:
        raise ValueError(f"soft_weight is {soft_weight!r}, it must lie within 0 (labels alone) and 1 (teacher alone)")


def match_answers(module: Classifier, weight: float) -> Part:
    """Part of a loss that compares answers: soft targets at temperature 2 of logits, the shape of pulse waves."""
    return WaveMatch(weight) if isinstance(module, RppgModule) else SoftTargets(weight, temperature=2.0)


def recover(
    module: Classifier,
    before: Classifier,
    tools: Tools,
    about: Mapping[str, Any],
    *,
    max_epochs: int,
    learning_rate: float,
    soft_weight: float,
    hold_zeros: bool = False,
) -> Classifier:
    """Train a module that lost something, under the labels and under what it answered before.

    Parameters
    ----------
    module : Classifier
        Trained in place, or a copy of it.
    before : Classifier
        The module before the loss: the teacher, see `match_answers`.
    tools : Tools
    about : mapping
        What the weights depend on beside where they start; ``step`` names the step.
    max_epochs : int
        0 leaves the module as it is.
    learning_rate : float
        Highest of the cycle.
    soft_weight : float
        Of the teacher's answers; the labels have the rest. 0 asks no teacher.
    hold_zeros : bool, default False
        Weights that are zero stay zero.
    """
    if max_epochs == 0:
        return module.eval()

    step = {**about, "hold_zeros": hold_zeros}

    def fit(
        module: Classifier, about: Mapping[str, Any], *, max_epochs: int | None = None, datamodule: Any = None
    ) -> Classifier:
        if hold_zeros:
            module.optimizer = holding_zeros(module.optimizer)
        return tools.fit(module, {**about, **step}, max_epochs=max_epochs, datamodule=datamodule)

    own_tools = replace(tools, fit=fit, rebuild=lambda: module, teacher=before, teacher_data=None, history=())
    if soft_weight == 0:
        return fine_tune(module, own_tools, about, max_epochs=max_epochs, learning_rate=learning_rate)
    distill = Distill(
        {"soft": match_answers(module, soft_weight)},
        label_weight=1 - soft_weight,
        start="here",
        max_epochs=max_epochs,
        learning_rate=learning_rate,
        name=str(about["step"]),
    )
    return distill(module, ExportSpec(), own_tools)[0]


def holding_zeros(make_optimizer: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Make an optimizer that puts the zeros of matrices and kernels back after every step.

    No mask becomes part of the net: nothing is left to take away afterwards.
    """

    def make(parameters: Iterable[Tensor], **options: Any) -> torch.optim.Optimizer:
        parameters = list(parameters)
        optimizer = make_optimizer(parameters, **options)
        zeros = [(value, value.detach() == 0) for value in parameters if value.ndim > 1]

        def hold(*_: Any) -> None:
            with torch.no_grad():
                for value, zero in zeros:
                    value.masked_fill_(zero, 0.0)

        optimizer.register_step_post_hook(hold)
        return optimizer

    return make
