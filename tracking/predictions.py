"""What an artifact answered on the test split, with the ids that pairing needs."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tracking.files import replace_file

LEVELS = ("record", "beat", "window")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Test predictions of one artifact.

    Parameters
    ----------
    record_ids, subject_ids : ndarray of str, shape (n,)
        Record ids are unique, or each unique together with its time.
    targets : ndarray of float32, shape (n, n_classes)
        Zeros and ones.
    probabilities : ndarray of float64, shape (n, n_classes)
        In [0, 1].
    class_names : tuple of str
    thresholds : ndarray of float64, shape (n_classes,) or (n, n_classes)
        Decision thresholds, chosen on validation; one a row where the rows come from several models.
    exclusive : bool, default False
        Every row has exactly one class.
    level : {"record", "beat", "window"}, default "record"
        What one row is.
    times_s : ndarray of float64, shape (n,), optional
        Place of each row in its record, in seconds from the start.

    Raises
    ------
    ValueError
        If shapes disagree, ids repeat, targets are not binary or not exclusive, probabilities leave [0, 1] (NaN
        included), times are not finite or the level is unknown.
    """

    task: ClassVar[str] = "classification"

    record_ids: NDArray[np.str_]
    subject_ids: NDArray[np.str_]
    targets: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    class_names: tuple[str, ...]
    thresholds: NDArray[np.float64]
    exclusive: bool = False
    level: str = "record"
    times_s: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level is {self.level!r}, expected one of {LEVELS}")
        _check_shapes(self)
        _check_ids(self)
        _refuse(~np.isin(self.targets, (0, 1)), self, self.targets, "target", "0 or 1")
        outside = ~((self.probabilities >= 0) & (self.probabilities <= 1))
        _refuse(outside, self, self.probabilities, "probability", "a number in [0, 1]")
        if self.exclusive and (wrong := self.targets.sum(axis=1) != 1).any():
            row = int(np.argmax(wrong))
            raise ValueError(
                f"record {str(self.record_ids[row])!r}: {self.targets[row].sum():g} of the exclusive classes "
                f"{self.class_names} are targets, expected exactly one"
            )

    @property
    def decisions(self) -> NDArray[np.bool_]:
        """Classes decided for, shape (n, n_classes); exactly one a row where classes are exclusive.

        Of two exclusive classes the last one is chosen from its threshold on, of more the one furthest above its own.
        """
        thresholds = np.broadcast_to(self.thresholds, self.probabilities.shape)
        if not self.exclusive:
            return self.probabilities >= thresholds
        if len(self.class_names) == 2:
            last = self.probabilities[:, 1] >= thresholds[:, 1]
            return np.stack([~last, last], axis=1)
        chosen = np.argmax(self.probabilities - thresholds, axis=1)
        return chosen[:, None] == np.arange(len(self.class_names))

    @property
    def suffix(self) -> str:
        """Last part of the names of metrics: ``_beat``, ``_window``, and nothing for records."""
        return "" if self.level == "record" else f"_{self.level}"


def make_predictions(
    record_ids: ArrayLike,
    subject_ids: ArrayLike,
    targets: ArrayLike,
    probabilities: ArrayLike,
    class_names: Sequence[str],
    thresholds: ArrayLike,
    exclusive: bool = False,
    level: str = "record",
    times_s: ArrayLike | None = None,
) -> Predictions:
    """Build `Predictions` from anything array-like; ids become strings. Errors as in `Predictions`."""
    return Predictions(
        record_ids=np.asarray(record_ids).astype(np.str_),
        subject_ids=np.asarray(subject_ids).astype(np.str_),
        targets=np.asarray(targets, dtype=np.float32),
        probabilities=np.asarray(probabilities, dtype=np.float64),
        class_names=tuple(class_names),
        thresholds=np.asarray(thresholds, dtype=np.float64),
        exclusive=bool(exclusive),
        level=str(level),
        times_s=None if times_s is None else np.asarray(times_s, dtype=np.float64),
    )


