from dataclasses import replace

import numpy as np
import pytest

from tests.tracking_examples import example_beats
from tracking.episodes import (
    Episodes,
    find_burdens,
    find_episodes,
    make_timeline,
    pool_decisions,
    rhythm_ratios,
)
from tracking.predictions import make_predictions
from tracking.statistics import bootstrap_metrics, paired_bootstrap, point_metrics


def rhythm(decided, annotated, times_s=None, records=None, level="window", thresholds=(0.5, 0.5)):
    """Predictions of one window every 10 s, told by strings such as "..AA"."""
    called, truth = (np.array([letter == "A" for letter in text], float) for text in (decided, annotated))
    records = np.zeros(len(called), int) if records is None else np.asarray(records)
    last = 0.1 + 0.8 * called
    return make_predictions(
        *(records, records, np.stack([1 - truth, truth], axis=1), np.stack([1 - last, last], axis=1)),
        *(("other", "AFIB"), thresholds, True, level, np.arange(len(called)) * 10.0 if times_s is None else times_s),
    )


def ratio(predictions, name):
    _, above, below = rhythm_ratios(predictions, np.zeros(len(predictions.record_ids), int))[name]
    return above.sum() / below.sum()


@pytest.mark.parametrize("n_pooled", [1, 3, 5, 31])
def test_pooling_is_the_majority_of_each_window(n_pooled):
    rng = np.random.default_rng(0)
    positive, records = rng.random(200) < 0.5, np.repeat([0, 1, 2], [50, 149, 1])
    for index, pooled in enumerate(pool_decisions(positive, records, n_pooled)):
        near = np.abs(np.arange(200) - index) <= n_pooled // 2
        share = positive[near & (records == records[index])].mean()
        assert pooled == (positive[index] if share == 0.5 else share > 0.5)


@pytest.mark.parametrize("n_pooled", [0, 2])
def test_pooling_refuses_windows_without_a_centre(n_pooled):
    with pytest.raises(ValueError, match=f"n_pooled is {n_pooled}, expected an odd number"):
        pool_decisions(np.ones(3, bool), np.zeros(3, int), n_pooled)


def test_timeline_sorts_by_record_and_time():
    predictions = rhythm("A.A.", "AA..", times_s=[10, 5, 0, 0], records=["b", "a", "b", "a"])
    timeline = make_timeline(predictions)
    assert timeline.order.tolist() == [3, 1, 2, 0]
    assert timeline.records.tolist() == [0, 0, 1, 1]
    assert timeline.start_s.tolist() == [0, 5, 0, 10]
    # The last row of a record lasts as long as is usual there.
    assert timeline.end_s.tolist() == [5, 10, 10, 20]
    assert timeline.decided.tolist() == [False, False, True, True]
    assert timeline.annotated.tolist() == [False, True, False, True]


def test_timeline_needs_times():
    with pytest.raises(ValueError, match="no times_s"):
        make_timeline(replace(example_beats(30, n_subjects=30), times_s=None))


def test_timeline_pools_beats_but_not_windows():
    lonely = "." * 40 + "A" + "." * 40
    assert not make_timeline(rhythm(lonely, lonely, level="beat")).decided.any()
    assert make_timeline(rhythm(lonely, lonely, level="window")).decided.sum() == 1
    assert make_timeline(rhythm(lonely, lonely, level="beat"), n_pooled=1).decided.sum() == 1


def test_timeline_does_not_count_gaps_as_rhythm():
    timeline = make_timeline(rhythm("AAAA", "AAAA", times_s=[0, 10, 20, 1000]))
    assert timeline.end_s.tolist() == [10, 20, 50, 1010]
    episodes = find_episodes(timeline.decided, timeline)
    assert (episodes.start_s.tolist(), episodes.end_s.tolist()) == ([0, 1000], [50, 1010])


def test_episodes_end_with_rhythm_and_record():
    predictions = rhythm("AA.AAAAA", "........", records=[0, 0, 0, 0, 0, 1, 1, 1])
    timeline = make_timeline(predictions)
    episodes = find_episodes(timeline.decided, timeline)
    assert episodes.records.tolist() == [0, 0, 1]
    assert episodes.start_s.tolist() == [0, 30, 50]
    assert episodes.end_s.tolist() == [20, 50, 80]
    assert episodes.at_least(30).records.tolist() == [1]


def test_episodes_overlap_within_their_record_only():
    one = Episodes(np.array([0, 0, 1, 2]), np.array([0.0, 50, 0, 5]), np.array([10.0, 60, 10, 9]))
    other = Episodes(np.array([0, 0, 2]), np.array([10.0, 40, 0]), np.array([20.0, 70, 5.5]))
    # Touching is no overlap.
    assert one.overlap(other).tolist() == [False, True, False, True]
    assert other.overlap(one).tolist() == [False, True, True]
    nothing = Episodes(np.array([], int), np.array([]), np.array([]))
    assert one.overlap(nothing).tolist() == [False] * 4
    assert nothing.overlap(one).tolist() == []


def test_burden_is_a_share_of_time():
    timeline = make_timeline(rhythm("AA...", "A....", times_s=[0, 10, 30, 40, 50]))
    assert find_burdens(timeline.decided, timeline) == pytest.approx([0.5])
    assert find_burdens(timeline.annotated, timeline) == pytest.approx([1 / 6])


def test_burden_error_is_the_mean_over_records():
    predictions = rhythm("AA......", "A.....AA", records=[0] * 4 + [1] * 4)
    assert point_metrics(predictions)["af_burden_mae_record"] == pytest.approx((0.25 + 0.5) / 2)


def test_episode_metrics_count_from_thirty_seconds_on():
    #           found, too short to matter, missed; then a false one
    annotated = "AAAA...AA...AAA......"
    decided = "..AAAA......AA...AAA."
    predictions = rhythm(decided, annotated)
    assert ratio(predictions, "sensitivity_AFIB_episode") == 1 / 2
    assert ratio(predictions, "precision_AFIB_episode") == 1 / 2


def test_episode_metrics_reach_the_table_with_intervals():
    beats = example_beats(2400, n_subjects=20)
    noisy = example_beats(2400, n_subjects=20, noise_seed=2)
    names = ("test/af_burden_mae_record", "test/sensitivity_AFIB_episode", "test/precision_AFIB_episode")
    estimates, differences = bootstrap_metrics(beats, 100), paired_bootstrap(beats, noisy, 100)
    for name in names:
        assert estimates[name].low <= estimates[name].value <= estimates[name].high
        expected = estimates[name].value - bootstrap_metrics(noisy, 10)[name].value
        assert differences[name].value == pytest.approx(expected)
    assert estimates[names[0]].low < estimates[names[0]].high


def test_episode_metrics_are_about_atrial_fibrillation_in_time():
    beats = example_beats(300)
    subjects = np.zeros(300, int)
    assert rhythm_ratios(beats, subjects)
    assert rhythm_ratios(replace(beats, class_names=("other", "PVC")), subjects) == {}
    assert rhythm_ratios(replace(beats, exclusive=False), subjects) == {}
    assert rhythm_ratios(replace(beats, level="record"), subjects) == {}


def test_episode_metrics_without_episodes_are_undefined():
    metrics = point_metrics(rhythm(".A....", "A....."))
    assert np.isnan(metrics["sensitivity_AFIB_episode"])
    assert np.isnan(metrics["precision_AFIB_episode"])
    assert metrics["af_burden_mae_record"] == 0
