"""Distillation of a narrow TS-CAN under a wide one."""

from functools import partial

import numpy as np
import pytest
import torch

from compression.distillation import Distill
from compression.feature_maps import Answer
from compression.recipe import ExportSpec, Tools
from compression.wave_parts import WaveMatch
from lightning_modules.nets.tscan import TsCan
from lightning_modules.rppg import RppgModule


class Clips:
    """Four clips of a data module."""

    def __init__(self):
        self.splits = {"train": np.arange(4)}

    def windows(self, split, positions):
        return torch.randn(4, 10, 6, 12, 12, generator=torch.Generator().manual_seed(0)).numpy()[positions]


def make_module(widths) -> RppgModule:
    torch.manual_seed(0)
    return RppgModule(TsCan(10, 12, widths=widths, dense_width=4), partial(torch.optim.Adam, lr=1e-3))


def test_wave_match_is_blind_to_scale_only():
    wave = torch.randn(3, 20)
    part = WaveMatch()
    assert part(Answer(wave), Answer(4 * wave - 1)) == pytest.approx(0, abs=1e-6)
    assert part(Answer(wave), Answer(-wave)) == pytest.approx(2, abs=1e-6)
    with pytest.raises(ValueError, match="weight is 0"):
        WaveMatch(weight=0)


def test_wave_match_is_part_of_a_students_loss():
    teacher, losses = make_module((8, 8)), []

    def fit(module, about, *, max_epochs=None, datamodule=None):
        clips = torch.from_numpy(Clips().windows("train", np.arange(4)))
        batch = (clips, torch.randn(4, 10), torch.arange(4))
        teacher_wave = teacher.eval()(clips)
        losses.append((module.criterion(teacher_wave, batch), module.label_loss(teacher_wave, batch)))
        module.criterion(module(clips), batch).backward()
        return module

    step = Distill(parts={"wave": WaveMatch()}, label_weight=0.5)
    tools = Tools(Clips(), fit, rebuild=lambda: make_module((4, 4)), teacher=teacher)
    student, _ = step(make_module((4, 4)), ExportSpec(), tools)
    # Who answers as the teacher does is only judged by the labels.
    with_teacher, labels = losses[0]
    assert with_teacher.item() == pytest.approx(0.5 * labels.item(), abs=1e-5)
    assert student.criterion is student.label_loss
    assert student.net.first.motion_same.weight.grad is not None
