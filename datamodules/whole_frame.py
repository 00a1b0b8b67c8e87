"""No face detection at all, as an experiment: what paper P1 gave its net, since it did not use the face's box."""

import numpy as np
from numpy.typing import NDArray

from datamodules.face_detectors import Detector


def load_whole_frame() -> Detector:
    """Give a detector that takes every frame for a face; the crop is the frame's central square."""

    def detect(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        height, width = frame.shape[:2]
        return np.array([[0, 0, width, height]], np.float64)

    return detect
