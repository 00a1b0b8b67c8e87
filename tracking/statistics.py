"""Metrics of artifacts, and of differences between them, with intervals over subjects."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tracking.answers import Answered
from tracking.hr_predictions import HeartRates
from tracking.hr_tallies import weigh_rates
from tracking.intervals import subject_interval
from tracking.pairing import align
from tracking.predictions import Predictions, encode_ids
from tracking.rows import Estimate
from tracking.tallies import tally, weigh
from tracking.weighted import Floats

Figures = TypeVar("Figures", float, Floats)

LOGGER = logging.getLogger(__name__)
MAX_REDRAWS = 1000
# With fewer, resamples of subjects say little about other subjects.
MIN_SUBJECTS = 10
# More distinct scores than these are joined in resamples; point values are always exact.
MAX_GROUPS = 2**14
# Times that subjects are left out, one or several at once.
MAX_LEFT_OUT = 100


@dataclass(frozen=True, eq=False)
class Resamples:
    """Subjects drawn with replacement, many times.

    Parameters
    ----------
    counts : ndarray of int32, shape (n_resamples, n_subjects)
        How often each subject was drawn.
    subjects : ndarray of int64, shape (n,)
        Position of each row's subject among the sorted subject ids.
    n_redrawn : int
        Draws that were replaced because a class had no positive or no negative row.
    """

    counts: NDArray[np.int32]
    subjects: NDArray[np.int64]
    n_redrawn: int


def explain_no_interval(n_subjects: int) -> str:
    """Why there is no interval over so few subjects; empty where there is one."""
    few = n_subjects < MIN_SUBJECTS
    return f"no interval: {n_subjects} test subjects, fewer than {MIN_SUBJECTS}" if few else ""


def draw_resamples(predictions: Answered, n_resamples: int = 2000, seed: int = 0) -> Resamples:
    """Draw subjects with replacement; depends on subjects, targets and seed only, never on a model's answers.

    Draws in which a class has no positive or no negative row have no AUROC; they are drawn again. Leaving
    the class out of the mean instead would compare different means.

    Parameters
    ----------
    predictions : Predictions or HeartRates
    n_resamples : int, default 2000
    seed : int, default 0

    Raises
    ------
    ValueError
        If there are fewer than 10 subjects, or a class is absent from (or present in) every row.
    """
    names, subjects = encode_ids(predictions.subject_ids)
    if reason := explain_no_interval(len(names)):
        raise ValueError(reason)
    held = _count_needed(predictions, subjects, len(names))
    rng = np.random.default_rng(seed)
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
            return Resamples(np.concatenate(kept), subjects, n_redrawn)
    raise ValueError(
        f"only {n_kept} of {n_resamples} resamples of {len(names)} subjects hold positives and negatives of "
        f"every class in {getattr(predictions, 'class_names', ())}: too few subjects for an interval"
    )


def leave_out(resamples: Resamples) -> Resamples:
    """Leave out each subject, or each of 100 groups of subjects where there are more.

    Groups are as good where there are many: a sum's skewness falls with its terms as the correction for it does.
    """
    n_subjects = resamples.counts.shape[1]
    n_groups = min(n_subjects, MAX_LEFT_OUT)
    group = np.random.default_rng(0).permutation(n_subjects) % n_groups
    counts = (group != np.arange(n_groups)[:, None]).astype(np.int32)
    return Resamples(counts, resamples.subjects, 0)


def bootstrap_metrics(
    predictions: Answered, n_resamples: int = 2000, seed: int = 0, split: str = "test"
) -> dict[str, Estimate]:
    """Metrics of one artifact with 95 % intervals of the subject-cluster bootstrap (`tracking.intervals`).

    Point values are exact. So are the intervals up to 16,384 distinct scores; `tracking.weighted.count_scores` says
    what joining more of them changes at most.

    Parameters
    ----------
    predictions : Predictions or HeartRates
    n_resamples : int, default 2000
    seed : int, default 0
    split : str, default "test"
        First part of the metrics' names.

    Returns
    -------
    dict of str to Estimate
        ``test/auroc_macro``, ``test/f1_<class>`` and so on, with the level as last part of the name unless it is
        the record. With fewer than 10 subjects no metric has an interval, and what a class that is absent leaves
        undefined is NaN.

    Raises
    ------
    ValueError
        As in `draw_resamples`, with 10 subjects or more.
    """
    return _estimate([predictions], n_resamples, seed, split)


def paired_bootstrap(
    a: Answered, b: Answered, n_resamples: int = 2000, seed: int = 0, split: str = "test"
) -> dict[str, Estimate]:
    """Differences a - b with 95 % intervals; both sides see the same resamples of subjects.

    Parameters
    ----------
    a, b : Predictions or HeartRates
        Of the same rows; their order may differ.
    n_resamples, seed, split
        As in `bootstrap_metrics`; its interval for `a` comes from the same resamples.

    Raises
    ------
    ValueError
        If the rows, subjects, targets or classes differ, or as in `draw_resamples`.
    """
    return _estimate([a, align(a, b)], n_resamples, seed, split)


def point_metrics(predictions: Answered) -> dict[str, float]:
    """Metrics of `bootstrap_metrics` without intervals or the split in their names: exact, NaN where undefined."""
    together = np.zeros(len(predictions.record_ids), dtype=np.int64)
    metrics = _weigh(predictions, together, np.ones((1, 1)))
    return {name: float(values[0]) for name, values in metrics.items()}


def resample_metrics(predictions: Answered, resamples: Resamples) -> dict[str, Floats]:
    """Metrics of `point_metrics` in every resample, each of shape (n_resamples,)."""
    return _weigh(predictions, resamples.subjects, resamples.counts.astype(np.float64), MAX_GROUPS)


def _estimate(sides: Sequence[Answered], n_resamples: int, seed: int, split: str) -> dict[str, Estimate]:
    """Metrics of one side, or differences between two that have the same rows."""
    values = _subtract([point_metrics(side) for side in sides])
    if explain_no_interval(len(encode_ids(sides[0].subject_ids)[0])):
        return {f"{split}/{name}": Estimate(value) for name, value in values.items()}
    resamples = draw_resamples(sides[0], n_resamples, seed)
    resampled = _subtract([resample_metrics(side, resamples) for side in sides])
    left_out = resample_metrics(sides[0], leave_out(resamples)) if len(sides) == 1 else {}
    n_subjects = resamples.counts.shape[1]
    ends = {name: subject_interval(resampled[name], n_subjects, left_out=left_out.get(name)) for name in values}
    return {f"{split}/{name}": Estimate(value, *ends[name]) for name, value in values.items()}


def _weigh(
    predictions: Answered, subjects: NDArray[np.int64], weights: Floats, max_groups: int | None = None
) -> dict[str, Floats]:
    """Metrics at every weighting (n_weightings, n_subjects) of the subjects."""
    if isinstance(predictions, HeartRates):
        return weigh_rates(predictions, subjects, weights)
    return weigh(predictions, tally(predictions, subjects, weights.shape[1], max_groups), weights)


def _count_needed(predictions: Answered, subjects: NDArray[np.int64], n_subjects: int) -> NDArray[np.float32]:
    """Count what every draw must hold some of, (n_subjects, kinds): positives and negatives of every class."""
    if isinstance(predictions, HeartRates):
        return np.zeros((n_subjects, 0), np.float32)
    _check_classes(predictions)
    truth = predictions.targets.T > 0
    return np.array([np.bincount(subjects, side, n_subjects) for side in (*truth, *~truth)]).T.astype(np.float32)


def _subtract(sides: list[dict[str, Figures]]) -> dict[str, Figures]:
    first, *others = sides
    return {name: values - others[0][name] for name, values in first.items()} if others else first


def _draw(rng: np.random.Generator, n_resamples: int, n_subjects: int) -> NDArray[np.int32]:
    """Multinomial counts, shape (n_resamples, n_subjects); far faster than `Generator.multinomial`."""
    drawn = rng.integers(n_subjects, size=(n_resamples, n_subjects))
    drawn += np.arange(n_resamples)[:, None] * n_subjects
    flat = np.bincount(drawn.ravel(), minlength=n_resamples * n_subjects)
    return flat.reshape(n_resamples, n_subjects).astype(np.int32)


def _check_classes(predictions: Predictions) -> None:
    n = len(predictions.record_ids)
    for name, n_positive in zip(predictions.class_names, (predictions.targets > 0).sum(axis=0), strict=True):
        if not 0 < n_positive < n:
            raise ValueError(
                f"class {name!r} has {int(n_positive)} positive records among {n}, so AUROC is undefined: "
                "choose other folds (datamodule.folds) or other classes (datamodule.class_names)"
            )
