"""Sources of live video, the bounded queue, clips cut on the fly, heart rates of a running pulse."""

import time
from types import SimpleNamespace

import av
import numpy as np
import pytest

from datamodules.heart_rate import find_rates
from datamodules.live_clips import ClipCutter
from datamodules.live_pulse import PulseTrack
from datamodules.live_source import LiveSourceError
from datamodules.live_video import (
    FrameQueue,
    LiveVideo,
    TimedFrame,
    is_video,
    open_video,
    read_camera,
    read_network,
)
from datamodules.pulse import PulseFilter
from datamodules.synthetic_video import encode_video

FRAME = np.zeros((4, 6, 3), np.uint8)


class Capture:
    """A camera that is unplugged after some frames."""

    def __init__(self, n_frames):
        self.left, self.released = n_frames, False

    def isOpened(self):  # noqa: N802 - OpenCV's name
        return self.left > 0

    def read(self):
        self.left -= 1
        return (True, FRAME) if self.left >= 0 else (False, None)

    def release(self):
        self.released = True


def make_live(n_frames, *, live=True, error=None):
    def read():
        for number in range(n_frames):
            yield TimedFrame(number / 30, FRAME)
        if error:
            raise error

    return LiveVideo("test", live, read)


def test_names_of_sources():
    assert all(map(is_video, ["0", "12", "rtsp://host/a", "a/b.MP4", "x.avi"]))
    assert not any(map(is_video, ["r1.hea", "stdin", "serial:/dev/ttyUSB0", "film.xyz", ""]))
    assert open_video("rtsp://me:secret@host:554/a", 30.0).name == "rtsp://host:554/a"
    assert open_video("0", 30.0).live


@pytest.mark.parametrize(
    ("options", "message"),
    [({"speed": 0.0}, "speed is 0.0"), ({"fps": 30.0}, "leave out fps"), ({"speed": 1.0}, "fps")],
)
def test_bad_options(options, message):
    with pytest.raises(LiveSourceError, match=message):
        open_video("0", 30.0, **options)


def test_a_file_without_frame_rate_asks_for_the_streams_option(tmp_path):
    path = tmp_path / "v.avi"
    encode_video(path, [FRAME.repeat(8, 0).repeat(8, 1)] * 3, 1000.0)
    with pytest.raises(LiveSourceError, match=r"1000 frames per second.* the right one, fps=30"):
        open_video(str(path), 30.0)
    frames = list(open_video(str(path), 30.0, fps=15.0).read())
    np.testing.assert_allclose([frame.time_s for frame in frames], [0, 1 / 15, 2 / 15])


