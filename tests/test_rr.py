import numpy as np
import pytest

from datamodules.rr import cut_rr_windows, rr_around


def cut(rr_s, positive, *, length=4, stride=4, labelled=None, max_rr_s=3.0):
    beats_s = np.concatenate([[1.0], 1.0 + np.cumsum(rr_s)])
    # One flag per beat: the first beat ends no interval.
    flags = np.concatenate([[False], positive]).astype(bool)
    known = np.ones(len(beats_s), dtype=bool) if labelled is None else labelled
    return cut_rr_windows(beats_s, flags, known, length=length, stride=stride, max_rr_s=max_rr_s)


def test_rr_windows_hold_the_intervals_in_order():
    rr_s = np.arange(1, 10) / 10
    windows = cut(rr_s, np.zeros(9))
    np.testing.assert_allclose(windows.rr_s, [rr_s[:4], rr_s[4:8]], rtol=1e-6)
    np.testing.assert_allclose(windows.times_s, [1.0, 2.0])
    assert windows.counts == {"intervals": 9, "gap": 0, "unlabelled": 0, "left_over": 1}


def test_rr_windows_are_labelled_by_majority_and_mixed_ones_kept():
    windows = cut(np.full(12, 0.8), [1, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 1])
    assert windows.positive.tolist() == [True, False, False]


def test_rr_windows_overlap_for_training_only():
    windows = cut(np.full(12, 0.8), np.zeros(12), stride=2)
    assert windows.overlapping.tolist() == [False, True, False, True, False]
    assert not cut(np.full(12, 0.8), np.zeros(12)).overlapping.any()


def test_rr_windows_do_not_reach_across_a_gap():
    rr_s = np.full(13, 0.8)
    rr_s[5] = 7.0
    windows = cut(rr_s, np.zeros(13))
    assert windows.rr_s.max() < 1
    assert len(windows.rr_s) == 2
    assert windows.counts == {"intervals": 13, "gap": 1, "unlabelled": 0, "left_over": 4}


def test_rr_windows_leave_out_beats_before_the_first_label():
    labelled = np.ones(11, dtype=bool)
    labelled[:3] = False
    windows = cut(np.full(10, 0.8), np.zeros(10), labelled=labelled)
    assert windows.counts["unlabelled"] == 2
    assert len(windows.rr_s) == 2


@pytest.mark.parametrize("n_beats", [0, 1, 2])
def test_rr_windows_of_a_short_record_are_none(n_beats):
    flags = np.zeros(n_beats, dtype=bool)
    windows = cut_rr_windows(np.arange(n_beats, dtype=float), flags, ~flags, length=4, stride=4, max_rr_s=3.0)
    assert windows.rr_s.shape == (0, 4)


@pytest.mark.parametrize("stride", [0, 3, 5])
def test_rr_windows_refuse_a_stride_that_does_not_divide_the_length(stride):
    with pytest.raises(ValueError, match=rf"stride is {stride}, expected a divisor of the length 4"):
        cut(np.full(12, 0.8), np.zeros(12), stride=stride)


def test_rr_around_centres_intervals_and_ends_with_the_record():
    record_ids = np.array(["a"] * 4 + ["b"] * 2)
    times_s = np.array([0.0, 1.0, 3.0, 6.0, 0.0, 0.5])
    nan = np.nan
    expected = [
        [nan, nan, 1, 2],
        [nan, 1, 2, 3],
        [1, 2, 3, nan],
        [2, 3, nan, nan],
        [nan, nan, 0.5, nan],
        [nan, 0.5, nan, nan],
    ]
    assert np.array_equal(rr_around(record_ids, times_s, 4), np.array(expected, dtype=np.float32), equal_nan=True)


def test_rr_around_takes_more_intervals_than_there_are():
    around = rr_around(np.array(["a", "a"]), np.array([0.0, 1.0]), 25)
    assert around.shape == (2, 25)
    assert np.isfinite(around).sum(axis=1).tolist() == [1, 1]
