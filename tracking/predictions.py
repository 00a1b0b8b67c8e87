"""What an artifact answered on the test split, with the ids that pairing needs."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tracking.files import replace_file


@dataclass(frozen=True, eq=False)
class Predictions:
    """Test predictions of one artifact.

    Parameters
    ----------
    record_ids, subject_ids : ndarray of str, shape (n,)
        Record ids are unique.
    targets : ndarray of float32, shape (n, n_classes)
        Zeros and ones.
    probabilities : ndarray of float64, shape (n, n_classes)
        In [0, 1].
    class_names : tuple of str
    thresholds : ndarray of float64, shape (n_classes,)
        Decision thresholds, chosen on validation.

    Raises
    ------
    ValueError
        If shapes disagree, ids repeat, targets are not binary or probabilities leave [0, 1] (NaN included).
    """

    record_ids: NDArray[np.str_]
    subject_ids: NDArray[np.str_]
    targets: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    class_names: tuple[str, ...]
    thresholds: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = (len(self.record_ids), len(self.class_names))
        for name, expected in (
            ("subject_ids", shape[:1]),
            ("targets", shape),
            ("probabilities", shape),
            ("thresholds", shape[1:]),
        ):
            if getattr(self, name).shape != expected:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {expected}")
        ids, counts = np.unique(self.record_ids, return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"record id {str(ids[counts > 1][0])!r} stands {counts.max()} times; ids must be unique")
        _refuse(~np.isin(self.targets, (0, 1)), self, self.targets, "target", "0 or 1")
        outside = ~((self.probabilities >= 0) & (self.probabilities <= 1))
        _refuse(outside, self, self.probabilities, "probability", "a number in [0, 1]")


def make_predictions(
    record_ids: ArrayLike,
    subject_ids: ArrayLike,
    targets: ArrayLike,
    probabilities: ArrayLike,
    class_names: Sequence[str],
    thresholds: ArrayLike,
) -> Predictions:
    """Build `Predictions` from anything array-like; ids become strings. Errors as in `Predictions`."""
    return Predictions(
        record_ids=np.asarray(record_ids).astype(np.str_),
        subject_ids=np.asarray(subject_ids).astype(np.str_),
        targets=np.asarray(targets, dtype=np.float32),
        probabilities=np.asarray(probabilities, dtype=np.float64),
        class_names=tuple(class_names),
        thresholds=np.asarray(thresholds, dtype=np.float64),
    )


def save_predictions(path: Path | str, predictions: Predictions) -> Path:
    """Write predictions as a compressed ``.npz`` without pickled objects."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        record_ids=predictions.record_ids,
        subject_ids=predictions.subject_ids,
        targets=predictions.targets,
        probabilities=predictions.probabilities,
        class_names=np.array(predictions.class_names, dtype=np.str_),
        thresholds=predictions.thresholds,
    )
    return replace_file(path, buffer.getvalue())


def load_predictions(path: Path | str) -> Predictions:
    """Read predictions written by `save_predictions`.

    Raises
    ------
    ValueError
        If the file is damaged, holds pickled objects or lacks an array.
    """
    try:
        # Opened here, since numpy leaves a damaged file open.
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return make_predictions(
                arrays["record_ids"],
                arrays["subject_ids"],
                arrays["targets"],
                arrays["probabilities"],
                arrays["class_names"].tolist(),
                arrays["thresholds"],
            )
    except (KeyError, EOFError, zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"{path}: not a readable predictions file ({error})") from error


def _refuse(
    wrong: NDArray[np.bool_], predictions: Predictions, values: NDArray[np.floating], what: str, expected: str
) -> None:
    if wrong.any():
        row, column = (int(position[0]) for position in np.nonzero(wrong))
        raise ValueError(
            f"record {str(predictions.record_ids[row])!r}, class {predictions.class_names[column]!r}: {what} "
            f"{values[row, column].item()!r}, expected {expected}"
        )
