import numpy as np
import pytest

from datamodules.rhythm_signal import LeadNotFoundError, find_flat, find_runs, read_leads
from tests.rhythm_files import FS, ecg, regular_beats, write_signals


@pytest.fixture
def signal():
    return ecg(20 * FS, regular_beats(20))


def read(root, leads=("ECG1",), fs=FS, channels=None):
    return read_leads(root / "r", record_id="r", fs=fs, lead_names=leads, channels=channels)


def test_rhythm_signal_is_in_mv_and_by_name(tmp_path, signal):
    write_signals(tmp_path, "r", signal)
    found = read(tmp_path, ("ECG2", "ECG1"))
    np.testing.assert_allclose(found.signal_mv, signal.T[::-1], atol=0.003)
    assert not found.bad.any()
    assert (found.n_missing, found.n_saturated, found.n_flat) == (0, 0, 0)


def test_rhythm_signal_missing_samples_are_bridged_and_marked(tmp_path, signal):
    signal[1000:1100, 0] = np.nan
    write_signals(tmp_path, "r", signal)
    found = read(tmp_path)
    assert np.flatnonzero(found.bad).tolist() == list(range(1000, 1100))
    assert np.isfinite(found.signal_mv).all()
    assert np.abs(np.diff(found.signal_mv[0, 999:1101], n=2)).max() < 1e-4
    assert found.n_missing == 100


def test_rhythm_signal_of_missing_samples_only_is_bad_all_over(tmp_path, signal):
    # A whole lead without a value, beside a good one.
    signal[:, 0] = np.nan
    signal[0, 0] = 0.5
    write_signals(tmp_path, "r", signal)
    found = read(tmp_path)
    assert found.bad[1:].all()
    assert np.isfinite(found.signal_mv).all()


def test_rhythm_signal_saturated_stretches_are_marked(tmp_path, signal):
    signal[2000:2040, 0] = 2047 / 200
    signal[2500, 0] = 2047 / 200  # a peak that just touches the end
    write_signals(tmp_path, "r", signal)
    found = read(tmp_path)
    assert np.flatnonzero(found.bad).tolist() == list(range(2000, 2040))
    assert found.n_saturated == 40


def test_rhythm_signal_flat_stretches_are_marked(tmp_path, signal):
    signal[3000:3200, 0] = 0.11
    signal[4000:4060, 0] = 0.11  # shorter than half a second
    write_signals(tmp_path, "r", signal)
    found = read(tmp_path)
    assert np.flatnonzero(found.bad).tolist() == list(range(3000, 3200))
    assert found.n_flat == 200


def test_rhythm_signal_lead_missing_or_named_otherwise_is_refused(tmp_path, signal):
    write_signals(tmp_path, "r", signal, leads=("MLII", "V1"))
    with pytest.raises(LeadNotFoundError, match=r"record 'r' has leads \['MLII', 'V1'\], expected each of \['ECG1'\]"):
        read(tmp_path)


def test_rhythm_signal_leads_of_one_name_are_told_apart_by_position(tmp_path, signal):
    write_signals(tmp_path, "r", signal)
    header = (tmp_path / "r.hea").read_text()
    (tmp_path / "r.hea").write_text(header.replace("ECG1", "ECG").replace("ECG2", "ECG"))
    with pytest.raises(LeadNotFoundError, match=r"not unique: \['ECG'\].*datamodule\.source\.channels"):
        read(tmp_path, ["ECG"])
    for lead in (0, 1):
        np.testing.assert_allclose(read(tmp_path, ["ECG"], channels=[lead]).signal_mv[0], signal[:, lead], atol=0.003)


@pytest.mark.parametrize(("leads", "channels"), [(["ECG2"], [0]), (["ECG1"], [2]), (["ECG1", "ECG2"], [0])])
def test_rhythm_signal_other_leads_at_the_positions_are_refused(tmp_path, signal, leads, channels):
    write_signals(tmp_path, "r", signal)
    with pytest.raises(LeadNotFoundError, match=r"has leads \['ECG1', 'ECG2'\], expected .* at the positions"):
        read(tmp_path, leads, channels=channels)


def test_rhythm_signal_other_frequency_or_units_are_refused(tmp_path, signal):
    write_signals(tmp_path, "r", signal)
    with pytest.raises(ValueError, match=r"fs 250 Hz, expected 360 Hz \(datamodule\.fs\)"):
        read(tmp_path, fs=360)
    write_signals(tmp_path, "r", signal, units="uV")
    with pytest.raises(ValueError, match="units 'uV', expected 'mV'"):
        read(tmp_path)


def test_rhythm_signal_damaged_files_are_refused(tmp_path, signal):
    write_signals(tmp_path, "r", signal)
    data = bytearray((tmp_path / "r.dat").read_bytes())
    data[300] ^= 1
    (tmp_path / "r.dat").write_bytes(data)
    with pytest.raises(ValueError, match="checksum of the samples"):
        read(tmp_path)
    (tmp_path / "r.dat").write_bytes(data[:3000])
    with pytest.raises(ValueError, match="record 'r'"):
        read(tmp_path)
    (tmp_path / "r.dat").unlink()
    with pytest.raises(FileNotFoundError):
        read(tmp_path)


@pytest.mark.parametrize(
    ("same", "expected"),
    [("1101110", "0001110"), ("1110111", "1110111"), ("1100011", "0000000"), ("", ""), ("111", "111")],
)
def test_rhythm_signal_runs_are_kept_from_a_length_on(same, expected):
    mask = np.array([letter == "1" for letter in same], dtype=bool)
    assert "".join("01"[kept] for kept in find_runs(mask, 3).tolist()) == expected


@pytest.mark.parametrize("at_least", [2, 3, 9, 16, 125])
@pytest.mark.parametrize("n", [1, 2, 60, 124, 125, 126, 3000])
def test_rhythm_signal_flat_runs_are_found_as_sample_by_sample(n, at_least):
    rng = np.random.default_rng([n, at_least])
    digital = rng.integers(0, 3, n)
    for _ in range(8):
        first = rng.integers(0, n)
        digital[first : first + rng.integers(1, 300)] = rng.integers(0, 3)
    edges = np.flatnonzero(np.diff(digital, prepend=-1, append=-1))
    lengths = np.diff(edges)
    np.testing.assert_array_equal(find_flat(digital, at_least), np.repeat(lengths >= at_least, lengths))
