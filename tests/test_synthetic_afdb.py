import numpy as np
import pytest
import wfdb

from datamodules.rhythm_beats import load_beats
from datamodules.rhythm_db import read_rhythm_db
from datamodules.rhythm_signal import read_leads
from datamodules.synthetic_afdb import write_synthetic_afdb
from tests.rhythm_files import find_spikes

HOURS = 1 / 30


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_synthetic_afdb(tmp_path_factory.mktemp("synthetic"), n_records=4, hours=HOURS, workers=1)


def records_of(folder):
    return {record.record_id: record for record in read_rhythm_db(folder, beat_annotators=["qrs"])}


def test_synthetic_afdb_is_read_by_wfdb(written):
    record = wfdb.rdrecord(str(written / "90001"))
    assert (record.fs, record.sig_name, record.fmt) == (250, ["ECG1", "ECG2"], ["212", "212"])
    assert (record.adc_gain, record.units) == ([200.0, 200.0], ["mV", "mV"])
    assert record.p_signal.shape == (30_000, 2)
    assert set(wfdb.rdann(str(written / "90001"), "atr").aux_note) == {"(N", "(AFIB"}


def test_synthetic_afdb_has_records_without_signals(written):
    records = records_of(written)
    assert [record.n_samples > 0 for record in records.values()] == [True] * 4 + [False] * 2
    assert all("AFIB" in record.rhythms for record in records.values())
    assert all(len(record.beats_s) > 80 for record in records.values())


def test_synthetic_afdb_is_more_irregular_in_fibrillation(written):
    spread = {"N": [], "AFIB": []}
    for record in records_of(written).values():
        rhythms = record.rhythm_at(record.beats_s[1:])
        for name, found in spread.items():
            rr_s = np.diff(record.beats_s)[rhythms == name]
            found.extend([np.median(np.abs(np.diff(rr_s))) / rr_s.mean()] if len(rr_s) > 20 else [])
    assert np.median(spread["AFIB"]) > 1.5 * np.median(spread["N"])


def test_synthetic_afdb_beats_lie_near_r_peaks(written):
    record = records_of(written)["90001"]
    signal = read_leads(written / "90001", record_id="90001", fs=250, lead_names=["ECG1"]).signal_mv[0]
    at = np.rint(record.beats_s * 250).astype(int)
    around = np.abs(signal[at[:, None] + np.arange(-8, 9)]).max(axis=1)
    assert np.median(around) > 4 * np.median(np.abs(signal))


def test_synthetic_afdb_same_arguments_give_the_same_bytes(written, tmp_path):
    again = write_synthetic_afdb(tmp_path, n_records=4, hours=HOURS, workers=2)
    for path in sorted(written.iterdir()):
        assert (again / path.name).read_bytes() == path.read_bytes()
    other = write_synthetic_afdb(tmp_path, n_records=4, hours=HOURS, seed=1, workers=1)
    assert (other / "90001.dat").read_bytes() != (again / "90001.dat").read_bytes()


def test_synthetic_afdb_is_written_once(written):
    before = (written / "90001.dat").stat().st_mtime_ns
    assert write_synthetic_afdb(written.parent, n_records=4, hours=HOURS) == written
    assert (written / "90001.dat").stat().st_mtime_ns == before


def test_synthetic_afdb_loads_as_beats(written, tmp_path):
    windows = load_beats(
        None,
        simulate=lambda: written,
        cache_dir=tmp_path,
        fs=250,
        lead_names=["ECG1"],
        class_names=["other", "AFIB"],
        beat_annotators=["qrs"],
        detector=find_spikes,
        workers=1,
    )
    assert len(windows) > 200
    assert 0.1 < windows.targets[:, 1].mean() < 0.9
    assert windows.kind == "synthetic"


@pytest.mark.parametrize("options", [{"n_records": 0}, {"hours": 0}])
def test_synthetic_afdb_refuses_empty_data_sets(tmp_path, options):
    with pytest.raises(ValueError, match="expected at least 1 and at least a minute"):
        write_synthetic_afdb(tmp_path, **options)
