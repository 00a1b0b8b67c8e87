import numpy as np
import pytest

from datamodules.beats import choose_beats, cut_beats

FS = 250.0
RPEAKS = np.array([100, 300, 520, 700, 930], dtype=np.int64)


def choose(rpeaks=RPEAKS, **options):
    n = len(rpeaks)
    defaults = {
        "confirmed": np.ones(n, dtype=bool),
        "labelled": np.ones(n, dtype=bool),
        "bad": np.zeros(1200, dtype=bool),
        "min_rr_s": 0.2,
        "max_rr_s": 3.0,
    }
    return choose_beats(rpeaks, FS, **{**defaults, **options})


def test_beats_have_the_r_peak_at_sample_100():
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((2, 1200))
    beats = cut_beats(signal, RPEAKS, np.array([1, 2, 3]))
    assert beats.shape == (3, 2, 300)
    np.testing.assert_allclose(beats[:, :, 100], signal[:, RPEAKS[1:4]].T, rtol=1e-6)


def test_beats_are_what_interpolation_beat_by_beat_gives():
    rng = np.random.default_rng(1)
    signal = rng.standard_normal((1, 1200))
    beats = cut_beats(signal, RPEAKS, np.array([1, 3]))
    for beat, row in zip(beats, (1, 3), strict=True):
        before, peak, after = RPEAKS[row - 1 : row + 2]
        times = np.concatenate(
            [
                np.linspace(peak - (peak - before) / 3, peak, 100, endpoint=False),
                np.linspace(peak, peak + 2 * (after - peak) / 3, 200, endpoint=False),
            ]
        )
        np.testing.assert_allclose(beat[0], np.interp(times, np.arange(1200), signal[0]), atol=1e-5)


def test_beats_refuse_the_first_and_the_last():
    with pytest.raises(ValueError, match="neither first nor last"):
        cut_beats(np.zeros((1, 1200)), RPEAKS, np.array([0]))
    with pytest.raises(ValueError, match="within 900 samples"):
        cut_beats(np.zeros((1, 900)), RPEAKS, np.array([1]))


def test_beats_at_the_edges_are_counted():
    chosen = choose()
    assert chosen.rows.tolist() == [1, 2, 3]
    assert chosen.counts == {
        "edge": 2,
        "unconfirmed": 0,
        "unlabelled": 0,
        "gap": 0,
        "too_close": 0,
        "bad_signal": 0,
        "used": 3,
    }


@pytest.mark.parametrize("n_beats", [0, 1, 2])
def test_beats_of_a_record_with_fewer_than_three_are_none(n_beats):
    chosen = choose(RPEAKS[:n_beats])
    assert chosen.counts["edge"] == n_beats
    assert cut_beats(np.zeros((1, 1200)), RPEAKS[:n_beats], chosen.rows).shape == (0, 1, 300)


@pytest.mark.parametrize(
    ("options", "reason", "left"),
    [
        ({"confirmed": np.array([1, 0, 1, 1, 1], dtype=bool)}, "unconfirmed", [2, 3]),
        ({"labelled": np.array([0, 0, 1, 1, 1], dtype=bool)}, "unlabelled", [2, 3]),
        ({"max_rr_s": 0.85}, "gap", []),
        ({"min_rr_s": 0.75}, "too_close", [1]),
    ],
)
def test_beats_are_rejected_and_counted(options, reason, left):
    chosen = choose(**options)
    assert chosen.rows.tolist() == left
    assert chosen.counts[reason] == 3 - len(left)
    assert sum(chosen.counts.values()) == len(RPEAKS)


@pytest.mark.parametrize(
    ("sample", "left"), [(300, [2, 3]), (430, [2, 3]), (440, [2, 3]), (450, [1, 3]), (900, [1, 2, 3])]
)
def test_beats_with_bad_samples_in_their_window_are_rejected(sample, left):
    # Windows: 233.3 to 446.7, 446.7 to 640, 640 to 853.3.
    bad = np.zeros(1200, dtype=bool)
    bad[sample] = True
    assert choose(bad=bad).rows.tolist() == left
