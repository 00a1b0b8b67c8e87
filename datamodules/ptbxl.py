"""PTB-XL: 12-lead ECGs of 10 s with diagnostic superclasses, read in its published layout.

Wagner et al., PTB-XL, a large publicly available electrocardiography dataset, 10.1038/s41597-020-0495-6;
version 1.0.3, 10.13026/kfzx-aw45.
"""

import contextlib
import logging
import math
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import Progress

from datamodules.cache import allocate_array, cached_directory, content_digest
from datamodules.origin import find_kind
from datamodules.physionet import download_files
from datamodules.processes import count_cores
from datamodules.ptbxl_index import STATEMENTS_CSV, TABLE_CSV, PtbxlIndex, read_index
from datamodules.records import EcgRecord, EcgWindows
from datamodules.wfdb_signal import read_wfdb_signal
from datamodules.wfdb_worker import CopySpec, copy_records
from datamodules.window_files import SIGNALS, open_windows, read_flat_leads, save_windows

log = logging.getLogger(__name__)

DATABASE, VERSION = "ptb-xl", "1.0.3"
RECORD_S = 10.0
SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
LEAD_NAMES = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
# Changes whenever the same sources would give other arrays: caches of older code are then left alone.
CACHE_FORMAT = 1
RECORDS_PER_WORKER = 400  # below that, starting a reader process takes longer than it saves


def read_ptbxl(
    root: Path | str,
    *,
    fs: int = 100,
    lead_names: Sequence[str] = LEAD_NAMES,
    folds: Collection[int] | None = None,
) -> Iterator[EcgRecord]:
    """Read the labelled records one after the other.

    Parameters
    ----------
    root : Path or str
        Folder of ``ptbxl_database.csv``.
    fs : {100, 500}
        Which of the two published versions to read, in Hz.
    lead_names : sequence of str
        Leads to read, by name.
    folds : collection of int, optional
        Values of ``strat_fold`` to read; all by default.

    Yields
    ------
    EcgRecord
        Signal in mV with ids.

    Raises
    ------
    FileNotFoundError, ValueError
        See `load_ptbxl`.
    """
    index = read_index(Path(root), fs=fs, class_names=SUPERCLASSES, folds=folds)
    leads = tuple(lead_names)
    for record_id, subject_id, path in zip(index.record_ids, index.subject_ids, index.paths, strict=True):
        record = read_wfdb_signal(
            Path(root) / path, record_id=record_id, fs=fs, lead_names=leads, n_samples=round(RECORD_S * fs)
        )
        yield EcgRecord(record_id, subject_id, record.signal_mv, float(fs), leads)


def load_ptbxl(
    root: Path | str,
    *,
    cache_dir: Path | str,
    fs: int = 100,
    lead_names: Sequence[str] = LEAD_NAMES,
    class_names: Sequence[str] = SUPERCLASSES,
    folds: Collection[int] = tuple(range(1, 11)),
    missing: Literal["error", "skip"] = "error",
    flat_leads: Literal["keep", "error"] = "keep",
    download: bool = False,
    workers: int | None = None,
) -> EcgWindows:
    """Load all labelled records of some folds, memory-mapped from a cache that is built at the first call.

    The cache is keyed by the tables, by names, sizes and times of the record files, and by everything that
    shapes the arrays. A call that finds it reads no WFDB file.

    Parameters
    ----------
    root : Path or str
        Folder of ``ptbxl_database.csv``.
    cache_dir : Path or str
        Folder for the cache; 48 KB per record at 100 Hz.
    fs : {100, 500}
        Which of the two published versions to read (``records100`` or ``records500``), in Hz.
    lead_names : sequence of str
        Leads to load, by name.
    class_names : sequence of str
        Diagnostic superclasses, the columns of the targets.
    folds : collection of int
        Values of ``strat_fold`` that are needed; records of other folds need not exist.
    missing : {"error", "skip"}
        What to do about listed records without a file. Skipped ones are counted and logged.
    flat_leads : {"keep", "error"}
        What to do about records with a lead that never changes. Kept ones are counted and logged.
    download : bool
        Whether to fetch files that are not there from PhysioNet.
    workers : int, optional
        Reader processes; by default as many as there are cores, and fewer for few records.

    Returns
    -------
    EcgWindows
        One window per record, in the order of the table.

    Raises
    ------
    FileNotFoundError
        If root, tables or records are missing; the message says how to get them.
    ValueError
        If an argument is unknown, a table lacks a column, or a record is not as expected.
    OSError
        If the cache cannot be written or the download failed.
    """
    for key, value, allowed in (
        ("missing", missing, ("error", "skip")),
        ("flat_leads", flat_leads, ("keep", "error")),
    ):
        if value not in allowed:
            raise ValueError(f"datamodule.{key} is {value!r}, expected one of {allowed!r}")
    root = Path(root).expanduser().absolute()
    if download:
        download_files(DATABASE, VERSION, root, (TABLE_CSV, STATEMENTS_CSV))
    index = read_index(root, fs=fs, class_names=class_names, folds=folds)
    if download:
        download_files(DATABASE, VERSION, root, index.file_names())
    index, stats = _present(index, root, missing)
    if len(index) == 0:
        raise ValueError(
            f"no record is left of the folds {sorted(set(folds))!r} in {str(root)!r}: {index.counts!r};"
            f" expected at least one (datamodule.folds)"
        )
    leads = tuple(lead_names)
    key = content_digest(
        {
            "format": CACHE_FORMAT,
            "tables": index.tables_digest,
            "files": stats,
            "folds": sorted(set(folds)),
            "fs": fs,
            "lead_names": leads,
            "class_names": tuple(class_names),
        }
    )
    directory = cached_directory(
        cache_dir, "ptbxl", key, lambda target: _build(target, index, root, fs, leads, workers)
    )
    windows = open_windows(directory)
    _report_flat_leads(directory, flat_leads)
    return replace(windows, kind=find_kind(root))


