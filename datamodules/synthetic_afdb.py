"""Small valid data sets of simulated Holter recordings, in AFDB's layout, read by the reader of the real ones."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from datamodules import simulated_holter
from datamodules.annotations import RHYTHM_CODE, write_annotations
from datamodules.cache import cached_directory, content_digest
from datamodules.format_212 import encode_212
from datamodules.origin import ORIGIN_JSON
from datamodules.processes import count_cores, run_tasks
from datamodules.simulated_holter import Holter, simulate_holter

log = logging.getLogger(__name__)

LEAD_NAMES = ("ECG1", "ECG2")
_FIRST_RECORD = 90_001
_GAIN = 200  # steps per mV, as AFDB's
_NORMAL_CODE = 1
# Share of the time in fibrillation, in turn: like AFDB, all have some, some little else.
_BURDENS = (0.1, 0.5, 0.03, 0.9, 0.3, 0.05, 0.7, 0.15, 1.0)


@dataclass(frozen=True, slots=True)
class _Task:
    folder: Path
    number: int
    seed: int
    fs: int
    duration_s: float
    signals: bool


def write_synthetic_afdb(
    root: Path | str,
    *,
    n_records: int = 23,
    hours: float = 0.25,
    seed: int = 0,
    fs: int = 250,
    n_without_signals: int = 2,
    workers: int | None = None,
) -> Path:
    """Write a simulated data set in AFDB's published layout, unless it is there.

    Headers, two leads in format 212, rhythms in ``.atr``, beats as a detector would find them in ``.qrs``. The same
    arguments give the same bytes. Several processes may call at once; a failed call leaves nothing.

    Parameters
    ----------
    root : path
        Folder of the simulated data sets: each gets a folder of its own, named by a digest of its arguments and of
        the simulation's source.
    n_records : int, default 23
        Records with signals, one per person.
    hours : float, default 0.25
        Length of each in hours; AFDB's are 10.2 hours long.
    seed : int, default 0
        Seed of everything drawn.
    fs : int, default 250
        Sampling frequency in Hz.
    n_without_signals : int, default 2
        Further records that have annotations only, as AFDB's 00735 and 03665.
    workers : int, optional
        Processes; as many as there are cores by default.

    Returns
    -------
    Path
        Folder of the records.

    Raises
    ------
    ValueError
        If an argument is out of range.
    OSError
        If the disk is full or not writable.
    """
    if n_records < 1 or not hours >= 1 / 60:
        raise ValueError(
            f"datamodule.source.n_records={n_records!r} and hours={hours!r}: expected at least 1 and at least a minute"
        )
    origin = {
        "kind": "synthetic",
        "n_records": n_records,
        "n_without_signals": n_without_signals,
        "hours": hours,
        "seed": seed,
        "fs": fs,
        "generator": _digest_generator(),
    }
    return cached_directory(root, "afdb", content_digest(origin), lambda target: _write(target, origin, workers))


def _digest_generator() -> str:
    """Digest of the simulation's source, so that nobody trains on files of an older one."""
    sources = (__file__, simulated_holter.__file__)
    return hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources)).hexdigest()


def _write(target: Path, origin: Mapping[str, Any], workers: int | None) -> None:
    n_all = origin["n_records"] + origin["n_without_signals"]
    duration_s = origin["hours"] * 3600
    tasks = [
        _Task(target, number, origin["seed"], origin["fs"], duration_s, number < origin["n_records"])
        for number in range(n_all)
    ]
    if workers is None:  # starting a process takes as long as simulating some hours
        workers = min(count_cores(), max(1, round(n_all * origin["hours"] / 5)))
    log.info("simulating %d records of %g hours with %d processes", n_all, origin["hours"], workers)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task("synthetic AFDB: simulating records", total=n_all)
        run_tasks(_write_record, tasks, workers=workers, collect=lambda _: bar.advance(shown))
    (target / "RECORDS").write_text("".join(f"{_FIRST_RECORD + task.number}\n" for task in tasks), encoding="ascii")
    (target / ORIGIN_JSON).write_text(json.dumps(dict(origin), indent=1) + "\n", encoding="utf-8")


def _write_record(task: _Task) -> None:
    rng = np.random.default_rng([task.seed, task.number])
    holter = simulate_holter(rng, task.duration_s, task.fs, _BURDENS[task.number % len(_BURDENS)])
    stem = task.folder / str(_FIRST_RECORD + task.number)
    _write_annotation_files(rng, stem, holter, task.fs)
    header = f"{stem.name} {len(LEAD_NAMES) if task.signals else 0} {task.fs} "
    if not task.signals:
        stem.with_suffix(".hea").write_text(f"{header}0\n", encoding="ascii")
        return
    digital = np.clip(np.rint(holter.signal_mv * _GAIN), -2047, 2047).astype(np.int16)
    stem.with_suffix(".dat").write_bytes(encode_212(digital))
    lines = [f"{header}{digital.shape[1]}"]
    for name, lead in zip(LEAD_NAMES, digital, strict=True):
        # 16-bit two's complement, as the published headers have it. Gain 0 is AFDB's way to say 200 per mV.
        checksum = int(np.int64(lead.sum(dtype=np.int64)).astype(np.int16))
        lines.append(f"{stem.name}.dat 212 0 12 0 {lead[0]} {checksum} 0 {name}")
    lines.append("# synthetic: simulated, not recorded from a person")
    stem.with_suffix(".hea").write_text("\n".join(lines) + "\n", encoding="ascii")


def _write_annotation_files(rng: np.random.Generator, stem: Path, holter: Holter, fs: int) -> None:
    rhythms = {row: "(AFIB" if irregular else "(N" for row, irregular in enumerate(holter.fibrillation)}
    write_annotations(
        stem.with_suffix(".atr"), np.maximum(holter.starts, 10), np.full(len(rhythms), RHYTHM_CODE), rhythms
    )
    # A detector is a few milliseconds off and misses a beat now and then.
    found = holter.rpeaks[rng.random(len(holter.rpeaks)) > 0.002]
    found = np.unique(found + np.rint(rng.normal(0, 0.008 * fs, len(found))).astype(np.int64))
    write_annotations(stem.with_suffix(".qrs"), found, np.full(len(found), _NORMAL_CODE))
