"""What an artifact answered, counted per subject: every metric under any weights of the subjects follows from it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracking.episodes import rhythm_ratios
from tracking.predictions import Predictions
from tracking.weighted import Floats, ScoreCounts, count_scores, weighted_areas

N_CALIBRATION_BINS = 15


@dataclass(frozen=True, eq=False)
class Tallies:
    """Counts of one artifact per subject.

    Parameters
    ----------
    scores : list of ScoreCounts
        One per class.
    confusion : ndarray of float64, shape (4, n_classes, n_subjects)
        True positives, false positives, false negatives, true negatives.
    miscalibration : ndarray of float64, shape (n_classes, n_bins, n_subjects)
        Sum of probability minus target, by bins of the probability.
    ratios : dict of str to tuple of ndarray of float64, shape (n_subjects,)
        Numerators and denominators of metrics that are ratios of sums, by their full name.
    """

    scores: list[ScoreCounts]
    confusion: Floats
    miscalibration: Floats
    ratios: dict[str, tuple[Floats, ...]]


def tally(
    predictions: Predictions, subjects: NDArray[np.int64], n_subjects: int, max_groups: int | None = None
) -> Tallies:
    """Count an artifact's answers per subject.

    Parameters
    ----------
    predictions : Predictions
    subjects : ndarray of int64, shape (n,)
        Position of each row's subject.
    n_subjects : int
    max_groups : int, optional
        As in `tracking.weighted.count_scores`.
    """

    def per_subject(chosen: NDArray[np.bool_]) -> Floats:
        return np.bincount(subjects[chosen], minlength=n_subjects).astype(np.float64)

    scores, confusion, miscalibration = [], [], []
    decisions = predictions.decisions
    for column in range(len(predictions.class_names)):
        targets, probabilities = predictions.targets[:, column], predictions.probabilities[:, column]
        scores.append(count_scores(targets, probabilities, subjects, n_subjects, max_groups))
        truth, called = targets > 0, decisions[:, column]
        cells = (truth & called, ~truth & called, truth & ~called, ~truth & ~called)
        confusion.append([per_subject(chosen) for chosen in cells])
        cell = calibration_bins(probabilities) * n_subjects + subjects
        sums = np.bincount(cell, probabilities - truth, (N_CALIBRATION_BINS + 1) * n_subjects)
        miscalibration.append(sums.reshape(-1, n_subjects))
    ratios = {
        name: tuple(np.bincount(owner, parts, n_subjects).astype(np.float64) for parts in (above, below))
        for name, (owner, above, below) in rhythm_ratios(predictions, subjects).items()
    }
    return Tallies(scores, np.array(confusion).swapaxes(0, 1), np.array(miscalibration), ratios)


def calibration_bins(probabilities: Floats) -> NDArray[np.int64]:
    """Bin of each probability, of 15 equal ones; the probability of 1 has one of its own, as in torchmetrics."""
    return np.asarray(np.searchsorted(np.linspace(0, 1, N_CALIBRATION_BINS + 1), probabilities, side="right") - 1)


def weigh(predictions: Predictions, tallies: Tallies, weights: Floats) -> dict[str, Floats]:
    """Every metric of an artifact at every weighting of the subjects.

    Parameters
    ----------
    predictions : Predictions
        What was tallied; names classes and level.
    tallies : Tallies
    weights : ndarray of float64, shape (n_weightings, n_subjects)

    Returns
    -------
    dict of str to ndarray of float64, shape (n_weightings,)
        By name, without the split. NaN where a metric is undefined.
    """
    cells = np.einsum("mcs,rs->mcr", tallies.confusion, weights, optimize=True)
    auroc, average_precision = zip(*(weighted_areas(counts, weights) for counts in tallies.scores), strict=True)
    per_class = {"auroc": np.array(auroc), "average_precision": np.array(average_precision), **_decided(cells)}
    n_rows = cells[:, 0].sum(axis=0)
    gaps = np.abs(np.einsum("cbs,rs->cbr", tallies.miscalibration, weights, optimize=True)).sum(axis=1)
    metrics = {f"{name}_macro": values.mean(axis=0) for name, values in per_class.items()}
    metrics |= {"recall_macro": metrics["sensitivity_macro"], "ece_macro": (gaps / n_rows).mean(axis=0)}
    metrics |= _averaged(per_class, cells, predictions.exclusive)
    for metric, values in per_class.items():
        metrics |= {f"{metric}_{name}": value for name, value in zip(predictions.class_names, values, strict=True)}
    named = {f"{name}{predictions.suffix}": values for name, values in metrics.items()}
    return named | {name: _ratio(weights @ above, weights @ below) for name, (above, below) in tallies.ratios.items()}


def _decided(cells: Floats) -> dict[str, Floats]:
    """Metrics of the decisions, each (classes, weightings); what nothing was called for has a precision of 0."""
    hits, false_calls, misses, rejections = cells
    called = hits + false_calls
    f1 = np.divide(2 * hits, called + hits + misses, out=np.zeros_like(hits), where=called + misses > 0)
    return {
        "f1": f1,
        "precision": np.divide(hits, called, out=np.zeros_like(hits), where=called > 0),
        "sensitivity": _ratio(hits, hits + misses),
        "specificity": _ratio(rejections, rejections + false_calls),
    }


def _averaged(per_class: Mapping[str, Floats], cells: Floats, exclusive: bool) -> dict[str, Floats]:
    """Averages by support, accuracy, and the figures of the last of two exclusive classes."""
    hits, _, misses, rejections = cells
    n_rows = cells[:, 0].sum(axis=0)
    shares = _ratio(hits + misses, (hits + misses).sum(axis=0))
    # A class without support has a sensitivity of NaN and weighs nothing.
    metrics = {
        f"{name}_weighted": np.where(shares > 0, per_class[source] * shares, 0).sum(axis=0)
        for name, source in (("f1", "f1"), ("precision", "precision"), ("recall", "sensitivity"))
    }
    if not exclusive:
        return metrics | {"accuracy_macro": ((hits + rejections) / n_rows).mean(axis=0)}
    metrics["accuracy"] = hits.sum(axis=0) / n_rows
    if len(hits) == 2:
        metrics |= {f"{name}_binary": per_class[name][1] for name in ("precision", "sensitivity", "specificity", "f1")}
        metrics["recall_binary"] = metrics["sensitivity_binary"]
    return metrics


def _ratio(above: Floats, below: Floats) -> Floats:
    """Quotient of sums; NaN where there is nothing to divide by."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
