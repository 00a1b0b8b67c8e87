import numpy as np
import pytest

from datamodules.stretches import cut_evenly, find_stretches, record_spans


def stretches_of(times_s, ids=None, n_frames=30, fs=10.0):
    times = np.asarray(times_s, dtype=np.float64)
    ids = np.array(["v"] * len(times) if ids is None else ids)
    return find_stretches(ids, np.char.add("p", ids), times, 60 + np.arange(len(times)) * 1.0, n_frames=n_frames, fs=fs)


def waves_of(times_s, n_frames=30, fs=10.0):
    """Clips of one long wave: what they join to is known."""
    return np.rint(np.asarray(times_s)[:, None] * fs) + np.arange(n_frames)


def test_clips_that_follow_one_another_are_one_wave():
    times = [3.0, 0.0, 6.0]
    (stretch,) = stretches_of(times)
    np.testing.assert_array_equal(stretch.join(waves_of(times)), np.arange(90))
    assert (stretch.record_id, stretch.subject_id, stretch.start_s) == ("v", "pv", 0.0)
    np.testing.assert_array_equal(stretch.hr_bpm, np.repeat([61.0, 60.0, 62.0], 30))


def test_a_gap_ends_a_stretch():
    times = [0.0, 3.0, 9.0]
    first, second = stretches_of(times)
    np.testing.assert_array_equal(first.join(waves_of(times)), np.arange(60))
    np.testing.assert_array_equal(second.join(waves_of(times)), np.arange(90, 120))
    assert second.start_s == 9.0


def test_clips_that_overlap_count_each_frame_once():
    times = [0.0, 1.5, 3.0]
    (stretch,) = stretches_of(times)
    np.testing.assert_array_equal(stretch.join(waves_of(times)), np.arange(60))
    assert len(stretch.hr_bpm) == 60


def test_times_that_drift_a_little_leave_no_gap():
    (stretch,) = stretches_of([0.0, 3.004, 6.009])
    assert [first for _, first in stretch.parts] == [0, 0, 0]


def test_videos_stay_apart_and_are_sorted():
    stretches = stretches_of([0.0, 0.0, 3.0, 9.0], ["b", "a", "b", "b"])
    assert [stretch.record_id for stretch in stretches] == ["a", "b", "b"]
    assert record_spans(stretches) == {"a": [0], "b": [1, 2]}


@pytest.mark.parametrize(
    ("n", "expected"),
    [(25, [(0, 25)]), (100, [(0, 100)]), (250, [(0, 100), (100, 200)]), (200, [(0, 100), (100, 200)])],
)
def test_windows_are_whole_or_all_there_is(n, expected):
    assert [(cut.start, cut.stop) for cut in cut_evenly(n, 100)] == expected