def test_a_cut_file_is_named(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(LiveSourceError, match=r"v\.mp4 cannot be opened as a video"):
        open_video(str(path), 30.0)


def test_an_unplugged_camera_is_named_and_released():
    capture = Capture(3)
    frames = []
    with pytest.raises(LiveSourceError, match="camera 0 gives no more frames after 3: was it unplugged"):
        frames.extend(read_camera(0, capture))
    assert capture.released
    with pytest.raises(LiveSourceError, match="cannot be opened"):
        list(read_camera(1, Capture(0)))


class Container:
    """A network camera whose connection breaks."""

    def __init__(self, times):
        self.times = times

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def decode(self, video):
        for time_s in self.times:
            yield SimpleNamespace(time=time_s, to_ndarray=lambda format: FRAME)
        raise av.FFmpegError(5, "Input/output error")


def test_a_network_camera_has_its_own_times_and_its_break_is_named():
    frames = read_network("rtsp://a:b@c", "rtsp://c", Container([7.0, 7.1]))
    assert [next(frames).time_s for _ in range(2)] == [0.0, pytest.approx(0.1)]
    with pytest.raises(LiveSourceError, match=r"rtsp://c stopped after 2 frames \(Input/output error\)"):
        next(frames)
    with pytest.raises(LiveSourceError, match="does not tell when"):
        next(read_network("rtsp://c", "rtsp://c", Container([None])))


def test_a_file_waits_and_a_camera_drops():
    for live, n_expected in ((False, 20), (True, 4)):
        with FrameQueue(make_live(20, live=live), 4) as frames:
            frames._thread.join(0.3)  # it fills while nobody takes
            taken = list(frames)
        assert (len(taken), frames.n_dropped) == (n_expected, 20 - n_expected)
        assert frames.problem is None
    with pytest.raises(ValueError, match="queue is 0"):
        FrameQueue(make_live(1), 0)


def test_a_source_that_breaks_keeps_what_came_before():
    broken = make_live(3, live=False, error=LiveSourceError("unplugged"))
    with FrameQueue(broken, 2) as frames:
        assert len(list(frames)) == 3
    assert frames.problem == "unplugged"
    with FrameQueue(make_live(0, error=LiveSourceError("not there")), 2) as frames:  # noqa: SIM117
        with pytest.raises(LiveSourceError, match="not there"):
            list(frames)
    with FrameQueue(make_live(3, live=False, error=RuntimeError("a bug")), 2) as frames:  # noqa: SIM117
        with pytest.raises(RuntimeError, match="a bug"):
            list(frames)


def test_leaving_early_ends_the_reader():
    with FrameQueue(make_live(1000, live=False), 2) as frames:
        next(iter(frames))
    time.sleep(0.01)
    assert not frames._thread.is_alive()


def number_frames(n):
    return [np.full((36, 36, 3), number, np.float32) for number in range(n)]


def cut(times_s, images, n_frames=4):
    cutter = ClipCutter(10.0, n_frames, 36)
    clips = [clip for time_s, image in zip(times_s, images, strict=True) for clip in cutter.add(time_s, image)]
    clips += cutter.finish()
    return [(clip.frames[:, 0, 0, 0].tolist(), clip.n_new, clip.opens, round(clip.end_s, 6)) for clip in clips]


def test_clips_cover_a_stretch_and_the_last_reaches_back():
    assert cut(np.arange(11) / 10, number_frames(11)) == [
        ([0, 1, 2, 3, 4], 4, True, 0.4),
        ([4, 5, 6, 7, 8], 4, False, 0.8),
        ([6, 7, 8, 9, 10], 2, False, 1.0),
    ]
    assert cut(np.arange(4) / 10, number_frames(4)) == []


def test_frames_are_brought_to_the_rate_by_straight_lines():
    clips = cut(np.arange(12) / 20, number_frames(12))
    np.testing.assert_allclose(clips[0][0], [0, 2, 4, 6, 8], atol=1e-5)
    uneven = cut([0, 0.15, 0.2, 0.4], [np.full((36, 36, 3), 10 * t, np.float32) for t in (0, 0.15, 0.2, 0.4)])
    np.testing.assert_allclose(uneven[0][0], [0, 1, 2, 3, 4], atol=1e-5)


def test_a_lost_face_and_a_pause_begin_anew():
    images = number_frames(12)
    images[5] = None
    assert [(clip[0], clip[2]) for clip in cut(np.arange(12) / 10, images)] == [
        ([0, 1, 2, 3, 4], True),
        ([6, 7, 8, 9, 10], True),
        ([7, 8, 9, 10, 11], False),
    ]
    times_s = np.concatenate([np.arange(5) / 10, 3 + np.arange(5) / 10])
    assert [clip[2:] for clip in cut(times_s, number_frames(10))] == [(True, 0.4), (True, 3.4)]


def make_track(**changes):
    return PulseTrack(30.0, PulseFilter(), **{"window_s": 10.0, "step_s": 1.0, "method": "fft", **changes})


def simulate_derivative(seconds, bpm=72.0):
    times_s = np.arange(round(seconds * 30)) / 30
    return np.diff(np.sin(2 * np.pi * bpm / 60 * times_s), prepend=0.0)


def test_rates_are_those_of_the_whole_and_of_no_chunks():
    derivative = simulate_derivative(14)
    for size in (7, 20, 420):
        track, readings = make_track(), []
        for start in range(0, len(derivative), size):
            part = derivative[start : start + size]
            readings += track.add(part, (start + len(part) - 1) / 30, opens=start == 0)
        readings += track.finish()
        assert [(round(each.start_s, 6), each.whole) for each in readings] == [(second, True) for second in range(5)]
        windows = np.lib.stride_tricks.sliding_window_view(derivative, 300)[::30]
        expected = [find_rates(PulseFilter()(window, 30.0), 30.0, 10.0, 1.0)[0] for window in windows]
        np.testing.assert_allclose([each.hr_bpm for each in readings], expected)
        assert min(each.quality_db for each in readings) > 10


def test_short_stretches_are_windows_themselves_and_previewed():
    track = make_track()
    assert list(track.add(simulate_derivative(5), 4.97, opens=True)) == []
    preview = track.preview()
    assert preview is not None
    assert preview.hr_bpm == pytest.approx(72, abs=2)
    (reading,) = track.add(simulate_derivative(1), 9.0, opens=True)
    assert (reading.whole, reading.end_s) == (False, pytest.approx(149 / 30, abs=0.01))
    assert track.preview() is None
    assert list(track.finish()) == []


@pytest.mark.parametrize("options", [{"window_s": 2.0}, {"step_s": 0.0}, {"step_s": 11.0}])
def test_windows_have_to_be_possible(options):
    with pytest.raises(ValueError, match=r"window_s=.*step_s="):
        make_track(**options)
