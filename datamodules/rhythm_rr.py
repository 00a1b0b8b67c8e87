"""RR-interval windows of a data base with rhythm annotations; signals are not needed."""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datamodules.beat_worker import encode_rhythms, hash_signals
from datamodules.origin import find_kind, find_root
from datamodules.physionet import download_matching
from datamodules.records import EcgWindows
from datamodules.rhythm_db import read_rhythm_db
from datamodules.rr import RR_ROW, RrWindows, cut_rr_windows
from datamodules.window_files import digest_arrays

log = logging.getLogger(__name__)


def load_rr_windows(
    root: Path | str | None,
    *,
    fs: float,
    lead_names: Sequence[str],
    class_names: Sequence[str],
    length: int,
    stride: int,
    beat_annotators: Sequence[str],
    rhythm_annotator: str = "atr",
    subjects: Mapping[str, str] | None = None,
    max_rr_s: float = 3.0,
    missing: Literal["error", "skip"] = "error",
    download: bool = False,
    simulate: Callable[[], Path] | None = None,
    database: str | None = None,
    version: str | None = None,
) -> EcgWindows:
    """Load windows of RR intervals from the annotations of all records.

    Parameters
    ----------
    root : Path, str or None
        Folder of the records; None for simulated ones.
    fs : float
        Sampling frequency of the records in Hz.
    lead_names : sequence of str
        Must be ``["RR"]``.
    class_names : sequence of two str
        ``other`` and the rhythm that decides the label, by majority.
    length, stride : int
        Intervals per window and from one to the next, see `datamodules.rr.cut_rr_windows`.
    beat_annotators, rhythm_annotator, subjects, missing
        See `datamodules.rhythm_db.read_rhythm_db`.
    max_rr_s : float
        Windows do not reach across a longer interval, in seconds.
    download, database, version, simulate
        See `datamodules.rhythm_beats.load_beats`.

    Returns
    -------
    EcgWindows
        One row of ``length`` intervals per window: ``signal_mv`` holds seconds here, not mV.

    Raises
    ------
    FileNotFoundError
        If files are missing.
    ValueError
        If an argument or a record is not as expected, or no window is left.
    """
    if list(lead_names) != [RR_ROW]:
        raise ValueError(f"datamodule.lead_names is {list(lead_names)!r}, expected {[RR_ROW]!r} for RR windows")
    if len(class_names) != 2:
        raise ValueError(f"datamodule.class_names is {list(class_names)!r}, expected 'other' and one rhythm")
    root = find_root(root, simulate, download)
    if download:
        suffixes = (".hea", f".{rhythm_annotator}", *(f".{extension}" for extension in beat_annotators))
        download_matching(database, version, root, suffixes)
    found: list[tuple[str, str, RrWindows]] = []
    for record in read_rhythm_db(
        root,
        beat_annotators=beat_annotators,
        rhythm_annotator=rhythm_annotator,
        subjects=subjects,
        missing=missing,
    ):
        if record.fs != fs:
            raise ValueError(f"record {record.record_id!r} has fs {record.fs!r} Hz, expected {fs!r} Hz (datamodule.fs)")
        rhythms = record.rhythm_at(record.beats_s)
        windows = cut_rr_windows(
            record.beats_s,
            encode_rhythms(rhythms, tuple(class_names))[:, 1] > 0,
            rhythms != "",
            length=length,
            stride=stride,
            max_rr_s=max_rr_s,
        )
        log.info("record %s: %d windows, %s", record.record_id, len(windows.rr_s), windows.counts)
        found.append((record.record_id, record.subject_id, windows))
    return replace(_join(found, float(fs), tuple(class_names)), kind=find_kind(root))


def _join(found: list[tuple[str, str, RrWindows]], fs: float, class_names: tuple[str, ...]) -> EcgWindows:
    sizes = [len(windows.rr_s) for _, _, windows in found]
    if not sum(sizes):
        raise ValueError(f"no window is left of {len(found)} records, expected records with more beats than a window")
    rr_s = np.concatenate([windows.rr_s for _, _, windows in found])
    positive = np.concatenate([windows.positive for _, _, windows in found])
    arrays: dict[str, Any] = {
        "signal_mv": rr_s[:, None],
        "targets": np.stack([~positive, positive], axis=1).astype(np.float32),
        "record_ids": np.repeat([record for record, _, _ in found], sizes),
        "subject_ids": np.repeat([subject for _, subject, _ in found], sizes),
        "folds": np.zeros(len(rr_s), dtype=np.int16),
        "signal_hashes": hash_signals(rr_s),
        "times_s": np.concatenate([windows.times_s for _, _, windows in found]),
        "training_only": np.concatenate([windows.overlapping for _, _, windows in found]),
    }
    counts = functools.reduce(
        lambda left, right: {name: left[name] + right[name] for name in left},
        (windows.counts for _, _, windows in found),
    )
    return EcgWindows(
        **arrays,
        fs=fs,
        lead_names=(RR_ROW,),
        class_names=class_names,
        data_digest=digest_arrays(arrays, {"fs": fs, "class_names": class_names}),
        counts={**counts, "records": len(found), "used": len(rr_s)},
    )
