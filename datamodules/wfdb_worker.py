"""Copy WFDB records into one array on disk, in this process or in several."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.processes import run_tasks
from datamodules.wfdb_signal import read_wfdb_signal, speed_up_headers

CHUNK = 64  # records per request: enough to hide the pipe, little enough for a smooth progress bar


@dataclass(frozen=True, slots=True)
class CopySpec:
    """Where records go and what they must look like.

    Attributes
    ----------
    array_path : Path
        ``.npy`` file of float32, shape (n, leads, time), with its space reserved.
    offset : int
        Offset of its first element in bytes.
    fs : float
        Expected sampling frequency in Hz.
    lead_names : tuple of str
        Leads to copy, in this order.
    n_samples : int
        Expected samples per lead.
    """

    array_path: Path
    offset: int
    fs: float
    lead_names: tuple[str, ...]
    n_samples: int


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """Consecutive rows to fill: first row, and id and path of each record."""

    first_row: int
    records: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class CopiedRecord:
    """What is worth knowing about a copied record besides its samples.

    Attributes
    ----------
    row : int
        Row of the array that it fills.
    signal_hash : bytes
        BLAKE2b-128 of the float32 samples (little endian, leads by time), hexadecimal.
    lead_means_mv, lead_variances_mv2 : tuple of float
        Mean and variance over time of each lead.
    flat_leads : tuple of str
        Leads that never change.
    reordered : bool
        Whether the record stores the leads in another order.
    """

    row: int
    signal_hash: bytes
    lead_means_mv: tuple[float, ...]
    lead_variances_mv2: tuple[float, ...]
    flat_leads: tuple[str, ...]
    reordered: bool


def copy_records(
    spec: CopySpec, records: Sequence[tuple[str, str]], *, workers: int, progress: Callable[[int], object]
) -> list[CopiedRecord]:
    """Copy all records into the array.

    Parameters
    ----------
    spec : CopySpec
        Target and expectations.
    records : sequence of (str, str)
        Id and path (without extension) of the record of each row.
    workers : int
        Processes; 1 stays in this one.
    progress : callable
        Called with the number of records just copied.

    Returns
    -------
    list of CopiedRecord
        One per row, in order.

    Raises
    ------
    ValueError, OSError
        From the first record that could not be copied.
    RuntimeError
        If a reader process died.
    """
    requests = [
        (spec, CopyRequest(first, tuple(records[first : first + CHUNK]))) for first in range(0, len(records), CHUNK)
    ]
    copy = _copy if workers <= 1 else _copy_in_reader
    copied: list[CopiedRecord] = []

    def collect(done: list[CopiedRecord]) -> None:
        copied.extend(done)
        progress(len(done))

    run_tasks(copy, requests, workers=workers, collect=collect)
    return sorted(copied, key=lambda record: record.row)


def _copy_in_reader(task: tuple[CopySpec, CopyRequest]) -> list[CopiedRecord]:
    speed_up_headers()
    return _copy(task)


def _copy(task: tuple[CopySpec, CopyRequest]) -> list[CopiedRecord]:
    spec, request = task
    block = np.empty((len(request.records), len(spec.lead_names), spec.n_samples), dtype="<f4")
    done = []
    for position, (record_id, path) in enumerate(request.records):
        record = read_wfdb_signal(
            path, record_id=record_id, fs=spec.fs, lead_names=spec.lead_names, n_samples=spec.n_samples
        )
        block[position] = record.signal_mv
        flat = np.ptp(record.signal_mv, axis=1) == 0
        done.append(
            CopiedRecord(
                row=request.first_row + position,
                signal_hash=hashlib.blake2b(block[position], digest_size=16).hexdigest().encode(),
                lead_means_mv=tuple(record.signal_mv.mean(axis=1, dtype=np.float64).tolist()),
                lead_variances_mv2=tuple(record.signal_mv.var(axis=1, dtype=np.float64).tolist()),
                flat_leads=tuple(np.array(spec.lead_names)[flat].tolist()),
                reordered=record.reordered,
            )
        )
    # Written, not mapped: a full disk is then an error and not a killed process.
    with spec.array_path.open("r+b", buffering=0) as file:
        file.seek(spec.offset + request.first_row * block[0].nbytes)
        rest = block.data.cast("B")
        while rest:
            rest = rest[file.write(rest) :]
    return done
