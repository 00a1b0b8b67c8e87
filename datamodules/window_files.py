"""The files of a cache directory: signals, the arrays beside them, and what was found while reading."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.cache import content_digest
from datamodules.ptbxl_index import PtbxlIndex
from datamodules.records import EcgWindows
from datamodules.wfdb_worker import CopiedRecord

log = logging.getLogger(__name__)

SIGNALS, ARRAYS, META = "signal_mv.npy", "index.npz", "meta.json"


def save_windows(
    directory: Path, index: PtbxlIndex, fs: float, lead_names: tuple[str, ...], copied: list[CopiedRecord]
) -> None:
    """Write everything beside the signals, which are there already.

    Parameters
    ----------
    directory : Path
        Cache directory.
    index : PtbxlIndex
        Ids, folds and targets of the records.
    fs : float
        Sampling frequency in Hz.
    lead_names : tuple of str
        Leads of the signals.
    copied : list of CopiedRecord
        What was found in each record, in the order of the index.
    """
    np.savez(
        directory / ARRAYS,
        targets=index.targets,
        record_ids=np.array(index.record_ids),
        subject_ids=np.array(index.subject_ids),
        folds=index.folds,
        signal_hashes=np.array([record.signal_hash for record in copied]),
        lead_means_mv=np.array([record.lead_means_mv for record in copied]),
        lead_variances_mv2=np.array([record.lead_variances_mv2 for record in copied]),
    )
    flat = {index.record_ids[record.row]: record.flat_leads for record in copied if record.flat_leads}
    reordered = sum(record.reordered for record in copied)
    if reordered:
        log.warning("%d records store their leads in another order: they were taken by name", reordered)
    axes = {"fs": fs, "lead_names": lead_names, "class_names": index.class_names}
    content = {
        **axes,
        "record_ids": index.record_ids,
        "subject_ids": index.subject_ids,
        "folds": index.folds.tolist(),
        "targets": index.targets.astype(int).tolist(),
        "signal_hashes": [record.signal_hash.decode() for record in copied],
    }
    found = {"used": len(index), "flat_lead": len(flat), "reordered_leads": reordered}
    meta = {
        **axes,
        "data_digest": content_digest(content),
        "counts": {**index.counts, **found},
        "flat_leads": flat,
    }
    (directory / META).write_text(json.dumps(meta, indent=1))


def save_arrays(
    directory: Path,
    arrays: Mapping[str, NDArray[Any]],
    *,
    fs: float,
    lead_names: tuple[str, ...],
    class_names: tuple[str, ...],
    counts: Mapping[str, int],
    records: Mapping[str, Mapping[str, int]],
) -> None:
    """Write everything beside the signals of windows that are many per record.

    Parameters
    ----------
    directory : Path
        Cache directory.
    arrays : mapping of str to ndarray
        The arrays of `EcgWindows` by name, but not ``signal_mv``.
    fs, lead_names, class_names, counts
        As in `EcgWindows`.
    records : mapping of str to mapping
        Counts of each record, for whoever looks into the cache.
    """
    np.savez(directory / ARRAYS, allow_pickle=False, **arrays)
    axes = {"fs": fs, "lead_names": lead_names, "class_names": class_names}
    # Means and variances follow from the signals, which the hashes stand for.
    content = {name: array for name, array in arrays.items() if not name.startswith("lead_")}
    meta = {**axes, "data_digest": digest_arrays(content, axes), "counts": dict(counts), "records": dict(records)}
    (directory / META).write_text(json.dumps(meta, indent=1))


def digest_arrays(arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> str:
    """Digest arrays by name, type, shape and content, and plain data about them.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The arrays.
    about : mapping
        Plain data, see `datamodules.cache.content_digest`.

    Returns
    -------
    str
        SHA-256, 64 hexadecimal digits.
    """
    digests = {
        name: [array.dtype.str, list(array.shape), hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()]
        for name, array in arrays.items()
    }
    return content_digest({"arrays": digests, "about": dict(about)})


def open_windows(directory: Path) -> EcgWindows:
    """Open a complete cache directory.

    Parameters
    ----------
    directory : Path
        Cache directory.

    Returns
    -------
    EcgWindows
        The windows, their signals memory-mapped.

    Raises
    ------
    RuntimeError
        If a file is missing or damaged.
    """
    try:
        meta = json.loads((directory / META).read_text())
        with np.load(directory / ARRAYS, allow_pickle=False) as arrays:
            beside = dict(arrays)
        signal_mv = np.load(directory / SIGNALS, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise RuntimeError(
            f"the cache {str(directory)!r} is damaged ({error}): delete it, it will be built again"
        ) from error
    return EcgWindows(
        signal_mv=signal_mv,
        fs=meta["fs"],
        lead_names=tuple(meta["lead_names"]),
        class_names=tuple(meta["class_names"]),
        data_digest=meta["data_digest"],
        counts=meta["counts"],
        **beside,
    )


def read_flat_leads(directory: Path) -> dict[str, list[str]]:
    """Return the leads that never change, of each record that has one."""
    flat: dict[str, list[str]] = json.loads((directory / META).read_text())["flat_leads"]
    return flat
