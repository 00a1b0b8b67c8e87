"""Beats of a data base with rhythm annotations, cut out once, cached and memory-mapped."""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import Progress

from datamodules.beat_worker import BeatRequest, BeatSpec, RecordBeats, cut_record
from datamodules.cache import cached_directory, content_digest
from datamodules.filters import Filters
from datamodules.origin import find_kind, find_root
from datamodules.physionet import download_matching
from datamodules.processes import count_cores, run_tasks
from datamodules.records import EcgWindows
from datamodules.rhythm_db import check_subjects, list_records, warn_beyond_end
from datamodules.rpeaks import Detector, detect_sleepecg
from datamodules.shared_rows import create_rows, finish_rows, flush_rows
from datamodules.window_files import SIGNALS, open_windows, save_arrays

log = logging.getLogger(__name__)

# Changes whenever the same sources would give other arrays: caches of older code are then left alone.
CACHE_FORMAT = 2


def load_beats(
    root: Path | str | None,
    *,
    cache_dir: Path | str,
    fs: float,
    lead_names: Sequence[str],
    class_names: Sequence[str],
    beat_annotators: Sequence[str],
    channels: Sequence[int] | None = None,
    rhythm_annotator: str = "atr",
    subjects: Mapping[str, str] | None = None,
    filters: Filters | None = None,
    detector: Detector = detect_sleepecg,
    min_rr_s: float = 0.2,
    max_rr_s: float = 3.0,
    missing: Literal["error", "skip"] = "error",
    download: bool = False,
    simulate: Callable[[], Path] | None = None,
    database: str | None = None,
    version: str | None = None,
    workers: int | None = None,
) -> EcgWindows:
    """Load all usable beats of a data base, memory-mapped from a cache that is built at the first call.

    The cache is keyed by names, sizes and times of the record files and by everything that shapes the arrays. A
    call that finds it reads no WFDB file. Records without signals are left out and logged.

    Parameters
    ----------
    root : Path, str or None
        Folder of the records; None for simulated ones.
    cache_dir : Path or str
        Folder for the cache; 1.2 KB per beat and lead.
    fs : float
        Sampling frequency of the records in Hz.
    lead_names : sequence of str
        Leads to cut beats from; R peaks are looked for in the first.
    class_names : sequence of str
        Rhythms, the columns of the targets; ``other`` stands for all that are not named.
    beat_annotators, rhythm_annotator, subjects, missing
        See `datamodules.rhythm_db.read_rhythm_db`.
    channels : sequence of int, optional
        Positions of the leads where names are not unique, see `datamodules.rhythm_signal.read_leads`.
    filters : Filters, optional
        What is done to the signal first; all of it by default.
    detector : callable
        Finds QRS complexes in the filtered signal; a function of a module, or a partial of one.
    min_rr_s, max_rr_s : float
        See `datamodules.beats.choose_beats`.
    download : bool
        Whether to fetch files that are not there from PhysioNet.
    database, version : str, optional
        PhysioNet's name of the data base, needed for a download.
    simulate : callable, optional
        Writes simulated records and returns their folder, see `datamodules.synthetic_afdb`.
    workers : int, optional
        Processes; as many as there are cores by default.

    Returns
    -------
    EcgWindows
        One window of 100 + 200 samples per beat, record by record in the order of time.

    Raises
    ------
    FileNotFoundError
        If files are missing; the message says how to get them.
    ValueError
        If a record is not as expected, or no beat is left.
    OSError
        If the cache cannot be written or the download failed.
    """
    root = find_root(root, simulate, download)
    if download:
        download_matching(database, version, root, (".hea", ".dat", f".{rhythm_annotator}", *_dotted(beat_annotators)))
    filters = Filters() if filters is None else filters
    spec = BeatSpec(
        fs=float(fs),
        lead_names=tuple(lead_names),
        class_names=tuple(class_names),
        filters=filters,
        detector=detector,
        min_rr_s=min_rr_s,
        max_rr_s=max_rr_s,
        missing=missing,
        channels=None if channels is None else tuple(channels),
    )
    record_ids, subjects = list_records(root), dict(subjects or {})
    check_subjects(subjects, record_ids)
    key = content_digest(
        {
            "format": CACHE_FORMAT,
            "files": _list_files(root, record_ids, (".hea", ".dat", f".{rhythm_annotator}", *_dotted(beat_annotators))),
            "beat_annotators": list(beat_annotators),
            "rhythm_annotator": rhythm_annotator,
            "subjects": subjects,
            **spec.describe(),
        }
    )

    def build(target: Path) -> None:
        annotators = tuple(beat_annotators), rhythm_annotator
        rows = create_rows(target / SIGNALS, len(record_ids), (len(spec.lead_names), spec.n_samples))
        requests = [BeatRequest(spec, root, name, *annotators, rows, part) for part, name in enumerate(record_ids)]
        found = _cut(requests, workers)
        finish_rows(rows, [len(beats.times_s) for beats in found])
        _save(target, [beats for beats in found if beats.counts], subjects, spec)

    return replace(open_windows(cached_directory(cache_dir, "beats", key, build)), kind=find_kind(root))


