"""Figures of a run and of a set of runs; nothing here needs a display."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tracking.fronts import COSTS, mark_front
from tracking.predictions import Predictions
from tracking.rows import Row
from tracking.tables import default_metric
from tracking.tallies import calibration_bins

# Points of a curve that are drawn; areas come from all of them.
N_DRAWN = 2000
_HALF_LINE = 46  # characters of a legend in two columns
MARKERS = {"teacher": "s", "student": "o", "baseline": "^", "device": "D"}


def draw_predictions(predictions: Predictions, title: str = "") -> dict[str, Figure]:
    """Every figure of an artifact's predictions, by file name."""
    return {
        "roc.png": roc_figure(predictions, title),
        "pr.png": precision_recall_figure(predictions, title),
        "confusion.png": confusion_figure(predictions, title),
        "reliability.png": reliability_figure(predictions, title),
    }


def roc_figure(predictions: Predictions, title: str = "") -> Figure:
    """ROC curve of every class, with its area in the legend."""
    figure, axes = make_axes(title, "1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    for name, targets, scores in _classes(predictions):
        hits, calls = _calls(targets, scores)
        n_positive, n_negative = hits[-1], calls[-1] - hits[-1]
        if n_positive and n_negative:
            sensitivity, false_share = hits / n_positive, (calls - hits) / n_negative
            area = float(np.trapezoid(sensitivity, false_share))
            axes.plot(*_thin(false_share, sensitivity), linewidth=1.2, label=f"{name} {area:.3f}")
    axes.legend(loc="lower right", fontsize=8)
    return figure


def precision_recall_figure(predictions: Predictions, title: str = "") -> Figure:
    """Precision-recall curve of every class, with its average precision in the legend."""
    figure, axes = make_axes(title, "sensitivity (recall)", "precision")
    for name, targets, scores in _classes(predictions):
        hits, calls = _calls(targets, scores)
        if hits[-1]:
            recall, precision = hits / hits[-1], hits[1:] / calls[1:]
            average = float(np.sum(np.diff(recall) * precision))
            axes.step(*_thin(recall[1:], precision), where="pre", linewidth=1.2, label=f"{name} {average:.3f}")
    axes.legend(loc="lower left", fontsize=8)
    return figure


def confusion_figure(predictions: Predictions, title: str = "") -> Figure:
    """Decisions against targets: one matrix of exclusive classes, else one for each class against its absence."""
    truth, decisions = predictions.targets > 0, predictions.decisions
    names = list(predictions.class_names)
    if predictions.exclusive:
        tables = [(names, truth, decisions)]
    else:
        both = [(truth[:, [k]], decisions[:, [k]]) for k in range(len(names))]
        tables = [
            ([f"not {name}", name], np.hstack([~right, right]), np.hstack([~called, called]))
            for name, (right, called) in zip(names, both, strict=True)
        ]
    figure = Figure(figsize=(1 + 3 * len(tables), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (labels, right, called) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables, strict=True):
        _draw_confusion(axes, labels, right.T.astype(np.float64) @ called)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def reliability_figure(predictions: Predictions, title: str = "") -> Figure:
    """Observed share of every class over its mean probability, in 15 equal bins; calibration error in the legend."""
    figure, axes = make_axes(title, "mean probability", "observed share")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    for name, targets, scores in _classes(predictions):
        bins = calibration_bins(scores)
        counts = np.bincount(bins)
        held = counts > 0
        expected, observed = (np.bincount(bins, values)[held] / counts[held] for values in (scores, targets))
        error = float(np.abs(expected - observed) @ counts[held] / counts.sum())
        axes.plot(expected, observed, marker="o", markersize=3, linewidth=1.2, label=f"{name} ECE {error:.3f}")
    axes.legend(loc="upper left", fontsize=8)
    return figure


def tradeoff_figure(rows: Sequence[Row], metric: str | None = None) -> Figure:
    """Metric over file size, colour by latency at batch 1; rows without size or metric are left out.

    A line joins the Pareto front of size; rows on that of latency have a ring. The metric is the headline of the rows'
    task at their level by default.

    Raises
    ------
    ValueError
        If no row has both, or rows of several levels have no metric in common.
    """
    metric = metric or default_metric(rows)
    drawn = [(row.size_bytes, row.metrics[metric], row) for row in rows if row.size_bytes and metric in row.metrics]
    # Jobs of a sweep share a float model: its file has one point, however many rows.
    drawn = list({(size, estimate.value, _label(row)): (size, estimate, row) for size, estimate, row in drawn}.values())
    if not drawn:
        raise ValueError(f"none of the {len(rows)} rows has both size_bytes and {metric!r}: nothing to plot")
    synthetic = "synthetic data" if any(row.data == "synthetic" for *_, row in drawn) else ""
    figure, axes = make_axes(synthetic, "size (bytes)", metric)
    axes.set_xscale("log")
    # Set beforehand, because files of one size give no range.
    axes.set_xlim(min(size for size, *_ in drawn) / 1.5, max(size for size, *_ in drawn) * 1.5)
    latencies = [row.latency_ms_p50 for *_, row in drawn if row.latency_ms_p50 is not None]
    limits = (min(latencies, default=0.0), max(latencies, default=1.0))
    points = None
    for number, (size, estimate, row) in enumerate(drawn, start=1):
        if np.isfinite([estimate.low, estimate.high]).all():
            axes.vlines(size, estimate.low, estimate.high, color="0.6", linewidth=0.8, zorder=1)
        known = row.latency_ms_p50 is not None
        colour = {"c": [row.latency_ms_p50], "vmin": limits[0], "vmax": limits[1]} if known else {"color": "0.5"}
        point: dict[str, Any] = {"marker": MARKERS[row.role], "s": 40, "zorder": 2, "label": f"{number}  {_label(row)}"}
        marker = axes.scatter([size], [estimate.value], **point, **colour)
        points = marker if known else points
        before = sum(abs(np.log(size / other)) < 0.1 for other, *_ in drawn[: number - 1])
        offset = (6 + 12 * before, 4)  # beside the numbers of files of much the same size
        axes.annotate(str(number), (size, estimate.value), offset, textcoords="offset points", fontsize=8)
    _draw_fronts(axes, [row for *_, row in drawn], metric)
    # Names stand below the axes: beside their points they would cover one another.
    longest = max(len(_label(row)) for *_, row in drawn)
    figure.legend(loc="outside lower left", fontsize=7, ncols=2 if longest < _HALF_LINE else 1)
    if points is not None:
        figure.colorbar(points, ax=axes, label="latency p50, batch 1 (ms)")
    return figure


def _label(row: Row) -> str:
    return f"{row.model} {row.recipe} {row.precision}"


def _draw_fronts(axes: Axes, rows: Sequence[Row], metric: str) -> None:
    small, fast = (mark_front(rows, metric, cost=field) for field in COSTS.values())
    line, ring = ([(float(row.size_bytes or 0), row.metrics[metric].value) for row in front] for front in (small, fast))
    axes.plot(
        *zip(*line, strict=True), color="0.5", linewidth=1, linestyle="--", zorder=1, label="Pareto front of size"
    )
    if ring:
        style: dict[str, Any] = {"facecolors": "none", "edgecolors": "black", "s": 110, "linewidths": 1}
        axes.scatter(*zip(*ring, strict=True), label="Pareto front of latency", **style)


def front_figure(
    points: Sequence[tuple[float, float]], names: Sequence[str], front: Sequence[int], labels: tuple[str, str]
) -> Figure:
    """Points (x, y) of a search, those of its front in colour and with their names below."""
    figure, axes = make_axes("", *labels)
    others = [point for index, point in enumerate(points) if index not in front]
    if others:
        axes.scatter([x for x, _ in others], [y for _, y in others], color="0.6", s=20, label="beaten")
    for number, index in enumerate(front, start=1):
        axes.scatter([points[index][0]], [points[index][1]], s=40, label=f"{number}  {names[index]}")
        axes.annotate(str(number), points[index], (6, 4), textcoords="offset points", fontsize=8)
    figure.legend(loc="outside lower left", fontsize=7, ncols=2)
    return figure


def sensitivity_figure(
    layers: Sequence[str], sqnr_db: Sequence[float], drops: Sequence[float], kept: Sequence[str]
) -> Figure:
    """Bars of layers quantized alone: noise of the answers (SQNR) and loss of the metric; those kept in float hatched.

    Parameters
    ----------
    layers : sequence of str
    sqnr_db : sequence of float
        Infinite values, of layers that change nothing, are left blank.
    drops : sequence of float
        Of the metric, against float.
    kept : sequence of str
        Layers that the recipe leaves in float.
    """
    figure = Figure(figsize=(9, 1.2 + 0.28 * len(layers)), layout="constrained")
    FigureCanvasAgg(figure)
    hatches = ["///" if layer in kept else "" for layer in layers]
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, values, label in (
        (left, np.where(np.isfinite(sqnr_db), sqnr_db, 0.0), "SQNR of the log odds (dB), alone in int8"),
        (right, np.asarray(drops), "loss of macro AUROC on validation, alone in int8"),
    ):
        axes.barh(range(len(layers)), values, color="0.75", edgecolor="0.3", hatch=hatches)
        axes.set_xlabel(label, fontsize=9)
        axes.axvline(0, color="0.3", linewidth=0.8)
    left.set_yticks(range(len(layers)), [f"{layer} *" if layer in kept else layer for layer in layers], fontsize=8)
    left.invert_yaxis()
    return figure


def layers_figure(
    names: Sequence[str], times_ms: Sequence[float | None], sizes_bytes: Sequence[int], title: str = ""
) -> Figure:
    """Time and bytes of every operator of a file, from its first to its last; without a bar where it has no time."""
    figure = Figure(figsize=(9, 1.5 + 0.22 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    positions = np.arange(len(names))
    left.barh(positions, [0.0 if value is None else value for value in times_ms])
    right.barh(positions, sizes_bytes, color="0.6")
    left.set(xlabel="time (ms)", yticks=positions)
    left.set_yticklabels(names, fontsize=7)
    left.invert_yaxis()
    right.set_xlabel("weights and output (bytes)")
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def make_axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """Figure with one pair of labelled axes, which needs no display."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    # Bound here, so that saving never asks for a display.
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel=y)
    if title:
        axes.set_title(title, fontsize=10)
    axes.grid(color="0.92")
    return figure, axes


def _draw_confusion(axes: Axes, labels: Sequence[str], counts: NDArray[np.float64]) -> None:
    """Draw counts, and shares of each target in colour."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        colour = "white" if share > 0.5 else "black"
        axes.text(column, row, f"{count:,.0f}\n{share:.1%}", ha="center", va="center", color=colour, fontsize=8)
    ticks = range(len(labels))
    axes.set(xticks=ticks, yticks=ticks, xticklabels=labels, yticklabels=labels, xlabel="decision", ylabel="target")


def _thin(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Keep points at even distances along a curve, its ends among them: more would not be seen."""
    if len(x) <= N_DRAWN:
        return x, y
    way = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    kept = np.unique(np.searchsorted(way, np.linspace(0, way[-1], N_DRAWN)))
    return x[kept], y[kept]


def _classes(predictions: Predictions) -> list[tuple[str, NDArray[np.bool_], NDArray[np.float64]]]:
    return [
        (name, predictions.targets[:, column] > 0, predictions.probabilities[:, column])
        for column, name in enumerate(predictions.class_names)
    ]


def _calls(targets: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Count positives among the called records, and called records, from the highest threshold down."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum(targets[order])[ends]
    return np.append(0, hits).astype(np.float64), np.append(0, ends + 1).astype(np.float64)
