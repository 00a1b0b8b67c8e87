import dataclasses

import pytest
import wfdb

from datamodules import wfdb_header
from datamodules.wfdb_header import read_header

PLAIN = {
    "afdb": "04015 2 250 9205760  9:00:00\n"
    "04015.dat 212 0 12 0 -55 -27172 0 ECG1\n"
    "04015.dat 212 0 12 0 -42 -28460 0 ECG2\n",
    "mitdb": "100 2 360 650000\n"
    "100.dat 212 200 11 1024 995 -22131 0 MLII\n"
    "100.dat 212 200 11 1024 1011 20052 0 V5\n"
    "# 69 M 1085 1629 x1\n",
    "units": "r 1 128.5 10 9:00:00 24/12/1999\nr.dat 16 1000.0(-3)/mV 16 0 -119 1508 0 I\n",
    "no signals": "00735 0 250 0\n",
}
OTHER = {
    "frames": "r 1 250 10\nr.dat 212x2:3+4 200 12 0 1 2 0 ECG1\n",
    "short lines": "r 2 250 10\nr.dat 212\nr.dat 212 100\n",
    "spaced name": "r 1 250 10\nr.dat 212 200 12 0 1 2 0 lead one\n",
    "no length": "r 1 250\nr.dat 212 200 12 0 1 2 0 ECG1\n",
}


def write(folder, text):
    (folder / "r.hea").write_text(text, encoding="ascii")
    return folder / "r"


@pytest.mark.parametrize("name", [*PLAIN, *OTHER])
def test_wfdb_header_is_wfdbs(tmp_path, name):
    path = write(tmp_path, {**PLAIN, **OTHER}[name])
    found, expected = read_header(path), wfdb.rdheader(str(path))
    for field in dataclasses.fields(found):
        mine, theirs = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(mine, tuple):
            assert mine == tuple("" if value is None and field.name == "sig_name" else value for value in theirs or ())
        else:
            assert mine == theirs, field.name


@pytest.mark.parametrize("name", PLAIN)
def test_wfdb_header_that_is_plain_needs_no_wfdb(tmp_path, monkeypatch, name):
    monkeypatch.setattr(wfdb_header, "_ask_wfdb", lambda path: pytest.fail(f"{path} went to wfdb"))
    assert read_header(write(tmp_path, PLAIN[name])).fs in (250, 360, 128.5)


def test_wfdb_header_that_says_nothing_is_an_error(tmp_path):
    with pytest.raises(Exception, match="syntax"):
        read_header(write(tmp_path, "no header at all\n"))
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "absent")
