import numpy as np
import pytest

from datamodules.leakage import LeakageError, check_leakage


@pytest.fixture
def clean():
    """Eight records of six subjects; subjects with two records stay on one side."""
    return {
        "record_ids": np.array(["1", "2", "3", "4", "5", "6", "7", "8"]),
        "subject_ids": np.array(["a", "a", "b", "c", "d", "d", "e", "f"]),
        "signal_hashes": np.array([b"h1", b"h2", b"h3", b"h4", b"h5", b"h6", b"h7", b"h8"]),
        "splits": {"train": np.array([0, 1, 2, 3]), "val": np.array([4, 5]), "test": np.array([6, 7])},
        "class_names": ("NORM", "MI"),
        "normalizer_indices": np.array([0, 1, 2, 3]),
    }


def test_leakage_clean_split_is_reported(clean):
    report = check_leakage(**clean, calibration_indices=np.array([1, 3]))
    assert report.n_records == {"train": 4, "val": 2, "test": 2}
    assert report.n_subjects == {"train": 3, "val": 1, "test": 2}
    assert report.n_duplicates == {"train": 0, "val": 0, "test": 0}


def test_leakage_digest_is_that_of_the_split(clean):
    digest = check_leakage(**clean).split_digest
    order = np.array([3, 1, 2, 0])
    assert check_leakage(**{**clean, "splits": {**clean["splits"], "train": order}}).split_digest == digest
    assert check_leakage(**{**clean, "normalizer_indices": np.array([0])}).split_digest == digest
    assert check_leakage(**{**clean, "class_names": ("MI", "NORM")}).split_digest != digest
    fewer = {**clean["splits"], "test": np.array([6])}
    assert check_leakage(**{**clean, "splits": fewer}).split_digest != digest
    swapped = {**clean["splits"], "val": np.array([6, 7]), "test": np.array([4, 5])}
    assert check_leakage(**{**clean, "splits": swapped}).split_digest != digest


@pytest.mark.parametrize(("first", "second"), [("train", "val"), ("train", "test"), ("val", "test")])
def test_leakage_subject_on_two_sides_fails(clean, first, second):
    subjects = clean["subject_ids"]
    subjects[clean["splits"][second][0]] = subjects[clean["splits"][first][-1]]
    with pytest.raises(LeakageError, match=rf"1 subject on both sides of '{first}' and '{second}', first '[cd]'"):
        check_leakage(**clean)


def test_leakage_same_signal_on_two_sides_fails(clean):
    clean["signal_hashes"][7] = b"h2"
    with pytest.raises(LeakageError, match=r"signal with hash .*'train' and 'test', first 'h2'.*\['2'\].*\['8'\]"):
        check_leakage(**clean)


def test_leakage_same_record_on_two_sides_fails(clean):
    clean["splits"]["val"] = np.array([3, 4, 5])
    with pytest.raises(LeakageError, match="1 record on both sides of 'train' and 'val', first '4'"):
        check_leakage(**clean)


def test_leakage_same_signal_on_one_side_is_counted(clean):
    clean["signal_hashes"][1] = b"h1"
    assert check_leakage(**clean).n_duplicates == {"train": 1, "val": 0, "test": 0}


def test_leakage_normalisation_from_outside_train_fails(clean):
    clean["normalizer_indices"] = np.arange(5)
    with pytest.raises(LeakageError, match=r"normalisation uses 1 of 5 windows from outside .*'train'.*record '5'"):
        check_leakage(**clean)


def test_leakage_calibration_from_outside_train_fails(clean):
    with pytest.raises(LeakageError, match=r"calibration uses 2 of 3 windows from outside .*'train'.*record '7'"):
        check_leakage(**clean, calibration_indices=np.array([0, 6, 7]))


def test_leakage_needs_a_training_split(clean):
    clean["splits"]["fit"] = clean["splits"].pop("train")
    with pytest.raises(ValueError, match="expected one named 'train'"):
        check_leakage(**clean)
