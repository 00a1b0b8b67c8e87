"""From frames to face crops: detection now and then, a calm box in between, crops by area average."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.face_detectors import Detector, import_cv2

SIZES = (36, 72, 96)
# A box that leaves the frame by more than this share of its area is no face: the SSD's spurious answers do.
_MOST_OUTSIDE = 0.1
# Below these shares of its size a new box counts as the old one: a shaking box would be motion in the signal.
_STILL_CENTRE, _STILL_SIZE = 0.06, 0.12
_SAME_FACE_IOU = 0.3


@dataclass(frozen=True, slots=True)
class FaceStage:
    """How faces are found and cut out.

    Attributes
    ----------
    make_detector : callable
        Loads a detector, see `datamodules.face_detectors`.
    detect_every : int
        Frames from one detection to the next.
    enlarge : float
        Side of the square crop over the longer side of the face's box.
    max_gap : int
        Frames without a detection over which the last box is kept; the detector is asked at each of them.
    max_miss_rate : float
        Share of frames without a face above which a video is refused.
    """

    make_detector: Callable[[], Detector]
    detect_every: int = 15
    enlarge: float = 1.2
    max_gap: int = 15
    max_miss_rate: float = 0.2

    def __post_init__(self) -> None:
        for key, least in (("detect_every", 1), ("max_gap", 0)):
            if getattr(self, key) < least:
                raise ValueError(f"datamodule.faces.{key} is {getattr(self, key)!r}, expected at least {least}")
        if not 0.5 <= self.enlarge <= 3:
            raise ValueError(f"datamodule.faces.enlarge is {self.enlarge!r}, expected 0.5 to 3")
        if not 0 <= self.max_miss_rate <= 1:
            raise ValueError(f"datamodule.faces.max_miss_rate is {self.max_miss_rate!r}, expected 0 to 1")

    def describe(self) -> dict[str, Any]:
        """Return plain values of everything that shapes the crops, for digests."""
        make: Any = self.make_detector
        function = getattr(make, "func", make)
        # Where the weights lie does not matter: their content is verified.
        options = {key: value for key, value in getattr(make, "keywords", {}).items() if key != "weights"}
        settings = {key: getattr(self, key) for key in ("detect_every", "enlarge", "max_gap")}
        return {"detector": f"{function.__module__}.{function.__qualname__}", "options": options, **settings}


@dataclass(frozen=True, eq=False, slots=True)
class FaceCrop:
    """The face in one frame.

    Attributes
    ----------
    image : ndarray of float32, shape (size, size, 3)
        RGB from 0 to 1; zeros where there is no face.
    box : tuple of int
        Left, top, right and bottom of the crop in the frame, in pixels; zeros where there is no face.
    missed : bool
        Whether the detector was asked and has found nothing since the last face.
    n_faces : int
        Faces that the last detection found.
    """

    image: NDArray[np.float32]
    box: tuple[int, int, int, int]
    missed: bool
    n_faces: int


@dataclass(slots=True)
class FaceTracker:
    """Follows one face from frame to frame; looks at no later frame, so it serves recordings and cameras.

    Of several faces the largest central one is taken, and then the one where the last one was. A new box is reached
    in even steps until the next detection: no jump that would look like motion.

    Attributes
    ----------
    stage : FaceStage
        Settings.
    size : {36, 72, 96}
        Side of the crops in pixels.
    """

    stage: FaceStage
    size: int
    _detect: Detector = field(init=False)
    _place: NDArray[np.float64] | None = field(init=False, default=None)  # centre x, centre y, side
    _goal: NDArray[np.float64] | None = field(init=False, default=None)
    _frame: int = field(init=False, default=-1)
    _asked: int = field(init=False, default=-1)
    _misses: int = field(init=False, default=0)
    _n_faces: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"datamodule.image_size is {self.size!r}, expected one of {SIZES!r}")
        self._detect = self.stage.make_detector()

    def update(self, frame: NDArray[np.uint8]) -> FaceCrop:
        """Take the next frame and return its face.

        Parameters
        ----------
        frame : ndarray of uint8, shape (height, width, 3)
            RGB.

        Returns
        -------
        FaceCrop
            The crop.
        """
        self._frame += 1
        retry = 0 < self._misses <= self.stage.max_gap
        if retry or self._asked < 0 or self._frame - self._asked >= self.stage.detect_every:
            self._ask(frame)
        elif self._misses:
            self._misses += 1
        if self._place is None or self._goal is None:
            return FaceCrop(np.zeros((self.size, self.size, 3), np.float32), (0, 0, 0, 0), True, self._n_faces)
        left = self.stage.detect_every - (self._frame - self._asked)
        self._place = self._place + (self._goal - self._place) / max(1, left)
        box = _fit_square(self._place, self.stage.enlarge, frame.shape[:2])
        return FaceCrop(cut_out(frame, box, self.size), box, self._misses > 0, self._n_faces)

    def _ask(self, frame: NDArray[np.uint8]) -> None:
        self._asked = self._frame
        faces = keep_inside(self._detect(frame), frame.shape[:2])
        self._n_faces = len(faces)
        if not len(faces):
            self._misses += 1
            if self._misses > self.stage.max_gap:
                self._place = self._goal = None
            return
        self._misses = 0
        found = _to_place(_choose(faces, self._goal, frame.shape[:2]))
        if self._place is None or self._goal is None:
            self._place = self._goal = found
            return
        side = self._goal[2]
        moved = np.hypot(*(found[:2] - self._goal[:2])) > _STILL_CENTRE * side
        if moved or abs(found[2] - side) > _STILL_SIZE * side:
            self._goal = found


def track_faces(frames: Iterable[NDArray[np.uint8]], stage: FaceStage, size: int) -> Iterator[FaceCrop]:
    """Cut the face out of each frame of a video, one after the other.

    Parameters
    ----------
    frames : iterable of ndarray of uint8, shape (height, width, 3)
        RGB.
    stage : FaceStage
        Settings.
    size : {36, 72, 96}
        Side of the crops in pixels.

    Yields
    ------
    FaceCrop
        One per frame.
    """
    tracker = FaceTracker(stage, size)
    for frame in frames:
        yield tracker.update(frame)


def find_usable(missed: NDArray[np.bool_], max_gap: int) -> NDArray[np.bool_]:
    """Tell which frames show a face: all but those of gaps longer than ``max_gap``.

    Parameters
    ----------
    missed : ndarray of bool, shape (n,)
        Frames without a detection.
    max_gap : int
        Longest gap that is bridged, in frames.

    Returns
    -------
    ndarray of bool, shape (n,)
        Usable frames.
    """
    edges = np.flatnonzero(np.diff(missed.astype(np.int8), prepend=0, append=0))
    usable = np.ones(len(missed), dtype=bool)
    for start, stop in edges.reshape(-1, 2):
        # Before the first face and after the last there is nothing to bridge to.
        if stop - start > max_gap or start == 0 or stop == len(missed):
            usable[start:stop] = False
    return usable


def keep_inside(boxes: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Drop boxes without area and those that leave the frame, and cut the rest to it.

    Parameters
    ----------
    boxes : ndarray of float64, shape (n, 4)
        Left, top, right, bottom in pixels.
    shape : tuple of int
        Height and width of the frame.

    Returns
    -------
    ndarray of float64, shape (m, 4)
        The others.
    """
    limits = np.array([shape[1], shape[0]], np.float64)
    inside = np.concatenate([boxes[:, :2].clip(0, limits), boxes[:, 2:].clip(0, limits)], axis=1)
    whole, seen = _areas(boxes), _areas(inside)
    return inside[(whole > 0) & (seen >= (1 - _MOST_OUTSIDE) * whole)]


