import numpy as np
import pytest

from datamodules.splits import split_by_fold

FOLDS = np.array([1, 2, 3, 1, 2, 3, 4], dtype=np.int16)


def test_splits_hold_the_records_of_their_folds():
    splits = split_by_fold(FOLDS, {"train": [1, 3], "val": [2], "test": [4]})
    assert {name: positions.tolist() for name, positions in splits.items()} == {
        "train": [0, 2, 3, 5],
        "val": [1, 4],
        "test": [6],
    }
    assert splits["train"].dtype == np.int64


def test_splits_leave_out_folds_that_nobody_names():
    splits = split_by_fold(FOLDS, {"train": [1], "val": [2]})
    assert sum(len(positions) for positions in splits.values()) == 4


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ({"train": [1], "val": []}, r"datamodule\.folds\.val is \[\], expected at least one fold"),
        (
            {"train": [1], "val": [7]},
            r"datamodule\.folds\.val has fold 7, which holds no record.*\[1, 2, 3, 4\]",
        ),
        (
            {"train": [1, 2], "val": [2]},
            r"datamodule\.folds\.val has fold 2, which datamodule\.folds\.train has",
        ),
        (
            {"train": [1, 1]},
            r"datamodule\.folds\.train has fold 1, which datamodule\.folds\.train has already",
        ),
    ],
)
def test_splits_refuse_folds_that_make_no_split(folds, message):
    with pytest.raises(ValueError, match=message):
        split_by_fold(FOLDS, folds)
