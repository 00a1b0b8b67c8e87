import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import wfdb

from datamodules import processes, wfdb_worker
from datamodules.ptbxl import load_ptbxl, read_ptbxl
from datamodules.ptbxl_index import read_index
from datamodules.stratified_splits import split_iterative
from tests.ptbxl_files import (
    CLASSES,
    LEADS,
    TABLE,
    edit_text,
    record_path,
    samples,
    table_row,
    write_ptbxl,
    write_record,
    write_tables,
)

FOLDS = (1, 2)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_ptbxl(tmp_path_factory.mktemp("ptbxl"), folds=FOLDS)


@pytest.fixture
def root(original, tmp_path):
    """A copy to damage: records 1-6 in fold 1 (6 has no superclass), 7-11 in fold 2."""
    return shutil.copytree(original, tmp_path / "ptbxl")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def load(root, cache, **options):
    return load_ptbxl(root, cache_dir=cache, **{"folds": FOLDS, **options})


def test_ptbxl_gives_what_wfdb_reads(original, cache):
    windows = load(original, cache)
    assert windows.signal_mv.shape == (10, 12, 1000)
    assert windows.signal_mv.dtype == np.float32
    assert windows.record_ids.tolist() == ["1", "2", "3", "4", "5", "7", "8", "9", "10", "11"]
    assert windows.subject_ids[0] == "1001"
    assert windows.folds.tolist() == [1] * 5 + [2] * 5
    assert (windows.fs, windows.lead_names, windows.class_names) == (100.0, LEADS, CLASSES)
    for row, record in enumerate(windows.record_ids):
        expected, _ = wfdb.rdsamp(str(record_path(original, int(record))))
        np.testing.assert_allclose(windows.signal_mv[row], expected.T, rtol=1e-6)
    np.testing.assert_allclose(windows.lead_means_mv, windows.signal_mv.mean(axis=2, dtype=float), rtol=1e-9)
    np.testing.assert_allclose(windows.lead_variances_mv2, windows.signal_mv.var(axis=2, dtype=float), rtol=1e-9)


