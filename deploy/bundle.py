"""One folder for one device: the model, what feeding and reading it takes, and the script that measures it there."""

import io
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.artifact import Artifact, ArtifactError, predict
from deploy.devices import Device, refuse_artifact
from deploy.licences import describe_licences
from deploy.run_on_device import digest

HERE = Path(__file__).resolve().parent
N_GOLDEN = 8
COMPILER_S = 600
# Largest difference of a logit between two machines, as a share of the span of the golden logits: float kernels add in
# another order; in int8 a rounding that falls to the other side moves a whole step.
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "int8": 5e-2}


class BundleError(ValueError):
    """A bundle that cannot be made, or a measurement that does not belong to it."""


@dataclass(frozen=True, eq=False)
class Slice:
    """Test windows that travel along.

    Attributes
    ----------
    positions : ndarray of int64, shape (n,)
        Places among the windows of the test side.
    windows : ndarray of float32, shape (n, leads, time)
        Normalised.
    targets : ndarray of float32, shape (n, classes)
    decisions : ndarray of bool, shape (n, classes)
        Of the workstation.
    """

    positions: NDArray[np.int64]
    windows: NDArray[np.float32]
    targets: NDArray[np.float32]
    decisions: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Content:
    """Everything that a bundle is written from.

    Attributes
    ----------
    run_id : str
        Run that the model came from.
    artifact : Artifact
    device : Device
    test : Slice
    preprocessing : mapping
        How a signal becomes a window.
    reading : mapping
        ``class_names``, ``thresholds``, ``exclusive`` and ``level``.
    dataset, data : str
        What it was trained on, for its licences.
    card : str
        The model card.
    """

    run_id: str
    artifact: Artifact
    device: Device
    test: Slice
    preprocessing: Mapping[str, Any]
    reading: Mapping[str, Any]
    dataset: str
    data: str
    card: str


def choose_slice(targets: NDArray[np.floating], n: int) -> NDArray[np.int64]:
    """Choose test windows, always the same: the first two with and without each class, the rest evenly spread.

    Parameters
    ----------
    targets : ndarray of shape (n_test, classes)
        Zeros and ones.
    n : int
        Windows to choose; all where there are fewer.

    Returns
    -------
    ndarray of int64
        Sorted positions.

    Raises
    ------
    BundleError
        If `n` is below 1.
    """
    if n < 1:
        raise BundleError(f"n_slice={n!r}, expected at least 1 test window")
    sides = [np.flatnonzero((targets[:, k] > 0) == side)[:2] for k in range(targets.shape[1]) for side in (True, False)]
    spread = np.linspace(0, len(targets) - 1, min(n, len(targets))).astype(np.int64)
    chosen = list(dict.fromkeys(np.concatenate([*sides, spread]).tolist()))
    return np.sort(np.array(chosen[:n], dtype=np.int64))


def write_bundle(content: Content, output: Path | str) -> Path:
    """Write a bundle: the same content gives the same bytes, and the folder appears whole or not at all.

    Parameters
    ----------
    content : Content
    output : Path or str
        Folder that does not exist yet.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    BundleError
        If the folder exists, or the device cannot take the file.
    ArtifactError
        If the file is damaged, or does not take the windows of the slice.
    """
    output = Path(output)
    if output.exists():
        raise BundleError(f"{output} exists already: name another folder with output=, or remove it first")
    if reason := refuse_artifact(content.device, content.artifact):
        raise BundleError(f"{content.artifact.path.name}: {reason}")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".bundle_") as folder:
        part = Path(folder, "bundle")
        part.mkdir()
        _fill(part, content)
        try:
            part.rename(output)
        except OSError as error:
            raise BundleError(f"{output} could not be written ({error}): name another folder with output=") from error
    return output