def _dotted(extensions: Sequence[str]) -> list[str]:
    return [f".{extension}" for extension in extensions]


def _list_files(root: Path, record_ids: Sequence[str], suffixes: Sequence[str]) -> list[tuple[str, int, int]]:
    paths = [root / f"{record}{suffix}" for record in record_ids for suffix in suffixes]
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file()]


def _cut(requests: list[BeatRequest], workers: int | None) -> list[RecordBeats]:
    """Cut all records, in parallel, and return what was found, in order; of some, nothing."""
    workers = min(count_cores(), len(requests)) if workers is None else workers
    log.info("cutting beats out of %d records with %d processes", len(requests), workers)
    done: dict[str, RecordBeats] = {}
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("cutting beats out of records", total=len(requests))

        def collect(beats: RecordBeats) -> None:
            done[beats.record_id] = beats
            bar.advance(task)
            if workers > 1:  # the others go on meanwhile
                flush_rows(requests[0].rows)

        run_tasks(cut_record, requests, workers=workers, collect=collect)
    found = [done[request.record_id] for request in requests]
    for beats in found:
        if beats.note:
            log.warning("no beats are cut out of record %r: %s", beats.record_id, beats.note)
        if beats.counts:
            warn_beyond_end(beats.record_id, beats.counts)
            log.info("record %s: %s", beats.record_id, describe_counts(beats.counts))
    if not any(beats.counts for beats in found):
        raise ValueError("no record with signals and annotations is left, expected at least one (datamodule.root)")
    return found


def describe_counts(counts: Mapping[str, int]) -> str:
    """Say what became of a record's beats: how many were moved, rejected (and why) and used."""
    annotated = max(1, counts["annotated"])
    why = {name: counts[name] for name in REJECTIONS if counts.get(name)}
    rejected = sum(why.values())
    return (
        f"{counts['annotated']} beats annotated, {100 * counts['moved'] / annotated:.1f} % moved to an R peak,"
        f" {100 * rejected / annotated:.1f} % rejected {why}, {counts['used']} used"
    )


REJECTIONS = (
    "skipped",
    "duplicate",
    "beyond_end",
    "repeated",
    "edge",
    "unconfirmed",
    "unlabelled",
    "gap",
    "too_close",
    "bad_signal",
)
"""What a beat may be rejected for; with ``used`` they add up to ``annotated``."""


def _save(target: Path, found: list[RecordBeats], subjects: Mapping[str, str], spec: BeatSpec) -> None:
    sizes = [len(beats.times_s) for beats in found]
    if not sum(sizes):
        raise ValueError(
            f"no beat is left of {len(found)} records: {[beats.counts for beats in found][:3]!r}; expected beats"
            f" with a rhythm label and a usable signal"
        )
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(beats, name) for beats in found])
        for name in ("targets", "times_s", "signal_hashes", "lead_means_mv", "lead_variances_mv2")
    }
    record_ids = [beats.record_id for beats in found]
    arrays["record_ids"] = np.repeat(record_ids, sizes)
    arrays["subject_ids"] = np.repeat([subjects.get(name, name) for name in record_ids], sizes)
    arrays["folds"] = np.zeros(sum(sizes), dtype=np.int16)
    counts = functools.reduce(_add, (beats.counts for beats in found))
    counts["records"] = len(found)
    save_arrays(
        target,
        arrays,
        fs=spec.fs,
        lead_names=spec.lead_names,
        class_names=spec.class_names,
        counts=counts,
        records={beats.record_id: beats.counts for beats in found},
    )


def _add(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    return {name: left.get(name, 0) + right.get(name, 0) for name in {**left, **right}}
