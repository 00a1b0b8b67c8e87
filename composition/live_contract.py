"""What a model file says about its input and its answers, read back for a stream. Nothing slow is imported here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.clips import VARIANTS, InputVariant
from datamodules.faces import SIZES
from datamodules.live_beats import BeatRules
from deploy.artifact import Artifact, ArtifactError

CUTS = ("beats", "rr", "stretches")
PULSE_TASK, PULSE_OUTPUT = "heart_rate", "bvp_derivative"


@dataclass(frozen=True, eq=False, slots=True)
class LiveContract:
    """The contract of a model that classifies windows of an ECG.

    Attributes
    ----------
    fs : float
        Sampling frequency of the training signals in Hz.
    lead_names : tuple of str
        Leads of a window; ``RR`` for intervals.
    class_names : tuple of str
        Classes, in the order of the logits.
    exclusive : bool
        Whether a window has exactly one class.
    n_samples : int
        Samples, or intervals, of a window.
    mean, std : ndarray of float32, shape (leads, 1)
        Normalisation, in mV or seconds.
    cut : {"beats", "rr", "stretches"}
        How windows are cut.
    rules : BeatRules
        How beats are found; the defaults where the training data had annotations only.
    level : str
        What a window is called.
    data : str
        "real" or "synthetic": what the model was trained on.
    """

    fs: float
    lead_names: tuple[str, ...]
    class_names: tuple[str, ...]
    exclusive: bool
    n_samples: int
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    cut: str
    rules: BeatRules
    level: str
    data: str


@dataclass(frozen=True, eq=False, slots=True)
class PulseContract:
    """The contract of a model that reads the pulse from clips of a face.

    Attributes
    ----------
    fs : float
        Frames per second of a clip.
    n_frames : int
        Samples that it answers, one frame less than it needs.
    image_size : int
        Side of a frame in pixels.
    input_variant : str
        See `datamodules.clips.make_clips`.
    band_hz : tuple of two float
        Where heart rates are looked for.
    data : str
        "real" or "synthetic": what the model was trained on.
    dataset : str
        Its name.
    """

    fs: float
    n_frames: int
    image_size: int
    input_variant: InputVariant
    band_hz: tuple[float, float]
    data: str
    dataset: str


def read_pulse_contract(artifact: Artifact) -> PulseContract:
    """Read the contract of a model file that gets its input from a video.

    Parameters
    ----------
    artifact : Artifact
        The file.

    Returns
    -------
    PulseContract

    Raises
    ------
    ArtifactError
        If the file is of another kind, or does not say all that is needed.
    """
    metadata, name = artifact.metadata, artifact.path.name
    if metadata.get("task") != PULSE_TASK or metadata.get("output") != PULSE_OUTPUT:
        kind = f"classifies {metadata['class_names']}" if "class_names" in metadata else "is of another kind"
        raise ArtifactError(
            f"{name} {kind}, it reads no pulse from a video: leave artifact= out for the installed TS-CAN, or give a"
            f" file of experiment=rppg_tscan"
        )
    try:
        low, high = json.loads(metadata["band_hz"])
        contract = PulseContract(
            fs=float(metadata["fs"]),
            n_frames=int(metadata["n_frames"]),
            image_size=int(metadata["image_size"]),
            input_variant=metadata["input_variant"],  # type: ignore[arg-type]  # checked below
            band_hz=(float(low), float(high)),
            data=metadata["data"],
            dataset=metadata["dataset"],
        )
    except KeyError as error:
        raise ArtifactError(f"{name} does not say {error.args[0]!r} about its input: export it again") from error
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{name}: its contract cannot be read ({error}): export it again") from error
    shape = (contract.n_frames, 6, contract.image_size, contract.image_size)
    if contract.input_variant not in VARIANTS or contract.image_size not in SIZES or artifact.input_shape != shape:
        raise ArtifactError(
            f"{name}: clips of {artifact.input_shape!r} and {contract.input_variant!r}, its contract says {shape!r} and"
            f" one of {VARIANTS!r}, with one of {SIZES!r} pixels: export it again"
        )
    return contract


def read_contract(artifact: Artifact) -> LiveContract:
    """Read the contract of a model file.

    Parameters
    ----------
    artifact : Artifact
        The file.

    Returns
    -------
    LiveContract

    Raises
    ------
    ArtifactError
        If the file carries none, as files of older versions, or one that a stream cannot keep.
    """
    metadata, name = artifact.metadata, artifact.path.name
    if metadata.get("task") == PULSE_TASK:
        raise ArtifactError(f"{name} reads the pulse from a video: give it a video as source=, or an ECG model here")
    try:
        windows: dict[str, Any] = dict(json.loads(metadata["windows"]))
        cut, lead_names = windows.pop("cut"), tuple(json.loads(metadata["lead_names"]))
        mean, std = (np.array(json.loads(metadata[key]), dtype=np.float32)[:, None] for key in ("mean_mv", "std_mv"))
        contract = LiveContract(
            fs=float(metadata["fs"]),
            lead_names=lead_names,
            class_names=tuple(json.loads(metadata["class_names"])),
            exclusive=bool(json.loads(metadata["exclusive"])),
            n_samples=artifact.input_shape[-1],
            mean=mean,
            std=std,
            cut=cut,
            rules=_read_rules(cut, windows),
            level=metadata["level"],
            data=metadata["data"],
        )
    except KeyError as error:
        raise ArtifactError(
            f"{name} does not say {error.args[0]!r} about its input: export it again, with this version"
        ) from error
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{name}: its contract cannot be read ({error}): export it again") from error
    if cut not in CUTS:
        raise ArtifactError(f"{name}: windows are cut by {cut!r}, expected one of {CUTS!r}")
    if not len(lead_names) == len(mean) == len(std) == artifact.input_shape[0] or not (std > 0).all():
        raise ArtifactError(
            f"{name}: {len(lead_names)} leads, {len(mean)} means and {len(std)} positive deviations for windows of"
            f" shape {artifact.input_shape!r}: export it again"
        )
    return contract


def _read_rules(cut: str, windows: Mapping[str, Any]) -> BeatRules:
    if cut == "beats":
        return BeatRules.from_plain(windows)
    return BeatRules(max_rr_s=float(windows["max_rr_s"])) if cut == "rr" else BeatRules()
