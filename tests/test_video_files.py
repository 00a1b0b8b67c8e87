"""Video files: real frame times, upright frames, damage that is named."""

import struct

import cv2
import numpy as np
import pytest

from datamodules.synthetic_video import encode_video
from datamodules.video_files import probe_video, read_frames
from tests.video_trees import draw, encode_mp4

N = 24


@pytest.fixture(scope="module")
def frames():
    return list(draw(N / 30)[3])


@pytest.fixture(scope="module")
def avi(frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "vid.avi"
    encode_video(path, frames, 30.0)
    return path


def retag(avi, path, scale, rate, microseconds=None):
    raw = bytearray(avi.read_bytes())
    at = raw.index(b"strh") + 28
    raw[at : at + 8] = struct.pack("<II", scale, rate)
    if microseconds is not None:
        at = raw.index(b"avih") + 8
        raw[at : at + 4] = struct.pack("<I", microseconds)
    path.write_bytes(raw)
    return path


def test_probe_video_gives_the_time_of_every_frame(avi):
    facts = probe_video(avi, "a")
    np.testing.assert_allclose(facts.times_s, np.arange(N) / 30)
    assert facts.fps == pytest.approx(30)
    assert not facts.variable


def test_read_frames_gives_back_what_was_written(avi, frames):
    read = list(read_frames(avi, "a", N))
    assert len(read) == N
    assert read[0].shape == (120, 160, 3)
    assert np.abs(read[5].astype(int) - frames[5]).mean() < 3
    assert np.abs(read[5][..., ::-1].astype(int) - frames[5]).mean() > 5


def test_a_variable_frame_rate_keeps_its_own_times(frames, tmp_path):
    times_s = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.06, N))
    encode_mp4(tmp_path / "v.mp4", frames, times_s)
    facts = probe_video(tmp_path / "v.mp4", "v")
    np.testing.assert_allclose(facts.times_s, times_s - times_s[0], atol=2e-3)
    assert facts.variable
    assert facts.fps == pytest.approx((N - 1) / (times_s[-1] - times_s[0]), rel=0.01)


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_read_frames_obeys_the_rotation_tag_as_opencv_does(frames, tmp_path, rotation):
    path = tmp_path / "v.mp4"
    encode_mp4(path, frames[:3], np.arange(3) / 30, rotation)
    ours = next(read_frames(path, "v", 3))
    _, theirs = cv2.VideoCapture(str(path)).read()
    assert ours.shape == ((160, 120, 3) if abs(rotation) == 90 else (120, 160, 3))
    np.testing.assert_array_equal(ours, theirs[..., ::-1])
    assert not np.array_equal(ours, ours[::-1, ::-1])


@pytest.mark.parametrize(("scale", "rate", "microseconds"), [(1, 1000, None), (1, 1, None), (0, 0, 0)])
def test_an_impossible_fps_tag_is_refused_and_may_be_overruled(avi, tmp_path, scale, rate, microseconds):
    path = retag(avi, tmp_path / "b.avi", scale, rate, microseconds)
    with pytest.raises(ValueError, match=r"'rec'.*(tag is wrong|fps tag of zero).*datamodule.source.fps"):
        probe_video(path, "rec")
    assert probe_video(path, "rec", fps=25).times_s[-1] == pytest.approx((N - 1) / 25)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_cut_video_is_refused(avi, tmp_path, share):
    raw = avi.read_bytes()
    (tmp_path / "c.avi").write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(ValueError, match=r"'rec'.*announces 24 frames and holds \d+: the file is cut"):
        probe_video(tmp_path / "c.avi", "rec")


def test_a_file_that_is_no_video_is_refused(tmp_path):
    (tmp_path / "n.avi").write_bytes(b"no video" * 100)
    with pytest.raises(ValueError, match=r"'rec': n.avi cannot be opened as a video"):
        probe_video(tmp_path / "n.avi", "rec")
    with pytest.raises(FileNotFoundError, match="'rec'"):
        probe_video(tmp_path / "missing.avi", "rec")


def test_frames_that_cannot_be_decoded_are_refused(avi, tmp_path):
    raw = bytearray(avi.read_bytes())
    # The pictures are spoilt, the container is not.
    at = -1
    while (at := raw.find(b"00dc", at + 1)) > 0 and at < raw.rindex(b"idx1"):
        raw[at + 8 : at + 600] = bytes(592)
    (tmp_path / "d.avi").write_bytes(raw)
    n = len(probe_video(tmp_path / "d.avi", "rec").times_s)
    with pytest.raises(ValueError, match=r"'rec'.*damaged"):
        list(read_frames(tmp_path / "d.avi", "rec", n))


def test_a_video_that_ends_early_is_refused(avi):
    with pytest.raises(ValueError, match=r"'rec': vid.avi ends after 24 of 30 frames"):
        list(read_frames(avi, "rec", 30))


def test_a_long_gap_is_refused(frames, tmp_path):
    times_s = np.arange(N) / 30
    times_s[12:] += 3
    encode_mp4(tmp_path / "g.mp4", frames, times_s)
    with pytest.raises(ValueError, match=r"'rec'.*shows nothing for 3.0 s after frame 11"):
        probe_video(tmp_path / "g.mp4", "rec")
