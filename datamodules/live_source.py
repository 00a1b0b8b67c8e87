"""Where a live ECG comes from: WFDB records read a piece at a time; what all sources have in common."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from datamodules.format_212 import decode_212
from datamodules.rhythm_signal import INVALID_SAMPLES, LeadNotFoundError

CHUNK_S = 10.0
"""What is read of a record at once, in seconds."""


Chunks: TypeAlias = Generator[NDArray[np.float32], None, None]
"""Signal as it arrives, in parts of shape (leads, n); closing it closes the source."""


class LiveSourceError(ValueError):
    """A source that cannot be opened, or does not give what was asked for."""


@dataclass(frozen=True, eq=False, slots=True)
class LiveSource:
    """A running ECG.

    Attributes
    ----------
    name : str
        What is shown to people.
    fs : float
        Sampling frequency in Hz.
    lead_names : tuple of str
        Leads of the chunks.
    chunks : generator of ndarray of float32, shape (leads, n)
        Signal in mV as it arrives; NaN where samples are missing. Ends with the source.
    limits_mv : tuple of two ndarray of float32, shape (leads,), optional
        Lowest and highest value that the recorder can write, where that is known.
    duration_s : float, optional
        Length, where that is known.
    problems : list of str
        What was found wrong while reading, such as an end before the end; filled as the chunks are taken.
    """

    name: str
    fs: float
    lead_names: tuple[str, ...]
    chunks: Chunks
    limits_mv: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    duration_s: float | None = None
    problems: list[str] = field(default_factory=list)


def find_leads(name: str, there: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Find leads by name.

    Parameters
    ----------
    name : str
        The source, named in the error.
    there, wanted : sequence of str
        Leads of the source, and those to take.

    Returns
    -------
    list of int
        Positions of the wanted leads.

    Raises
    ------
    LeadNotFoundError
        If a lead is missing, or there are several of its name.
    """
    if wrong := [lead for lead in wanted if list(there).count(lead) != 1]:
        raise LeadNotFoundError(
            f"{name} has leads {list(there)!r}, but the model reads {list(wanted)!r}; missing or not unique: {wrong!r}."
            f" Name the leads to take in their stead, such as lead_names=[{there[0] if there else 'II'}], if the model"
            f" may read them"
        )
    return [list(there).index(lead) for lead in wanted]


def open_record(header: Path, lead_names: Sequence[str]) -> LiveSource:
    """Open a WFDB record of any length, read `CHUNK_S` seconds at a time.

    Parameters
    ----------
    header : Path
        Its ``.hea`` file.
    lead_names : sequence of str
        Leads to read.

    Returns
    -------
    LiveSource
        A signal file that ends too early, or whose checksum is wrong, is a problem found at its end.

    Raises
    ------
    FileNotFoundError
        If header or signal file is missing.
    LeadNotFoundError
        If a lead is missing.
    LiveSourceError
        If the header cannot be read, or the record has several segments, no signal, or units other than mV.
    """
    import wfdb

    path = header.with_suffix("")
    if not header.is_file():
        raise FileNotFoundError(f"{header}: no such record, expected the .hea file of a WFDB record")
    try:
        found = wfdb.rdheader(str(path))
    except Exception as error:
        raise LiveSourceError(f"{header} cannot be read as a WFDB header: {error}") from error
    if not found.n_sig or not found.sig_len or not hasattr(found, "file_name"):
        raise LiveSourceError(f"{header}: expected a record of one segment with signals and a length")
    channels = find_leads(f"record {path.name!r}", found.sig_name, lead_names)
    if wrong := [found.units[lead] for lead in channels if found.units[lead] != "mV"]:
        raise LiveSourceError(f"{header} has units {wrong!r}, expected 'mV': convert the record")
    for lead in channels:
        if not path.with_name(found.file_name[lead]).is_file():
            raise FileNotFoundError(f"{path.with_name(found.file_name[lead])}: the header names it, but it is missing")
    problems: list[str] = []
    half = [1 << (int(found.adc_res[lead]) or 12) - 1 for lead in channels]
    zero = [int(found.adc_zero[lead] or 0) for lead in channels]
    ends = [
        np.array([[middle + sign * size - (sign > 0)] for middle, size in zip(zero, half, strict=True)], _dtype(found))
        for sign in (-1, 1)
    ]
    low, high = (_convert(found, channels, end)[:, 0] for end in ends)
    return LiveSource(
        name=path.name,
        fs=float(found.fs),
        lead_names=tuple(lead_names),
        chunks=_read_record(path, found, channels, problems),
        limits_mv=(low, high),
        duration_s=found.sig_len / found.fs,
        problems=problems,
    )


