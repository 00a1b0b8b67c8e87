import numpy as np
import pytest
import wfdb

from datamodules.annotations import BEAT_CODES, RHYTHM_CODE, read_annotations, write_annotations

SAMPLES = np.array([5, 60, 60, 1200, 90_000, 90_100])
SYMBOLS = ["+", "N", "V", "+", "~", "N"]
NOTES = ["(AFIB", "", "", "(N", "", ""]


@pytest.fixture
def written(tmp_path):
    wfdb.wrann("r", "atr", SAMPLES, symbol=SYMBOLS, aux_note=NOTES, fs=250, write_dir=str(tmp_path))
    return tmp_path / "r.atr"


def test_annotations_are_what_wfdb_wrote(written):
    found = read_annotations(written)
    np.testing.assert_array_equal(found.samples, SAMPLES)
    assert found.beats().tolist() == [60, 60, 90_100]
    starts, names = found.rhythms()
    assert (starts.tolist(), names) == ([5, 1200], ["AFIB", "N"])


def test_annotations_state_their_clock(written, tmp_path):
    # wfdb writes the clock as a leading note where it is given one.
    assert read_annotations(written).fs == 250
    write_annotations(tmp_path / "plain.atr", np.array([3]), np.array([1]))
    assert read_annotations(tmp_path / "plain.atr").fs is None


def test_annotations_can_be_written_for_wfdb(tmp_path):
    codes = np.array([RHYTHM_CODE, 1, 1, RHYTHM_CODE, 14, 1])
    notes = {row: note for row, note in enumerate(NOTES) if note}
    write_annotations(tmp_path / "r.atr", SAMPLES, codes, notes)
    (tmp_path / "r.hea").write_text("r 0 250 0\n")
    found = wfdb.rdann(str(tmp_path / "r"), "atr")
    assert found.sample.tolist() == SAMPLES.tolist()
    assert [note.rstrip("\0") for note in found.aux_note] == NOTES
    assert found.symbol == ["+", "N", "N", "+", "~", "N"]
    again = read_annotations(tmp_path / "r.atr")
    assert again.samples.tolist() == SAMPLES.tolist()
    assert again.notes == notes


def test_annotations_codes_of_beats_are_wfdbs():
    from wfdb.io.annotation import ann_label_table

    symbols = {row.label_store: row.symbol for row in ann_label_table.itertuples()}
    assert "".join(symbols[code] for code in BEAT_CODES) == "NLRaVFJASEj/QB?enfr"


@pytest.mark.parametrize("keep", [7, -2])
def test_annotations_that_are_truncated_are_refused(written, keep):
    written.write_bytes(written.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"r\.atr .*truncated"):
        read_annotations(written)


def test_annotations_of_an_empty_record_are_empty(tmp_path):
    write_annotations(tmp_path / "r.qrs", np.array([], dtype=np.int64), np.array([], dtype=np.int64))
    assert len(read_annotations(tmp_path / "r.qrs").beats()) == 0


def test_annotations_out_of_order_are_written_and_read(tmp_path):
    samples = np.array([300, 100, 100, 90_000, 20, 500])
    write_annotations(tmp_path / "r.qrs", samples, np.ones(6, dtype=np.int64))
    assert read_annotations(tmp_path / "r.qrs").samples.tolist() == samples.tolist()
