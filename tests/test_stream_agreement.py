import numpy as np

from bench.stream_agreement import Agreement, count_agreement

TIMES_S = np.array([1.0, 2.0, 3.0, 4.0])
CLASSES = np.array([0, 1, 1, 0])


def test_a_beat_pairs_with_the_nearest_one_within_50_ms():
    stream_s, found = np.array([0.2, 1.04, 2.06, 2.97, 3.02]), np.array([1, 0, 1, 0, 1])
    assert count_agreement(TIMES_S, CLASSES, stream_s, found) == Agreement(n_beats=4, n_found=2, n_equal=2)


def test_other_classes_are_counted_as_such():
    assert count_agreement(TIMES_S, CLASSES, TIMES_S, 1 - CLASSES) == Agreement(n_beats=4, n_found=4, n_equal=0)


def test_one_decision_and_none():
    assert count_agreement(TIMES_S, CLASSES, TIMES_S[2:3], CLASSES[2:3]) == Agreement(4, 1, 1)
    assert count_agreement(TIMES_S, CLASSES, TIMES_S[:0], CLASSES[:0]) == Agreement(4, 0, 0)
