import logging
import shutil
from functools import partial

import numpy as np
import pytest

from datamodules.filters import Filters
from datamodules.rhythm_beats import REJECTIONS, load_beats
from tests.rhythm_files import (
    FS,
    ecg,
    find_spikes,
    regular_beats,
    write_beats,
    write_header_without_signals,
    write_record,
    write_rhythms,
    write_signals,
)


def load(root, cache, **options):
    defaults = {
        "cache_dir": cache,
        "fs": FS,
        "lead_names": ["ECG1"],
        "class_names": ["other", "AFIB"],
        "beat_annotators": ["qrs"],
        "detector": find_spikes,
        "workers": 1,
    }
    return load_beats(root, **{**defaults, **options})


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("afdb")
    for seed, record in enumerate(("04015", "04043", "04048")):
        write_record(folder, record, seed=seed)
    return folder


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / "afdb")


def test_rhythm_beats_keep_ids_times_and_labels(root, cache):
    windows = load(root, cache)
    beats = regular_beats(30, seed=1)
    mine = windows.record_ids == "04043"
    np.testing.assert_allclose(windows.times_s[mine], beats[1:-1] / FS, atol=1.01 / FS)
    assert windows.signal_mv.shape == (len(windows), 1, 300)
    np.testing.assert_array_equal(windows.targets[:, 1], windows.times_s >= 15)
    np.testing.assert_array_equal(windows.targets.sum(axis=1), 1)
    assert (windows.signal_mv[:, 0].argmax(axis=1) == 100).mean() > 0.95
    assert windows.subject_ids.tolist() == windows.record_ids.tolist()


def test_rhythm_beats_account_for_every_annotated_beat(root, cache, caplog):
    with caplog.at_level(logging.INFO):
        counts = load(root, cache).counts
    assert counts["annotated"] == counts["used"] + sum(counts.get(name, 0) for name in REJECTIONS)
    assert "record 04015: 36 beats annotated" in caplog.text
    assert "% moved to an R peak" in caplog.text


def test_rhythm_beats_statistics_are_those_of_the_signals(root, cache):
    windows = load(root, cache)
    np.testing.assert_allclose(windows.lead_means_mv, windows.signal_mv.mean(axis=2), atol=1e-6)
    np.testing.assert_allclose(windows.lead_variances_mv2, windows.signal_mv.var(axis=2), atol=1e-6)
    assert len(np.unique(windows.signal_hashes)) == len(windows)


def test_rhythm_beats_are_built_once(root, cache, monkeypatch):
    first = load(root, cache)
    monkeypatch.setattr("datamodules.rhythm_beats.run_tasks", None)
    again = load(root, cache)
    assert again.data_digest == first.data_digest
    assert isinstance(again.signal_mv, np.memmap)
    assert not list(cache.glob("*/*.part"))


def test_rhythm_beats_of_several_processes_are_the_same(root, cache, tmp_path):
    alone = load(root, cache)
    together = load(root, tmp_path / "other", workers=2)
    np.testing.assert_array_equal(alone.signal_mv, together.signal_mv)
    assert alone.data_digest == together.data_digest


@pytest.mark.parametrize(
    ("options", "n_caches"),
    [
        ({"filters": Filters(wavelet=False)}, 2),
        ({"max_rr_s": 0.84}, 2),
        ({"detector": partial(find_spikes, height=0.4)}, 2),
        ({"detector": partial(find_spikes)}, 1),
    ],
)
def test_rhythm_beats_other_options_have_another_cache(root, cache, options, n_caches):
    load(root, cache)
    load(root, cache, **options)
    assert len([path for path in cache.iterdir() if path.is_dir()]) == n_caches


def test_rhythm_beats_without_signals_are_skipped_with_a_reason(root, cache, caplog):
    write_header_without_signals(root, "00735")
    write_beats(root, "00735", [100, 300, 500])
    write_rhythms(root, "00735", [(10, "N")])
    assert "00735" not in load(root, cache).record_ids
    assert not list(cache.glob("*/*.part"))
    assert "no beats are cut out of record '00735': it has no signals" in caplog.text


def test_rhythm_beats_before_the_first_label_are_rejected_and_counted(root, cache):
    write_rhythms(root, "04015", [(5 * FS, "AFIB")])
    windows = load(root, cache)
    assert windows.times_s[windows.record_ids == "04015"].min() >= 5
    assert windows.counts["unlabelled"] == 4  # and the first one is at the edge


def test_rhythm_beats_on_bad_stretches_are_rejected_and_counted(root, cache):
    signal = ecg(30 * FS, regular_beats(30))
    signal[1000:1010, 0] = np.nan
    signal[3000:3300, 0] = 0.11
    signal[5000:5100, 0] = 2047 / 200
    write_signals(root, "04015", signal)
    windows = load(root, cache)
    assert windows.counts["bad_signal"] >= 3
    assert (windows.counts["samples_missing"], windows.counts["samples_flat"]) == (10, 300)
    assert np.isfinite(windows.signal_mv).all()
    times = windows.times_s[windows.record_ids == "04015"]
    assert not ((times > 12.1) & (times < 13.1)).any()


def test_rhythm_beats_of_records_with_fewer_than_three_are_none(root, cache):
    write_beats(root, "04015", [100, 300])
    assert "04015" not in load(root, cache).record_ids


def test_rhythm_beats_lead_named_otherwise_is_an_error_or_skipped(root, cache):
    write_record(root, "04015", leads=("MLII", "V1"))
    with pytest.raises(ValueError, match=r"record '04015' has leads \['MLII', 'V1'\]"):
        load(root, cache)
    windows = load(root, cache, missing="skip")
    assert "04015" not in windows.record_ids
    assert windows.counts["skipped"] == 36


def test_rhythm_beats_leave_nothing_behind_after_an_error(root, cache):
    (root / "04048.dat").unlink()
    with pytest.raises(FileNotFoundError):
        load(root, cache)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_rhythm_beats_need_a_beat(tmp_path, cache):
    write_record(tmp_path / "db", "1")
    write_beats(tmp_path / "db", "1", [100, 300])
    with pytest.raises(ValueError, match="no beat is left of 1 records"):
        load(tmp_path / "db", cache)


def test_rhythm_beats_download_needs_a_name(root, cache):
    with pytest.raises(ValueError, match=r"datamodule\.source\.database"):
        load(root, cache, download=True)
