"""Damaged and odd recordings, from their files to the data module."""

import shutil
from functools import partial

import numpy as np
import pytest

from datamodules.annotations import write_annotations
from datamodules.ecg import EcgDataModule
from datamodules.leakage import LeakageError
from datamodules.rhythm_beats import REJECTIONS, load_beats
from datamodules.splits import split_subjects
from tests.rhythm_files import (
    FS,
    ecg,
    find_spikes,
    regular_beats,
    write_beats,
    write_record,
    write_rhythms,
    write_signals,
)

RECORDS = ("100", "101", "102", "103", "104", "105")
SPLIT = partial(split_subjects, test_share=0.3, val_share=0.3)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("db")
    for seed, record in enumerate(RECORDS):
        write_record(folder, record, seed=seed, duration_s=20, rhythms=((0.04, "N"), (10, "AFIB")))
    return folder


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / "db")


def load(root, split=SPLIT, missing="error", **source):
    """Set up the data module on some records."""
    defaults = {"cache_dir": root / "cache", "beat_annotators": ["qrs"], "detector": find_spikes, "workers": 1}
    module = EcgDataModule(
        source=partial(load_beats, **{**defaults, **source}),
        name="db",
        kind="real",
        root=root,
        n_leads=1,
        n_classes=2,
        class_names=["other", "AFIB"],
        lead_names=["ECG1"],
        fs=FS,
        n_samples=300,
        batch_size=4,
        seed=0,
        split=split,
        level="beat",
        missing=missing,
    )
    module.setup()
    return module


def count_all(counts):
    return counts["used"] + sum(counts.get(name, 0) for name in REJECTIONS)


def sides_of(module):
    return {record: side for side in module.splits for record in set(module.record_ids(side).tolist())}


def test_rhythm_bad_input_beats_beyond_the_end_are_counted(root):
    clean = load(root).counts
    write_beats(root, "100", [*regular_beats(20), 20 * FS, 20 * FS + 300])
    counts = load(root).counts
    assert (counts["beyond_end"], counts["used"]) == (2, clean["used"])
    assert count_all(counts) == counts["annotated"] == clean["annotated"] + 2


def test_rhythm_bad_input_rhythm_beyond_the_end_is_nobodys(root):
    clean = load(root)
    write_rhythms(root, "100", [(10, "N"), (10 * FS, "AFIB"), (25 * FS, "AFL")])
    assert load(root).targets("train").sum() == clean.targets("train").sum()


def test_rhythm_bad_input_beats_before_the_first_label_are_counted(root):
    write_rhythms(root, "100", [(5 * FS, "N"), (10 * FS, "AFIB")])
    counts = load(root).counts
    assert counts["unlabelled"] == (regular_beats(20) < 5 * FS).sum() - 1  # the first is at the edge
    assert count_all(counts) == counts["annotated"]


def test_rhythm_bad_input_beats_twice_and_out_of_order_are_taken_once(root):
    clean = load(root)
    beats = regular_beats(20)
    twice = np.sort(np.concatenate([beats, beats[3:6]]))
    # Two neighbours change places: a negative interval, which wfdb writes as a skip.
    twice[10], twice[11] = twice[11], twice[10]
    write_annotations(root / "100.qrs", twice, np.ones(len(twice), dtype=np.int64))
    module = load(root)
    assert (module.counts["duplicate"], module.counts["unordered"]) == (3, 1)
    assert count_all(module.counts) == module.counts["annotated"]
    for side in module.splits:
        np.testing.assert_array_equal(module.windows(side), clean.windows(side))


@pytest.mark.parametrize(("duration_s", "n_beats"), [(0.4, 0), (1.0, 1), (1.8, 2)])
def test_rhythm_bad_input_record_shorter_than_three_beats_has_none(root, duration_s, n_beats):
    beats = np.array([100, 300])[:n_beats]
    write_signals(root, "200", ecg(round(duration_s * FS), beats))
    write_beats(root, "200", beats) if n_beats else write_annotations(root / "200.qrs", beats, beats)
    write_rhythms(root, "200", [(1, "AFIB")])
    module = load(root)
    assert "200" not in sides_of(module)
    assert module.counts["edge"] == 2 * len(RECORDS) + n_beats
    assert count_all(module.counts) == module.counts["annotated"]


