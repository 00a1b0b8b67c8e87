import pytest
import torch

from datamodules.augment_rr import RrAugment


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def intervals_s():
    return 0.5 + torch.rand(2000, 1, 25, generator=seeded(1))


def test_augment_rr_is_off_by_default(intervals_s):
    assert torch.equal(RrAugment()(intervals_s, seeded()), intervals_s)


def test_augment_rr_jitter_moves_beats_and_no_more():
    changes = RrAugment(jitter_s=0.03)(torch.ones(4000, 1, 25), seeded()) - 1
    # What one interval gains the next one loses: neighbours have a correlation of -1/2, the others none.
    first, second, third = changes[:, 0, 10], changes[:, 0, 11], changes[:, 0, 12]
    assert torch.corrcoef(torch.stack([first, second]))[0, 1].item() == pytest.approx(-0.5, abs=0.05)
    assert torch.corrcoef(torch.stack([first, third]))[0, 1].item() == pytest.approx(0, abs=0.05)
    # The variance of a difference of two beats, and of a uniform spread.
    assert changes.var().item() == pytest.approx(2 * 0.03**2 / 3, rel=0.1)


def test_augment_rr_premature_beats_are_made_up_for():
    intervals_s = torch.ones(4000, 1, 25)
    changes = RrAugment(premature=0.4)(intervals_s, seeded()) - intervals_s
    torch.testing.assert_close(changes.sum(-1), torch.zeros(4000, 1), rtol=0, atol=1e-5)
    first = changes[:, 0, 0]
    assert (first <= 0).all()
    assert first.min().item() == pytest.approx(-0.5, abs=0.01)
    assert (first < 0).float().mean().item() == pytest.approx(0.2, abs=0.02)
    # The probability differs between windows.
    assert (changes.abs() > 0).float().mean(-1).std() > 0.1


def test_augment_rr_leaves_its_input_and_repeats_by_seed(intervals_s):
    before = intervals_s.clone()
    augment = RrAugment(jitter_s=0.01, premature=0.1)
    first, again, other = (augment(intervals_s, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(intervals_s, before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("jitter_s", [-0.1, float("nan"), float("inf")])
def test_augment_rr_refuses_a_jitter_out_of_range(jitter_s):
    with pytest.raises(ValueError, match=rf"augment\.jitter_s is {jitter_s!r}, expected 0 or more"):
        RrAugment(jitter_s=jitter_s)


@pytest.mark.parametrize("premature", [-0.1, 1.1, float("nan")])
def test_augment_rr_refuses_what_is_no_probability(premature):
    with pytest.raises(ValueError, match=r"augment\.premature is .*, expected a probability"):
        RrAugment(premature=premature)
