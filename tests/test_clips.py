"""Clips: evenly timed frames, the two inputs, targets, and which clips are dropped."""

import numpy as np
import pytest

from datamodules.clips import derive_target, even_positions, find_clips, make_clips, pack_crop, take_frames

RNG = np.random.default_rng(0)
FRAMES = RNG.uniform(0.2, 0.8, (2, 11, 6, 6, 3)).astype(np.float32)


def test_the_canonical_input_is_the_references():
    clips = make_clips(FRAMES, "normalized_difference")
    assert clips.shape == (2, 10, 6, 6, 6)
    for frames, clip in zip(FRAMES.astype(np.float64), clips, strict=True):
        motion = (frames[1:] - frames[:-1]) / (frames[1:] + frames[:-1])
        np.testing.assert_allclose(clip[:, :3], (motion / motion.std()).transpose(0, 3, 1, 2), atol=1e-4)
        appearance = (frames[:-1] - frames[:-1].mean()) / frames[:-1].std()
        np.testing.assert_allclose(clip[:, 3:], appearance.transpose(0, 3, 1, 2), atol=1e-4)


def test_the_other_input_is_that_of_open_rppg():
    clips = make_clips(FRAMES, "standardized_difference")
    motion = np.diff(FRAMES[0].astype(np.float64), axis=0)
    motion = (motion - motion.mean(axis=(1, 2), keepdims=True)) / motion.std(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(clips[0, :, :3], motion.transpose(0, 3, 1, 2), atol=1e-3)
    np.testing.assert_allclose(clips[0, 4, 3:], FRAMES[0, :-1].mean(axis=0).transpose(2, 0, 1), atol=1e-6)


def test_a_still_picture_gives_no_nan():
    for variant in ("normalized_difference", "standardized_difference"):
        clips = make_clips(np.full((1, 5, 4, 4, 3), 0.5, np.float32), variant)
        assert np.isfinite(clips).all()
        assert not clips[:, :, :3].any()


def test_an_unknown_input_is_refused():
    with pytest.raises(ValueError, match=r"datamodule\.input_variant is 'raw'"):
        make_clips(FRAMES, "raw")


def test_even_frames_are_taken_as_they_are():
    np.testing.assert_array_equal(even_positions(np.arange(90) / 30, 30), np.arange(90))
    np.testing.assert_array_equal(even_positions(np.arange(90) / 29.97, 30), np.arange(90))


@pytest.mark.parametrize("fps", [17.0, 25.0, 60.0])
def test_other_rates_keep_the_frequency_of_a_wave(fps):
    times_s = np.arange(round(8 * fps)) / fps + RNG.uniform(-0.2, 0.2, round(8 * fps)) / fps
    times_s.sort()
    positions = even_positions(times_s, 30)
    assert len(positions) == pytest.approx(30 * (times_s[-1] - times_s[0]), abs=1.5)
    wave = 0.5 + 0.1 * np.sin(2 * np.pi * 1.2 * times_s)
    crops = pack_crop(np.broadcast_to(wave[:, None, None, None], (len(wave), 2, 2, 3)).astype(np.float32))
    even = take_frames(crops, positions)[:, 0, 0, 0]
    expected = 0.5 + 0.1 * np.sin(2 * np.pi * 1.2 * (times_s[0] + np.arange(len(positions)) / 30))
    np.testing.assert_allclose(even, expected, atol=0.01)


def test_packing_keeps_what_eight_bits_lose():
    image = np.full((2, 2, 3), 0.5004, np.float32)
    assert abs(take_frames(pack_crop(image)[None], np.zeros(1)) - image).max() < 1e-5


def test_a_target_is_the_standardised_derivative():
    bvp = np.sin(np.arange(41) / 4)
    target = derive_target(bvp)
    assert target.shape == (40,)
    assert abs(target.mean()) < 1e-6
    assert target.std() == pytest.approx(1, abs=1e-6)
    assert np.corrcoef(target, np.cos((np.arange(40) + 0.5) / 4))[0, 1] > 0.999


def test_a_flat_wave_has_no_target():
    assert derive_target(np.full(41, 55.0)) is None


def test_clips_with_an_unusable_frame_are_dropped():
    usable = np.ones(50, dtype=bool)
    usable[25] = False
    starts, n_dropped = find_clips(usable, np.arange(50, dtype=np.float64), n_frames=10, stride=10)
    np.testing.assert_array_equal(starts, [0, 10, 30])
    assert n_dropped == 1
    # The frame after the last is needed for the last difference: of 50 frames there are 4 clips.
    starts, _ = find_clips(np.ones(50, dtype=bool), np.arange(50, dtype=np.float64), n_frames=10, stride=10)
    assert len(starts) == 4
    assert not len(find_clips(np.ones(10, dtype=bool), np.arange(10.0), n_frames=10, stride=10)[0])