def _present(
    index: PtbxlIndex, root: Path, missing: Literal["error", "skip"]
) -> tuple[PtbxlIndex, list[tuple[str, int, int]]]:
    """Drop records without files; return the rest with name, size and time of each file."""
    names = [(f"{path}.hea", f"{path}.dat") for path in index.paths]
    found: dict[str, tuple[int, int]] = {}
    for name in (name for pair in names for name in pair):
        with contextlib.suppress(FileNotFoundError):
            # Not Path.stat: with 40,000 files at every start it counts.
            stat = os.stat(f"{root}/{name}")  # noqa: PTH116
            found[name] = (stat.st_size, stat.st_mtime_ns)
    keep = np.array([header in found and signal in found for header, signal in names], dtype=bool)
    lost = int(len(keep) - keep.sum())
    if lost:
        first = [record for record, kept in zip(index.record_ids, keep, strict=True) if not kept][:5]
        message = f"{lost} of {len(keep)} listed records have no header or signal file under {str(root)!r}, first"
        if missing == "error":
            raise FileNotFoundError(
                f"{message}: {first!r}. Get them with datamodule.download=true, or go on without them with"
                f" datamodule.missing=skip"
            )
        log.warning("%s: %r; going on without them (datamodule.missing=skip)", message, first)
        index = index.select(keep, missing=lost)
    stats = [(name, *found[name]) for pair, kept in zip(names, keep, strict=True) if kept for name in pair]
    return index, stats


def _build(
    target: Path, index: PtbxlIndex, root: Path, fs: int, lead_names: tuple[str, ...], workers: int | None
) -> None:
    n_samples = round(RECORD_S * fs)
    signal_path = target / SIGNALS
    offset = allocate_array(signal_path, (len(index), len(lead_names), n_samples), "<f4")
    spec = CopySpec(signal_path, offset, float(fs), lead_names, n_samples)
    records = [(record, str(root / path)) for record, path in zip(index.record_ids, index.paths, strict=True)]
    if workers is None:
        workers = min(count_cores(), math.ceil(len(records) / RECORDS_PER_WORKER))
    log.info("caching %d PTB-XL records of %g Hz with %d processes", len(records), fs, workers)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"PTB-XL {fs} Hz: caching records", total=len(records))
        copied = copy_records(spec, records, workers=workers, progress=lambda n: bar.advance(task, n))
    save_windows(target, index, float(fs), lead_names, copied)


def _report_flat_leads(directory: Path, flat_leads: Literal["keep", "error"]) -> None:
    flat = read_flat_leads(directory)
    if not flat:
        return
    message = f"{len(flat)} records have a lead that never changes, first: {dict(list(flat.items())[:5])!r}"
    if flat_leads == "error":
        raise ValueError(f"{message}: take them out of {TABLE_CSV}, or keep them with datamodule.flat_leads=keep")
    log.warning("%s; kept (datamodule.flat_leads=keep)", message)
