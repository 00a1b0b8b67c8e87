"""A model file as it would be shipped, and its evaluation by its own runtime.

The ending of the file names the module of this package that owns the format: ``model.onnx`` belongs to
``deploy.onnx``. A further target is one further file here with the functions of `Target`.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

import numpy as np

Session = Callable[[np.ndarray], np.ndarray]


class ArtifactError(ValueError):
    """A model file that cannot be read or run, or input that does not fit it."""


class NotMeasured(Exception):  # noqa: N818 - named for what happens to the row
    """A file was made for a runtime or a device that is not here, so there is nothing to measure.

    Parameters
    ----------
    path : Path
        What was made and checked, to be taken to the device.
    runtime, precision : str
        What would have run it, and in which numbers.
    reason : str
        Why it did not, and what to do.
    """

    def __init__(self, path: Path, runtime: str, precision: str, reason: str) -> None:
        super().__init__(reason)
        self.path, self.runtime, self.precision, self.reason = path, runtime, precision, reason


@dataclass(frozen=True)
class Artifact:
    """One exported model file and the contract written in it.

    Attributes
    ----------
    path : Path
        The file.
    runtime : str
        Runtime that evaluates it, such as "onnxruntime".
    precision : str
        "float32", "float16", "int8" (static) or "int8_dynamic".
    input_shape : tuple of int
        Shape of one window: (leads, time), or (frames, channels, height, width) of a clip.
    metadata : mapping of str to str
        What the exporter was asked to write into the file.
    """

    path: Path
    runtime: str
    precision: str
    input_shape: tuple[int, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Size of the file on disk, in bytes."""
        return self.path.stat().st_size

    @property
    def digest(self) -> str:
        """SHA-256 of the file, as hexadecimal text."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class WeightCount:
    """Values that the operators with MACs multiply by, as stored in a model file.

    Attributes
    ----------
    values, nonzero : int
        All of them, and those that are not zero.
    size_bytes, nonzero_bytes : int
        What they take up in the file, and what those that are not zero do.
    """

    values: int = 0
    nonzero: int = 0
    size_bytes: int = 0
    nonzero_bytes: int = 0

    @property
    def sparsity(self) -> float:
        """Share of zeros, 0 to 1; 0 where there are no weights."""
        return 1 - self.nonzero / self.values if self.values else 0.0

    @property
    def sparse_bytes(self) -> int:
        """Size with one bit for every value, and the values that are not zero."""
        return math.ceil(self.values / 8) + self.nonzero_bytes


@dataclass(frozen=True)
class OperatorCount:
    """Operators of a model file and their multiply-accumulates for one window.

    Attributes
    ----------
    node_macs : dict of str to int
        Node name to MACs at batch 1; nodes without MACs are left out.
    int8_nodes : frozenset of str
        Those among them that multiply integers of 8 bits.
    operators : dict of str to int
        Operator type to number of nodes.
    weights : WeightCount
        Of the nodes with MACs.
    layers : dict of str to str
        Node name to the module of the net whose weights the node holds, such as "features.0", as far as known.
    """

    node_macs: dict[str, int]
    int8_nodes: frozenset[str]
    operators: dict[str, int]
    weights: WeightCount = WeightCount()
    layers: dict[str, str] = field(default_factory=dict)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one window."""
        return sum(self.node_macs.values())

    @property
    def int8_macs_share(self) -> float:
        """Share of the MACs that run in int8, 0 to 1; 0 for a graph without MACs."""
        return sum(self.node_macs[name] for name in self.int8_nodes) / self.macs if self.macs else 0.0

    @property
    def layer_macs(self) -> dict[str, int]:
        """MACs by layer, in the order of the graph: by module where it is known, else by node."""
        macs: dict[str, int] = {}
        for node, count in self.node_macs.items():
            layer = self.layers.get(node, node)
            macs[layer] = macs.get(layer, 0) + count
        return macs


class Target(Protocol):
    """What the module of a file format offers."""

    def load_artifact(self, path: Path) -> Artifact:
        """Read the contract from the file."""

    def open_session(self, path: Path, *, threads: int) -> Session:
        """Load the file into its runtime; the result maps (n, leads, time) to logits (n, classes)."""

    def count_macs(self, path: Path) -> OperatorCount:
        """Count operators and MACs of the file."""


def find_target(path: Path) -> Target:
    """Give the module that owns a file format.

    Parameters
    ----------
    path : Path
        Model file; only its ending is looked at.

    Raises
    ------
    ArtifactError
        If no module of this package is named like the ending.
    """
    name = f"deploy.{path.suffix.removeprefix('.')}"
    module = import_module(name) if path.suffix and find_spec(name) else None
    if not hasattr(module, "open_session"):
        raise ArtifactError(f"{path.name!r}: no deploy target for the ending {path.suffix!r}, expected e.g. '.onnx'")
    return cast(Target, module)


def load_artifact(path: str | Path) -> Artifact:
    """Read a model file's runtime, precision, input shape and metadata from the file itself.

    Raises
    ------
    ArtifactError
        If the file is missing, damaged or of an unknown format.
    """
    path = Path(path)
    target = find_target(path)
    if not path.is_file():
        raise ArtifactError(f"{path}: no such model file; export it first")
    return target.load_artifact(path)


def predict(artifact: Artifact, batch: np.ndarray, *, threads: int = 0, batch_size: int = 256) -> np.ndarray:
    """Evaluate a model file on windows with its own runtime.

    Parameters
    ----------
    artifact : Artifact
        The file to load.
    batch : ndarray of shape (n, leads, time) or (n, frames, channels, height, width)
        Normalised windows; converted to float32.
    threads : int, default 0
        Threads of the runtime; 0 leaves the choice to it.
    batch_size : int, default 256
        Windows of one call; bounds the memory.

    Returns
    -------
    ndarray of shape (n, classes), float32
        Logits; of clips the waves (n, frames).

    Raises
    ------
    ArtifactError
        If the file cannot be loaded or the windows do not have its input shape.
    """
    if batch.ndim != 1 + len(artifact.input_shape) or batch.shape[1:] != artifact.input_shape or len(batch) == 0:
        raise ArtifactError(
            f"{artifact.path.name}: input of shape {batch.shape!r}, expected (n, *{artifact.input_shape!r}) "
            "with n >= 1; check window_s, fs and lead_names, or n_frames and image_size"
        )
    session = find_target(artifact.path).open_session(artifact.path, threads=threads)
    signal = np.ascontiguousarray(batch, dtype=np.float32)
    parts = [session(signal[start : start + batch_size]) for start in range(0, len(signal), batch_size)]
    return np.concatenate(parts)
