"""TensorFlow Lite files of the small net, converted once for all tests of a process."""

from functools import cache
from pathlib import Path

import torch
from torch import nn

from deploy.artifact import Artifact, load_artifact
from deploy.tflite import export_tflite
from deploy.tflite_file import write_metadata
from deploy.tflite_int8 import quantize_static_int8
from tests.exporting import make_small, make_small_windows


@cache
def small_net() -> nn.Module:
    return make_small()


def write_small_float(path: Path) -> Artifact:
    path.write_bytes(_convert_small(path.parent))
    return load_artifact(path)


def write_small_int8(path: Path) -> Artifact:
    return save_tflite(_quantize_small(path.parent), path)


def save_tflite(content: bytes, path: Path, precision: str = "int8") -> Artifact:
    path.write_bytes(write_metadata(content, {"precision": precision}))
    return load_artifact(path)


_kept: dict[str, bytes] = {}


def _convert_small(folder: Path) -> bytes:
    if "float" not in _kept:
        path = folder / "converted.tflite"
        export_tflite(small_net(), path, example=torch.zeros(1, 3, 64), metadata={"fs": "100"})
        _kept["float"] = path.read_bytes()
    return _kept["float"]


def _quantize_small(folder: Path) -> bytes:
    if "int8" not in _kept:
        _kept["int8"] = quantize_static_int8(_convert_small(folder), make_small_windows())
    return _kept["int8"]