def test_ptbxl_superclasses_come_from_the_diagnostic_statements_whatever_the_likelihood(original, cache):
    windows = load(original, cache, folds=[1])
    expected = [[1, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 1, 0, 1], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert windows.targets.tolist() == expected
    assert windows.targets.dtype == np.float32
    assert windows.counts["listed"] == 6
    assert windows.counts["unlabelled"] == 1
    assert windows.counts["used"] == 5


def test_ptbxl_records_of_other_classes_stay_as_negatives(original, cache):
    windows = load(original, cache, folds=[1], class_names=("HYP", "MI"))
    assert windows.targets.tolist() == [[0, 0], [0, 1], [1, 0], [0, 1], [1, 0]]


def test_ptbxl_reads_one_record_at_a_time(original):
    records = list(read_ptbxl(original, lead_names=("V1", "I"), folds=[2]))
    assert [record.record_id for record in records] == ["7", "8", "9", "10", "11"]
    assert records[0].lead_names == ("V1", "I")
    assert records[0].signal_mv.shape == (2, 1000)
    np.testing.assert_allclose(records[0].signal_mv, samples(7)[:, [6, 0]].T / 1000, rtol=1e-6)


def test_ptbxl_second_start_reads_no_wfdb_file(original, cache, monkeypatch):
    first = load(original, cache)

    def refuse(*args, **options):
        raise AssertionError("a WFDB file was read")

    monkeypatch.setattr(wfdb, "rdrecord", refuse)
    monkeypatch.setattr(wfdb, "rdheader", refuse)
    second = load(original, cache)
    assert isinstance(second.signal_mv, np.memmap)
    np.testing.assert_array_equal(first.signal_mv, second.signal_mv)
    assert second.data_digest == first.data_digest


def test_ptbxl_digest_depends_on_content_only(original, root, cache, tmp_path):
    for path in root.rglob("*"):
        os.utime(path, (0, 0))
    assert load(root, cache).data_digest == load(original, tmp_path / "other").data_digest


def test_ptbxl_changed_record_is_read_again(root, cache):
    before = load(root, cache)
    write_record(record_path(root, 3), samples(99))
    after = load(root, cache)
    np.testing.assert_allclose(after.signal_mv[2], samples(99).T / 1000, rtol=1e-6)
    assert after.data_digest != before.data_digest
    assert after.signal_hashes[2] != before.signal_hashes[2]
    assert after.signal_hashes[3] == before.signal_hashes[3]


def test_ptbxl_reader_processes_give_the_same_arrays(original, tmp_path, monkeypatch):
    monkeypatch.setattr(wfdb_worker, "CHUNK", 3)
    alone = load(original, tmp_path / "one", workers=1)
    together = load(original, tmp_path / "two", workers=2)
    np.testing.assert_array_equal(alone.signal_mv, together.signal_mv)
    assert alone.data_digest == together.data_digest


def test_ptbxl_reader_processes_pass_errors_on_and_end(root, cache, monkeypatch):
    monkeypatch.setattr(wfdb_worker, "CHUNK", 3)
    edit_text(record_path(root, 9).with_suffix(".hea"), "/mV", "/uV")
    with pytest.raises(ValueError, match="record '9' has units"):
        load(root, cache, workers=2)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_ptbxl_reader_process_that_dies_is_reported(original, cache, monkeypatch):
    monkeypatch.setattr(processes.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match=r"reader process died \(exit code 1\)"):
        load(original, cache, workers=2)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_ptbxl_500_hz_reads_records500(tmp_path, cache):
    root = write_ptbxl(tmp_path / "ptbxl", folds=[1], fs=500)
    windows = load(root, cache, folds=[1], fs=500)
    assert windows.signal_mv.shape == (5, 12, 5000)
    assert windows.fs == 500
    np.testing.assert_allclose(windows.signal_mv[0], samples(1, 500).T / 1000, rtol=1e-6)


def test_ptbxl_gain_and_baseline_of_the_header_count(root, cache):
    write_record(record_path(root, 1), samples(1), gain=200.0, baseline=50)
    expected = (samples(1).T.astype(float) - 50) / 200
    np.testing.assert_allclose(load(root, cache).signal_mv[0], expected, rtol=1e-6)


# Bad input.


def test_ptbxl_missing_root_says_how_to_get_the_data(tmp_path, cache):
    with pytest.raises(FileNotFoundError, match=r"datamodule\.download=true.*physionet\.org/files/ptb-xl") as error:
        load(tmp_path / "nowhere", cache)
    assert "datamodule.root" in str(error.value)
    assert not cache.exists()


def test_ptbxl_missing_statements_are_named(root, cache):
    (root / "scp_statements.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no scp_statements\.csv"):
        load(root, cache)


@pytest.mark.parametrize("column", ["ecg_id", "patient_id", "scp_codes", "strat_fold", "filename_lr"])
def test_ptbxl_table_without_a_column_names_it(root, cache, column):
    edit_text(root / TABLE, column, "other")
    with pytest.raises(ValueError, match=rf"lacks the columns \['{column}'\]"):
        load(root, cache)


@pytest.mark.parametrize("column", ["diagnostic", "diagnostic_class"])
def test_ptbxl_statements_without_a_column_name_it(root, cache, column):
    edit_text(root / "scp_statements.csv", f",{column}", ",other")
    with pytest.raises(ValueError, match=r"scp_statements\.csv lacks the columns"):
        load(root, cache)


def test_ptbxl_table_without_the_500_hz_names_still_serves_100_hz(root, cache):
    edit_text(root / TABLE, "filename_hr", "other")
    assert len(load(root, cache)) == 10
    with pytest.raises(ValueError, match="filename_hr"):
        load(root, cache, fs=500)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1002.0", "", r"line 3: no value in \['patient_id'\]"),
        ("\n2,", "\n1,", "lists record '1' twice"),
        ("{'NORM': 100.0, 'SR': 0.0}", "NORM", "record '1' has scp_codes 'NORM', expected a dict"),
        ("{'NORM': 100.0, 'SR': 0.0}", "[1]", "expected a dict"),
    ],
)
def test_ptbxl_bad_table_values_are_named(root, cache, old, new, message):
    edit_text(root / TABLE, old, new)
    with pytest.raises(ValueError, match=message):
        load(root, cache)


def test_ptbxl_listed_records_without_files_are_counted(root, cache):
    record_path(root, 2).with_suffix(".dat").unlink()
    record_path(root, 8).with_suffix(".hea").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of 10 listed records .*\['2', '8'\].*datamodule\.missing=skip"):
        load(root, cache)
    shutil.rmtree(root / "records100")
    with pytest.raises(FileNotFoundError, match="10 of 10 listed records"):
        load(root, cache)


def test_ptbxl_missing_skip_goes_on_and_logs_how_many(root, cache, caplog):
    original = load(root, cache)
    record_path(root, 2).with_suffix(".dat").unlink()
    with caplog.at_level(logging.WARNING):
        windows = load(root, cache, missing="skip")
    assert "1 of 10 listed records" in caplog.text
    assert windows.counts == {**original.counts, "missing": 1, "used": 9}
    assert "2" not in windows.record_ids
    np.testing.assert_array_equal(windows.signal_mv[1], original.signal_mv[2])


