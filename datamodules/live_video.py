"""Where live frames come from: video files, cameras, network streams; and the bounded queue behind them."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Full, Queue
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.clips import even_positions
from datamodules.face_detectors import import_cv2
from datamodules.live_source import LiveSourceError
from datamodules.video_files import probe_video, read_frames

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
_NETWORK = ("rtsp://", "rtsps://")
# After so many seconds without an answer a network camera counts as gone.
_TIMEOUT_S = 10.0
_POLL_S = 0.1


@dataclass(frozen=True, eq=False, slots=True)
class TimedFrame:
    """One frame of a stream.

    Attributes
    ----------
    time_s : float
        When it was taken, in seconds; the first of a stream is at 0.
    image : ndarray of uint8, shape (height, width, 3)
        RGB, upright.
    """

    time_s: float
    image: NDArray[np.uint8]


@dataclass(frozen=True, eq=False, slots=True)
class LiveVideo:
    """A video that can be watched once.

    Attributes
    ----------
    name : str
        What is shown to people; never a password that an address holds.
    live : bool
        Whether frames come whether or not anybody is ready for them.
    read : callable
        Starts to read; frames in the order of their times.
    """

    name: str
    live: bool
    read: Callable[[], Iterator[TimedFrame]]


def is_video(source: str) -> bool:
    """Tell whether a source's name is that of a video file, a camera or a network stream."""
    return source.isdecimal() or source.startswith(_NETWORK) or Path(source).suffix.lower() in VIDEO_SUFFIXES


def open_video(source: str, fs: float, *, fps: float | None = None, speed: float | None = None) -> LiveVideo:
    """Find what a source's name stands for; of a file, the frame times are read and checked here.

    Parameters
    ----------
    source : str
        Video file, number of a camera such as ``0``, or ``rtsp://…``.
    fs : float
        Frames per second that the reader wants.
    fps : float, optional
        Frames per second of a file whose own are wrong.
    speed : float, optional
        Times real time at which a file is played; as fast as it goes by default.

    Returns
    -------
    LiveVideo

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, cut or no video, or an option does not fit.
    """
    if speed is not None and not speed > 0:
        raise LiveSourceError(f"speed is {speed!r}, expected more than 0")
    live = source.isdecimal() or source.startswith(_NETWORK)
    if live and (fps is not None or speed is not None):
        raise LiveSourceError(f"source={source} has frames and times of its own: leave out fps and speed")
    if source.isdecimal():
        return LiveVideo(f"camera {source}", True, lambda: read_camera(int(source)))
    if live:
        scheme, _, rest = source.partition("://")
        name = f"{scheme}://{rest.rpartition('@')[2]}"
        return LiveVideo(name, True, lambda: read_network(source, name))
    path = Path(source)
    try:
        facts = probe_video(path, path.name, fps=fps)
    except ValueError as error:
        raise LiveSourceError(_rename_keys(error)) from error
    times_s = facts.times_s
    if len(even_positions(times_s, fs)) == len(times_s) and not facts.variable:
        # As in training: frames that come at the wanted rate, or nearly so, are taken as they are.
        times_s = np.arange(len(times_s)) / fs
    return LiveVideo(path.name, False, lambda: _read_file(path, times_s, speed))


def _read_file(path: Path, times_s: NDArray[np.float64], speed: float | None) -> Iterator[TimedFrame]:
    began = time.monotonic()
    try:
        for time_s, image in zip(times_s.tolist(), read_frames(path, path.name, len(times_s)), strict=True):
            if speed is not None:
                time.sleep(max(0.0, began + time_s / speed - time.monotonic()))
            yield TimedFrame(time_s, image)
    except ValueError as error:
        raise LiveSourceError(_rename_keys(error)) from error


def _rename_keys(error: ValueError) -> str:
    """Name the option of a stream where the reader of data sets names its own."""
    return str(error).replace("datamodule.source.fps", "fps")


