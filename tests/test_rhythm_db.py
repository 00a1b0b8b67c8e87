import shutil

import numpy as np
import pytest

from datamodules.rhythm_db import list_records, read_rhythm_db
from tests.rhythm_files import (
    FS,
    write_beats,
    write_header_without_signals,
    write_record,
    write_rhythms,
)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("afdb")
    write_record(folder, "04015", seed=1)
    write_record(folder, "04043", seed=2)
    return folder


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / "afdb")


def read(root, **options):
    return {record.record_id: record for record in read_rhythm_db(root, **{"beat_annotators": ["qrs"], **options})}


def test_rhythm_db_gives_beats_and_rhythms_in_seconds(root):
    beats = write_record(root, "05091", seed=3)
    record = read(root)["05091"]
    np.testing.assert_allclose(record.beats_s, beats / FS)
    np.testing.assert_allclose(record.rhythm_starts_s, [0.04, 15.0])
    assert record.rhythms == ("N", "AFIB")
    assert (record.fs, record.n_samples, record.lead_names) == (250.0, 30 * FS, ("ECG1", "ECG2"))
    assert record.rhythm_at(np.array([0.01, 0.04, 14.99, 15.0, 99.0])).tolist() == ["", "N", "N", "AFIB", "AFIB"]


def test_rhythm_db_reads_any_sampling_frequency(tmp_path):
    beats = write_record(tmp_path, "100", fs=360)
    record = read(tmp_path)["100"]
    np.testing.assert_allclose(record.beats_s, beats / 360)
    np.testing.assert_allclose(record.rhythm_starts_s, [0.04, 15.0], atol=1 / 360)


def test_rhythm_db_keeps_records_without_signals_for_their_annotations(root):
    write_header_without_signals(root, "00735")
    write_beats(root, "00735", [100, 300, 500])
    write_rhythms(root, "00735", [(10, "N")])
    record = read(root)["00735"]
    assert record.n_samples == 0
    np.testing.assert_allclose(record.beats_s, [0.4, 1.2, 2.0])


def test_rhythm_db_takes_the_first_annotator_that_a_record_has(root):
    write_beats(root, "04015", [100, 200, 300, 400], extension="qrsc")
    records = read(root, beat_annotators=["qrsc", "qrs"])
    assert len(records["04015"].beats_s) == 4
    assert len(records["04043"].beats_s) > 4


def test_rhythm_db_takes_records_from_the_list(root):
    (root / "RECORDS").write_text("04043\n")
    assert list(read(root)) == ["04043"]
    (root / "RECORDS").write_text("04043\n04043\n")
    with pytest.raises(ValueError, match=r"lists \['04043'\] twice"):
        list_records(root)


def test_rhythm_db_maps_records_to_subjects(root):
    assert {name: record.subject_id for name, record in read(root, subjects={"04043": "04015"}).items()} == {
        "04015": "04015",
        "04043": "04015",
    }


def test_rhythm_db_refuses_one_subject_under_two_ids(root):
    with pytest.raises(ValueError, match="one person under two ids"):
        read(root, subjects={"04043": "04015", "04015": "someone"})


def test_rhythm_db_leaves_out_beats_beyond_the_end(root, caplog):
    write_beats(root, "04015", [100, 300, 30 * FS - 1, 30 * FS, 30 * FS + 50])
    record = read(root)["04015"]
    assert len(record.beats_s) == 3
    assert record.counts["beyond_end"] == 2
    assert "record '04015': 2 beats lie beyond the end" in caplog.text


def test_rhythm_db_takes_duplicate_and_unordered_beats_once_in_order(root):
    # wfdb does not write such files: 300, then back to 100 by a negative skip, then 100 again, then 500.
    words = [1 << 10 | 300, 59 << 10, 0xFFFF, 0x10000 - 200, 1 << 10, 1 << 10, 1 << 10 | 400, 0]
    (root / "04015.qrs").write_bytes(np.array(words, dtype="<u2").tobytes())
    record = read(root)["04015"]
    np.testing.assert_allclose(record.beats_s * FS, [100, 300, 500])
    assert record.counts == {"annotated": 4, "duplicate": 1, "unordered": 1, "beyond_end": 0}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("04015.hea", r"record '04015' has no header 04015\.hea"),
        ("04015.qrs", r"record '04015' has no beat annotations \.qrsc or \.qrs"),
        ("04015.atr", r"record '04015' has no rhythm annotations \.atr"),
    ],
)
def test_rhythm_db_missing_files_are_an_error_or_skipped(root, caplog, file, message):
    (root / "RECORDS").write_text("04015\n04043\n")
    (root / file).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        read(root, beat_annotators=["qrsc", "qrs"])
    assert list(read(root, missing="skip")) == ["04043"]
    assert "record '04015' is skipped" in caplog.text


def test_rhythm_db_says_how_to_get_records(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"datamodule\.download=true"):
        read(tmp_path)


def test_rhythm_db_refuses_a_damaged_header(root):
    (root / "04015.hea").write_text("what is this\n")
    with pytest.raises(ValueError, match="record '04015'"):
        read(root)
