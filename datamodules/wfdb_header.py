"""Headers of WFDB records: plain ones read at once, all others by wfdb, which takes half a second to import.

https://physionet.org/physiotools/wag/header-5.htm. Plain is a record of one segment whose signal lines have all their
numbers, as those of PhysioNet's data bases of ECG.
"""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

_RECORD = re.compile(
    r"[^\s/]+\s+(?P<n_sig>\d+)\s+(?P<fs>\d+(?:\.\d+)?)\s+(?P<sig_len>\d+)(?:\s+[\d:.]+(?:\s+[\d/]+)?)?"
)
_SIGNAL = re.compile(
    r"(?P<file_name>[\w.-]+)\s+(?P<fmt>\d+)\s+(?P<adc_gain>\d+(?:\.\d+)?)(?:\((?P<baseline>-?\d+)\))?"
    r"(?:/(?P<units>[\w^]+))?\s+(?P<adc_res>\d+)\s+(?P<adc_zero>-?\d+)\s+-?\d+\s+(?P<checksum>-?\d+)\s+\d+"
    r"\s+(?P<sig_name>[\w+-]+)"
)
_DEFAULT_GAIN = 200.0  # steps per mV, where the header says 0


@dataclass(frozen=True, slots=True)
class WfdbHeader:
    """What a header says about its record and each of its signals.

    Attributes
    ----------
    n_sig, sig_len : int
        Signals, and samples of each; None where the header does not say.
    fs : float
        Sampling frequency in Hz.
    file_name, fmt, units, sig_name : tuple of str
        File, format, unit and name of each signal; an empty name where it has none.
    samps_per_frame, skew, byte_offset, adc_res, adc_zero, baseline, checksum : tuple of int
        By signal; None where the header does not say.
    adc_gain : tuple of float
        Steps per unit.
    """

    n_sig: int
    fs: float
    sig_len: int | None
    file_name: tuple[str, ...] = ()
    fmt: tuple[str, ...] = ()
    samps_per_frame: tuple[int, ...] = ()
    skew: tuple[int | None, ...] = ()
    byte_offset: tuple[int | None, ...] = ()
    adc_gain: tuple[float, ...] = ()
    baseline: tuple[int, ...] = ()
    units: tuple[str, ...] = ()
    adc_res: tuple[int | None, ...] = ()
    adc_zero: tuple[int | None, ...] = ()
    checksum: tuple[int | None, ...] = ()
    sig_name: tuple[str, ...] = ()


def read_header(path: Path | str) -> WfdbHeader:
    """Read a header as `wfdb.rdheader` does.

    Parameters
    ----------
    path : Path or str
        Record, without extension.

    Returns
    -------
    WfdbHeader
        Its content, with wfdb's defaults.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    Exception
        Whatever wfdb raises, if it cannot read the header either.
    """
    text = Path(f"{path}.hea").read_text(encoding="ascii", errors="ignore")
    lines = [line.strip() for line in text.splitlines()]
    return _read_plain([line for line in lines if line and not line.startswith("#")]) or _ask_wfdb(path)


def _read_plain(lines: list[str]) -> WfdbHeader | None:
    record = _RECORD.fullmatch(lines[0]) if lines else None
    signals = [_SIGNAL.fullmatch(line) for line in lines[1:]]
    if record is None or int(record["n_sig"]) != len(signals):
        return None
    found = [match.groupdict() for match in signals if match]
    if len(found) < len(signals):
        return None
    fs = float(record["fs"])
    return WfdbHeader(
        n_sig=len(signals),
        fs=int(fs) if fs.is_integer() else fs,
        sig_len=int(record["sig_len"]),
        file_name=tuple(signal["file_name"] for signal in found),
        fmt=tuple(signal["fmt"] for signal in found),
        samps_per_frame=(1,) * len(found),
        skew=(None,) * len(found),
        byte_offset=(None,) * len(found),
        adc_gain=tuple(float(signal["adc_gain"]) or _DEFAULT_GAIN for signal in found),
        baseline=tuple(int(signal["baseline"] or signal["adc_zero"]) for signal in found),
        units=tuple(signal["units"] or "mV" for signal in found),
        adc_res=tuple(int(signal["adc_res"]) for signal in found),
        adc_zero=tuple(int(signal["adc_zero"]) for signal in found),
        checksum=tuple(int(signal["checksum"]) for signal in found),
        sig_name=tuple(signal["sig_name"] for signal in found),
    )


def _ask_wfdb(path: Path | str) -> WfdbHeader:
    import wfdb

    header: Any = wfdb.rdheader(str(path))
    values: dict[str, Any] = {"sig_len": None}
    for field in fields(WfdbHeader):
        if (value := getattr(header, field.name, None)) is not None:
            values[field.name] = tuple(value) if isinstance(value, list) else value
    values["sig_name"] = tuple(name or "" for name in values.get("sig_name", ()))
    return WfdbHeader(**values)
