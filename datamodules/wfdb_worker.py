"""Copy WFDB records into one array on disk, in this process or in several.

The processes are plain children that talk over pipes, not ``multiprocessing`` ones: a fork would copy the
thread pools of a loaded torch, and a spawn would import the caller's main script, torch included, once per
process.
"""

import contextlib
import hashlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from datamodules.wfdb_signal import read_wfdb_signal

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
    requests: queue.SimpleQueue[CopyRequest] = queue.SimpleQueue()
    for first in range(0, len(records), CHUNK):
        requests.put(CopyRequest(first, tuple(records[first : first + CHUNK])))
    copied: list[CopiedRecord] = []

    def collect(done: list[CopiedRecord]) -> None:
        copied.extend(done)
        progress(len(done))

    if workers <= 1:
        for request in _drain(requests):
            collect(_copy(spec, request))
    else:
        _copy_in_processes(spec, requests, workers, collect)
    return sorted(copied, key=lambda record: record.row)


def _drain(requests: "queue.SimpleQueue[CopyRequest]") -> Iterator[CopyRequest]:
    while True:
        try:
            yield requests.get_nowait()
        except queue.Empty:
            return


def _copy(spec: CopySpec, request: CopyRequest) -> list[CopiedRecord]:
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


def _copy_in_processes(
    spec: CopySpec,
    requests: "queue.SimpleQueue[CopyRequest]",
    workers: int,
    collect: Callable[[list[CopiedRecord]], None],
) -> None:
    failures: list[Exception] = []
    lock = threading.Lock()

    def drive(process: "subprocess.Popen[bytes]") -> None:
        try:
            for request in _drain(requests):
                if failures:
                    return
                answer = _ask(process, (spec, request))
                if isinstance(answer, Exception):
                    raise answer
                with lock:
                    collect(answer)
        except Exception as error:
            failures.append(error)

    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_reader_process()) for _ in range(workers)]
        threads = [threading.Thread(target=drive, args=(process,), daemon=True) for process in processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


@contextlib.contextmanager
def _reader_process() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import main; main()"],
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    except BaseException:
        process.kill()
        raise
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # type: ignore[union-attr]
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def _ask(process: "subprocess.Popen[bytes]", message: object) -> Any:
    try:
        pickle.dump(message, process.stdin)  # type: ignore[arg-type]
        process.stdin.flush()  # type: ignore[union-attr]
        return pickle.load(process.stdout)  # type: ignore[arg-type]
    except (BrokenPipeError, EOFError) as error:
        raise RuntimeError(f"a reader process died (exit code {process.wait()}): see its message above") from error


def _speed_up_headers() -> None:
    # wfdb 4.3 looks up some 240 field properties per 12-lead header in a DataFrame: four fifths of the time
    # that reading a record takes. The same tables as dicts give the same header. Only reader processes do it,
    # so nobody else sees the change.
    from wfdb.io import _header

    for name in ("RECORD_SPECS", "SIGNAL_SPECS"):
        table = getattr(_header, name)
        cells = {(row, column): table.at[row, column] for row in table.index for column in table.columns}
        setattr(_header, name, SimpleNamespace(index=list(table.index), loc=cells))


def main() -> None:
    """Serve copy requests from standard input until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and closes the pipes
    _speed_up_headers()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up between the answers
    while True:
        try:
            spec, request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer: object
        try:
            answer = _copy(spec, request)
        except Exception as error:
            answer = error
        pickle.dump(answer, answers)
        answers.flush()
