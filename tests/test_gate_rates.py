import math

import numpy as np
import pytest

from deploy.gate import RATE_PARITY_LIMITS, check_metric, check_rate_parity

WAVES = np.sin(np.arange(90) / 4 + np.arange(5)[:, None])
BPM = np.linspace(60, 90, 5)


def statuses(checks):
    return {check.name: check.status for check in checks}


@pytest.mark.parametrize("precision", sorted(RATE_PARITY_LIMITS))
def test_gate_passes_the_same_waves_and_rates(precision):
    assert statuses(check_rate_parity(WAVES, 2 * WAVES, BPM, BPM, precision)) == {
        "parity/wave_r": "PASS",
        "parity/hr_bpm": "PASS",
    }


def test_gate_fails_waves_of_another_shape_in_time():
    noisy = WAVES + np.random.default_rng(0).normal(0, 0.5, WAVES.shape)
    wave, rate = check_rate_parity(WAVES, noisy, BPM, BPM, "int8")
    assert (wave.status, rate.status) == ("FAIL", "PASS")
    r = np.mean([np.corrcoef(ours, theirs)[0, 1] for ours, theirs in zip(WAVES, noisy, strict=True)])
    assert wave.value == pytest.approx(r)
    assert check_rate_parity(WAVES, -WAVES, BPM, BPM, "float32")[0].value == pytest.approx(-1)


@pytest.mark.parametrize(("shift", "status"), [(0.49, "PASS"), (0.51, "FAIL"), (-0.51, "FAIL")])
def test_gate_holds_int8_rates_to_half_a_beat(shift, status):
    assert check_rate_parity(WAVES, WAVES, BPM, BPM + shift, "int8")[1].status == status


def test_gate_counts_a_rate_that_only_one_side_shows():
    lost = np.where(np.arange(5) == 2, np.nan, BPM)
    assert check_rate_parity(WAVES, WAVES, lost, lost, "int8")[1].status == "PASS"
    assert check_rate_parity(WAVES, WAVES, BPM, lost, "int8")[1].status == "FAIL"


def test_gate_takes_a_flat_wave_for_like_nothing_but_itself():
    flat = np.where(np.arange(5)[:, None] == 0, 0.0, WAVES)
    assert check_rate_parity(flat, flat, BPM, BPM, "float32")[0].value == pytest.approx(1)
    assert check_rate_parity(WAVES, flat, BPM, BPM, "float32")[0].value == pytest.approx(0.8)


@pytest.mark.parametrize("waves", [WAVES[:, :-1], np.full_like(WAVES, np.nan)])
def test_gate_fails_waves_that_cannot_be_compared(waves):
    (check,) = check_rate_parity(WAVES, waves, BPM, BPM, "float32")
    assert check.status == "FAIL"
    assert "other shape, or not finite" in check.reason


def test_gate_refuses_a_precision_without_limits_of_rates():
    with pytest.raises(ValueError, match="precision 'int3': no parity limits"):
        check_rate_parity(WAVES, WAVES, BPM, BPM, "int3")


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (-0.5, 0.29, "PASS"),
        (-0.5, -0.1, "PASS"),
        (-0.5, 0.3, "INCONCLUSIVE"),
        (0.1, 0.9, "INCONCLUSIVE"),
        (0.31, 0.9, "FAIL"),
        (math.nan, math.nan, "FAIL"),
        (0.2, -0.2, "FAIL"),
    ],
)
def test_gate_lets_an_error_rise_by_the_margin(low, high, status):
    check = check_metric(low, high, 0.3, "test/hr_mae_bpm_video", larger_is_better=False)
    assert (check.status, check.limit) == (status, 0.3)
    assert "may rise by 0.3" in check.reason


def test_gate_leaves_an_error_of_few_subjects_open():
    check = check_metric(math.nan, math.nan, 0.3, "x", "no interval: 5 test subjects", larger_is_better=False)
    assert (check.status, check.limit) == ("INCONCLUSIVE", 0.3)