def _read_record(path: Path, header: Any, channels: list[int], problems: list[str]) -> Chunks:
    """Yield the record in mV, and note what is wrong with it."""
    sums = np.zeros(len(channels), dtype=np.int64)
    done, step = 0, max(1, round(CHUNK_S * header.fs))
    read = _read_212 if _is_plain_212(header) else _read_any
    while done < header.sig_len:
        wanted = min(step, header.sig_len - done)
        try:
            digital = read(path, header, channels, done, wanted)
        except Exception as error:  # wfdb raises whatever its decoders meet
            problems.append(f"record {path.name!r} cannot be decoded behind {done / header.fs:.1f} s: {error}")
            return
        if digital.shape[1]:
            signal = _convert(header, channels, digital)
            for row, lead in enumerate(channels):
                signal[row, digital[row] == INVALID_SAMPLES.get(header.fmt[lead], -(2**31))] = np.nan
            sums += digital.sum(axis=1, dtype=np.int64)
            done += digital.shape[1]
            yield signal
        if digital.shape[1] < wanted:
            problems.append(
                f"record {path.name!r} ends after {done / header.fs:.1f} s, its header says"
                f" {header.sig_len / header.fs:.1f} s: the signal file is truncated, get it again"
            )
            return
    for row, lead in enumerate(channels):
        stated = header.checksum[lead]
        if stated is not None and int(sums[row]) & 0xFFFF != stated & 0xFFFF:
            problems.append(
                f"record {path.name!r}, lead {header.sig_name[lead]!r}: the checksum of the samples is not the"
                f" header's: signal or header is damaged, get the record again"
            )


def _convert(header: Any, channels: list[int], digital: NDArray[np.integer]) -> NDArray[np.float32]:
    """Convert to mV, with the same rounding as `datamodules.rhythm_signal.read_leads`."""
    leads = [
        ((samples - np.float32(header.baseline[lead])) / np.float32(header.adc_gain[lead])).astype(np.float32)
        for lead, samples in zip(channels, digital, strict=True)
    ]
    return np.stack(leads)


def _is_plain_212(header: Any) -> bool:
    plain = not any(header.byte_offset[lead] or header.skew[lead] for lead in range(header.n_sig))
    same = header.samps_per_frame == [1, 1] and len(set(header.file_name)) == 1
    return plain and same and header.fmt == ["212"] * 2


def _read_212(path: Path, header: Any, channels: list[int], start: int, length: int) -> NDArray[np.int16]:
    with path.with_name(header.file_name[0]).open("rb") as file:
        file.seek(3 * start)
        raw = np.frombuffer(file.read(3 * length), dtype=np.uint8)
    raw = raw[: len(raw) // 3 * 3]
    return np.stack([decode_212(raw, lead) for lead in channels])


def _read_any(path: Path, header: Any, channels: list[int], start: int, length: int) -> NDArray[np.integer]:
    import wfdb

    record = wfdb.rdrecord(
        str(path),
        sampfrom=start,
        sampto=start + length,
        channels=channels,
        physical=False,
        return_res=8 * np.dtype(_dtype(header)).itemsize,
    )
    return np.asarray(record.d_signal.T)


def _dtype(header: Any) -> type[np.signedinteger[Any]]:
    """Type of the samples: it decides how the conversion to mV is rounded."""
    return np.int32 if {"24", "32"} & set(header.fmt) else np.int16
