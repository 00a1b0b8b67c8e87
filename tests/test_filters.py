import numpy as np
import pytest

from datamodules.filters import Filters, apply_filters, find_median, pass_band, shrink_wavelet

FS = 250.0
TIME_S = np.arange(5000) / FS


def wave(frequency: float) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * TIME_S)


@pytest.mark.parametrize(("frequency", "gain"), [(0.05, 0.0), (10.0, 1.0), (110.0, 0.0)])
def test_filters_pass_the_band_only(frequency, gain):
    middle = slice(1000, 4000)
    passed = pass_band(wave(frequency), FS, 0.5, 50, 2)[middle]
    np.testing.assert_allclose(passed, gain * wave(frequency)[middle], atol=0.02)


def test_filters_do_not_shift_a_peak():
    spike = np.exp(-0.5 * ((np.arange(5000) - 2500) / 4) ** 2)
    assert apply_filters(spike, FS, Filters()).argmax() == 2500


def test_filters_can_each_be_left_out():
    signal = 3 + wave(10)
    untouched = apply_filters(signal, FS, Filters(subtract_mean=False, band_pass=False, wavelet=False))
    np.testing.assert_array_equal(untouched, signal)
    centred = apply_filters(signal, FS, Filters(band_pass=False, wavelet=False))
    np.testing.assert_allclose(centred, wave(10), atol=1e-3)


def test_filters_wavelet_takes_noise_away_and_keeps_the_signal():
    rng = np.random.default_rng(0)
    clean = wave(0.5)
    noisy = clean + 0.1 * rng.standard_normal(len(clean))
    denoised = shrink_wavelet(noisy)
    assert np.std(denoised - clean) < 0.5 * np.std(noisy - clean)
    assert denoised.shape == clean.shape


def test_filters_wavelet_follows_the_universal_threshold():
    import pywt

    rng = np.random.default_rng(1)
    signal = rng.standard_normal(1001)
    details = pywt.wavedec(signal, "db4", level=5)
    threshold = np.median(np.abs(details[-1])) / 0.6745 * np.sqrt(2 * np.log(1001))
    expected = pywt.waverec([details[0], *(pywt.threshold(d, threshold, "soft") for d in details[1:])], "db4")[:1001]
    np.testing.assert_allclose(shrink_wavelet(signal), expected, atol=1e-12)


def test_filters_treat_leads_one_by_one():
    two = np.stack([wave(3), 5 + 2 * wave(10)])
    together = apply_filters(two, FS, Filters())
    np.testing.assert_allclose(together[1], apply_filters(two[1], FS, Filters()), atol=1e-12)


def test_filters_refuse_a_band_that_does_not_fit():
    with pytest.raises(ValueError, match=r"0.5 to 50.0 Hz does not fit fs 90.0 Hz"):
        apply_filters(wave(3), 90.0, Filters())


@pytest.mark.parametrize(("signal", "message"), [(np.full(500, np.nan), "NaN"), (np.zeros(10), "10 samples")])
def test_filters_refuse_what_they_cannot_filter(signal, message):
    with pytest.raises(ValueError, match=message):
        apply_filters(signal, FS, Filters())
    with pytest.raises(ValueError, match="enough for 0 wavelet levels"):
        shrink_wavelet(np.zeros(10))


@pytest.mark.parametrize("n", [10, 200_000, 200_001])
@pytest.mark.parametrize("draw", ["normal", "few values", "zeros", "sorted", "as the sample is taken"])
def test_filters_median_is_exact(n, draw):
    rng = np.random.default_rng(n)
    values = {
        "normal": rng.normal(size=n),
        "few values": rng.integers(0, 3, n).astype(np.float64),
        "zeros": np.zeros(n),
        "sorted": np.sort(rng.lognormal(0, 3, n)),
        "as the sample is taken": np.where(np.arange(n) % (n // (1 << 15) or 1) == 0, 9.0, rng.normal(size=n)),
    }[draw]
    assert find_median(values) == np.median(values)
