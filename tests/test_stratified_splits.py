import numpy as np
import pytest

from datamodules.stratified_splits import (
    split_iterative,
    split_iterative_kfold,
    split_stratified_kfold,
    split_unstratified_kfold,
)

KFOLDS = (split_iterative_kfold, split_stratified_kfold, split_unstratified_kfold)
# The last class is rare: one window in fifty.
RATES = (0.5, 0.25, 0.2, 0.1, 0.02)


@pytest.fixture(scope="module")
def data():
    """400 people with one to four windows, in no order; a person's windows are much alike."""
    rng = np.random.default_rng(0)
    of_people = rng.random((400, 5)) < RATES
    people = rng.permutation(np.repeat(np.arange(400), rng.integers(1, 5, 400)))
    targets = of_people[people] ^ (rng.random((len(people), 5)) < 0.01)
    return np.array([f"p{number:03d}" for number in people]), targets.astype(np.float32)


def check_whole(splits, subjects, *, shared=False):
    assert list(splits) == ["train", "val", "test"]
    np.testing.assert_array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(len(subjects)))
    sides = [set(subjects[positions]) for positions in splits.values()]
    assert (sum(map(len, sides)) > len(set(subjects))) is shared


def furthest_off(splits, subjects, targets):
    """Largest difference, in people, between those of a class on a side and its share of them."""
    names, codes = np.unique(subjects, return_inverse=True)
    classes = np.zeros((len(names), targets.shape[1]))
    np.maximum.at(classes, codes, targets)
    sides = [np.unique(codes[positions]) for positions in splits.values()]
    expected = [len(side) / len(names) * classes.sum(axis=0) for side in sides]
    return max(np.abs(classes[side].sum(axis=0) - wanted).max() for side, wanted in zip(sides, expected, strict=True))


def test_stratified_splits_iterative_keeps_people_together_and_classes_in_proportion(data):
    splits = split_iterative(*data)
    check_whole(splits, data[0])
    assert [len(set(data[0][positions])) for positions in splits.values()] == pytest.approx([324, 36, 40], abs=4)
    assert furthest_off(splits, *data) < 3 < furthest_off(split_unstratified_kfold(*data, fold=0), *data)


def test_stratified_splits_iterative_of_windows_shares_people(data):
    splits = split_iterative(*data, grouped=False)
    check_whole(splits, data[0], shared=True)
    assert furthest_off(splits, np.arange(len(data[0])), data[1]) < 3


def test_stratified_splits_iterative_depends_on_the_seed_alone(data):
    first, again, other = (split_iterative(*data, seed=seed)["test"].tolist() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("split", KFOLDS)
def test_stratified_splits_kfold_tests_and_validates_every_window_once(data, split):
    folds = [split(*data, fold=fold) for fold in range(10)]
    for fold in folds:
        check_whole(fold, data[0])
    for side in ("test", "val"):
        np.testing.assert_array_equal(np.sort(np.concatenate([fold[side] for fold in folds])), np.arange(len(data[0])))


@pytest.mark.parametrize("split", KFOLDS)
def test_stratified_splits_kfold_of_windows_shares_people(data, split):
    check_whole(split(*data, fold=2, n_folds=5, grouped=False), data[0], shared=True)


def test_stratified_splits_kfold_stratified_ones_keep_classes_in_proportion(data):
    # Rare combinations of classes are one stratum, so that rare classes are in proportion by iteration alone.
    frequent = data[0], data[1][:, :2]
    off = [
        [max(furthest_off(split(*some, fold=fold, n_folds=5), *some) for fold in range(5)) for split in KFOLDS]
        for some in (data, frequent)
    ]
    assert off[0][0] < 3 < off[0][2]
    assert max(off[1][:2]) < 3 < off[1][2]


def test_stratified_splits_combinations_too_rare_for_a_stratum_join_another():
    targets = np.zeros((20, 3), dtype=np.float32)
    targets[:19, 0], targets[19, 1] = 1, 1
    splits = split_stratified_kfold(np.arange(20).astype(str), targets, fold=0, n_folds=5)
    assert {name: len(positions) for name, positions in splits.items()} == {"train": 12, "val": 4, "test": 4}


@pytest.mark.parametrize("split", KFOLDS)
@pytest.mark.parametrize(
    "options", [{"fold": 10}, {"fold": -1}, {"fold": 0, "n_folds": 2}, {"fold": 0, "n_folds": 401}]
)
def test_stratified_splits_kfold_refuses_folds_that_do_not_exist(data, split, options):
    with pytest.raises(ValueError, match=r"datamodule\.split has fold .*expected 3 to 400 folds"):
        split(*data, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_share": 1.0}, r"datamodule\.split\.test_share is 1\.0, expected more than 0"),
        ({"val_share": 0.001}, r"datamodule\.split\.val_share is 0\.001, which is 0 of 360 subjects"),
    ],
)
def test_stratified_splits_iterative_refuses_shares_that_leave_a_side_empty(data, options, message):
    with pytest.raises(ValueError, match=message):
        split_iterative(*data, **options)
