"""Bytes from a pipe or a serial port become signal, and what is missing is marked."""

import os
import sys
import threading
import time
import types

import numpy as np
import pytest

from datamodules import live_lines
from datamodules.live_lines import LineFormat, decode, open_pipe, open_serial, pump
from datamodules.live_source import LiveSourceError
from datamodules.rhythm_signal import LeadNotFoundError


def read_all(data: bytes, form: LineFormat, leads, step: int = 7):
    """Decode bytes that come in parts of ``step``."""
    problems: list[str] = []
    rows = [form.columns.index(lead) for lead in leads]
    blocks = [data[first : first + step] for first in range(0, len(data), step)]
    return np.concatenate(list(decode(blocks, "stdin", form, rows, problems)), axis=1), problems


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_csv_is_read_however_it_comes(step):
    form = LineFormat(250, ("I", "II"), unit="uV")
    signal, problems = read_all(b"I,II\n1000,2\r\n,nan\n\n-3e3,4\n5,6", form, ["II", "I"], step)
    np.testing.assert_allclose(signal[1], [1, np.nan, -3, 0.005], rtol=1e-6)
    np.testing.assert_allclose(signal[0], [0.002, np.nan, 0.004, 0.006], rtol=1e-6)
    assert not problems


@pytest.mark.parametrize("step", [1, 3, 4096])
def test_raw_floats_are_read_however_they_come(step):
    samples = np.random.default_rng(0).normal(size=(50, 2)).astype("<f4")
    form = LineFormat(250, ("I", "II"), kind="f32", unit="V")
    signal, problems = read_all(samples.tobytes(), form, ["II"], step)
    np.testing.assert_allclose(signal[0], samples[:, 1] * 1000)
    assert not problems
    signal, problems = read_all(samples.tobytes()[:-3], form, ["II"], step)
    assert signal.shape == (1, 49)
    assert "in the middle of a sample: 5 bytes" in problems[0]


@pytest.mark.parametrize("line", [b"1\n", b"1,2,3\n", b"1,x\n", b"time,lead\n"])
def test_a_wrong_line_is_named(line):
    with pytest.raises(LiveSourceError, match=r"line 2.*expected 2 comma-separated"):
        read_all(b"1,2\n" + line + b"1,2\n", LineFormat(250, ("I", "II")), ["I"])


def test_an_end_within_a_line_is_a_problem():
    signal, problems = read_all(b"1,2\n3", LineFormat(250, ("I", "II")), ["I"])
    assert signal.tolist() == [[1]]
    assert "ends within a line" in problems[0]


def test_raw_floats_taken_for_csv_are_refused():
    with pytest.raises(LiveSourceError, match="format=f32"):
        read_all(bytes(20_000), LineFormat(250, ("I",)), ["I"], step=4096)


@pytest.mark.parametrize(("options", "message"), [({"fs": 0}, "fs"), ({"kind": "xml"}, "xml"), ({"unit": "kg"}, "kg")])
def test_wrong_formats_are_refused(options, message):
    with pytest.raises(LiveSourceError, match=message):
        LineFormat(**{"fs": 250, "columns": ("I",), **options})


def test_a_pipe_gives_what_is_written_and_knows_its_leads():
    out, into = os.pipe()
    with pytest.raises(LeadNotFoundError, match="'V1'"):
        open_pipe(out, "stdin", LineFormat(250, ("I",)), ["V1"])
    os.write(into, b"1\n2\n")
    source = open_pipe(out, "stdin", LineFormat(250, ("I",)), ["I"])
    assert next(source.chunks).tolist() == [[1, 2]]  # at once, not at the end
    os.write(into, b"3\n")
    assert next(source.chunks).tolist() == [[3]]
    os.close(into)
    assert sum(chunk.shape[1] for chunk in source.chunks) == 0
    os.close(out)