def cut_out(frame: NDArray[np.uint8], box: tuple[int, int, int, int], size: int) -> NDArray[np.float32]:
    """Reduce a part of a frame by area average, in float: 8 bits would round the pulse away.

    Parameters
    ----------
    frame : ndarray of uint8, shape (height, width, 3)
        RGB.
    box : tuple of int
        Left, top, right, bottom in pixels.
    size : int
        Side of the result.

    Returns
    -------
    ndarray of float32, shape (size, size, 3)
        RGB from 0 to 1.
    """
    cv2 = import_cv2()
    left, top, right, bottom = box
    part = frame[top:bottom, left:right].astype(np.float32)
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA) * np.float32(1 / 255)


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return sides[:, 0] * sides[:, 1]


def _choose(
    faces: NDArray[np.float64], goal: NDArray[np.float64] | None, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Return the face that was there before, or the largest central one."""
    if goal is not None:
        before = np.concatenate([goal[:2] - goal[2] / 2, goal[:2] + goal[2] / 2])[None]
        squares = _to_place(faces)
        squares = np.concatenate([squares[:, :2] - squares[:, 2:] / 2, squares[:, :2] + squares[:, 2:] / 2], axis=1)
        shared = np.concatenate(
            [np.maximum(squares[:, :2], before[:, :2]), np.minimum(squares[:, 2:], before[:, 2:])], 1
        )
        overlap = _areas(shared) / (_areas(squares) + _areas(before) - _areas(shared))
        if overlap.max() >= _SAME_FACE_IOU:
            return faces[int(overlap.argmax())]
    centre = np.array([shape[1] / 2, shape[0] / 2])
    distance = (((faces[:, :2] + faces[:, 2:]) / 2 - centre) / centre) ** 2
    return faces[int((_areas(faces) * np.exp(-distance.sum(axis=1))).argmax())]


def _to_place(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return centre x, centre y and longer side of boxes, shape (..., 3)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([(low + high) / 2, (high - low).max(axis=-1, keepdims=True)], axis=-1)


def _fit_square(place: NDArray[np.float64], enlarge: float, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the enlarged square around a place, moved into the frame."""
    height, width = shape
    side = max(1, min(round(float(place[2]) * enlarge), height, width))
    left = min(max(round(float(place[0]) - side / 2), 0), width - side)
    top = min(max(round(float(place[1]) - side / 2), 0), height - side)
    return left, top, left + side, top + side
