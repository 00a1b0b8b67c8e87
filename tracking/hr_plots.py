"""Figures of estimated heart rates; nothing here needs a display."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tracking.hr_predictions import HeartRates
from tracking.plots import make_axes

Floats = NDArray[np.float64]


def draw_rates(rates: HeartRates, title: str = "") -> dict[str, Figure]:
    """Every figure of an artifact's heart rates, by file name."""
    return {"bland_altman.png": bland_altman_figure(rates, title), "rates.png": scatter_figure(rates, title)}


def limits_of_agreement(truth: Floats, estimate: Floats) -> tuple[float, float, float]:
    """Mean difference (estimate minus truth) and the 95 % limits of agreement around it, in the unit of the two.

    NaN limits for fewer than two rows.

    References
    ----------
    Bland, Altman: Statistical methods for assessing agreement between two methods of clinical measurement. Lancet
    327 (1986). doi:10.1016/S0140-6736(86)90837-8
    """
    difference = estimate - truth
    bias = float(difference.mean())
    spread = 1.96 * float(difference.std(ddof=1)) if len(difference) > 1 else np.nan
    return bias, bias - spread, bias + spread


def bland_altman_figure(rates: HeartRates, title: str = "") -> Figure:
    """Differences over means of estimated and true rate; lines show bias and limits of agreement of the videos."""
    figure, axes = make_axes(title, "mean of estimate and reference (bpm)", "estimate - reference (bpm)")
    for truth, estimate, style in _levels(rates):
        axes.scatter((truth + estimate) / 2, estimate - truth, **style)
    bias, low, high = limits_of_agreement(rates.video_true_bpm, rates.video_bpm)
    for value, name, line in (bias, "bias", "-"), (low, "lower limit", "--"), (high, "upper limit", "--"):
        if np.isfinite(value):
            axes.axhline(value, color="0.3", linewidth=0.9, linestyle=line, label=f"{name} {value:+.2f}")
    axes.legend(fontsize=8)
    return figure


def scatter_figure(rates: HeartRates, title: str = "") -> Figure:
    """Estimated over true rate; the line is where they agree."""
    figure, axes = make_axes(title, "reference (bpm)", "estimate (bpm)")
    every = np.concatenate([rates.true_bpm, rates.bpm, rates.video_true_bpm, rates.video_bpm])
    ends = [every.min() - 2, every.max() + 2]
    axes.plot(ends, ends, color="0.7", linewidth=0.8)
    for truth, estimate, style in _levels(rates):
        axes.scatter(truth, estimate, **style)
    axes.legend(fontsize=8, loc="upper left")
    return figure


def _levels(rates: HeartRates) -> list[tuple[Floats, Floats, dict[str, Any]]]:
    windows = {"s": 10, "color": "0.6", "label": f"{len(rates.bpm)} windows"}
    videos = {"s": 28, "color": "C0", "label": f"{len(rates.video_bpm)} videos"}
    return [(rates.true_bpm, rates.bpm, windows), (rates.video_true_bpm, rates.video_bpm, videos)]