def test_what_a_slow_consumer_misses_is_marked_where_it_was(monkeypatch):
    monkeypatch.setattr(live_lines, "QUEUE_CHUNKS", 2)
    problems: list[str] = []
    sent = iter(range(10))
    go_on, emptied = threading.Event(), threading.Event()

    def read() -> bytes:
        number = next(sent, None)
        if number == 7:  # 2 of 7 wait, 5 were dropped
            emptied.set()
            go_on.wait(10)
            time.sleep(0.1)
        if number is None:
            raise EOFError("port x was lost: unplugged")
        return f"{number}\n".encode()

    chunks = pump(read, lambda: None, "port x", LineFormat(250, ("I",)), [0], problems)
    first = None

    def consume():
        emptied.wait(10)
        go_on.set()

    threading.Thread(target=consume).start()
    signal = []
    for chunk in chunks:
        if first is None:
            first = emptied.wait(10)
        signal.extend(chunk[0].tolist())
        time.sleep(0.01)
    assert len(signal) == 10
    lost = np.isnan(signal)
    assert 1 <= lost.sum() <= 7
    assert all(value == place for place, value in enumerate(signal) if not lost[place])
    assert problems[0] == "port x was lost: unplugged"
    assert f"{lost.sum()} samples were dropped" in problems[1]


def test_silence_is_marked_as_missing():
    now = [0.0]
    sent = iter([(0, b"1\n"), (0.1, b"2\n"), (4, b"3\n")])

    def read() -> bytes:
        later, block = next(sent, (0, None))
        now[0] += later
        if block is None:
            raise EOFError("port x was lost")
        return block

    form, problems = LineFormat(10, ("I",)), []
    signal = np.concatenate(
        list(pump(read, lambda: None, "port x", form, [0], problems, clock=lambda: now[0])), axis=1
    )[0]
    assert np.isnan(signal[2:-1]).all()
    assert len(signal) == 3 + 39
    assert signal[-1] == 3


def test_errors_of_the_reading_thread_arrive():
    blocks = iter([b"1\n", b"x\n"])
    closed = []
    chunks = pump(lambda: next(blocks), lambda: closed.append(1), "port x", LineFormat(250, ("I",)), [0], [])
    with pytest.raises(LiveSourceError, match="line 2"):
        list(chunks)
    assert closed


def test_serial_without_pyserial_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(ImportError, match="pip install pyserial"):
        open_serial("/dev/null", 9600, LineFormat(250, ("I",)), ["I"])


class FakeSerial:
    """The part of pyserial's port that is used, over a pseudo-terminal, for machines without pyserial."""

    def __init__(self, port: str, baud: int, timeout: float) -> None:
        if not os.path.exists(port):  # noqa: PTH110
            raise OSError(f"no such port {port}")
        self.descriptor = os.open(port, os.O_RDONLY | os.O_NOCTTY)
        self.in_waiting = 64

    def read(self, size: int) -> bytes:
        if data := os.read(self.descriptor, size):
            return data
        raise OSError("device reports readiness to read but returned no data")  # as pyserial has it

    def close(self) -> None:
        os.close(self.descriptor)


@pytest.fixture(params=["pyserial", "fake"])
def serial_module(request, monkeypatch):
    if request.param == "pyserial":
        return pytest.importorskip("serial")
    module = types.ModuleType("serial")
    module.Serial, module.SerialException = FakeSerial, OSError
    monkeypatch.setitem(sys.modules, "serial", module)
    return module


def test_serial_reads_a_pseudo_terminal(serial_module):
    import tty

    ours, theirs = os.openpty()
    tty.setraw(theirs)
    source = open_serial(os.ttyname(theirs), 115200, LineFormat(250, ("I",)), ["I"])
    os.write(ours, b"".join(b"%d\n" % number for number in range(200)))
    signal: list[float] = []
    for chunk in source.chunks:
        signal.extend(chunk[0].tolist())
        if len(signal) == 200 and chunk.size:
            os.close(ours)  # unplugged
    os.close(theirs)
    assert signal == list(range(200))
    assert "was lost" in source.problems[0]
    with pytest.raises(LiveSourceError, match="cannot be opened"):
        open_serial("/dev/no such port", 115200, LineFormat(250, ("I",)), ["I"])
