import numpy as np
import pytest

from datamodules.rpeaks import correct_beats, detect_pan_tompkins, detect_sleepecg, locate_rpeaks
from tests.rhythm_files import FS, ecg, regular_beats

NONE = np.array([], dtype=np.int64)


def array(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@pytest.fixture(scope="module")
def record():
    beats = regular_beats(60)
    return ecg(60 * FS, beats)[:, 0], beats


@pytest.mark.parametrize("detect", [detect_pan_tompkins, detect_sleepecg])
def test_rpeaks_detections_lead_to_the_true_ones(record, detect):
    signal, beats = record
    found = locate_rpeaks(signal, detect(signal, FS), FS)
    near = np.abs(found[:, None] - beats).min(axis=0)
    assert (near <= 1).mean() > 0.97


@pytest.mark.parametrize("sign", [1, -1])
def test_rpeaks_point_to_one_side_in_the_whole_record(record, sign):
    signal, beats = record
    trailing = beats + round(0.06 * FS)
    found = locate_rpeaks(sign * signal, trailing, FS)
    assert np.abs(found - beats).max() <= 1


@pytest.mark.parametrize("detect", [detect_pan_tompkins, detect_sleepecg])
def test_rpeaks_of_a_flat_lead_are_none(detect):
    assert len(detect(np.zeros(20 * FS), FS)) == 0


def test_rpeaks_of_no_detection_are_none():
    assert len(locate_rpeaks(np.zeros(100), NONE, FS)) == 0


def test_rpeaks_correct_beats_near_them():
    corrected = correct_beats(array(100, 300, 500), array(104, 300, 700), fs=250)
    assert corrected.rpeaks.tolist() == [104, 300, 500]
    assert corrected.confirmed.tolist() == [True, True, False]
    assert (corrected.n_moved, corrected.n_repeated) == (1, 0)


def test_rpeaks_confirm_one_beat_each():
    corrected = correct_beats(array(100, 110, 300), array(108, 300), fs=250)
    assert corrected.rpeaks.tolist() == [108, 300]
    assert corrected.n_repeated == 1


def test_rpeaks_matching_is_in_seconds():
    # 0.15 s are 37 samples at 250 Hz and 54 at 360 Hz.
    assert not correct_beats(array(100), array(150), fs=250).confirmed[0]
    assert correct_beats(array(100), array(150), fs=360).confirmed[0]


def test_rpeaks_unconfirmed_beat_on_a_corrected_one_is_left_out():
    corrected = correct_beats(array(100, 136), array(98, 172), fs=250)
    assert corrected.rpeaks.tolist() == [98, 172]
    corrected = correct_beats(array(100, 120), array(120 + 30, 400), fs=250, match_s=0.12)
    assert corrected.rpeaks.tolist() == [100, 150]
    assert np.all(np.diff(corrected.rpeaks) > 0)


@pytest.mark.parametrize(("beats", "rpeaks"), [(NONE, array(5)), (array(5, 9), NONE), (NONE, NONE)])
def test_rpeaks_correction_without_beats_or_detections_confirms_none(beats, rpeaks):
    corrected = correct_beats(beats, rpeaks, fs=250)
    assert corrected.rpeaks.tolist() == beats.tolist()
    assert not corrected.confirmed.any()


def test_rpeaks_correction_with_one_detection():
    assert correct_beats(array(100, 400), array(101), fs=250).confirmed.tolist() == [True, False]
