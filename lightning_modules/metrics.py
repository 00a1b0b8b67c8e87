"""Metrics of a classifier from its probabilities, by torchmetrics; multi-label or with exclusive classes."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multilabel_accuracy,
    multilabel_auroc,
    multilabel_average_precision,
    multilabel_f1_score,
    multilabel_precision,
    multilabel_recall,
    multilabel_specificity,
)

Floats = NDArray[np.floating]

RULES = ("f1", "accuracy", "half")
N_CALIBRATION_BINS = 15


def to_probabilities(logits: Floats, exclusive: bool) -> NDArray[np.float64]:
    """Probabilities of logits (n, classes): a softmax over exclusive classes, else a sigmoid each.

    In float64, so that large logits do not tie at 1.
    """
    scores = torch.from_numpy(np.asarray(logits, dtype=np.float64))
    return (scores.softmax(dim=1) if exclusive else scores.sigmoid()).numpy()


def to_log_odds(logits: Floats, exclusive: bool) -> NDArray[np.float64]:
    """Log odds of each class: its sigmoid is the probability. Logits of exclusive classes lose their common offset."""
    scores = np.asarray(logits, dtype=np.float64)
    if not exclusive:
        return scores
    others = [np.logaddexp.reduce(np.delete(scores, column, axis=1), axis=1) for column in range(scores.shape[1])]
    return scores - np.stack(others, axis=1)


def choose_thresholds(
    probabilities: Floats, targets: Floats, exclusive: bool = False, rule: str = "f1"
) -> NDArray[np.float64]:
    """Threshold of each class that serves a rule best; meant for the *validation* split only.

    Parameters
    ----------
    probabilities, targets : ndarray, shape (n, classes)
        Scores in [0, 1]; labels 0 or 1.
    exclusive : bool, default False
        Every window has exactly one class. Of two, the last one's threshold is chosen and the first one's follows
        from it; of more, the most probable class is meant and all have the same threshold.
    rule : {"f1", "accuracy", "half"}
        What is largest at the threshold. "half" chooses nothing: 0.5, for validation sides of so few subjects that a
        choice would follow their peculiarities.

    Returns
    -------
    ndarray, shape (classes,)
        A window is positive where its probability is at least the threshold. 0.5 for a class without positives.

    Raises
    ------
    ValueError
        If the rule is unknown.
    """
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}, it must be one of {RULES}")
    n_classes = probabilities.shape[1]
    if exclusive and n_classes != 2:
        return np.full(n_classes, 1 / n_classes)
    if rule == "half":
        return np.full(n_classes, 0.5)
    columns = [1] if exclusive else list(range(n_classes))
    chosen = [_best_cut(probabilities[:, column], targets[:, column] > 0, rule) for column in columns]
    return np.array([1 - chosen[0], chosen[0]] if exclusive else chosen)


def decide(probabilities: Floats, thresholds: Floats, exclusive: bool) -> NDArray[np.bool_]:
    """Decide for every class that reaches its threshold; for exactly one where classes are exclusive.

    Parameters
    ----------
    probabilities : ndarray, shape (n, classes)
    thresholds : ndarray, shape (classes,) or (n, classes)
    exclusive : bool
        Of two classes the last one is chosen from its threshold on, of more the one furthest above its own.

    Returns
    -------
    ndarray of bool, shape (n, classes)
    """
    thresholds = np.broadcast_to(thresholds, probabilities.shape)
    if not exclusive:
        return probabilities >= thresholds
    if probabilities.shape[1] == 2:
        last = probabilities[:, 1] >= thresholds[:, 1]
        return np.stack([~last, last], axis=1)
    chosen = np.argmax(probabilities - thresholds, axis=1)
    return chosen[:, None] == np.arange(probabilities.shape[1])


def classification_metrics(
    probabilities: Floats,
    targets: Floats,
    class_names: Sequence[str],
    thresholds: Floats,
    split: str = "test",
    exclusive: bool = False,
    level: str = "record",
) -> dict[str, float]:
    """Areas, figures at given thresholds, and calibration: per class, macro and weighted by support.

    Parameters
    ----------
    probabilities, targets : ndarray, shape (n, classes)
        Scores in [0, 1]; labels 0 or 1.
    class_names : sequence of str
        Names of the columns.
    thresholds : ndarray, shape (classes,) or (n, classes)
        Decision thresholds, chosen on the validation split.
    split : str
        First part of the names, e.g. ``test/auroc_macro``.
    exclusive : bool
        Every window has exactly one class; one-vs-rest where a metric is about one class.
    level : {"record", "beat", "window"}
        What one row is; last part of the names, e.g. ``test/auroc_macro_beat``, but for records.

    Returns
    -------
    dict of str to float

    Raises
    ------
    ValueError
        If a class has no positive or no negative among the targets: its AUROC does not exist.
    """
    scores = torch.from_numpy(np.asarray(probabilities, dtype=np.float64))
    labels = torch.from_numpy(np.asarray(targets)).long()
    support = labels.sum(dim=0)
    for name, positives in zip(class_names, support.tolist(), strict=True):
        if positives in (0, len(labels)):
            raise ValueError(f"class {name!r} has {positives} positives among {len(labels)} {split} windows: no AUROC")
    decisions = torch.from_numpy(decide(probabilities, thresholds, exclusive)).long()
    per_class = _per_class(scores, labels, decisions)
    calibration = per_class.pop("ece")
    accuracy = per_class.pop("accuracy").mean()
    metrics = {f"{name}_macro": values.mean() for name, values in per_class.items()}
    metrics |= {"recall_macro": metrics["sensitivity_macro"], "ece_macro": calibration.mean()}
    shares = support / support.sum()
    for name, source in (("f1", "f1"), ("precision", "precision"), ("recall", "sensitivity")):
        metrics[f"{name}_weighted"] = (per_class[source] * shares).sum()
    if exclusive:
        metrics["accuracy"] = (decisions * labels).sum() / len(labels)
    else:
        metrics["accuracy_macro"] = accuracy
    if exclusive and len(class_names) == 2:
        metrics |= {f"{name}_binary": values[1] for name, values in _decided(per_class).items()}
        metrics["recall_binary"] = metrics["sensitivity_binary"]
    for metric, values in per_class.items():
        metrics |= {f"{metric}_{name}": value for name, value in zip(class_names, values, strict=True)}
    suffix = "" if level == "record" else f"_{level}"
    return {f"{split}/{name}{suffix}": float(value) for name, value in metrics.items()}


def _best_cut(scores: Floats, positive: NDArray[np.bool_], rule: str) -> float:
    if not positive.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ranked, hit = scores[order], positive[order]
    called, true_positives = np.arange(1, len(hit) + 1), np.cumsum(hit)
    # Accuracy grows by one window with every hit and falls by one with every other call.
    gain = 2 * true_positives / (called + hit.sum()) if rule == "f1" else 2.0 * true_positives - called
    # Tied scores are accepted together: only the last of a tie is a possible cut.
    gain[:-1][ranked[:-1] == ranked[1:]] = -np.inf
    return float(ranked[int(np.argmax(gain))])


def _per_class(scores: Tensor, labels: Tensor, decisions: Tensor) -> dict[str, Tensor]:
    """Every metric one-vs-rest, each of shape (classes,)."""
    n = labels.shape[1]
    columns = zip(scores.T.contiguous(), labels.T, strict=True)
    errors = [binary_calibration_error(column, truth, n_bins=N_CALIBRATION_BINS) for column, truth in columns]
    return {
        "auroc": multilabel_auroc(scores, labels, n, average=None),
        "average_precision": multilabel_average_precision(scores, labels, n, average=None),
        "f1": multilabel_f1_score(decisions, labels, n, average=None),
        "precision": multilabel_precision(decisions, labels, n, average=None),
        "sensitivity": multilabel_recall(decisions, labels, n, average=None),
        "specificity": multilabel_specificity(decisions, labels, n, average=None),
        "accuracy": multilabel_accuracy(decisions, labels, n, average=None),
        "ece": torch.stack(errors),
    }


def _decided(per_class: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: per_class[name] for name in ("f1", "precision", "sensitivity", "specificity")}
