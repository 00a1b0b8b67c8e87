"""Faces: detection now and then, calm boxes, no frame taken for a face."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from datamodules.face_detectors import load_cascade, load_ssd
from datamodules.faces import FaceTracker, cut_out, find_usable, keep_inside, track_faces
from tests.video_trees import CASCADE, draw, fake_stage

FRAME = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)


def boxes_of(crops):
    return np.array([crop.box for crop in crops])


def test_the_cascade_finds_the_face_and_no_other():
    crops = list(track_faces(draw(2)[3], CASCADE, 36))
    assert not any(crop.missed for crop in crops)
    left, top, right, bottom = boxes_of(crops).mean(axis=0)
    assert abs((left + right) / 2 - 80) < 8
    assert abs((top + bottom) / 2 - 64) < 8
    assert 60 < right - left < 90
    # Skin in the middle: red over green over blue.
    red, green, blue = crops[0].image[12:24, 12:24].mean(axis=(0, 1))
    assert red > green > blue


def test_no_face_is_missed_and_never_the_whole_frame():
    crops = list(track_faces(draw(1, faces=0)[3], CASCADE, 36))
    assert all(crop.missed for crop in crops)
    assert not any(crop.image.any() for crop in crops)
    assert (boxes_of(crops) == 0).all()


def test_of_two_faces_the_largest_central_one_is_followed():
    frames = list(draw(1, faces=2, width=240, motion=0.0)[3])
    crops = list(track_faces(frames, CASCADE, 36))
    assert max(crop.n_faces for crop in crops) == 2
    assert abs(boxes_of(crops)[:, [0, 2]].mean() - 120) < 10


def test_the_followed_face_is_not_swapped_for_a_larger_one():
    calls = iter(range(99))
    own, other = (60.0, 30.0, 100.0, 70.0), (100.0, 20.0, 160.0, 80.0)

    def detect(frame):
        return np.array([own] if next(calls) == 0 else [other, own])

    crops = list(track_faces([FRAME] * 40, fake_stage(detect), 36))
    assert len(np.unique(boxes_of(crops), axis=0)) == 1


def test_a_face_that_leaves_is_missed_after_it_has_left():
    crops = list(track_faces(draw(3, leaves_s=1.5)[3], CASCADE, 36))
    missed = np.array([crop.missed for crop in crops])
    assert not missed[:45].any()
    assert missed[61:].all()
    assert not crops[-1].image.any()


def test_detection_happens_every_so_many_frames_and_at_each_frame_of_a_gap():
    asked = []

    def detect(frame):
        asked.append(len(asked))
        return np.empty((0, 4)) if len(asked) in (2, 3) else np.array([[40.0, 20.0, 120.0, 100.0]])

    crops = list(track_faces([FRAME] * 31, fake_stage(detect, detect_every=10), 36))
    # Frames 0, 10 and 11 (missed), 12 (found), 22.
    assert len(asked) == 5
    assert [number for number, crop in enumerate(crops) if crop.missed] == [10, 11]


def test_a_shaking_box_stays_and_a_moving_one_glides():
    moves = iter([0.0, 2.0, -2.0, 30.0, 30.0])

    def detect(frame):
        return np.array([[20.0, 20.0, 80.0, 80.0]]) + np.array([1, 0, 1, 0]) * next(moves)

    lefts = boxes_of(track_faces([FRAME] * 50, fake_stage(detect, detect_every=10), 36))[:, 0]
    assert (lefts[:30] == 20).all()
    assert lefts[-1] == 50
    assert np.abs(np.diff(lefts)).max() <= 4


def test_boxes_that_leave_the_frame_are_no_faces():
    boxes = np.array([[-40, 10, 30, 80], [-2, 10, 68, 80], [50, 50, 40, 90], [100, 60, 190, 150]], np.float64)
    np.testing.assert_array_equal(keep_inside(boxes, (120, 160)), [[0, 10, 68, 80]])


def test_crops_stay_in_the_frame_and_square():
    crops = list(track_faces([FRAME], fake_stage((100.0, 40.0, 160.0, 120.0)), 72))
    left, top, right, bottom = crops[0].box
    assert right - left == bottom - top == 80
    assert (left, right, bottom) == (80, 160, 120)
    assert crops[0].image.shape == (72, 72, 3)


def test_cut_out_averages_areas_without_rounding():
    crop = cut_out(FRAME, (0, 0, 108, 108), 36)
    expected = FRAME[:108, :108].reshape(36, 3, 36, 3, 3).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(crop, expected, atol=1e-6)
    assert crop.dtype == np.float32
    rounded = cv2.resize(FRAME[:108, :108], (36, 36), interpolation=cv2.INTER_AREA) / 255
    assert np.abs(rounded - expected).max() > 1e-3


def test_find_usable_bridges_short_gaps_in_the_middle_only():
    missed = np.array([1, 0, 0, 1, 1, 0, 1, 1, 1, 0, 1], dtype=bool)
    np.testing.assert_array_equal(np.flatnonzero(find_usable(missed, 2)), [1, 2, 3, 4, 5, 9])


@pytest.mark.parametrize(
    ("options", "key"),
    [({"detect_every": 0}, "detect_every"), ({"enlarge": 9}, "enlarge"), ({"max_miss_rate": 2}, "max_miss_rate")],
)
def test_impossible_settings_are_refused(options, key):
    with pytest.raises(ValueError, match=rf"datamodule\.faces\.{key} is"):
        type(CASCADE)(load_cascade, **options)


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match=r"datamodule\.image_size is 50"):
        FaceTracker(CASCADE, 50)


def test_the_ssd_without_its_weights_says_how_to_install_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="make weights"):
        load_ssd(weights=tmp_path)


def test_the_digest_of_a_stage_depends_on_the_detector_and_not_on_where_weights_lie():
    from functools import partial

    def describe(**options):
        return type(CASCADE)(partial(load_ssd, **options)).describe()

    assert describe(weights="a") == describe(weights="b")
    assert describe(weights="a", confidence=0.9) != describe(weights="a")
    assert describe(weights="a")["detector"] != CASCADE.describe()["detector"]


def test_opencv_is_whole_for_every_thread_that_imports_it_first():
    script = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from datamodules.face_detectors import import_cv2\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    assert all(pool.map(lambda _: hasattr(import_cv2(), 'data'), range(8)))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
