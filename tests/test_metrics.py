import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from lightning_modules.metrics import choose_thresholds, classification_metrics, sigmoid


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    targets = (rng.random((300, 3)) < (0.5, 0.3, 0.1)).astype(np.float32)
    # One decimal: many ties.
    return np.clip(targets * 0.3 + rng.random((300, 3)) * 0.7, 0, 1).round(1), targets


def test_metrics_equal_scikit_learn(scores):
    probabilities, targets = scores
    thresholds = np.array([0.5, 0.4, 0.6])
    metrics = classification_metrics(probabilities, targets, ("a", "b", "c"), thresholds)
    assert metrics["test/auroc_macro"] == pytest.approx(roc_auc_score(targets, probabilities), abs=1e-6)
    assert metrics["test/average_precision_b"] == pytest.approx(
        average_precision_score(targets[:, 1], probabilities[:, 1]), abs=1e-6
    )
    assert metrics["test/f1_macro"] == pytest.approx(
        f1_score(targets, probabilities >= thresholds, average="macro"), abs=1e-6
    )


def test_metrics_name_the_class_that_is_absent(scores):
    probabilities, targets = scores
    targets[:, 2] = 0
    with pytest.raises(ValueError, match="class 'c' has 0 positives among 300 test windows"):
        classification_metrics(probabilities, targets, ("a", "b", "c"), np.full(3, 0.5))


def test_thresholds_reach_the_largest_f1_of_any_cut(scores):
    probabilities, targets = scores
    thresholds = choose_thresholds(probabilities, targets)
    for column, threshold in enumerate(thresholds):
        best = max(
            f1_score(targets[:, column], probabilities[:, column] >= cut) for cut in np.unique(probabilities[:, column])
        )
        assert f1_score(targets[:, column], probabilities[:, column] >= threshold) == pytest.approx(best)


def test_thresholds_are_a_half_for_a_class_without_positives():
    assert choose_thresholds(np.full((4, 1), 0.9), np.zeros((4, 1))).tolist() == [0.5]


def test_sigmoid_keeps_large_logits_apart():
    low, high = sigmoid(np.array([18.0, 19.0], dtype=np.float32))
    assert low < high
