"""Raw outputs of exported files, kept by content: the same file is not evaluated twice on the same windows."""

import logging
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from composition.evaluation import predict_split
from composition.facts import data_digests
from composition.task import Task
from deploy.artifact import Artifact
from tracking.digests import digest, package_versions
from tracking.files import replace_file

log = logging.getLogger(__name__)

# Distributions that evaluate files: another version may round otherwise.
_RUNTIMES = ("onnxruntime", "ai-edge-litert", "torchao", "torch", "tensorrt")


def answer_split(artifact: Artifact, datamodule: Any, split: str, task: Task, folder: Path) -> NDArray[np.float32]:
    """Give a file's raw outputs to the windows of a split, from an earlier job where one kept them.

    Every recipe of a sweep begins with the same float file, and evaluates it before it changes anything.

    Parameters
    ----------
    artifact : Artifact
        The file; its content counts, not its name.
    datamodule : LightningDataModule
        Set up.
    split : {"train", "val", "test"}
    task : Task
    folder : Path
        One file of outputs each; it may be deleted at any time.

    Returns
    -------
    ndarray of float32
        As `composition.evaluation.predict_split`.
    """
    depends_on = {
        "file": artifact.digest,
        "split": split,
        **data_digests(datamodule),
        "versions": package_versions(_RUNTIMES),
    }
    path = folder / f"{digest(depends_on)}.npy"
    if path.is_file():
        log.info("found the answers of %s to %s", artifact.path.name, split)
        return np.load(path)
    outputs = predict_split(artifact, datamodule, split, task)
    buffer = BytesIO()
    np.save(buffer, outputs)
    replace_file(path, buffer.getvalue())
    return outputs
