import pytest
import torch
from torch.nn import functional

from compression.distillation_parts import (
    AttentionTransfer,
    FeatureHint,
    Relational,
    SoftTargets,
    cosines,
    distances,
    project,
)
from compression.feature_maps import Answer, match_time

EVERY = (SoftTargets(), FeatureHint(), AttentionTransfer(), Relational())


def answer(seed=0, channels=3, time=6, exclusive=False, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 2, generator=generator)
    return Answer(logits, scale * torch.randn(5, channels, time, generator=generator), exclusive)


@pytest.mark.parametrize("part", EVERY)
@pytest.mark.parametrize("exclusive", [False, True])
def test_every_part_is_zero_where_the_student_is_the_teacher(part, exclusive):
    same, other = answer(exclusive=exclusive), answer(1, exclusive=exclusive)
    assert part(same, same) == pytest.approx(0, abs=1e-6)
    assert part(other, same) > 0.01


@pytest.mark.parametrize("part", EVERY)
def test_every_part_pulls_the_student_to_the_teacher(part):
    teacher, start = answer(1), answer(0)
    logits, features = start.logits.requires_grad_(), start.features.requires_grad_()
    optimizer = torch.optim.Adam([logits, features], 0.05)
    before = part(Answer(logits, features), teacher).item()
    for _ in range(200):
        optimizer.zero_grad()
        part(Answer(logits, features), teacher).backward()
        optimizer.step()
    assert part(Answer(logits, features), teacher).item() < 0.02 * before


@pytest.mark.parametrize("part", EVERY)
def test_every_part_has_a_finite_slope_where_student_is_teacher(part):
    teacher = answer()
    logits, features = teacher.logits.clone().requires_grad_(), teacher.features.clone().requires_grad_()
    part(Answer(logits, features), teacher).backward()
    for value in (logits, features):
        assert value.grad is None or torch.isfinite(value.grad).all()


@pytest.mark.parametrize("part", EVERY)
def test_every_part_refuses_a_weight_of_zero(part):
    with pytest.raises(ValueError, match="weight is 0, it must be above 0"):
        type(part)(weight=0)


def test_soft_targets_of_exclusive_classes_follow_hinton():
    student, teacher = answer(exclusive=True), answer(1, exclusive=True)
    ours, theirs = (item.logits.div(3).softmax(dim=1) for item in (student, teacher))
    expected = 9 * (theirs * (theirs / ours).log()).sum(dim=1).mean()
    assert SoftTargets(temperature=3.0)(student, teacher) == pytest.approx(float(expected), rel=1e-5)


def test_soft_targets_of_several_labels_are_divergences_of_sigmoids():
    student, teacher = answer(), answer(1)
    ours, theirs = (item.logits.div(2).sigmoid() for item in (student, teacher))
    divergence = theirs * (theirs / ours).log() + (1 - theirs) * ((1 - theirs) / (1 - ours)).log()
    assert SoftTargets(temperature=2.0)(student, teacher) == pytest.approx(float(4 * divergence.mean()), rel=1e-5)


def test_soft_targets_refuse_a_temperature_of_zero():
    with pytest.raises(ValueError, match="temperature is 0"):
        SoftTargets(temperature=0)


def test_hints_are_relative_to_the_teachers_map():
    student, teacher = answer(), answer(1)
    tenfold = [Answer(item.logits, 10 * item.features) for item in (student, teacher)]
    assert FeatureHint()(student, teacher) == pytest.approx(float(FeatureHint()(*tenfold)), rel=1e-5)
    nothing = Answer(student.logits, torch.zeros_like(student.features))
    assert FeatureHint()(nothing, teacher) == pytest.approx(1)


def test_projections_start_the_same_whatever_ran_before():
    first = project(3, 7)
    torch.rand(10)
    assert torch.equal(first.weight, project(3, 7).weight)
    assert first(torch.zeros(2, 3, 5)).shape == (2, 7, 5)
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    project(3, 7)
    assert torch.equal(torch.rand(1), expected)


def test_attention_is_a_matter_of_time_and_not_of_scale_or_width():
    student, teacher = answer(), answer(1, channels=8)
    louder = Answer(student.logits, 7 * student.features)
    doubled = Answer(student.logits, student.features.repeat(1, 2, 1))
    expected = float(AttentionTransfer()(student, teacher))
    for other in (louder, doubled):
        assert AttentionTransfer()(other, teacher) == pytest.approx(expected, rel=1e-5)


def test_attention_at_other_times_is_as_far_as_it_can_be():
    early, late = torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)
    early[..., 0], late[..., 3] = 2.0, 1.0
    assert AttentionTransfer()(Answer(early[0, :, :2], early), Answer(late[0, :, :2], late)) == pytest.approx(2)


def test_relations_survive_turning_scaling_and_another_width():
    teacher = answer()
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)))
    moved = 4 * torch.einsum("ij,bjt->bit", turn, teacher.features) + 1
    wider = torch.cat([moved, torch.zeros(5, 2, 6)], dim=1)
    assert Relational()(Answer(teacher.logits, wider), teacher) == pytest.approx(0, abs=1e-5)


def test_relations_of_a_triangle_by_hand():
    triangle = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    torch.testing.assert_close(distances(triangle), torch.tensor([3.0, 4.0, 5.0]) / 4)
    angles = cosines(triangle)
    assert angles[0, 1, 2] == pytest.approx(0, abs=1e-6)
    assert angles[1, 0, 2] == pytest.approx(3 / 5)
    assert angles[2, 0, 1] == pytest.approx(4 / 5)
    other = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    maps = [Answer(points, points.unsqueeze(2)) for points in (other, triangle)]
    expected = functional.smooth_l1_loss(distances(other), distances(triangle))
    assert Relational(angle=0)(*maps) == pytest.approx(float(expected))
    weighted = Relational(distance=3, angle=2)(*maps)
    parts = 3 * Relational(angle=0)(*maps) + 2 * Relational(distance=0, angle=1)(*maps)
    assert weighted == pytest.approx(float(parts))


def test_relations_refuse_to_compare_nothing():
    with pytest.raises(ValueError, match="nor both be 0"):
        Relational(distance=0, angle=0)


def test_the_longer_map_is_averaged_over_time():
    long, short = torch.arange(6.0).reshape(1, 1, 6), torch.zeros(1, 1, 3)
    shortened, same = match_time(long, short)
    assert shortened.flatten().tolist() == [0.5, 2.5, 4.5]
    assert torch.equal(same, short)
    assert FeatureHint()(Answer(short[0], long), Answer(short[0], short + 1)).isfinite()


def test_an_answer_without_a_map_says_so():
    with pytest.raises(ValueError, match="holds no feature map"):
        FeatureHint()(Answer(torch.zeros(1, 2)), answer())
