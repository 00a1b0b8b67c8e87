"""Read one WFDB record and refuse it when anything about it is not as expected.

Only NumPy and wfdb are imported here, and wfdb late: reader processes start quickly, and a start from the
cache does not pay for it.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = "16"  # two bytes per sample: the only one that PTB-XL uses
INVALID_SAMPLE = -32768  # "no value" in that format, https://physionet.org/physiotools/wag/signal-5.htm


@dataclass(frozen=True, eq=False, slots=True)
class WfdbSignal:
    """Signal of one WFDB record.

    Attributes
    ----------
    signal_mv : ndarray of float32, shape (leads, time)
        Signal in mV, leads in the order asked for.
    reordered : bool
        Whether the record stores these leads in another order.
    """

    signal_mv: NDArray[np.float32]
    reordered: bool


def read_wfdb_signal(
    path: Path | str, *, record_id: str, fs: float, lead_names: tuple[str, ...], n_samples: int
) -> WfdbSignal:
    """Read the named leads of one record, with header and checksums verified.

    Parameters
    ----------
    path : Path or str
        Record, without extension.
    record_id : str
        Named in errors.
    fs : float
        Expected sampling frequency in Hz.
    lead_names : tuple of str
        Leads to return, found by name, never by position.
    n_samples : int
        Expected samples per lead.

    Returns
    -------
    WfdbSignal
        The leads in mV.

    Raises
    ------
    FileNotFoundError
        If header or signal file is missing.
    ValueError
        If the record cannot be decoded, or its frequency, length, leads, units or checksums are not as
        expected, or it holds missing samples.
    """
    import wfdb

    try:
        record = wfdb.rdrecord(str(path), physical=False, return_res=16)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"record {record_id!r} ({path}) cannot be decoded: {error}. Expected a WFDB record of format"
            f" {FORMAT!r}; its signal file may be truncated: get the record again"
        ) from error
    _check_header(record, record_id, fs, lead_names, n_samples)
    _check_samples(record, record_id)
    order = [record.sig_name.index(name) for name in lead_names]
    gain = np.asarray(record.adc_gain, dtype=np.float64)[order, None]
    baseline = np.asarray(record.baseline, dtype=np.float64)[order, None]
    signal_mv = ((record.d_signal.T[order] - baseline) / gain).astype(np.float32)
    return WfdbSignal(signal_mv, reordered=order != sorted(order))


def _check_header(record: Any, record_id: str, fs: float, lead_names: tuple[str, ...], n_samples: int) -> None:
    names: list[str] = list(record.sig_name or ())
    found_fs, found_samples = record.fs, record.sig_len
    if found_fs != fs:
        raise ValueError(
            f"record {record_id!r} has fs {found_fs!r} Hz, expected {fs!r} Hz (datamodule.fs): set the one or"
            f" get the other records"
        )
    missing = [name for name in lead_names if name not in names]
    if missing or len(set(names)) != len(names):
        raise ValueError(
            f"record {record_id!r} has leads {names!r}, expected each of {list(lead_names)!r} once"
            f" (datamodule.lead_names); missing: {missing!r}"
        )
    units = dict(zip(names, record.units, strict=True))
    if wrong := {name: units[name] for name in lead_names if units[name] != "mV"}:
        raise ValueError(f"record {record_id!r} has units {wrong!r}, expected 'mV': convert the record to mV")
    if found_samples != n_samples:
        raise ValueError(
            f"record {record_id!r} has {found_samples!r} samples per lead, expected {n_samples!r}"
            f" ({n_samples / fs:g} s at {fs:g} Hz)"
        )
    if set(record.fmt) != {FORMAT}:
        raise ValueError(
            f"record {record_id!r} has signal formats {sorted(set(record.fmt))!r},"
            f" expected {FORMAT!r} (16 bit) for every lead"
        )


def _check_samples(record: Any, record_id: str) -> None:
    digital: NDArray[np.int16] = record.d_signal
    # https://physionet.org/physiotools/wag/header-5.htm: the 16-bit sum of a signal's samples.
    sums = digital.sum(axis=0, dtype=np.int64) & 0xFFFF
    for name, found, stated in zip(record.sig_name, sums, record.checksum, strict=True):
        if stated is None or int(found) != stated & 0xFFFF:
            raise ValueError(
                f"record {record_id!r}, lead {name!r}: checksum of the samples is {int(found)}, the header"
                f" says {stated!r}: signal or header is damaged, get the record again"
            )
    invalid = (digital == INVALID_SAMPLE).sum(axis=0)
    for name, count in zip(record.sig_name, invalid, strict=True):
        if count:
            raise ValueError(
                f"record {record_id!r}, lead {name!r}: {int(count)} samples are missing (NaN), expected none:"
                f" repair the record or take it out of ptbxl_database.csv"
            )


@functools.cache
def speed_up_headers() -> None:
    """Make wfdb read headers five times as fast, for the rest of this process; for reader processes.

    wfdb 4.3 looks up some 240 field properties per 12-lead header in a DataFrame: four fifths of the time that
    reading a record takes. The same tables as dicts give the same header.
    """
    from wfdb.io import _header

    for name in ("RECORD_SPECS", "SIGNAL_SPECS"):
        table = getattr(_header, name)
        cells = {(row, column): table.at[row, column] for row in table.index for column in table.columns}
        setattr(_header, name, SimpleNamespace(index=list(table.index), loc=cells))
