from dataclasses import fields, replace

import numpy as np
import pytest

from composition.folds import pool_predictions
from tests.tracking_examples import example_predictions, example_rates
from tracking.answers import load_answers, save_answers
from tracking.figures import draw_answers
from tracking.hr_plots import limits_of_agreement
from tracking.pairing import align, count_flips


def shuffled(rates, seed=0):
    order = np.random.default_rng(seed).permutation(len(rates.record_ids))
    names = ("record_ids", "subject_ids", "times_s", "true_bpm", "bpm", "snr_db")
    return replace(rates, **{name: getattr(rates, name)[order] for name in names})


def test_heart_rates_survive_the_file(tmp_path):
    rates = example_rates()
    path = save_answers(tmp_path / "predictions.npz", rates)
    back = load_answers(path)
    for item in fields(rates):
        np.testing.assert_array_equal(getattr(back, item.name), getattr(rates, item.name))
    with np.load(path, allow_pickle=False) as arrays:
        assert all(not arrays[name].dtype.hasobject for name in arrays.files)


def test_answers_of_classes_are_read_as_before(tmp_path):
    predictions = example_predictions(20)
    back = load_answers(save_answers(tmp_path / "predictions.npz", predictions))
    np.testing.assert_array_equal(back.probabilities, predictions.probabilities)


def test_heart_rates_refuse_damaged_files(tmp_path):
    path = save_answers(tmp_path / "predictions.npz", example_rates())
    with np.load(path) as arrays:
        np.savez(tmp_path / "less.npz", **{name: arrays[name] for name in arrays.files if name != "bpm"})
    with pytest.raises(ValueError, match=r"less\.npz: not a readable predictions file.*bpm"):
        load_answers(tmp_path / "less.npz")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="not a readable predictions file"):
        load_answers(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bpm": np.zeros(36)}, "video 'v00': bpm is 0.0, expected beats a minute above 0"),
        ({"bpm": np.full(36, np.nan)}, "video 'v00': bpm is nan"),
        ({"video_bpm": np.full(12, -3.0)}, "video 'v00': video_bpm is -3.0"),
        ({"true_bpm": np.full(35, 60.0)}, r"true_bpm has shape \(35,\), expected \(36,\)"),
        ({"video_true_bpm": np.full(11, 60.0)}, r"video_true_bpm has shape \(11,\), expected \(12,\)"),
        ({"times_s": np.zeros(36)}, "video 'v00': two windows start at 0 s"),
        ({"times_s": np.full(36, np.inf)}, "video 'v00': time inf s"),
        ({"subject_ids": np.arange(36).astype(str)}, "video 'v00' belongs to subjects 0 and 1"),
        ({"video_ids": np.arange(12).astype(str)}, "must be the sorted distinct record ids"),
    ],
)
def test_heart_rates_refuse_what_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(example_rates(), **changes)


def test_heart_rates_are_paired_by_video_and_time():
    a, b = example_rates(), example_rates(noise_seed=2)
    np.testing.assert_array_equal(align(a, shuffled(b)).bpm, b.bpm)
    assert count_flips(a, b) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"true_bpm": np.full(36, 61.5)}, "36 windows have other reference rates"),
        ({"times_s": np.tile([0.0, 10.0, 21.0], 12)}, "start at other times"),
        ({"subject_ids": np.repeat(np.arange(12), 3).astype(str)}, "show other subjects"),
    ],
)
def test_heart_rates_that_differ_are_not_paired(changes, message):
    with pytest.raises(ValueError, match=message):
        align(example_rates(), replace(example_rates(), **changes))


def test_heart_rates_of_other_videos_or_tasks_are_not_paired():
    with pytest.raises(ValueError, match="predictions of different records"):
        align(example_rates(), example_rates(n_subjects=11))
    with pytest.raises(ValueError, match="cannot pair answers of heart_rate with answers of classification"):
        align(example_rates(), example_predictions(36))


def test_heart_rates_of_folds_are_joined():
    whole = example_rates()
    folds = [cut_videos(whole, slice(start, start + 4)) for start in (8, 0, 4)]
    pooled = pool_predictions(folds)
    np.testing.assert_array_equal(pooled.video_bpm, whole.video_bpm)
    np.testing.assert_array_equal(align(whole, pooled).bpm, whole.bpm)
    with pytest.raises(ValueError, match="two windows start at"):
        pool_predictions([whole, folds[0]])


def cut_videos(rates, videos):
    windows = np.isin(rates.record_ids, rates.video_ids[videos])
    return replace(
        rates,
        **{
            item.name: getattr(rates, item.name)[videos if item.name.startswith("video_") else windows]
            for item in fields(rates)
        },
    )


def test_limits_of_agreement_hold_95_per_cent_of_normal_differences():
    rng = np.random.default_rng(0)
    truth = rng.uniform(50, 120, 20_000)
    bias, low, high = limits_of_agreement(truth, truth + rng.normal(1.5, 2, len(truth)))
    np.testing.assert_allclose([bias, low, high], [1.5, 1.5 - 3.92, 1.5 + 3.92], atol=0.1)
    assert np.isnan(limits_of_agreement(truth[:1], truth[:1])[1])


def test_heart_rates_are_drawn_with_their_bias():
    rates = example_rates()
    figures = draw_answers(rates, "title")
    assert set(figures) == {"bland_altman.png", "rates.png"}
    lines = [text.get_text() for text in figures["bland_altman.png"].axes[0].get_legend().get_texts()]
    bias = limits_of_agreement(rates.video_true_bpm, rates.video_bpm)[0]
    assert f"bias {bias:+.2f}" in lines
