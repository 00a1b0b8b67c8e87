"""A live ECG from bytes: CSV lines or raw float32, from a pipe or a serial port."""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from datamodules.live_source import Chunks, LiveSource, LiveSourceError, find_leads

UNITS_MV = {"V": 1000.0, "mV": 1.0, "uV": 0.001}
FORMATS = ("csv", "f32")
QUEUE_CHUNKS = 256
"""Chunks that wait for a slow consumer of a serial port; what comes on top is dropped and marked as missing."""
STALL_S = 2.0
"""A serial port that gives nothing for this long has lost samples; they are marked as missing."""
_READ_BYTES = 1 << 16
_LONGEST_LINE = 1 << 14
# A chunk and the number of samples that are missing before it; or the end, with what went wrong.
_Waiting: TypeAlias = tuple[int, NDArray[np.float32]] | BaseException | None


@dataclass(frozen=True, slots=True)
class LineFormat:
    """How samples are written.

    Attributes
    ----------
    fs : float
        Sampling frequency in Hz.
    columns : tuple of str
        Name of each column.
    kind : {"csv", "f32"}
        One sample of all columns per line, comma-separated, an empty field or ``nan`` where it is missing; or
        little-endian float32, column after column, NaN where it is missing.
    unit : {"mV", "uV", "V"}
        Unit of the values.
    """

    fs: float
    columns: tuple[str, ...]
    kind: str = "csv"
    unit: str = "mV"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.fs) and self.fs > 0):
            raise LiveSourceError(f"fs is {self.fs!r}, expected the sampling frequency of the stream in Hz")
        if self.kind not in FORMATS:
            raise LiveSourceError(f"format is {self.kind!r}, expected one of {FORMATS!r}")
        if self.unit not in UNITS_MV:
            raise LiveSourceError(f"unit is {self.unit!r}, expected one of {tuple(UNITS_MV)!r}")


def open_pipe(descriptor: int, name: str, form: LineFormat, lead_names: Sequence[str]) -> LiveSource:
    """Read a pipe or a file that is open.

    A writer that is faster than we are is held back by the pipe itself: nothing is dropped.

    Parameters
    ----------
    descriptor : int
        File descriptor, such as 0 for standard input.
    name : str
        Named in errors.
    form : LineFormat
        How samples are written.
    lead_names : sequence of str
        Leads to take, found by name among the columns.

    Returns
    -------
    LiveSource

    Raises
    ------
    LeadNotFoundError
        If a lead is missing.
    LiveSourceError
        While it is read, if a line is not as expected.
    """
    rows = find_leads(name, form.columns, lead_names)
    problems: list[str] = []
    blocks = iter(lambda: os.read(descriptor, _READ_BYTES), b"")
    return LiveSource(name, form.fs, tuple(lead_names), decode(blocks, name, form, rows, problems), problems=problems)


def open_serial(port: str, baud: int, form: LineFormat, lead_names: Sequence[str]) -> LiveSource:
    """Read a serial port in a thread of its own, so that the port is emptied while a model runs.

    A port cannot be held back. When `QUEUE_CHUNKS` wait, samples are dropped, counted, and marked as missing where they
    were; so is the time in which nothing came.

    Parameters
    ----------
    port : str
        Device, such as ``/dev/ttyUSB0``.
    baud : int
        Bits per second.
    form : LineFormat
        How samples are written.
    lead_names : sequence of str
        Leads to take.

    Returns
    -------
    LiveSource

    Raises
    ------
    ImportError
        If pyserial is not installed.
    LiveSourceError
        If the port cannot be opened.
    LeadNotFoundError
        If a lead is missing.
    """
    rows = find_leads(f"port {port}", form.columns, lead_names)
    try:
        import serial
    except ImportError as error:
        raise ImportError("source=serial needs pyserial: python -m pip install pyserial") from error
    try:
        device = serial.Serial(port, baud, timeout=0.1)
    except serial.SerialException as error:
        raise LiveSourceError(f"port {port!r} cannot be opened: {error}") from error
    problems: list[str] = []

    def read() -> bytes:
        try:
            return bytes(device.read(max(1, device.in_waiting)))
        except (serial.SerialException, OSError) as error:
            raise EOFError(f"port {port!r} was lost: {error}") from error

    chunks = pump(read, device.close, f"port {port}", form, rows, problems)
    return LiveSource(f"port {port}", form.fs, tuple(lead_names), chunks, problems=problems)


def decode(blocks: Iterable[bytes], name: str, form: LineFormat, rows: Sequence[int], problems: list[str]) -> Chunks:
    """Decode bytes as they arrive.

    Parameters
    ----------
    blocks : iterable of bytes
        Any parts of the stream; empty ones are passed on as chunks without samples.
    name : str
        Named in errors.
    form : LineFormat
        How samples are written.
    rows : sequence of int
        Columns to return.
    problems : list of str
        Takes a note if the stream ends within a sample.

    Yields
    ------
    ndarray of float32, shape (leads, n)
        Signal in mV.

    Raises
    ------
    LiveSourceError
        If a line is not as expected.
    """
    parse = _CsvParser(name, form) if form.kind == "csv" else _parse_f32
    scale = np.float32(UNITS_MV[form.unit])
    rest, taken = b"", list(rows)
    for block in blocks:
        values, rest = parse(rest + block, len(form.columns))
        yield np.ascontiguousarray(values[:, taken].T) * scale
    if form.kind == "csv":
        try:
            values, _ = parse(rest + b"\n", len(form.columns))  # a last line without its end
        except LiveSourceError as error:
            problems.append(f"the stream ends within a line: {error}")
            return
        yield np.ascontiguousarray(values[:, taken].T) * scale
    elif rest:
        problems.append(f"{name} ends in the middle of a sample: {len(rest)} bytes are left over")


