"""How windows and clips lie in the input of a TensorFlow Lite file, and how many calls one of them takes."""

import json
import math

import numpy as np

from deploy.artifact import ArtifactError
from deploy.tflite_file import Graph

CLIP_SHAPE = "clip_shape"
"""Key of the file's metadata for (frames, channels, height, width) of a clip, which takes one call or several."""


def arrange(windows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Lay windows or clips out as a file reads them, channels last.

    Parameters
    ----------
    windows : ndarray of shape (n, leads, time) or (n, frames, channels, height, width)
    shape : tuple of int
        Of the file's input: (1, 1, time, leads) for windows; for some frames of a clip either with the frames as the
        batch, (frames, height, width, channels), or with all of them in one image, (1, height, width, frames *
        channels), frame by frame.

    Returns
    -------
    ndarray of shape (calls, *shape)
        Calls of the same window or clip in a row.
    """
    if windows.ndim == 3:
        return windows.transpose(0, 2, 1)[:, None, None]
    channels, height, width = windows.shape[2:]
    frames = shape[0] * shape[3] // channels
    calls = windows.reshape(-1, frames, channels, height, width)
    if shape[0] == frames:
        return calls.transpose(0, 1, 3, 4, 2)
    return calls.transpose(0, 3, 4, 1, 2).reshape(-1, *shape)


def takes(shape: tuple[int, ...], window: tuple[int, ...]) -> bool:
    """Tell whether an input of some shape takes windows (leads, time), or clips (frames, channels, height, width)."""
    if len(window) == 2:
        return shape == (1, 1, *window[::-1])
    if len(window) != 4 or min(window) < 1 or shape[1:3] != window[2:] or shape[0] * shape[3] % window[1]:
        return False
    frames = shape[0] * shape[3] // window[1]
    return window[0] % frames == 0 and shape[0] in (1, frames)


def read_input_shape(graph: Graph, name: str) -> tuple[int, ...]:
    """Give the shape of one window, (leads, time), or of one clip, (frames, channels, height, width).

    Raises
    ------
    ArtifactError
        If input, output and metadata of the file do not fit each other.
    """
    shapes = [graph.tensors[position].shape for position in graph.inputs]
    outputs = [graph.tensors[position].shape for position in graph.outputs]
    metadata = graph.metadata or {}
    problem = ArtifactError(
        f"{name}: metadata {sorted(metadata)!r}, inputs {shapes!r}, {len(outputs)} outputs: expected a file of"
        " export_tflite (one input of (1, 1, time, leads), or of frames as metadata 'clip_shape' says; 'precision' set)"
    )
    if "precision" not in metadata or len(outputs) != 1 or len(shapes) != 1 or len(shapes[0]) != 4:
        raise problem
    (shape,) = shapes
    if CLIP_SHAPE not in metadata:
        if shape[:2] != (1, 1):
            raise problem
        return shape[3], shape[2]
    try:
        clip = tuple(int(size) for size in json.loads(metadata[CLIP_SHAPE]))
    except (ValueError, TypeError) as error:
        raise problem from error
    if len(clip) != 4 or not takes(shape, clip):
        raise problem
    return clip


def count_calls(graph: Graph) -> int:
    """Give the calls of the file that one window or clip takes."""
    clip = (graph.metadata or {}).get(CLIP_SHAPE)
    return math.prod(json.loads(clip)) // math.prod(graph.tensors[graph.inputs[0]].shape) if clip else 1
