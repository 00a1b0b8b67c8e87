"""Video files: frame times from the container, frames streamed upright in RGB, damage found and named (PyAV)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_FPS, MOST_FPS = 5.0, 250.0
# A camera's clock may stop for a moment; a gap this long is a damaged file.
MOST_GAP_S = 2.0


@dataclass(frozen=True, eq=False, slots=True)
class VideoFacts:
    """What a video's container says, without a frame being decoded.

    Attributes
    ----------
    times_s : ndarray of float64, shape (n,)
        Time of each frame in seconds, the first at 0.
    fps : float
        Mean frames per second.
    variable : bool
        Whether the time between frames changes by more than a tenth.
    """

    times_s: NDArray[np.float64]
    fps: float
    variable: bool


def probe_video(path: Path, record_id: str, *, fps: float | None = None) -> VideoFacts:
    """Read the times of all frames from the container.

    Parameters
    ----------
    path : Path
        Video file.
    record_id : str
        Named in errors.
    fps : float, optional
        Frames per second where the container's are known to be wrong.

    Returns
    -------
    VideoFacts
        Times, and what they say.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is cut or is no video, or its frame times are impossible.
    """
    packets, n_declared = _read_packet_times(path, record_id)
    if n_declared and len(packets) < n_declared:
        raise ValueError(
            f"record {record_id!r}: {path.name} announces {n_declared} frames and holds {len(packets)}: the file is"
            f" cut; get it again"
        )
    if len(packets) < 2:
        raise ValueError(f"record {record_id!r}: {path.name} holds {len(packets)} frames, expected a video")
    if fps is not None:
        times_s = np.arange(len(packets)) / check_fps(fps, record_id)
        return VideoFacts(times_s, float(fps), False)
    steps = np.diff(packets)
    if _is_untagged_avi(path):
        raise ValueError(
            f"record {record_id!r}: {path.name} has a fps tag of zero: give its frames per second,"
            f" datamodule.source.fps=30"
        )
    if not np.isfinite(packets).all() or (steps <= 0).any():
        raise ValueError(
            f"record {record_id!r}: {path.name} has no usable frame times (wrong or missing fps tag): give its frames"
            f" per second, datamodule.source.fps=30"
        )
    real = check_fps(1 / float(steps.mean()), record_id)
    if steps.max() > MOST_GAP_S:
        at = int(steps.argmax())
        raise ValueError(
            f"record {record_id!r}: {path.name} shows nothing for {steps[at]:.1f} s after frame {at}: the file is"
            f" damaged; get it again"
        )
    variable = float(np.abs(steps - np.median(steps)).max()) > 0.1 * float(np.median(steps))
    return VideoFacts(packets - packets[0], real, variable)


def check_fps(fps: float, record_id: str) -> float:
    """Return the frames per second, or raise `ValueError` if no camera works so."""
    if not LEAST_FPS <= fps <= MOST_FPS:
        raise ValueError(
            f"record {record_id!r} has {fps:g} frames per second by its tag, expected {LEAST_FPS:g} to {MOST_FPS:g}:"
            f" the tag is wrong; give the right one, datamodule.source.fps=30"
        )
    return fps


def read_frames(path: Path, record_id: str, n_frames: int) -> Iterator[NDArray[np.uint8]]:
    """Decode a video frame by frame; only the decoder's few frames are in memory.

    Parameters
    ----------
    path : Path
        Video file.
    record_id : str
        Named in errors.
    n_frames : int
        Frames that the container holds; those after are not decoded.

    Yields
    ------
    ndarray of uint8, shape (height, width, 3)
        RGB, turned upright by the rotation tag.

    Raises
    ------
    ValueError
        If a frame cannot be decoded, or there are fewer than ``n_frames``.
    """
    import av

    done = 0
    with _open(path, record_id) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            for frame in container.decode(stream):
                if done == n_frames:
                    return
                image = frame.to_ndarray(format="rgb24")
                # The tag is the angle that the frame was turned by, counter-clockwise.
                turns = round(frame.rotation / 90) % 4
                yield np.ascontiguousarray(np.rot90(image, turns)) if turns else image
                done += 1
        except av.FFmpegError as error:
            raise ValueError(
                f"record {record_id!r}: frame {done} of {n_frames} in {path.name} cannot be decoded ({error.strerror}):"
                f" the file is damaged; get it again"
            ) from error
    if done < n_frames:
        raise ValueError(
            f"record {record_id!r}: {path.name} ends after {done} of {n_frames} frames: the file is damaged; get it"
            f" again"
        )


def _read_packet_times(path: Path, record_id: str) -> tuple[NDArray[np.float64], int]:
    """Return the sorted times of all packets in seconds, and how many the container announces (0: it does not say)."""
    import av

    with _open(path, record_id) as container:
        stream = container.streams.video[0]
        if stream.time_base is None:
            raise ValueError(f"record {record_id!r}: {path.name} has no time base: give datamodule.source.fps=30")
        try:
            stamps = [
                packet.pts if packet.pts is not None else packet.dts
                for packet in container.demux(stream)
                if packet.size
            ]
        except av.FFmpegError as error:
            raise ValueError(
                f"record {record_id!r}: {path.name} is damaged ({error.strerror}): get it again"
            ) from error
        known = np.array([np.nan if stamp is None else stamp for stamp in stamps], dtype=np.float64)
        return np.sort(known) * float(stream.time_base), int(stream.frames)


def _is_untagged_avi(path: Path) -> bool:
    """Tell whether an AVI file gives no frame rate: FFmpeg then makes up 25."""
    with path.open("rb") as file:
        head = file.read(1 << 12)
    main, video = head.find(b"avih"), head.find(b"vids")
    if not head.startswith(b"RIFF") or main < 0 or video < 0:
        return False
    # Microseconds per frame in the main header; scale and rate, 20 bytes after the kind of the stream.
    values = struct.unpack_from("<I", head, main + 8) + struct.unpack_from("<II", head, video + 20)
    return values[0] == 0 and 0 in values[1:]


def _open(path: Path, record_id: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError("reading videos needs PyAV: pip install 'av>=18,<19'") from error
    if not path.is_file():
        raise FileNotFoundError(f"record {record_id!r}: no file {str(path)!r}")
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise ValueError(
            f"record {record_id!r}: {path.name} cannot be opened as a video ({error.strerror}): the file is cut or"
            f" damaged; get it again"
        ) from error
    if not container.streams.video:
        container.close()
        raise ValueError(f"record {record_id!r}: {path.name} holds no video")
    return container