def _fill(folder: Path, content: Content) -> None:
    artifact, device, test = content.artifact, content.device, content.test
    model = f"model{artifact.path.suffix}"
    runtimes = dict(device.runtimes[artifact.path.suffix])
    shutil.copyfile(artifact.path, folder / model)
    shutil.copyfile(HERE / "run_on_device.py", folder / "run_on_device.py")
    delegated = _compile(folder / model, device.compiler)
    windows = test.windows[:N_GOLDEN]
    logits = predict(artifact, windows, threads=1)
    if not np.isfinite(logits).all():
        raise ArtifactError(f"{artifact.path.name}: gives values that are not finite, so there is nothing to check")
    _write_arrays(
        folder / "golden.npz", windows=windows, logits=logits, tolerance=np.array(find_tolerance(artifact, logits))
    )
    _write_arrays(
        folder / "slice.npz",
        positions=test.positions,
        windows=test.windows,
        targets=test.targets,
        decisions=test.decisions,
    )
    _write_json(folder / "preprocessing.json", content.preprocessing)
    _write_text(folder / "requirements.txt", list_requirements(runtimes))
    _write_text(folder / "LICENCES.md", describe_licences(content.dataset, content.data, list(runtimes)))
    _write_text(folder / "MODEL_CARD.md", content.card)
    _write_json(
        folder / "bundle.json",
        {
            "format": 1,
            "run_id": content.run_id,
            "device": device.name,
            "model": model,
            "delegated": delegated,
            "precision": artifact.precision,
            "runtimes": runtimes,
            **content.reading,
            "files": {path.name: digest(path) for path in sorted(folder.iterdir())},
        },
    )


def _compile(model: Path, compiler: str) -> str | None:
    """Compile a copy of the model for an accelerator: its name, or None where there is no compiler."""
    program = shutil.which(compiler) if compiler else None
    if program is None:
        return None
    name = f"{model.stem}_edgetpu{model.suffix}"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [program, "-o", folder, str(model)], capture_output=True, text=True, check=False, timeout=COMPILER_S
        )
        if done.returncode != 0 or not Path(folder, name).is_file():
            raise BundleError(f"{compiler} refused {model.name}: {(done.stdout + done.stderr).strip()[-1500:]}")
        # The log beside it holds paths and times of this machine.
        shutil.copyfile(Path(folder, name), model.with_name(name))
    return name


def find_tolerance(artifact: Artifact, logits: NDArray[np.floating]) -> float:
    """Give the largest difference of a logit that the device may show.

    Raises
    ------
    BundleError
        If there is no tolerance for the file's precision.
    """
    share = next((share for name, share in TOLERANCES.items() if artifact.precision.startswith(name)), None)
    if share is None:
        raise BundleError(
            f"precision {artifact.precision!r} has no tolerance for golden vectors, expected one of"
            f" {list(TOLERANCES)!r}"
        )
    # Logits that are all alike still carry the error of a sum of floats.
    return max(share * float(np.ptp(logits)), 1e-5)


def list_requirements(runtimes: Mapping[str, str]) -> str:
    """Write requirements.txt: numpy, the first runtime that pip can install, and the others as comments."""
    lines = [
        # tflite-runtime was compiled for numpy 1.
        "numpy<2" if next(iter(runtimes)) == "tflite-runtime" else "numpy"
    ]
    for index, (name, version) in enumerate(runtimes.items()):
        if name == "tensorrt":
            lines.append(f"# {name}>={version}: comes with the device's system, not from pip")
        elif index == 0:
            lines.append(f"{name}>={version}")
        else:
            numpy = ", with numpy<2" if name == "tflite-runtime" else ""
            lines.append(f"# or {name}>={version}{numpy}")
    return "\n".join(lines) + "\n"


def _write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    # Not compressed: other versions of zlib give other bytes. numpy dates every entry 1980.
    buffer = io.BytesIO()
    contents: dict[str, Any] = dict(arrays)
    np.savez(buffer, **contents)
    path.write_bytes(buffer.getvalue())


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    # The same line ends on every system.
    path.write_bytes(text.encode("utf-8"))
