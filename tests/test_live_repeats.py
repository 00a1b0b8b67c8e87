"""Frames that repeat the one before: found by their cadence, and not where a face merely keeps still."""

import numpy as np
import pytest

from datamodules.live_repeats import RepeatFinder


def find(steps):
    """What is said of frames whose mean absolute differences are these."""
    rng = np.random.default_rng(0)
    image = rng.uniform(0.3, 0.7, (36, 36, 3))
    finder = RepeatFinder()
    found = [finder.update(image.astype(np.float32))]
    for step in steps:
        image = image + step * rng.choice([-1.0, 1.0], image.shape)
        found.append(finder.update(image.astype(np.float32)))
    return np.array(found)


def show(pictures_per_s, n=90, noise=2e-4):
    """Steps of a video of 30 frames a second that shows so many pictures, each step to one between .002 and .004."""
    rng = np.random.default_rng(1)
    number = np.floor(np.arange(n + 1) * pictures_per_s / 30 + 1e-9)
    return np.where(np.diff(number) > 0, rng.uniform(0.002, 0.004, n), noise)


@pytest.mark.parametrize("pictures_per_s", [6, 10, 15, 20, 24])
def test_repeats_are_found_by_their_cadence(pictures_per_s):
    steps = show(pictures_per_s)
    found = find(steps)
    np.testing.assert_array_equal(found[20:], steps[19:] < 1e-3)


@pytest.mark.parametrize("pictures_per_s", [3, 30])
def test_nothing_is_found_where_every_frame_is_new_or_nearly_none(pictures_per_s):
    assert not find(show(pictures_per_s)).any()


def test_a_head_that_turns_and_keeps_still_again_repeats_nothing():
    steps = show(30, 150)
    steps[60:75] *= 20
    assert not find(steps).any()


def test_a_frame_that_the_codec_writes_anew_every_second_makes_no_repeats_of_the_others():
    steps = show(30, 150)
    steps[::30] *= 10
    assert not find(steps).any()


def test_frames_that_are_all_alike_repeat_nothing():
    assert not find(np.zeros(60)).any()


def test_a_gap_makes_it_begin_again():
    image = np.full((36, 36, 3), 0.5, np.float32)
    finder = RepeatFinder()
    steps = show(10, 30)
    for step in steps:
        image = image + np.float32(step)
        last = finder.update(image)
    assert last == (steps[-1] < 1e-3)
    assert not finder.update(None)
    assert not any(finder.update(image + np.float32(step)) for step in np.cumsum(steps[:11]))
