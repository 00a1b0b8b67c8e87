import numpy as np
import pytest

from datamodules.splits import split_by_fold, split_kfold, split_leave_one_out, split_subjects, split_windows

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


def people(n_with: int, n_without: int, n_windows: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Windows of some subjects; those with positive windows have every other one positive."""
    n_all = n_with + n_without
    subjects = np.repeat([f"s{number:02d}" for number in range(n_all)], n_windows)
    labels = np.tile(np.arange(n_windows) % 2 == 0, n_all) & (np.repeat(np.arange(n_all), n_windows) < n_with)
    return subjects, np.stack([~labels, labels], axis=1).astype(np.float32)


def check_whole(splits, subjects):
    """Each subject on one side, each window once."""
    sides = [set(subjects[positions]) for positions in splits.values()]
    assert sum(map(len, sides)) == len(set(subjects))
    np.testing.assert_array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(len(subjects)))
    return {name: len(side) for name, side in zip(splits, sides, strict=True)}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n_with", [3, 4, 23])
def test_splits_by_subject_have_positive_windows_on_every_side(n_with, seed):
    subjects, targets = people(n_with, 23 - n_with)
    splits = split_subjects(subjects, targets, seed=seed)
    assert check_whole(splits, subjects) == {"train": 14, "val": 4, "test": 5}
    assert all(targets[positions, 1].any() for positions in splits.values())


def test_splits_by_subject_depend_on_the_seed_alone():
    subjects, targets = people(8, 15)
    first, again, other = (split_subjects(subjects, targets, seed=seed) for seed in (0, 0, 1))
    assert first["test"].tolist() == again["test"].tolist()
    assert first["test"].tolist() != other["test"].tolist()


@pytest.mark.parametrize("n_with", [0, 1, 2])
def test_splits_by_subject_refuse_a_side_without_positive_windows(n_with):
    subjects, targets = people(n_with, 12)
    with pytest.raises(ValueError, match=rf"{n_with} of 12 subjects|{n_with} of {12 + n_with} subjects"):
        split_subjects(subjects, targets)


@pytest.mark.parametrize("options", [{"test_share": 0}, {"val_share": 1.0}])
def test_splits_refuse_shares_out_of_range(options):
    subjects, targets = people(8, 8)
    with pytest.raises(ValueError, match=rf"datamodule\.split\.{next(iter(options))} is"):
        split_subjects(subjects, targets, **options)
    with pytest.raises(ValueError, match="more than 0 and less than 1"):
        split_windows(subjects, targets, **options)


def test_splits_of_windows_share_subjects():
    subjects, targets = people(5, 5, n_windows=20)
    splits = split_windows(subjects, targets)
    assert {name: len(positions) for name, positions in splits.items()} == {"train": 128, "val": 32, "test": 40}
    assert set(subjects[splits["train"]]) & set(subjects[splits["test"]])


def test_splits_kfold_tests_every_window_once():
    subjects, targets = people(10, 13)
    folds = [split_kfold(subjects, targets, fold=fold) for fold in range(5)]
    for fold in folds:
        check_whole(fold, subjects)
        assert all(targets[positions, 1].any() for positions in fold.values())
    np.testing.assert_array_equal(np.sort(np.concatenate([fold["test"] for fold in folds])), np.arange(len(subjects)))


def test_splits_kfold_refuses_a_fold_without_positive_windows():
    subjects, targets = people(3, 17)

    def make_all():
        return [split_kfold(subjects, targets, fold=fold) for fold in range(5)]

    with pytest.raises(ValueError, match=r"0 positive windows of \d+: expected both; only 3 subjects"):
        make_all()


@pytest.mark.parametrize("options", [{"fold": 5}, {"fold": 0, "n_folds": 30}, {"fold": -1}])
def test_splits_kfold_refuses_folds_that_do_not_exist(options):
    with pytest.raises(ValueError, match=r"expected 2 to 23 folds \(there are 23 subjects\)"):
        split_kfold(*people(10, 13), **options)


def test_splits_leave_one_out_tests_one_subject():
    subjects, targets = people(4, 6)
    tested = []
    for fold in range(10):
        splits = split_leave_one_out(subjects, targets, fold=fold)
        assert check_whole(splits, subjects)["test"] == 1
        assert targets[splits["train"], 1].any()
        assert targets[splits["val"], 1].any()
        tested.append(subjects[splits["test"]][0])
    assert tested == sorted(set(subjects))
    with pytest.raises(ValueError, match="fold is 10, expected 0 to 9"):
        split_leave_one_out(subjects, targets, fold=10)
