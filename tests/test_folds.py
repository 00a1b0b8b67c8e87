from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from composition.folds import count_folds, pool_checks, pool_predictions, summarise_folds
from datamodules.splits import split_kfold, split_leave_one_out
from deploy.gate import Check
from tracking.predictions import make_predictions


def module_with(split, subject_ids=("a", "a", "b", "c")):
    return SimpleNamespace(split=split, splits={"test": None}, subject_ids=lambda side: np.array(subject_ids))


def fold_predictions(subject, threshold):
    return make_predictions(
        [subject] * 3,
        [subject] * 3,
        [[1, 0], [0, 1], [0, 1]],
        [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]],
        ["other", "AFIB"],
        [1 - threshold, threshold],
        exclusive=True,
        level="beat",
        times_s=[0.5, 1.5, 2.5],
    )


def test_count_folds_is_as_configured_or_one_per_subject():
    assert count_folds(module_with(partial(split_kfold, n_folds=5))) == 5
    assert count_folds(module_with(partial(split_leave_one_out, fold=0))) == 3


def test_pool_predictions_keeps_the_threshold_of_each_fold():
    pooled = pool_predictions([fold_predictions("a", 0.3), fold_predictions("b", 0.5)])
    assert pooled.record_ids.tolist() == ["a", "a", "a", "b", "b", "b"]
    assert pooled.decisions[:, 1].tolist() == [False, True, True, False, False, True]


def test_pool_predictions_refuses_a_window_of_two_folds():
    with pytest.raises(ValueError, match="'a'"):
        pool_predictions([fold_predictions("a", 0.3), fold_predictions("a", 0.5)])


def test_pool_checks_gives_the_worst_fold():
    good, bad = Check("reload", "PASS", 0.0, 1e-6, "equal"), Check("reload", "FAIL", 0.1, 1e-6, "differs")
    assert pool_checks([[good], [bad], [good]]) == [bad]


def test_summarise_folds_leaves_out_what_a_fold_lacks():
    summary = summarise_folds([{"accuracy": 0.8, "auroc_macro": 0.9}, {"accuracy": 0.9, "auroc_macro": np.nan}])
    assert summary == pytest.approx({"folds/accuracy_mean": 0.85, "folds/accuracy_std": np.std([0.8, 0.9], ddof=1)})