def test_rhythm_bad_input_lead_named_otherwise_is_an_error_or_skipped(root):
    write_record(root, "103", leads=("MLII", "V1"), duration_s=20)
    with pytest.raises(ValueError, match=r"record '103' has leads \['MLII', 'V1'\]"):
        load(root)
    assert sorted(sides_of(load(root, missing="skip"))) == ["100", "101", "102", "104", "105"]


@pytest.mark.parametrize(
    ("value", "kind"), [(np.nan, "samples_missing"), (2047 / 200, "samples_saturated"), (0.11, "samples_flat")]
)
def test_rhythm_bad_input_beats_on_unusable_stretches_are_counted(root, value, kind):
    clean = load(root).counts
    signal = ecg(20 * FS, regular_beats(20))
    signal[1000:1500, 0] = value
    write_signals(root, "100", signal)
    module = load(root)
    counts = module.counts
    assert counts[kind] == 500
    lost = sum(counts[name] - clean[name] for name in ("bad_signal", "unconfirmed", "repeated"))
    assert lost == clean["used"] - counts["used"] >= 2
    assert count_all(counts) == counts["annotated"]
    windows = module._loaded()
    times = windows.times_s[windows.record_ids == "100"]
    assert not ((times > 4) & (times < 6)).any()
    assert np.isfinite(windows.signal_mv).all()


def test_rhythm_bad_input_lead_without_any_value_has_no_beats(root):
    write_signals(root, "100", np.zeros((20 * FS, 2)))
    module = load(root)
    assert "100" not in sides_of(module)
    assert count_all(module.counts) == module.counts["annotated"]


@pytest.mark.parametrize("extension", ["atr", "qrs"])
def test_rhythm_bad_input_annotation_file_missing_is_an_error_or_skipped(root, extension):
    (root / f"103.{extension}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"record '103' has no .* \.{extension} in"):
        load(root)
    assert "103" not in sides_of(load(root, missing="skip"))


@pytest.mark.parametrize("seed", range(5))
def test_rhythm_bad_input_records_of_one_subject_stay_together(root, seed):
    module = load(root, split=partial(SPLIT, seed=seed), subjects={"101": "100", "104": "103"})
    sides = sides_of(module)
    assert (sides["101"], sides["104"]) == (sides["100"], sides["103"])
    assert sum(module.leakage.n_subjects.values()) == 4


def test_rhythm_bad_input_one_recording_under_two_ids_is_a_leak(root):
    for extension in ("dat", "qrs", "atr"):
        shutil.copy(root / f"100.{extension}", root / f"106.{extension}")
    (root / "106.hea").write_text((root / "100.hea").read_text().replace("100", "106", 1))
    sides = {"train": ("100", "101", "102"), "val": ("103", "104"), "test": ("105", "106")}

    def split(subject_ids, targets):
        return {side: np.flatnonzero(np.isin(subject_ids, records)) for side, records in sides.items()}

    with pytest.raises(LeakageError, match=r"signal with hash on both sides of 'train' and 'test'.*\['100'.*\['106'"):
        load(root, split=split)


def test_rhythm_bad_input_side_without_fibrillation_is_refused(root):
    for record in RECORDS[2:]:
        write_rhythms(root, record, [(10, "N")])
    with pytest.raises(ValueError, match="2 of 6 subjects have positive windows, too few for 'test'"):
        load(root)

    def split(subject_ids, targets):
        sides = {"train": RECORDS[:2], "val": RECORDS[2:4], "test": RECORDS[4:]}
        return {side: np.flatnonzero(np.isin(subject_ids, records)) for side, records in sides.items()}

    with pytest.raises(ValueError, match="class 'other' is in every window of the split 'val'"):
        load(root, split=split)
