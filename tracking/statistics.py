"""Intervals over subjects and paired tests between two artifacts on the same test records."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracking.predictions import Predictions
from tracking.rows import Estimate
from tracking.weighted import Floats, weighted_auroc, weighted_average_precision, weighted_f1

LOGGER = logging.getLogger(__name__)
PERCENTILES = (2.5, 97.5)
MAX_REDRAWS = 1000
# Weights in memory at once: 1 MiB of float64 stays in a core's cache (twice as fast as 16 MiB).
CHUNK = 2**17


@dataclass(frozen=True, eq=False)
class Resamples:
    """Subjects drawn with replacement, many times.

    Parameters
    ----------
    counts : ndarray of int32, shape (n_subjects, n_resamples)
        How often each subject was drawn.
    subject_of_record : ndarray of int64, shape (n,)
    n_redrawn : int
        Draws that were replaced because a class had no positive or no negative record.
    """

    counts: NDArray[np.int32]
    subject_of_record: NDArray[np.int64]
    n_redrawn: int

    def weights(self) -> Iterator[Floats]:
        """Record weights in chunks of shape (n, some resamples), so that memory stays bounded."""
        step = max(1, CHUNK // len(self.subject_of_record))
        for start in range(0, self.counts.shape[1], step):
            yield self.counts[:, start : start + step].astype(np.float64)[self.subject_of_record]


def draw_resamples(predictions: Predictions, n_resamples: int = 2000, seed: int = 0) -> Resamples:
    """Draw subjects with replacement; depends on subjects, targets and seed only, never on a model's answers.

    Draws in which a class has no positive or no negative record have no AUROC; they are drawn again. Leaving
    the class out of the mean instead would compare different means.

    Parameters
    ----------
    predictions : Predictions
    n_resamples : int, default 2000
    seed : int, default 0

    Raises
    ------
    ValueError
        If there are fewer than two subjects, or a class is absent from (or present in) every record.
    """
    _check_classes(predictions)
    names, subject_of_record = np.unique(predictions.subject_ids, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"an interval over subjects needs at least 2 of them, got {len(names)}")
    rng = np.random.default_rng(seed)
    # Positives and negatives of every class per subject: a draw is good when it holds some of each.
    both = np.concatenate([predictions.targets > 0, predictions.targets <= 0], axis=1).astype(np.float32)
    held = np.zeros((len(names), both.shape[1]), dtype=np.float32)
    np.add.at(held, subject_of_record, both)
    kept: list[NDArray[np.int32]] = []
    n_kept = n_redrawn = 0
    for _ in range(MAX_REDRAWS):
        counts = _draw(rng, n_resamples - n_kept, len(names))
        good = (counts.astype(np.float32) @ held > 0).all(axis=1)
        kept.append(counts[good])
        n_kept += int(good.sum())
        n_redrawn += int((~good).sum())
        if n_kept == n_resamples:
            if n_redrawn:
                LOGGER.info("%d resamples lacked a class and were drawn again", n_redrawn)
            return Resamples(np.ascontiguousarray(np.concatenate(kept).T), subject_of_record, n_redrawn)
    raise ValueError(
        f"only {n_kept} of {n_resamples} resamples of {len(names)} subjects hold positives and negatives of "
        f"every class in {predictions.class_names}: too few subjects for an interval"
    )


def bootstrap_metrics(
    predictions: Predictions, n_resamples: int = 2000, seed: int = 0, split: str = "test"
) -> dict[str, Estimate]:
    """Metrics of one artifact with 95 % percentile intervals of the subject-cluster bootstrap.

    Parameters
    ----------
    predictions : Predictions
    n_resamples : int, default 2000
    seed : int, default 0
    split : str, default "test"
        First part of the metrics' names.

    Returns
    -------
    dict of str to Estimate
        ``test/auroc_macro``, ``test/auroc_<class>``, ``test/average_precision_macro`` and ``test/f1_macro``.

    Raises
    ------
    ValueError
        As in `draw_resamples`.
    """
    resamples = draw_resamples(predictions, n_resamples, seed)
    return _estimates(point_metrics(predictions), _resampled(predictions, resamples), split)


def paired_bootstrap(
    a: Predictions, b: Predictions, n_resamples: int = 2000, seed: int = 0, split: str = "test"
) -> dict[str, Estimate]:
    """Differences a - b with 95 % intervals; both sides see the same resamples of subjects.

    Parameters
    ----------
    a, b : Predictions
        Of the same records; their order may differ.
    n_resamples, seed, split
        As in `bootstrap_metrics`; its interval for `a` comes from the same resamples.

    Raises
    ------
    ValueError
        If the records, subjects, targets or classes differ, or as in `draw_resamples`.
    """
    b = align(a, b)
    resamples = draw_resamples(a, n_resamples, seed)
    of_a, of_b = point_metrics(a), point_metrics(b)
    resampled_a, resampled_b = _resampled(a, resamples), _resampled(b, resamples)
    return _estimates(
        {name: value - of_b[name] for name, value in of_a.items()},
        {name: values - resampled_b[name] for name, values in resampled_a.items()},
        split,
    )


def align(a: Predictions, b: Predictions) -> Predictions:
    """Put the records of `b` into the order of `a`.

    Raises
    ------
    ValueError
        If the two do not describe the same records, subjects, targets and classes: there are no pairs then.
    """
    if a.class_names != b.class_names:
        raise ValueError(f"cannot pair classes {a.class_names} with {b.class_names}")
    order_a, order_b = np.argsort(a.record_ids), np.argsort(b.record_ids)
    if not np.array_equal(a.record_ids[order_a], b.record_ids[order_b]):
        only_a = np.setdiff1d(a.record_ids, b.record_ids)
        only_b = np.setdiff1d(b.record_ids, a.record_ids)
        raise ValueError(
            f"cannot pair predictions of different records: {len(only_a)} only on the first side "
            f"{only_a[:3].tolist()}, {len(only_b)} only on the second {only_b[:3].tolist()}"
        )
    position = np.empty_like(order_a)
    position[order_a] = order_b
    if not np.array_equal(a.subject_ids, b.subject_ids[position]):
        raise ValueError("cannot pair predictions: the same records belong to other subjects")
    differ = (a.targets != b.targets[position]).any(axis=1)
    if differ.any():
        raise ValueError(
            f"cannot pair predictions: {int(differ.sum())} records have other targets, "
            f"the first is {str(a.record_ids[differ][0])!r}"
        )
    return Predictions(a.record_ids, a.subject_ids, a.targets, b.probabilities[position], b.class_names, b.thresholds)


def _draw(rng: np.random.Generator, n_resamples: int, n_subjects: int) -> NDArray[np.int32]:
    """Multinomial counts, shape (n_resamples, n_subjects); far faster than `Generator.multinomial`."""
    drawn = rng.integers(n_subjects, size=(n_resamples, n_subjects))
    drawn += np.arange(n_resamples)[:, None] * n_subjects
    flat = np.bincount(drawn.ravel(), minlength=n_resamples * n_subjects)
    return flat.reshape(n_resamples, n_subjects).astype(np.int32)


def point_metrics(predictions: Predictions) -> dict[str, float]:
    """Metrics of `bootstrap_metrics` without intervals or the split in their names."""
    ones = np.ones((len(predictions.record_ids), 1))
    return {name: float(values[0]) for name, values in _weighted_metrics(predictions, ones).items()}


def _resampled(predictions: Predictions, resamples: Resamples) -> dict[str, Floats]:
    chunks = [_weighted_metrics(predictions, weights) for weights in resamples.weights()]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _weighted_metrics(predictions: Predictions, weights: Floats) -> dict[str, Floats]:
    metrics: dict[str, Floats] = {}
    auroc, precision, f1 = [], [], []
    for column, name in enumerate(predictions.class_names):
        targets, scores = predictions.targets[:, column], predictions.probabilities[:, column]
        auroc.append(weighted_auroc(targets, scores, weights))
        precision.append(weighted_average_precision(targets, scores, weights))
        f1.append(weighted_f1(targets, scores >= predictions.thresholds[column], weights))
        metrics[f"auroc_{name}"] = auroc[-1]
    macro = {"auroc_macro": auroc, "average_precision_macro": precision, "f1_macro": f1}
    return {name: np.mean(values, axis=0) for name, values in macro.items()} | metrics


def _estimates(values: dict[str, float], resampled: dict[str, Floats], split: str) -> dict[str, Estimate]:
    estimates = {}
    for name, value in values.items():
        low, high = (float(end) for end in np.percentile(resampled[name], PERCENTILES))
        estimates[f"{split}/{name}"] = Estimate(value, low, high)
    return estimates


def _check_classes(predictions: Predictions) -> None:
    n = len(predictions.record_ids)
    for name, n_positive in zip(predictions.class_names, (predictions.targets > 0).sum(axis=0), strict=True):
        if not 0 < n_positive < n:
            raise ValueError(
                f"class {name!r} has {int(n_positive)} positive records among {n}, so AUROC is undefined: "
                "choose other folds (datamodule.folds) or other classes (datamodule.class_names)"
            )
