import dataclasses
from functools import partial

import numpy as np
import pytest

from datamodules.leakage import LeakageError, check_leakage
from datamodules.records import EcgWindows
from datamodules.sides import check_options, make_splits
from datamodules.splits import split_subjects, split_windows


@pytest.fixture
def windows():
    """Ten subjects with twenty windows each; every second window overlaps its neighbours."""
    n = 200
    positive = np.arange(n) % 4 < 2
    ids = np.repeat([f"s{number}" for number in range(10)], 20)
    return EcgWindows(
        signal_mv=np.zeros((n, 1, 5), dtype=np.float32),
        targets=np.stack([~positive, positive], axis=1).astype(np.float32),
        record_ids=ids,
        subject_ids=ids,
        folds=np.zeros(n, dtype=np.int16),
        signal_hashes=np.arange(n, dtype=np.uint64),
        fs=250.0,
        lead_names=("RR",),
        class_names=("other", "AFIB"),
        data_digest="",
        counts={},
        training_only=np.arange(n) % 2 == 1,
    )


def check(windows, splits, **options):
    return check_leakage(
        record_ids=windows.record_ids,
        subject_ids=windows.subject_ids,
        signal_hashes=windows.signal_hashes,
        splits=splits,
        class_names=windows.class_names,
        normalizer_indices=splits["train"],
        **options,
    )


def test_sides_overlapping_windows_are_on_the_training_side_only(windows):
    splits = make_splits(windows, folds=None, split=split_subjects, leaky=False)
    assert windows.training_only[splits["train"]].any()
    assert not windows.training_only[splits["val"]].any()
    assert not windows.training_only[splits["test"]].any()


def test_sides_and_their_digest_do_not_depend_on_the_overlap(windows):
    apart = dataclasses.replace(windows, training_only=None)
    few, many = (make_splits(data, folds=None, split=split_subjects, leaky=False) for data in (apart, windows))
    assert set(apart.subject_ids[few["test"]]) == set(windows.subject_ids[many["test"]])
    assert check(apart, few).split_digest == check(windows, many).split_digest


def test_sides_of_a_leaky_split_refuse_overlap(windows):
    with pytest.raises(ValueError, match="windows overlap"):
        make_splits(windows, folds=None, split=split_windows, leaky=True)


def test_sides_that_share_people_must_say_so(windows):
    apart = dataclasses.replace(windows, training_only=None)
    splits = make_splits(apart, folds=None, split=split_windows, leaky=False)
    with pytest.raises(LeakageError, match="record on both sides"):
        check(apart, splits)
    report = check(apart, splits, leaky=True)
    assert report.leaky
    assert report.n_subjects == {"test": 10, "val": 10, "train": 10}


def test_sides_of_another_leaky_split_have_another_digest(windows):
    apart = dataclasses.replace(windows, training_only=None)
    first, again, other = (
        check(apart, make_splits(apart, folds=None, split=partial(split_windows, seed=seed), leaky=True), leaky=True)
        for seed in (0, 0, 1)
    )
    assert first.split_digest == again.split_digest != other.split_digest


def test_sides_of_a_leaky_split_have_no_window_twice(windows):
    splits = {"train": np.array([0, 1]), "test": np.array([1, 2])}
    with pytest.raises(LeakageError, match="1 position on both sides"):
        check(windows, splits, leaky=True)


def test_sides_one_subject_under_two_ids_is_found_by_the_signals(windows):
    # The same recording under two names.
    hashes = windows.signal_hashes.copy()
    hashes[180:] = hashes[:20]
    twice = dataclasses.replace(windows, signal_hashes=hashes, training_only=None)
    splits = {"train": np.arange(100), "val": np.arange(100, 160), "test": np.arange(160, 200)}
    with pytest.raises(LeakageError, match="20 signal with hash on both sides of 'train' and 'test'"):
        check(twice, splits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "episode"}, r"datamodule\.level is 'episode'"),
        ({"folds": None}, "expected exactly one of them"),
        ({"split": split_subjects}, "expected exactly one of them"),
    ],
)
def test_sides_refuse_options_that_contradict_each_other(options, message):
    folds = {"train": [1], "val": [2], "test": [3]}
    defaults = {"kind": "real", "level": "beat", "folds": folds, "split": None, "batch_size": 1}
    with pytest.raises(ValueError, match=message):
        check_options(**{**defaults, **options})