def _parse_f32(data: bytes, n_columns: int) -> tuple[NDArray[np.float32], bytes]:
    whole = len(data) // (4 * n_columns) * (4 * n_columns)
    return np.frombuffer(data[:whole], dtype="<f4").reshape(-1, n_columns).astype(np.float32), data[whole:]


class _CsvParser:
    """Parses lines and counts them, for errors; a first line of the columns' names is skipped."""

    def __init__(self, name: str, form: LineFormat) -> None:
        self.name, self.columns, self.n_lines = name, form.columns, 0

    def __call__(self, data: bytes, n_columns: int) -> tuple[NDArray[np.float32], bytes]:
        whole, _, rest = data.rpartition(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise LiveSourceError(f"{self.name}: no end of line in {len(rest)} bytes, expected CSV; or format=f32?")
        samples = [line for line in map(self._parse, whole.splitlines()) if line is not None]
        return np.array(samples, dtype=np.float32).reshape(-1, n_columns), rest

    def _parse(self, line: bytes) -> list[float] | None:
        self.n_lines += 1
        if not line.strip():
            return None
        fields = line.split(b",")
        if self.n_lines == 1 and [field.strip().decode(errors="replace") for field in fields] == list(self.columns):
            return None
        try:
            values = [float(field) if field.strip() else np.nan for field in fields]
        except ValueError:
            values = []
        if len(values) != len(self.columns):
            raise LiveSourceError(
                f"{self.name}, line {self.n_lines}: {line[:80]!r}, expected {len(self.columns)} comma-separated numbers"
                f" (columns={list(self.columns)!r})"
            )
        return values


def pump(
    read: Callable[[], bytes],
    close: Callable[[], None],
    name: str,
    form: LineFormat,
    rows: Sequence[int],
    problems: list[str],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Chunks:
    """Read a device that does not wait in a thread, through a queue of bounded length.

    Parameters
    ----------
    read : callable
        Returns what has come, perhaps nothing, within a moment; raises EOFError at the end.
    close : callable
        Called at the end.
    name, form, rows, problems
        See `decode`.
    clock : callable
        Gives seconds.

    Yields
    ------
    ndarray of float32, shape (leads, n)
        Signal in mV; NaN for samples that were dropped or did not come.

    Raises
    ------
    LiveSourceError
        If a line is not as expected.
    """
    waiting: queue.Queue[_Waiting] = queue.Queue(QUEUE_CHUNKS)
    stopped = threading.Event()

    def work() -> None:
        ended: BaseException | None = None
        try:
            n_lost = _fill(
                waiting, decode(_blocks(read, stopped, problems), name, form, rows, problems), form.fs, clock
            )
            put((n_lost, np.empty((len(rows), 0), dtype=np.float32)))
        except BaseException as error:  # raised again where the stream is used
            ended = error
        put(ended)

    def put(item: _Waiting) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return

    thread = threading.Thread(target=work, name="serial port", daemon=True)
    thread.start()
    n_dropped = 0
    try:
        while isinstance(item := waiting.get(), tuple):
            n_lost, chunk = item
            n_dropped += n_lost
            while n_lost:  # in parts, for a long silence must not take memory
                part = min(n_lost, _READ_BYTES)
                yield np.full((len(rows), part), np.nan, dtype=np.float32)
                n_lost -= part
            yield chunk
        if item is not None:
            raise item
    finally:
        stopped.set()
        thread.join()
        close()
        if n_dropped:
            problems.append(f"{name}: {n_dropped} samples were dropped or did not come")


def _fill(
    waiting: queue.Queue[_Waiting], chunks: Iterator[NDArray[np.float32]], fs: float, clock: Callable[[], float]
) -> int:
    """Queue chunks, each with the number of samples that are missing before it; return how many are behind the last."""
    n_lost, heard = 0, clock()
    for chunk in chunks:
        now = clock()
        if not chunk.shape[1]:
            continue
        if now - heard > STALL_S:
            n_lost += max(0, round((now - heard) * fs) - chunk.shape[1])
        heard = now
        try:
            waiting.put_nowait((n_lost, chunk))
            n_lost = 0
        except queue.Full:
            n_lost += chunk.shape[1]
    return n_lost


def _blocks(read: Callable[[], bytes], stopped: threading.Event, problems: list[str]) -> Iterator[bytes]:
    while not stopped.is_set():
        try:
            block = read()
        except EOFError as error:
            problems.append(str(error))
            return
        yield block
