"""Published TS-CAN weights -> files that a stream can run: exported once, by ``make weights``."""

import json
import logging
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from composition.live_contract import PULSE_OUTPUT, PULSE_TASK
from composition.live_models import PRECISIONS, published_path
from datamodules.clips import InputVariant, make_clips
from datamodules.face_detectors import load_cascade
from datamodules.faces import FaceStage, track_faces
from datamodules.pretrained import TSCAN_PURE, TSCAN_RLAP, Weights, find_weights
from datamodules.pulse import PulseFilter
from datamodules.simulated_face import FacePlan, render_frames, simulate_pulse, simulate_rate
from deploy.artifact import ArtifactError, load_artifact
from deploy.onnx import export_onnx
from lightning_modules.import_weights import load_published
from lightning_modules.nets.tscan_forms import OneLookTsCan
from lightning_modules.published import OPEN_RPPG

log = logging.getLogger(__name__)

PUBLISHED = {"pure": TSCAN_PURE, "rlap": TSCAN_RLAP}
FS, SIZE = 30.0, 36
# Written into the files: another number exports them again.
_FORMAT = 2
_PERSONS, _CLIPS_EACH, _SEED = 8, 4, 1


def export_published(folder: Path | str) -> list[Path]:
    """Export every installed set of weights in float32 and int8, unless that has been done.

    A clip is one segment of the net: frames exchange nothing across segments, so that longer clips would only make a
    stream wait. The ranges of int8 come from simulated faces, with no look at the videos that it will see.

    Parameters
    ----------
    folder : Path or str
        Folder of the weights; files come to lie beside them.

    Returns
    -------
    list of Path
        Files that were written now.

    Raises
    ------
    FileNotFoundError, ValueError
        If weights are not installed, or are others.
    """
    written: list[Path] = []
    for name, weights in PUBLISHED.items():
        find_weights(folder, weights)
        paths = {precision: published_path(folder, name, precision) for precision in PRECISIONS}
        missing = {precision: path for precision, path in paths.items() if not _is_current(path, weights)}
        if missing:
            written += _export(Path(folder) / weights.name, name, weights, missing)
    return written


def _export(source: Path, name: str, weights: Weights, paths: dict[str, Path]) -> list[Path]:
    n_frames = OPEN_RPPG.segment
    net, published = load_published(source, n_frames, SIZE)
    variant: InputVariant = published.input_variant  # type: ignore[assignment]  # one of two, as `published` says
    if variant != "standardized_difference":
        raise ValueError(f"{source.name} takes {variant!r}: the frames of such clips do not share their appearance")
    one_look = OneLookTsCan(net)
    example = torch.zeros(2, n_frames, 6, SIZE, SIZE)
    facts = {
        "model": "tscan",
        "recipe": "published",
        "task": PULSE_TASK,
        "output": PULSE_OUTPUT,
        "fs": FS,
        "n_frames": n_frames,
        "segment": published.segment,
        "edge": published.edge,
        "image_size": SIZE,
        "input_variant": variant,
        "band_hz": list(PulseFilter().band_hz),
        "data": "real",
        "dataset": f"{name.upper()} (published weights of {published.name})",
        "weights_digest": weights.sha256,
        "format": _FORMAT,
    }
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    for precision, path in paths.items():
        log.info("exporting %s", path.name)
        calibration = simulate_clips(n_frames, variant) if precision == "int8" else None
        export_onnx(one_look, path, example=example, precision=precision, calibration=calibration, metadata=metadata)
    return list(paths.values())


@lru_cache(maxsize=1)
def simulate_clips(n_frames: int, variant: InputVariant) -> NDArray[np.float32]:
    """Make clips (n, n_frames, 6, size, size) of simulated faces, of several persons, rates and lights."""
    pieces = []
    for person, bpm in enumerate(np.linspace(50, 120, _PERSONS)):
        rng = np.random.default_rng([_SEED, person])
        times_s = np.arange(_CLIPS_EACH * n_frames + 1) / FS
        pulse = simulate_pulse(rng, times_s, simulate_rate(rng, times_s, float(bpm)))
        frames = render_frames(rng, FacePlan(times_s), pulse)
        crops = np.stack([crop.image for crop in track_faces(frames, FaceStage(load_cascade, enlarge=1.0), SIZE)])
        pieces += [crops[at : at + n_frames + 1] for at in range(0, len(crops) - n_frames, n_frames)]
    return make_clips(np.stack(pieces), variant)


def _is_current(path: Path, weights: Weights) -> bool:
    if not path.is_file():
        return False
    try:
        metadata = load_artifact(path).metadata
    except ArtifactError:
        return False
    return metadata.get("weights_digest") == weights.sha256 and metadata.get("format") == str(_FORMAT)
