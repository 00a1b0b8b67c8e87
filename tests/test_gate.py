import math
from typing import Any

import numpy as np
import pytest

from deploy.gate import (
    Check,
    GateFailed,
    check_metric,
    check_parity,
    check_ratio,
    check_reload,
    check_share,
    judge,
)

THRESHOLDS = np.full(3, 0.5)


@pytest.mark.parametrize(
    ("after", "status"),
    [
        ([[1.0, 2.0]], "PASS"),
        ([[1.0, 2.0 + 9e-7]], "PASS"),
        ([[1.0, 2.0 + 2e-6]], "FAIL"),
        ([[1.0, math.nan]], "FAIL"),
        ([[1.0, math.inf]], "FAIL"),
        ([[1.0]], "FAIL"),
        (np.empty((0, 2)), "FAIL"),
    ],
)
def test_gate_reload_tolerance(after: Any, status: str) -> None:
    assert check_reload(np.asarray([[1.0, 2.0]]), np.asarray(after)).status == status


def test_gate_reload_of_nothing_fails() -> None:
    assert check_reload(np.empty((0, 2)), np.empty((0, 2))).status == "FAIL"


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (-0.0019, 0.001, "PASS"),
        (0.001, 0.004, "PASS"),
        (-0.002, 0.001, "INCONCLUSIVE"),
        (-0.01, 0.01, "INCONCLUSIVE"),
        (-0.01, -0.002, "INCONCLUSIVE"),
        (-0.01, -0.0021, "FAIL"),
        (math.nan, math.nan, "FAIL"),
        (-math.inf, 0.0, "FAIL"),
        (0.01, -0.01, "FAIL"),
    ],
)
def test_gate_metric_follows_the_interval(low: float, high: float, status: str) -> None:
    check = check_metric(low, high, max_drop=0.002)
    assert check.status == status
    assert check.name == "test/auroc_macro"
    assert "may drop by 0.002" in check.reason


def test_gate_metric_without_an_interval_for_a_reason_is_open() -> None:
    check = check_metric(math.nan, math.nan, 0.01, "test/auroc_macro_beat", "no interval: 5 test subjects")
    assert (check.status, check.value, check.limit) == ("INCONCLUSIVE", None, -0.01)
    assert check.reason == "test/auroc_macro_beat: no interval: 5 test subjects"


@pytest.mark.parametrize(
    ("value", "reference", "status"),
    [(27, 100, "PASS"), (27.1, 100, "FAIL"), (math.nan, 100, "FAIL"), (27, 0, "FAIL"), (0.2, 1.0, "PASS")],
)
def test_gate_ratio_limit(value: float, reference: float, status: str) -> None:
    assert check_ratio("bytes", value, reference, at_most=0.27).status == status


@pytest.mark.parametrize(("share", "status"), [(0.9, "PASS"), (1.0, "PASS"), (0.899, "FAIL"), (math.nan, "FAIL")])
def test_gate_int8_macs_share_limit(share: float, status: str) -> None:
    assert check_share("int8_macs_share", share, 0.9).status == status


def test_gate_parity_counts_flipped_decisions_at_the_thresholds() -> None:
    # Probabilities .73 and .27: only a threshold between a logit and its shift is crossed.
    reference = np.tile([1.0, -1.0], (50, 1))
    shifted = reference.copy()
    shifted[:12, 0] = 0.5
    checks = {c.name: c for c in check_parity(reference, shifted, np.asarray([0.7, 0.5]), "int8")}
    assert checks["parity/flipped"].value == pytest.approx(12 / 100)
    assert checks["parity/flipped"].status == "FAIL"
    assert checks["parity/max_abs"].status == "INFO"
    assert checks["parity/max_abs"].value == pytest.approx(0.5)
    checks = {c.name: c for c in check_parity(reference, shifted, np.asarray([0.5, 0.5]), "int8")}
    assert checks["parity/flipped"].value == 0.0


def test_gate_parity_holds_float_to_more() -> None:
    reference = np.random.default_rng(0).standard_normal((100, 3))
    noisy = reference + 0.01
    assert judge(check_parity(reference, noisy, THRESHOLDS, "int8")).status == "PASS"
    assert judge(check_parity(reference, noisy, THRESHOLDS, "float32")).status == "FAIL"
    assert judge(check_parity(reference, reference + 1e-6, THRESHOLDS, "float32")).status == "PASS"


@pytest.mark.parametrize("spoil", [math.nan, math.inf])
@pytest.mark.parametrize("precision", ["float32", "int8", "int8_dynamic"])
def test_gate_parity_fails_what_is_not_finite(spoil: float, precision: str) -> None:
    reference = np.ones((4, 3))
    broken = reference.copy()
    broken[2, 1] = spoil
    assert judge(check_parity(reference, broken, THRESHOLDS, precision)).status == "FAIL"
    assert judge(check_parity(reference, broken[:2], THRESHOLDS, precision)).status == "FAIL"


def test_gate_parity_fails_a_net_that_says_nothing() -> None:
    constant = np.ones((4, 3))
    assert judge(check_parity(constant, constant, THRESHOLDS, "int8")).status == "FAIL"


def test_gate_parity_refuses_unknown_precision() -> None:
    with pytest.raises(ValueError, match="precision 'float8': no parity limits"):
        check_parity(np.ones((1, 3)), np.ones((1, 3)), THRESHOLDS, "float8")


def make_check(status: Any) -> Check:
    return Check("figure", status, 1.0, 1.0, f"was {status}")


@pytest.mark.parametrize(
    ("statuses", "expected", "reasons"),
    [
        (["PASS", "INFO"], "PASS", []),
        (["PASS", "INCONCLUSIVE"], "INCONCLUSIVE", ["was INCONCLUSIVE"]),
        (["INCONCLUSIVE", "FAIL", "PASS"], "FAIL", ["was INCONCLUSIVE", "was FAIL"]),
        (["FAIL"], "FAIL", ["was FAIL"]),
    ],
)
def test_gate_judge_takes_the_worst(statuses: list[str], expected: str, reasons: list[str]) -> None:
    verdict = judge([make_check(status) for status in statuses])
    assert (verdict.status, verdict.reasons) == (expected, reasons)


@pytest.mark.parametrize("statuses", [[], ["INFO"]])
def test_gate_judge_refuses_to_pass_without_a_check(statuses: list[str]) -> None:
    with pytest.raises(ValueError, match="nothing to judge"):
        judge([make_check(status) for status in statuses])


def test_gate_failed_names_the_step() -> None:
    error = GateFailed("ptq_int8", ["bytes is 0.900 of the reference, limit 0.27"])
    assert error.step == "ptq_int8"
    assert str(error) == "gate failed at ptq_int8: bytes is 0.900 of the reference, limit 0.27"
