"""Metrics of a multi-label classifier from its probabilities, by torchmetrics."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import (
    multilabel_auroc,
    multilabel_average_precision,
    multilabel_f1_score,
)

Floats = NDArray[np.floating]


def sigmoid(logits: Floats) -> NDArray[np.float64]:
    """Probabilities of logits, in float64 so that large logits do not tie at 1."""
    return torch.from_numpy(np.asarray(logits, dtype=np.float64)).sigmoid().numpy()


def choose_thresholds(probabilities: Floats, targets: Floats) -> NDArray[np.float64]:
    """Threshold of each class with the largest F1; meant for the *validation* split only.

    Parameters
    ----------
    probabilities, targets : ndarray, shape (n, classes)
        Scores in [0, 1]; labels 0 or 1.

    Returns
    -------
    ndarray, shape (classes,)
        A window is positive where its probability is at least the threshold. 0.5 for a class without positives.
    """
    thresholds = np.full(probabilities.shape[1], 0.5)
    for column in range(len(thresholds)):
        order = np.argsort(-probabilities[:, column], kind="stable")
        score, hit = probabilities[order, column], targets[order, column] > 0
        if not hit.any():
            continue
        true_positives = np.cumsum(hit)
        f1 = 2 * true_positives / (np.arange(1, len(hit) + 1) + hit.sum())
        # Tied scores are accepted together: only the last of a tie is a possible cut.
        f1[:-1][score[:-1] == score[1:]] = -1
        thresholds[column] = score[int(np.argmax(f1))]
    return thresholds


def classification_metrics(
    probabilities: Floats, targets: Floats, class_names: Sequence[str], thresholds: Floats, split: str = "test"
) -> dict[str, float]:
    """AUROC, average precision and F1 at given thresholds: per class and macro.

    Parameters
    ----------
    probabilities, targets : ndarray, shape (n, classes)
        Scores in [0, 1]; labels 0 or 1.
    class_names : sequence of str
        Names of the columns.
    thresholds : ndarray, shape (classes,)
        Decision thresholds, chosen on the validation split.
    split : str
        First part of the names, e.g. ``test/auroc_macro``.

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
    for column, name in enumerate(class_names):
        positives = int(labels[:, column].sum())
        if positives in (0, len(labels)):
            raise ValueError(f"class {name!r} has {positives} positives among {len(labels)} {split} windows: no AUROC")
    n = len(class_names)
    decisions = (scores >= torch.from_numpy(np.asarray(thresholds, dtype=np.float64))).long()
    per_class = {
        "auroc": multilabel_auroc(scores, labels, n, average=None),
        "average_precision": multilabel_average_precision(scores, labels, n, average=None),
        "f1": multilabel_f1_score(decisions, labels, n, average=None),
    }
    metrics = {}
    for metric, values in per_class.items():
        metrics[f"{split}/{metric}_macro"] = float(values.mean())
        for name, value in zip(class_names, values, strict=True):
            metrics[f"{split}/{metric}_{name}"] = float(value)
    return metrics
