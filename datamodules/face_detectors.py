"""Face detectors: the ResNet-10 SSD of OpenCV's samples, and a cascade that needs no weights."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.pretrained import SSD_GRAPH, SSD_WEIGHTS, find_weights

Detector = Callable[[NDArray[np.uint8]], NDArray[np.float64]]
"""From an RGB frame (height, width, 3) to boxes (n, 4): left, top, right, bottom in pixels."""

_SSD_SIZE, _SSD_MEAN_BGR = (300, 300), (104.0, 177.0, 123.0)
_IMPORTING = threading.Lock()
_CASCADE = "haarcascade_frontalface_default.xml"
_CASCADE_SIDE = 320


def load_ssd(*, weights: Path | str, confidence: float = 0.5) -> Detector:
    """Load the single-shot detector on a ResNet-10 (Liu et al. 2016, 10.1007/978-3-319-46448-0_2).

    Parameters
    ----------
    weights : Path or str
        Folder that ``make weights`` fills.
    confidence : float
        Least confidence of a face.

    Returns
    -------
    callable
        See `Detector`.

    Raises
    ------
    FileNotFoundError
        If the weights are not installed; the message says how to.
    ValueError
        If they are not the published ones.
    """
    cv2 = import_cv2()
    net = cv2.dnn.readNetFromCaffe(str(find_weights(weights, SSD_GRAPH)), str(find_weights(weights, SSD_WEIGHTS)))

    def detect(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        net.setInput(cv2.dnn.blobFromImage(frame, 1.0, _SSD_SIZE, _SSD_MEAN_BGR, swapRB=True))
        # Rows: image, class, confidence, left, top, right, bottom as shares of the frame.
        found = net.forward()[0, 0]
        height, width = frame.shape[:2]
        kept = found[found[:, 2] >= confidence]
        return kept[:, 3:7].astype(np.float64) * (width, height, width, height)

    return detect


def load_cascade(*, neighbours: int = 5, smallest: float = 0.15) -> Detector:
    """Load OpenCV's frontal face cascade (Viola & Jones 2001, 10.1109/CVPR.2001.990517), which comes with OpenCV 4.

    Parameters
    ----------
    neighbours : int
        Overlapping answers that make a face.
    smallest : float
        Side of the smallest face, as a share of the frame's shorter side.

    Returns
    -------
    callable
        See `Detector`.

    Raises
    ------
    ImportError
        If this OpenCV has no cascades.
    """
    cv2 = import_cv2()
    path = Path(cv2.data.haarcascades) / _CASCADE if hasattr(cv2, "CascadeClassifier") else None
    if path is None or not path.is_file():
        raise ImportError(
            f"OpenCV {cv2.__version__} has no {_CASCADE}: pip install 'opencv-python-headless>=4.10,<5', or choose the"
            f" SSD, datamodule/faces=ssd"
        )
    cascade = cv2.CascadeClassifier(str(path))

    def detect(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        scale = min(1.0, _CASCADE_SIDE / max(grey.shape))
        if scale < 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        least = max(20, round(smallest * min(grey.shape)))
        found = cascade.detectMultiScale(grey, 1.1, neighbours, minSize=(least, least))
        boxes = np.array(found, dtype=np.float64).reshape(-1, 4) / scale
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)

    return detect


def import_cv2() -> Any:
    """Import OpenCV, or raise `ImportError` with what to install."""
    try:
        # Its first import takes itself out of sys.modules for a moment: another thread would find half of it.
        with _IMPORTING:
            import cv2
    except ImportError as error:
        raise ImportError("finding faces needs OpenCV: pip install 'opencv-python-headless>=4.10,<5'") from error
    return cv2