def test_ptbxl_nothing_left_is_an_error(root, cache):
    shutil.rmtree(root / "records100")
    with pytest.raises(ValueError, match=r"no record is left .*'missing': 10"):
        load(root, cache, missing="skip")


def test_ptbxl_records_of_other_folds_and_unlabelled_ones_need_not_exist(root, cache):
    for record in (6, 7, 8, 9, 10, 11):
        record_path(root, record).with_suffix(".dat").unlink()
        record_path(root, record).with_suffix(".hea").unlink()
    assert len(load(root, cache, folds=[1])) == 5


def test_ptbxl_truncated_signal_file_is_refused(root, cache):
    path = record_path(root, 4).with_suffix(".dat")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"record '4' .*truncated"):
        load(root, cache)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_ptbxl_empty_header_is_refused(root, cache):
    record_path(root, 4).with_suffix(".hea").write_text("")
    with pytest.raises(ValueError, match="record '4' "):
        load(root, cache)


def test_ptbxl_wrong_checksum_is_refused(root, cache):
    header = record_path(root, 4).with_suffix(".hea")
    checksum = header.read_text().splitlines()[7].split()[6]
    edit_text(header, f" {checksum} 0 V1", f" {int(checksum) + 1} 0 V1")
    with pytest.raises(ValueError, match=r"record '4', lead 'V1': checksum"):
        load(root, cache)


def test_ptbxl_changed_sample_is_refused(root, cache):
    path = record_path(root, 4).with_suffix(".dat")
    data = bytearray(path.read_bytes())
    data[24] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"record '4', lead 'I': checksum"):
        load(root, cache)


def test_ptbxl_missing_samples_are_refused(root, cache):
    digital = samples(4)
    digital[10:13, 2] = -32768  # NaN in physical units
    write_record(record_path(root, 4), digital)
    assert np.isnan(wfdb.rdsamp(str(record_path(root, 4)))[0]).sum() == 3
    with pytest.raises(ValueError, match=r"record '4', lead 'III': 3 samples are missing \(NaN\)"):
        load(root, cache)


def test_ptbxl_flat_leads_are_counted_logged_and_kept(root, cache, caplog):
    digital = samples(4)
    digital[:, 3] = 17
    write_record(record_path(root, 4), digital)
    with caplog.at_level(logging.WARNING):
        windows = load(root, cache)
    assert windows.counts["flat_lead"] == 1
    assert "'4': ['AVR']" in caplog.text
    assert len(windows) == 10
    with pytest.raises(ValueError, match=r"'4': \['AVR'\].*datamodule\.flat_leads=keep"):
        load(root, cache, flat_leads="error")


def test_ptbxl_leads_are_taken_by_name(root, cache, caplog):
    swapped = ["II", "I", *LEADS[2:]]
    write_record(record_path(root, 4), samples(4)[:, [1, 0, *range(2, 12)]], leads=swapped)
    with caplog.at_level(logging.WARNING):
        windows = load(root, cache)
    np.testing.assert_allclose(windows.signal_mv[3], samples(4).T / 1000, rtol=1e-6)
    assert windows.counts["reordered_leads"] == 1
    assert "1 records store their leads in another order" in caplog.text


@pytest.mark.parametrize("leads", [LEADS[:-1], (*LEADS[:-1], "V7")])
def test_ptbxl_missing_lead_is_refused(root, cache, leads):
    write_record(record_path(root, 4), samples(4)[:, : len(leads)], leads=leads)
    with pytest.raises(ValueError, match=r"record '4' has leads .*datamodule\.lead_names.*missing: \['V6'\]"):
        load(root, cache)


def test_ptbxl_lead_that_is_there_twice_is_refused(root, cache):
    edit_text(record_path(root, 4).with_suffix(".hea"), " V6\n", " V5\n")
    with pytest.raises(ValueError, match=r"record '4' "):
        load(root, cache)


def test_ptbxl_missing_lead_that_is_not_asked_for_does_not_matter(root, cache):
    write_record(record_path(root, 4), samples(4)[:, :11], leads=LEADS[:11])
    assert load(root, cache, lead_names=("I", "V1")).signal_mv.shape == (10, 2, 1000)


def test_ptbxl_other_units_are_refused(root, cache):
    write_record(record_path(root, 4), samples(4), units="uV", gain=1.0)
    with pytest.raises(ValueError, match=r"record '4' has units .*'uV'.*expected 'mV'"):
        load(root, cache)


def test_ptbxl_other_fs_is_refused(root, cache):
    write_record(record_path(root, 4), samples(4), fs=250)
    with pytest.raises(ValueError, match=r"record '4' has fs 250 Hz, expected 100.* \(datamodule\.fs\)"):
        load(root, cache)
    with pytest.raises(ValueError, match=r"datamodule\.fs is 250, expected one of \[100, 500\]"):
        load(root, cache, fs=250)


