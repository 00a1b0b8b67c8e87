"""From face crops to a TS-CAN's input: evenly timed frames, their differences, their appearance; and its targets."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

InputVariant = Literal["normalized_difference", "standardized_difference"]
VARIANTS = ("normalized_difference", "standardized_difference")
# A tenth of a bpm at 70: closer than that, frames are taken as they are.
_SAME_FPS = 0.0015
_LEAST = 1e-6


def even_positions(times_s: NDArray[np.float64], fs: float) -> NDArray[np.float64]:
    """Return where in a video the frames of an even rate lie: at its own frames if these are even already.

    Parameters
    ----------
    times_s : ndarray of float64, shape (n,)
        Times of the frames in seconds, increasing.
    fs : float
        Wanted frames per second.

    Returns
    -------
    ndarray of float64, shape (m,)
        Positions among the frames; 1.5 is half-way between the second and the third.
    """
    n_frames, span_s = len(times_s), float(times_s[-1] - times_s[0])
    straight = np.linspace(times_s[0], times_s[-1], n_frames)
    if abs((n_frames - 1) / span_s / fs - 1) <= _SAME_FPS and np.abs(times_s - straight).max() <= 0.1 / fs:
        return np.arange(n_frames, dtype=np.float64)
    # A little slack, so that rounding does not cost the last frame.
    wanted_s = times_s[0] + np.arange(int(span_s * fs + 1e-6) + 1) / fs
    return np.interp(wanted_s, times_s, np.arange(n_frames))


def take_frames(crops: NDArray[np.uint16], positions: NDArray[np.float64]) -> NDArray[np.float32]:
    """Take crops at positions, by linear interpolation between neighbours.

    Parameters
    ----------
    crops : ndarray of uint16, shape (n, size, size, 3)
        Crops as they are kept, see `pack_crop`.
    positions : ndarray of float64, shape (m,)
        See `even_positions`; neighbours in time.

    Returns
    -------
    ndarray of float32, shape (m, size, size, 3)
        Crops at the positions, 0 to 1.
    """
    low = positions.astype(np.int64)
    first, last = int(low[0]), min(int(low[-1]) + 2, len(crops))
    part = np.asarray(crops[first:last]) * np.float32(1 / 65535)
    share = (positions - low).astype(np.float32)[:, None, None, None]
    if not share.any():
        return part[low - first]
    return part[low - first] * (1 - share) + part[np.minimum(low - first + 1, len(part) - 1)] * share


def pack_crop(image: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return a crop of 0 to 1 in 16 bits: the pulse is smaller than a step of 8 bits."""
    return np.rint(image * np.float32(65535)).astype(np.uint16)


def make_clips(frames: NDArray[np.float32], variant: InputVariant) -> NDArray[np.float32]:
    """Make motion and appearance out of frames.

    ``normalized_difference`` is the canonical input (Liu et al. 2020, MTTS-CAN, arXiv:2006.03790): the difference of
    neighbours over their sum, divided by its standard deviation over the clip; frames with mean 0 and standard
    deviation 1 over the clip. ``standardized_difference`` is that of the weights of open-rppg: the plain difference,
    of mean 0 and standard deviation 1 in each frame and channel; the clip's mean frame. Both references pad the last
    difference; here one more frame is given instead.

    Parameters
    ----------
    frames : ndarray of float32, shape (n, n_frames + 1, size, size, 3)
        RGB from 0 to 1.
    variant : {"normalized_difference", "standardized_difference"}
        Which input.

    Returns
    -------
    ndarray of float32, shape (n, n_frames, 6, size, size)
        Channels 0 to 2 are motion, 3 to 5 appearance.

    Raises
    ------
    ValueError
        If the variant is unknown.
    """
    if variant not in VARIANTS:
        raise ValueError(f"datamodule.input_variant is {variant!r}, expected one of {VARIANTS!r}")
    earlier, later = frames[:, :-1], frames[:, 1:]
    motion = later - earlier
    if variant == "normalized_difference":
        motion /= later + earlier + np.float32(_LEAST)
        motion /= np.maximum(motion.std(axis=(1, 2, 3, 4), keepdims=True), _LEAST)
        appearance = earlier - earlier.mean(axis=(1, 2, 3, 4), keepdims=True)
        appearance /= np.maximum(earlier.std(axis=(1, 2, 3, 4), keepdims=True), _LEAST)
    else:
        motion -= motion.mean(axis=(2, 3), keepdims=True)
        motion /= motion.std(axis=(2, 3), keepdims=True) + np.float32(_LEAST)
        appearance = np.broadcast_to(earlier.mean(axis=1, keepdims=True), earlier.shape)
    clips = np.empty((*motion.shape[:2], 6, *motion.shape[2:4]), np.float32)
    clips[:, :, :3] = np.moveaxis(motion, -1, 2)
    clips[:, :, 3:] = np.moveaxis(appearance, -1, 2)
    return clips


def derive_target(bvp: NDArray[np.float64]) -> NDArray[np.float32] | None:
    """Return the derivative of a clip's pulse with mean 0 and standard deviation 1.

    Parameters
    ----------
    bvp : ndarray of float64, shape (n_frames + 1,)
        Blood volume pulse at the clip's frames.

    Returns
    -------
    ndarray of float32, shape (n_frames,), or None
        None where the pulse does not change: the sensor was off.
    """
    steps = np.diff(bvp)
    spread = float(steps.std())
    if not spread > 1e-9 * max(1.0, float(np.abs(bvp).max())):
        return None
    return ((steps - steps.mean()) / spread).astype(np.float32)


def find_clips(
    usable: NDArray[np.bool_], positions: NDArray[np.float64], *, n_frames: int, stride: int
) -> tuple[NDArray[np.int64], int]:
    """Return where clips start of which every frame is usable, and how many others there are.

    Parameters
    ----------
    usable : ndarray of bool, shape (n,)
        Frames with a face and, where it is needed, ground truth.
    positions : ndarray of float64, shape (m,)
        See `even_positions`.
    n_frames : int
        Frames of a clip; it takes one more to make the last difference.
    stride : int
        Frames from the start of a clip to the next.

    Returns
    -------
    starts : ndarray of int64, shape (n_clips,)
        Into ``positions``.
    n_dropped : int
        Clips with an unusable frame.
    """
    starts = np.arange(0, len(positions) - n_frames, stride, dtype=np.int64)
    low, high = np.floor(positions).astype(np.int64), np.ceil(positions).astype(np.int64)
    good = usable[low] & usable[high]
    n_bad = np.concatenate([[0], np.cumsum(~good)])
    kept = n_bad[starts + n_frames + 1] == n_bad[starts]
    return starts[kept], int((~kept).sum())