def save_predictions(path: Path | str, predictions: Predictions) -> Path:
    """Write predictions as a compressed ``.npz`` without pickled objects."""
    buffer = io.BytesIO()
    times: dict[str, Any] = {} if predictions.times_s is None else {"times_s": predictions.times_s}
    np.savez_compressed(
        buffer,
        record_ids=predictions.record_ids,
        subject_ids=predictions.subject_ids,
        targets=predictions.targets,
        probabilities=predictions.probabilities,
        class_names=np.array(predictions.class_names, dtype=np.str_),
        thresholds=predictions.thresholds,
        exclusive=np.array(predictions.exclusive),
        level=np.array(predictions.level, dtype=np.str_),
        **times,
    )
    return replace_file(path, buffer.getvalue())


def load_predictions(path: Path | str) -> Predictions:
    """Read predictions written by `save_predictions`; files of before there were levels are of records.

    Raises
    ------
    ValueError
        If the file is damaged, holds pickled objects or lacks an array.
    """
    try:
        # Opened here, since numpy leaves a damaged file open.
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            later = {name: arrays[name] for name in ("exclusive", "level", "times_s") if name in arrays}
            return make_predictions(
                arrays["record_ids"],
                arrays["subject_ids"],
                arrays["targets"],
                arrays["probabilities"],
                arrays["class_names"].tolist(),
                arrays["thresholds"],
                **later,
            )
    except (KeyError, EOFError, zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"{path}: not a readable predictions file ({error})") from error


def encode_ids(ids: NDArray[np.str_]) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Return the sorted unique ids, and for each id its position among them; fast where equal ones are neighbours."""
    starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1])[: len(ids)])
    unique, codes = np.unique(ids[starts], return_inverse=True)
    return unique, np.repeat(codes, np.diff(starts, append=len(ids))).astype(np.int64)


def order_in_time(predictions: Predictions) -> NDArray[np.int64]:
    """Positions that sort rows by record and, where there are times, by time."""
    codes = encode_ids(predictions.record_ids)[1]
    if predictions.times_s is None:
        return np.argsort(codes, kind="stable")
    return np.lexsort((predictions.times_s, codes))


def _check_shapes(predictions: Predictions) -> None:
    shape = (len(predictions.record_ids), len(predictions.class_names))
    per_row = predictions.thresholds.ndim == 2
    expected = {
        "subject_ids": shape[:1],
        "targets": shape,
        "probabilities": shape,
        "thresholds": shape if per_row else shape[1:],
    }
    if predictions.times_s is not None:
        expected["times_s"] = shape[:1]
    for name, wanted in expected.items():
        if getattr(predictions, name).shape != wanted:
            raise ValueError(f"{name} has shape {getattr(predictions, name).shape}, expected {wanted}")


def _check_ids(predictions: Predictions) -> None:
    order = order_in_time(predictions)
    ids = predictions.record_ids[order]
    same = ids[1:] == ids[:-1]
    where = ""
    if predictions.times_s is not None:
        times = predictions.times_s[order]
        if not np.isfinite(times).all():
            row = int(np.argmin(np.isfinite(times)))
            raise ValueError(f"record {str(ids[row])!r}: time {times[row].item()!r} s, expected a finite number")
        same &= times[1:] == times[:-1]
        where = f" at {times[int(np.argmax(same))]:g} s" if same.any() else ""
    if same.any():
        name = ids[int(np.argmax(same))]
        raise ValueError(
            f"record id {str(name)!r} stands {int((same & (ids[1:] == name)).sum()) + 1} times{where}; ids must be"
            " unique, or each with its own time in times_s"
        )


def _refuse(
    wrong: NDArray[np.bool_], predictions: Predictions, values: NDArray[np.floating], what: str, expected: str
) -> None:
    if wrong.any():
        row, column = (int(position[0]) for position in np.nonzero(wrong))
        raise ValueError(
            f"record {str(predictions.record_ids[row])!r}, class {predictions.class_names[column]!r}: {what} "
            f"{values[row, column].item()!r}, expected {expected}"
        )