def read_camera(number: int, capture: Any = None) -> Iterator[TimedFrame]:
    """Read a camera of this machine until it is closed; times are those of the clock.

    Parameters
    ----------
    number : int
        Of the camera, 0 the first.
    capture : object, optional
        Takes the place of OpenCV's ``VideoCapture``.

    Raises
    ------
    LiveSourceError
        If it cannot be opened, or gives no more frames.
    """
    cv2 = import_cv2()
    capture = cv2.VideoCapture(number) if capture is None else capture
    try:
        if not capture.isOpened():
            raise LiveSourceError(f"camera {number} cannot be opened: is it connected, and not in use elsewhere?")
        began, n_frames = None, 0
        while True:
            there, image = capture.read()
            now = time.monotonic()
            if not there:
                raise LiveSourceError(f"camera {number} gives no more frames after {n_frames}: was it unplugged?")
            began = now if began is None else began
            n_frames += 1
            yield TimedFrame(now - began, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()


def read_network(address: str, name: str, container: Any = None) -> Iterator[TimedFrame]:
    """Read a network camera; times are its own, since the network shakes the times of arrival.

    Parameters
    ----------
    address : str
        ``rtsp://…``, perhaps with user and password.
    name : str
        The address without them, for errors.
    container : object, optional
        Takes the place of what PyAV opens.

    Raises
    ------
    LiveSourceError
        If it cannot be reached, stops answering, or does not tell its times.
    """
    import av

    began, n_frames = None, 0
    try:
        if container is None:
            container = av.open(address, options={"rtsp_transport": "tcp"}, timeout=_TIMEOUT_S)
        with container:
            for frame in container.decode(video=0):
                if frame.time is None:
                    raise LiveSourceError(f"{name} does not tell when its frames were taken")
                began = frame.time if began is None else began
                n_frames += 1
                yield TimedFrame(frame.time - began, frame.to_ndarray(format="rgb24"))
    except (av.FFmpegError, OSError, IndexError) as error:
        what = "cannot be read" if not n_frames else f"stopped after {n_frames} frames"
        raise LiveSourceError(f"{name} {what} ({getattr(error, 'strerror', None) or error})") from error
    raise LiveSourceError(f"{name} ended after {n_frames} frames")


class FrameQueue:
    """Reads frames in a thread of its own, a few ahead; to be used in a ``with`` statement and iterated over once.

    A file waits while the queue is full. A camera does not: its frames are dropped and counted.

    Parameters
    ----------
    video : LiveVideo
        What to read.
    size : int
        Most frames that wait.

    Attributes
    ----------
    n_dropped : int
        Frames that found the queue full.
    decode_s : float
        Seconds spent on reading a file; of no meaning for a camera, where it is waiting.
    problem : str or None
        Why the frames ended before their end, once they have.
    """

    def __init__(self, video: LiveVideo, size: int) -> None:
        if size < 1:
            raise ValueError(f"queue is {size!r}, expected at least 1 frame")
        self.video = video
        self.n_dropped, self.decode_s = 0, 0.0
        self.problem: str | None = None
        self._waiting: Queue[TimedFrame | None] = Queue(size)
        self._stopped = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._fill, name="frames", daemon=True)

    def __enter__(self) -> "FrameQueue":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        # A camera that hangs does not hang the rest.
        self._thread.join(timeout=2.0)

    def __iter__(self) -> Iterator[TimedFrame]:
        """Yield frames until the source ends.

        Raises
        ------
        Exception
            What went wrong, if it was before the first frame or nothing that a source is known for.
        """
        n_frames = 0
        while (frame := self._waiting.get()) is not None:
            n_frames += 1
            yield frame
        if self._failure is not None:
            if not n_frames or not isinstance(self._failure, LiveSourceError):
                raise self._failure
            self.problem = str(self._failure)

    def _fill(self) -> None:
        try:
            frames = self.video.read()
            while not self._stopped.is_set():
                start = time.perf_counter()
                frame = next(frames, None)
                self.decode_s += time.perf_counter() - start
                if frame is None:
                    break
                self._offer(frame)
        except Exception as error:  # handed over to who iterates
            self._failure = error
        self._put(None)

    def _offer(self, frame: TimedFrame) -> None:
        if not self.video.live:
            self._put(frame)
            return
        try:
            self._waiting.put_nowait(frame)
        except Full:
            self.n_dropped += 1

    def _put(self, item: TimedFrame | None) -> None:
        while not self._stopped.is_set():
            try:
                self._waiting.put(item, timeout=_POLL_S)
                return
            except Full:
                continue
