import pytest
import torch

from datamodules.augment import EcgAugment

FS = 100.0


@pytest.fixture
def signal():
    return torch.arange(4 * 3 * 500, dtype=torch.float32).reshape(4, 3, 500)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_augment_is_off_by_default(signal):
    assert torch.equal(EcgAugment(FS)(signal, seeded()), signal)


def test_augment_crop_takes_one_stretch_of_all_leads(signal):
    cropped = EcgAugment(FS, crop_s=2.5)(signal, seeded())
    assert cropped.shape == (4, 3, 250)
    starts = cropped[:, 0, 0] - signal[:, 0, 0]
    assert len(starts.unique()) > 1
    for row, start in enumerate(starts.int().tolist()):
        assert torch.equal(cropped[row], signal[row, :, start : start + 250])


def test_augment_crop_of_the_whole_window_changes_nothing(signal):
    assert torch.equal(EcgAugment(FS, crop_s=5.0)(signal, seeded()), signal)


def test_augment_shift_is_circular_and_bounded(signal):
    augment = EcgAugment(FS, shift_s=0.5)
    seen = set()
    for seed in range(40):
        shifted = augment(signal, seeded(seed))
        for row in range(4):
            shift = int(shifted[row, 0, 0] - signal[row, 0, 0])
            assert torch.equal(shifted[row], signal[row].roll(-shift, dims=-1))
            seen.add(shift if shift < 250 else shift - 500)
    assert min(seen) >= -50
    assert max(seen) <= 50
    assert min(seen) < -30
    assert max(seen) > 30


def test_augment_amplitude_scales_whole_windows():
    signal = torch.ones(2000, 2, 10)
    scaled = EcgAugment(FS, amplitude=0.1)(signal, seeded())
    assert torch.equal(scaled, scaled[:, :1, :1].expand_as(scaled))
    assert scaled.mean().item() == pytest.approx(1, abs=0.02)
    assert scaled[:, 0, 0].std().item() == pytest.approx(0.1, rel=0.1)


def test_augment_noise_has_the_stated_size():
    noise = EcgAugment(FS, noise_mv=0.05)(torch.zeros(20, 12, 500), seeded())
    assert noise.std().item() == pytest.approx(0.05, rel=0.02)


def test_augment_lead_drop_zeroes_whole_leads():
    dropped = EcgAugment(FS, lead_drop=0.25)(torch.ones(500, 12, 5), seeded())
    assert torch.equal(dropped, dropped[:, :, :1].expand_as(dropped))
    assert dropped.mean().item() == pytest.approx(0.75, abs=0.02)
    assert len(dropped[:, :, 0].sum(dim=1).unique()) > 2


def test_augment_leaves_its_input_as_it_is(signal):
    before = signal.clone()
    augment = EcgAugment(FS, crop_s=3, shift_s=1, amplitude=0.1, noise_mv=0.1, lead_drop=0.2)
    assert augment(signal, seeded()).shape == (4, 3, 300)
    assert torch.equal(signal, before)


def test_augment_repeats_with_its_seed(signal):
    augment = EcgAugment(FS, crop_s=3, shift_s=1, amplitude=0.1, noise_mv=0.1, lead_drop=0.2)
    assert torch.equal(augment(signal, seeded(1)), augment(signal, seeded(1)))
    assert not torch.equal(augment(signal, seeded(1)), augment(signal, seeded(2)))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"fs": 0}, "augment.fs is 0"),
        ({"crop_s": 0.001}, "augment.crop_s is 0.001"),
        ({"shift_s": -1}, "augment.shift_s is -1"),
        ({"amplitude": float("nan")}, "augment.amplitude is nan"),
        ({"noise_mv": -0.1}, "augment.noise_mv is -0.1"),
        ({"lead_drop": 1}, "augment.lead_drop is 1"),
    ],
)
def test_augment_refuses_values_out_of_range(option, message):
    with pytest.raises(ValueError, match=message):
        EcgAugment(**{"fs": FS, **option})


def test_augment_crop_longer_than_the_window_is_refused(signal):
    with pytest.raises(ValueError, match="longer than a window of 5 s"):
        EcgAugment(FS, crop_s=6)(signal, seeded())
