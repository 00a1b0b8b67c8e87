"""The check that fails a run whose splits share a person, a signal, or statistics."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.cache import content_digest
from datamodules.groups import unique_ids


class LeakageError(ValueError):
    """Information would pass from one split to another."""


@dataclass(frozen=True, slots=True)
class LeakageReport:
    """What the check has seen.

    Attributes
    ----------
    split_digest : str
        Digest of (record id, split) of every record and of the class names.
    n_records, n_subjects : dict of str to int
        Records and persons of each split.
    n_duplicates : dict of str to int
        Windows of each split whose signal occurs in it already.
    leaky : bool
        Whether the split was allowed to share records and persons.
    """

    split_digest: str
    n_records: dict[str, int]
    n_subjects: dict[str, int]
    n_duplicates: dict[str, int]
    leaky: bool = False


def check_leakage(
    *,
    record_ids: NDArray[np.str_],
    subject_ids: NDArray[np.str_],
    signal_hashes: NDArray[np.bytes_] | NDArray[np.uint64],
    splits: Mapping[str, NDArray[np.int64]],
    class_names: Sequence[str],
    normalizer_indices: NDArray[np.int64],
    calibration_indices: NDArray[np.int64] | None = None,
    leaky: bool = False,
) -> LeakageReport:
    """Check that no record, person or signal is on two sides and that all statistics come from ``train``.

    Parameters
    ----------
    record_ids, subject_ids : ndarray of str, shape (n,)
        Recording and person behind each window.
    signal_hashes : ndarray of bytes or uint64, shape (n,)
        Hash of each signal.
    splits : mapping of str to ndarray of int64
        Positions of each split, with a split ``train``.
    class_names : sequence of str
        Names of the targets; part of the digest.
    normalizer_indices : ndarray of int64
        Positions that the normalisation statistics come from.
    calibration_indices : ndarray of int64, optional
        Positions that a quantizer is calibrated on.
    leaky : bool
        Let records and persons be on several sides, for the sake of a comparison with figures that were made so.
        No window may be all the same.

    Returns
    -------
    LeakageReport
        Digest and sizes of the splits.

    Raises
    ------
    LeakageError
        If something is shared; the message names it and the records.
    """
    if "train" not in splits:
        raise ValueError(f"splits are {list(splits)!r}, expected one named 'train'")
    if leaky:
        positions = np.arange(len(record_ids))
        _check_disjoint("position", positions, record_ids, splits)
    else:
        _check_disjoint("record", record_ids, record_ids, splits)
        _check_disjoint("subject", subject_ids, record_ids, splits)
        _check_disjoint("signal with hash", signal_hashes, record_ids, splits)
    for name, indices in (("normalisation", normalizer_indices), ("calibration", calibration_indices)):
        if indices is None:
            continue
        outside = indices[~np.isin(indices, splits["train"])]
        if outside.size:
            raise LeakageError(
                f"{name} uses {outside.size} of {len(indices)} windows from outside the split 'train', first"
                f" record {str(record_ids[outside[0]])!r}: expected training windows only"
            )
    return LeakageReport(
        split_digest=_digest_split(record_ids, splits, class_names),
        n_records={split: len(indices) for split, indices in splits.items()},
        n_subjects={split: len(unique_ids(subject_ids[indices])) for split, indices in splits.items()},
        n_duplicates={
            split: len(indices) - len(unique_ids(signal_hashes[indices])) for split, indices in splits.items()
        },
        leaky=leaky,
    )


def _check_disjoint(
    what: str,
    values: NDArray[Any],
    record_ids: NDArray[np.str_],
    splits: Mapping[str, NDArray[np.int64]],
) -> None:
    unique = {split: unique_ids(values[indices]) for split, indices in splits.items()}
    for first, second in itertools.combinations(splits, 2):
        shared = np.intersect1d(unique[first], unique[second], assume_unique=True)
        if not shared.size:
            continue
        value = shared[0]
        records = {
            split: [str(record) for record in record_ids[splits[split]][values[splits[split]] == value][:3]]
            for split in (first, second)
        }
        shown = value.decode() if isinstance(value, bytes) else str(value)
        raise LeakageError(
            f"{shared.size} {what} on both sides of {first!r} and {second!r}, first {shown!r} (records"
            f" {records!r}): expected each on one side; change the split (datamodule.folds) or take the"
            f" records out"
        )


def _digest_split(
    record_ids: NDArray[np.str_], splits: Mapping[str, NDArray[np.int64]], class_names: Sequence[str]
) -> str:
    if len(unique_ids(record_ids)) == len(record_ids):
        sides = sorted([str(record), split] for split, indices in splits.items() for record in record_ids[indices])
        return content_digest({"sides": sides, "class_names": list(class_names)})
    # Many windows per record: a line for each record, and positions only where its windows are on several sides.
    sides = sorted([str(record), split] for split, taken in splits.items() for record in unique_ids(record_ids[taken]))
    if len({record for record, _ in sides}) == len(sides):
        return content_digest({"sides": sides, "class_names": list(class_names)})
    positions = {
        split: hashlib.sha256(np.sort(indices).astype("<i8").data).hexdigest() for split, indices in splits.items()
    }
    return content_digest({"sides": sides, "positions": positions, "class_names": list(class_names)})
