import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from lightning_modules.metrics import (
    choose_thresholds,
    classification_metrics,
    decide,
    to_log_odds,
    to_probabilities,
)

AVERAGED = {"f1": f1_score, "precision": precision_score, "recall": recall_score}


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    targets = (rng.random((300, 3)) < (0.5, 0.3, 0.1)).astype(np.float32)
    # One decimal: many ties.
    return np.clip(targets * 0.3 + rng.random((300, 3)) * 0.7, 0, 1).round(1), targets


@pytest.fixture
def exclusive(scores):
    """Two classes of which each window has one."""
    probabilities, targets = (array[:, 1] for array in scores)
    return np.stack([1 - probabilities, probabilities], axis=1), np.stack([1 - targets, targets], axis=1)


def expected_error(probabilities, targets):
    """Calibration error over 15 equal bins, the plain way."""
    error = 0.0
    for number in range(16):
        chosen = np.floor(probabilities * 15 + 1e-9) == number
        if chosen.any():
            error += chosen.mean() * abs(probabilities[chosen].mean() - targets[chosen].mean())
    return error


def test_metrics_equal_scikit_learn(scores):
    probabilities, targets = scores
    # Off the edges of the calibration bins, where rounding decides.
    probabilities = probabilities * 0.99 + 0.003
    thresholds, names = np.array([0.5, 0.4, 0.6]), ("a", "b", "c")
    decisions = probabilities >= thresholds
    metrics = classification_metrics(probabilities, targets, names, thresholds)
    expected = {
        "auroc_macro": roc_auc_score(targets, probabilities),
        "average_precision_macro": average_precision_score(targets, probabilities),
        "sensitivity_macro": recall_score(targets, decisions, average="macro"),
        "specificity_macro": recall_score(1 - targets, ~decisions, average="macro"),
        "accuracy_macro": (decisions == targets).mean(),
        "ece_macro": np.mean([expected_error(probabilities[:, k], targets[:, k]) for k in range(3)]),
    }
    for name, score in AVERAGED.items():
        expected |= {f"{name}_{way}": score(targets, decisions, average=way) for way in ("macro", "weighted")}
    for k, name in enumerate(names):
        expected |= {
            f"auroc_{name}": roc_auc_score(targets[:, k], probabilities[:, k]),
            f"average_precision_{name}": average_precision_score(targets[:, k], probabilities[:, k]),
            f"f1_{name}": f1_score(targets[:, k], decisions[:, k]),
            f"precision_{name}": precision_score(targets[:, k], decisions[:, k]),
            f"sensitivity_{name}": recall_score(targets[:, k], decisions[:, k]),
            f"specificity_{name}": recall_score(targets[:, k], decisions[:, k], pos_label=0),
        }
    assert metrics == pytest.approx({f"test/{name}": value for name, value in expected.items()}, abs=1e-6)


def test_metrics_of_exclusive_classes_equal_scikit_learn(exclusive):
    probabilities, targets = exclusive
    metrics = classification_metrics(probabilities, targets, ("other", "AFIB"), [0.6, 0.4], "val", True, "beat")
    truth, called = targets[:, 1], probabilities[:, 1] >= 0.4
    expected = {"accuracy": accuracy_score(truth, called), "auroc_AFIB": roc_auc_score(truth, probabilities[:, 1])}
    for name, score in AVERAGED.items():
        expected |= {f"{name}_{way}": score(truth, called, average=way) for way in ("macro", "weighted", "binary")}
    expected |= {
        "sensitivity_binary": recall_score(truth, called),
        "sensitivity_other": recall_score(1 - truth, ~called),
    }
    expected["specificity_binary"] = expected["sensitivity_other"]
    found = {name: metrics[f"val/{name}_beat"] for name in expected}
    assert found == pytest.approx(expected, abs=1e-6)
    assert "val/accuracy_macro_beat" not in metrics


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


def test_thresholds_reach_the_largest_accuracy_of_any_cut(scores):
    probabilities, targets = scores
    for column, threshold in enumerate(choose_thresholds(probabilities, targets, rule="accuracy")):
        cuts = np.unique(probabilities[:, column])
        best = max(((probabilities[:, column] >= cut) == targets[:, column]).mean() for cut in cuts)
        assert ((probabilities[:, column] >= threshold) == targets[:, column]).mean() == best


def test_thresholds_that_choose_nothing_are_a_half(scores, exclusive):
    assert set(choose_thresholds(*scores, rule="half")) == {0.5}
    assert choose_thresholds(*exclusive, exclusive=True, rule="half").tolist() == [0.5, 0.5]


def test_thresholds_of_two_exclusive_classes_follow_from_the_last(exclusive):
    probabilities, targets = exclusive
    thresholds = choose_thresholds(probabilities, targets, exclusive=True)
    assert thresholds[1] == choose_thresholds(probabilities, targets)[1]
    assert thresholds.sum() == 1


def test_thresholds_refuse_an_unknown_rule(scores):
    with pytest.raises(ValueError, match="rule is 'youden', it must be one of"):
        choose_thresholds(*scores, rule="youden")


def test_decide_calls_exactly_one_of_exclusive_classes(exclusive):
    probabilities, _ = exclusive
    decisions = decide(probabilities, np.array([0.7, 0.3]), exclusive=True)
    np.testing.assert_array_equal(decisions[:, 1], probabilities[:, 1] >= 0.3)
    np.testing.assert_array_equal(decisions.sum(axis=1), 1)
    three = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.5, 0.5, 0.0]])
    np.testing.assert_array_equal(decide(three, np.full(3, 1 / 3), True).argmax(axis=1), [0, 2, 0])


def test_decide_takes_a_threshold_per_window():
    probabilities = np.full((2, 2), 0.5)
    thresholds = np.array([[0.4, 0.6], [0.6, 0.4]])
    assert decide(probabilities, thresholds, exclusive=False).tolist() == [[True, False], [False, True]]
    assert decide(probabilities, thresholds, exclusive=True).tolist() == [[True, False], [False, True]]


def test_probabilities_keep_large_logits_apart():
    low, high = to_probabilities(np.array([[18.0], [19.0]], dtype=np.float32), exclusive=False)[:, 0]
    assert low < high
    low, high = to_probabilities(np.array([[0.0, 18.0], [0.0, 19.0]], dtype=np.float32), exclusive=True)[:, 1]
    assert low < high


def test_probabilities_of_exclusive_classes_sum_to_one():
    logits = np.random.default_rng(0).normal(0, 3, (20, 3))
    np.testing.assert_allclose(to_probabilities(logits, exclusive=True).sum(axis=1), 1)


@pytest.mark.parametrize("exclusive", [False, True])
def test_log_odds_belong_to_the_probabilities(exclusive):
    logits = np.random.default_rng(0).normal(0, 3, (20, 3))
    odds = to_log_odds(logits, exclusive)
    np.testing.assert_allclose(1 / (1 + np.exp(-odds)), to_probabilities(logits, exclusive), atol=1e-12)