def test_ptbxl_other_length_is_refused(root, cache):
    write_record(record_path(root, 4), samples(4)[:900])
    with pytest.raises(ValueError, match=r"record '4' has 900 samples per lead, expected 1000 \(10 s at 100 Hz\)"):
        load(root, cache)


def test_ptbxl_other_signal_format_is_refused(root, cache):
    write_record(record_path(root, 4), samples(4).astype(np.int32), fmt="24")
    with pytest.raises(ValueError, match=r"record '4' .*cannot be decoded.*format '16'"):
        load(root, cache)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"missing": "ignore"}, r"datamodule\.missing is 'ignore', expected one of \('error', 'skip'\)"),
        ({"flat_leads": "drop"}, r"datamodule\.flat_leads is 'drop'"),
        ({"class_names": ("NORM", "XYZ")}, r"datamodule\.class_names has \['XYZ'\].*'STTC'"),
    ],
)
def test_ptbxl_unknown_option_names_the_choices(original, cache, option, message):
    with pytest.raises(ValueError, match=message):
        load(original, cache, **option)


def test_ptbxl_narrower_signal_format_is_refused(root, cache):
    write_record(record_path(root, 4), samples(4), fmt="212")
    with pytest.raises(ValueError, match=r"record '4' has signal formats \['212'\]"):
        load(root, cache)


def test_ptbxl_damaged_cache_says_what_to_do(original, cache):
    load(original, cache)
    (directory,) = (path for path in cache.iterdir() if path.is_dir())
    (directory / "signal_mv.npy").write_bytes(b"")
    with pytest.raises(RuntimeError, match=r"is damaged .*delete it"):
        load(original, cache)


def test_ptbxl_cache_records_which_leads_are_flat(root, cache):
    digital = samples(4)
    digital[:, [3, 5]] = 0
    write_record(record_path(root, 4), digital)
    load(root, cache)
    (meta,) = cache.glob("*/meta.json")
    assert json.loads(meta.read_text())["flat_leads"] == {"4": ["AVR", "AVF"]}


def test_ptbxl_scp_codes_that_are_no_json_are_read_too(tmp_path):
    write_tables(tmp_path, [table_row(1, 1, "{'NORM': 100.0, 'SR': 0.,}")])
    assert read_index(tmp_path, fs=100, class_names=CLASSES, folds=None).targets.tolist() == [[1, 0, 0, 0, 0]]


# The real data set: LIGHTHEART_DATA/ptbxl, folds 1-9.


@pytest.fixture(scope="module")
def real_windows(tmp_path_factory):
    root = Path(os.environ["LIGHTHEART_DATA"]) / "ptbxl"
    return load_ptbxl(root, cache_dir=tmp_path_factory.mktemp("cache"), folds=range(1, 10))


@pytest.mark.realdata
def test_ptbxl_real_counts_are_the_published_ones(real_windows):
    assert real_windows.targets.sum(axis=0).tolist() == [8551, 4919, 4714, 4402, 2387]
    assert real_windows.counts["listed"] == 19601
    assert real_windows.counts["unlabelled"] == 371
    ninth = real_windows.targets[real_windows.folds == 9]
    assert ninth.sum(axis=0).tolist() == [955, 540, 528, 495, 268]
    assert len(ninth) == 2183 - 37


@pytest.mark.realdata
def test_ptbxl_real_flat_lead_is_found(real_windows):
    flat = np.flatnonzero((real_windows.lead_variances_mv2 == 0).any(axis=1))
    assert real_windows.record_ids[flat].tolist() == ["12722"]
    assert real_windows.counts["flat_lead"] == 1


@pytest.mark.realdata
def test_ptbxl_real_signals_equal_wfdb(real_windows):
    root = Path(os.environ["LIGHTHEART_DATA"]) / "ptbxl" / "records100"
    for row in np.linspace(0, len(real_windows) - 1, 20).astype(int):
        record = int(real_windows.record_ids[row])
        expected, _ = wfdb.rdsamp(str(root / f"{record // 1000 * 1000:05d}" / f"{record:05d}_lr"))
        np.testing.assert_allclose(real_windows.signal_mv[row], expected.T, rtol=1e-6)


@pytest.mark.realdata
def test_ptbxl_real_patients_are_split_by_iteration_with_all_classes_in_proportion(real_windows):
    targets, patients = real_windows.targets, real_windows.subject_ids
    splits = split_iterative(patients, targets)
    sides = [set(patients[positions]) for positions in splits.values()]
    assert sum(map(len, sides)) == len(set(patients))
    for positions in splits.values():
        np.testing.assert_allclose(targets[positions].mean(axis=0), targets.mean(axis=0), rtol=0.06)
