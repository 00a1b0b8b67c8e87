"""The verdict on an exported model: pure functions from figures to PASS, FAIL or INCONCLUSIVE."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Status = Literal["PASS", "FAIL", "INCONCLUSIVE", "INFO"]

# Claims to shares, in words.
SHARES = {"int8_macs_share": "of the MACs in int8", "sparsity": "of the weights are zero"}


@dataclass(frozen=True)
class Check:
    """One figure against its limit.

    Attributes
    ----------
    name : str
        What was checked, such as "bytes".
    status : {"PASS", "FAIL", "INCONCLUSIVE", "INFO"}
        Outcome; INFO figures carry no limit.
    value, limit : float or None
        The figure and what it was held against.
    reason : str
        One sentence for the reader.
    """

    name: str
    status: Status
    value: float | None
    limit: float | None
    reason: str


@dataclass(frozen=True)
class Verdict:
    """Outcome over all checks, and the reasons of those that did not pass."""

    status: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    reasons: list[str]


@dataclass(frozen=True)
class ParityLimits:
    """How far an artifact may lie from the net that it was exported from.

    Attributes
    ----------
    max_abs : float or None
        Largest difference of a logit; None leaves it without a limit.
    noise : float
        Root mean square of the differences over the standard deviation of the net's logits.
    flipped : float
        Share of decisions (probability against threshold) that change.
    delta_auroc : float
        Change of the macro AUROC, either way.
    """

    max_abs: float | None
    noise: float
    flipped: float
    delta_auroc: float


# The largest of some 10,000 int8 errors is a tail figure that grows with the split: reported, not limited.
PARITY_LIMITS = {
    "float32": ParityLimits(max_abs=1e-3, noise=1e-4, flipped=1e-3, delta_auroc=1e-4),
    # Weights are rounded to 11 bits, sums are not.
    "float16": ParityLimits(max_abs=None, noise=5e-3, flipped=5e-3, delta_auroc=1e-3),
    "int8": ParityLimits(max_abs=None, noise=0.2, flipped=0.05, delta_auroc=5e-3),
}


@dataclass(frozen=True)
class RateParityLimits:
    """How far an artifact's pulse waves may lie from those of the net that it was exported from.

    Attributes
    ----------
    wave_r : float
        Smallest mean correlation between the waves of a clip.
    hr_bpm : float
        Largest mean absolute difference between the heart rates of a clip, in beats a minute.
    """

    wave_r: float
    hr_bpm: float


RATE_PARITY_LIMITS = {
    "float32": RateParityLimits(wave_r=0.9999, hr_bpm=0.05),
    "float16": RateParityLimits(wave_r=0.999, hr_bpm=0.1),
    "int8": RateParityLimits(wave_r=0.95, hr_bpm=0.5),
}


class GateFailed(Exception):  # noqa: N818 - named for what happened, as in the verdict
    """A model failed its gate.

    Parameters
    ----------
    step : str
        Step or artifact that failed, such as "distil_ptq_int8 -> onnx int8".
    reasons : sequence of str
        Why, from the verdict.
    """

    def __init__(self, step: str, reasons: Sequence[str]) -> None:
        super().__init__(f"gate failed at {step}: {'; '.join(reasons)}")
        self.step = step
        self.reasons = list(reasons)


def check_reload(before: np.ndarray, after: np.ndarray, tolerance: float = 1e-6) -> Check:
    """Compare a model's outputs before saving with those of the saved and reloaded model.

    Catches weights that did not survive the way to disk, such as masks loaded with ``strict=False``.

    Parameters
    ----------
    before, after : ndarray of shape (n, classes)
        Logits on the same windows.
    tolerance : float, default 1e-6
        Largest absolute difference that passes.
    """
    difference = _max_abs(before, after)
    status: Status = "PASS" if difference <= tolerance else "FAIL"
    return Check("reload", status, difference, tolerance, f"reloaded model differs by {difference:.3g} at most")


def check_parity(
    reference_logits: np.ndarray,
    artifact_logits: np.ndarray,
    thresholds: np.ndarray,
    precision: str,
    *,
    delta_auroc: float | None = None,
) -> list[Check]:
    """Compare an artifact's logits with those of the net that it was exported from.

    Parameters
    ----------
    reference_logits, artifact_logits : ndarray of shape (n, classes)
        Logits on the same windows.
    thresholds : ndarray of shape (classes,)
        Probabilities from which on a class is decided for.
    precision : str
        Precision of the artifact; chooses the limits.
    delta_auroc : float, optional
        Macro AUROC of the artifact minus that of the net, where the labels are known.

    Raises
    ------
    ValueError
        If there are no limits for the precision.
    """
    limits = PARITY_LIMITS.get(precision.partition("_")[0])
    if limits is None:
        raise ValueError(f"precision {precision!r}: no parity limits, expected one of {sorted(PARITY_LIMITS)!r}")
    max_abs = _max_abs(reference_logits, artifact_logits)
    if math.isinf(max_abs):
        reason = f"logits {reference_logits.shape!r} and {artifact_logits.shape!r}: other shape, or not finite"
        return [Check("parity/max_abs", "FAIL", None, limits.max_abs, reason)]
    spread = float(np.std(reference_logits))
    rms = float(np.sqrt(np.mean((artifact_logits - reference_logits) ** 2)))
    cut = np.log(thresholds) - np.log1p(-np.asarray(thresholds))
    flipped = float(np.mean((reference_logits >= cut) != (artifact_logits >= cut)))
    checks = [
        _at_most("parity/max_abs", max_abs, limits.max_abs),
        _at_most("parity/noise", rms / spread if spread > 0 else math.inf, limits.noise),
        _at_most("parity/flipped", flipped, limits.flipped),
    ]
    if delta_auroc is not None:
        checks.append(_at_most("parity/delta_auroc", abs(delta_auroc), limits.delta_auroc))
    return checks


def check_rate_parity(
    reference_waves: np.ndarray,
    artifact_waves: np.ndarray,
    reference_bpm: np.ndarray,
    artifact_bpm: np.ndarray,
    precision: str,
) -> list[Check]:
    """Compare an artifact's pulse waves, and their heart rates, with those of the net that it was exported from.

    Parameters
    ----------
    reference_waves, artifact_waves : ndarray of shape (n, frames)
        Of the same clips.
    reference_bpm, artifact_bpm : ndarray of shape (n,)
        Heart rates of these waves, NaN where one shows none; that counts where the other one does.
    precision : str
        Precision of the artifact; chooses the limits.

    Raises
    ------
    ValueError
        If there are no limits for the precision.
    """
    limits = RATE_PARITY_LIMITS.get(precision.partition("_")[0])
    if limits is None:
        raise ValueError(f"precision {precision!r}: no parity limits, expected one of {sorted(RATE_PARITY_LIMITS)!r}")
    if math.isinf(_max_abs(reference_waves, artifact_waves)):
        reason = f"waves {reference_waves.shape!r} and {artifact_waves.shape!r}: other shape, or not finite"
        return [Check("parity/wave_r", "FAIL", None, limits.wave_r, reason)]
    ours, theirs = (waves - waves.mean(axis=1, keepdims=True) for waves in (reference_waves, artifact_waves))
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    # A flat wave is like no other, but for one that is flat as well.
    flat = (norms == 0) & (ours == theirs).all(axis=1)
    r = float(np.where(flat, 1, (ours * theirs).sum(axis=1) / np.where(norms > 0, norms, 1)).mean())
    status: Status = "PASS" if r >= limits.wave_r else "FAIL"
    both = np.isnan(reference_bpm) & np.isnan(artifact_bpm)
    difference = float(np.abs(np.where(both, 0, reference_bpm - artifact_bpm)).mean())
    return [
        Check("parity/wave_r", status, r, limits.wave_r, f"parity/wave_r is {r:.5f}, needs {limits.wave_r:g}"),
        _at_most("parity/hr_bpm", difference, limits.hr_bpm),
    ]


def check_share(name: str, share: float, at_least: float) -> Check:
    """Check that a share reaches what is claimed: of the MACs in int8, of the weights that are zero.

    Parameters
    ----------
    name : {"int8_macs_share", "sparsity"}
        Name of the claim.
    share : float
        0 to 1.
    at_least : float
        Smallest share that passes.
    """
    status: Status = "PASS" if share >= at_least else "FAIL"
    return Check(name, status, share, at_least, f"{share:.1%} {SHARES[name]}, needs {at_least:.0%}")


def note_zeros(latency_ratio: float | None) -> Check:
    """Say what zeros do not do: a dense runtime multiplies by them as by any other weight.

    Parameters
    ----------
    latency_ratio : float or None
        Measured against the reference; None where it was not measured.
    """
    measured = "not measured here" if latency_ratio is None else f"{latency_ratio:.2f} of the reference"
    reason = f"no speed is claimed, a dense runtime multiplies by zeros too: latency is {measured}"
    return Check("dense_runtime", "INFO", latency_ratio, None, reason)


def note_slow_int8(latency_ratio: float, at_most: float) -> Check:
    """Say why an int8 file's latency is not judged: its limit is for CPUs with instructions for int8 products.

    Parameters
    ----------
    latency_ratio : float
        Measured against the reference.
    at_most : float
        What is claimed.
    """
    reason = (
        f"latency is {latency_ratio:.2f} of the reference; the limit {at_most:g} is for CPUs with instructions for int8"
        " products (VNNI, AMX, Arm's dot products), and this one has none"
    )
    return Check("latency_ratio", "INFO", latency_ratio, at_most, reason)


def check_ratio(name: str, value: float, reference: float, at_most: float) -> Check:
    """Check that a figure (bytes, latency, MACs, parameters) falls to a share of its reference's.

    Parameters
    ----------
    name : str
        Name of the figure.
    value, reference : float
        The figure of the artifact and of its reference. A ratio that was measured as such goes in over 1.0.
    at_most : float
        Largest ratio that passes.
    """
    ratio = value / reference if reference > 0 else math.nan
    status: Status = "PASS" if ratio <= at_most else "FAIL"
    return Check(name, status, ratio, at_most, f"{name} is {ratio:.3f} of the reference, limit {at_most:g}")


def check_metric(
    low: float,
    high: float,
    max_drop: float,
    name: str = "test/auroc_macro",
    no_interval: str = "",
    larger_is_better: bool = True,
) -> Check:
    """Judge a difference to the reference by its paired interval (non-inferiority with margin ``max_drop``).

    PASS when the whole interval lies above ``-max_drop``, FAIL when it lies below, INCONCLUSIVE between; of an error,
    where less is better, PASS below ``max_drop`` and FAIL above. An interval that is not finite or reversed fails:
    nothing was shown.

    Parameters
    ----------
    low, high : float
        Interval of the metric's difference, artifact minus reference.
    max_drop : float
        Margin, positive: how much worse the metric may be.
    name : str
        The metric.
    no_interval : str
        Why there cannot be an interval, such as too few subjects; INCONCLUSIVE then.
    larger_is_better : bool, default True
        False for an error.
    """
    limit = -max_drop if larger_is_better else max_drop
    if no_interval:
        return Check(name, "INCONCLUSIVE", None, limit, f"{name}: {no_interval}")
    # As a gain, whichever way the metric points.
    worst, best = (low, high) if larger_is_better else (-high, -low)
    status: Status = "INCONCLUSIVE"
    if not (math.isfinite(low) and math.isfinite(high) and low <= high) or best < -max_drop:
        status = "FAIL"
    elif worst > -max_drop:
        status = "PASS"
    verb = "drop" if larger_is_better else "rise"
    reason = f"{name} changes by [{low:+.4f}, {high:+.4f}], may {verb} by {max_drop:g}"
    return Check(name, status, low if larger_is_better else high, limit, reason)


def judge(checks: Sequence[Check]) -> Verdict:
    """Join checks into a verdict: one FAIL fails, else one INCONCLUSIVE leaves it open.

    Raises
    ------
    ValueError
        If there is no check that could fail: an empty gate must not pass.
    """
    if all(check.status == "INFO" for check in checks):
        raise ValueError("gate: no check with a limit, so there is nothing to judge")
    for status in ("FAIL", "INCONCLUSIVE"):
        if any(check.status == status for check in checks):
            return Verdict(status, [c.reason for c in checks if c.status in ("FAIL", "INCONCLUSIVE")])
    return Verdict("PASS", [])


def _at_most(name: str, value: float, limit: float | None) -> Check:
    if limit is None:
        return Check(name, "INFO", value, None, f"{name} is {value:.3g}")
    status: Status = "PASS" if value <= limit else "FAIL"
    return Check(name, status, value, limit, f"{name} is {value:.3g}, limit {limit:g}")


def _max_abs(first: np.ndarray, second: np.ndarray) -> float:
    """Largest absolute difference; infinite where shapes differ or a value is not finite."""
    if first.shape != second.shape or first.size == 0:
        return math.inf
    difference = float(np.max(np.abs(np.asarray(first, np.float64) - second)))
    return difference if math.isfinite(difference) else math.inf
