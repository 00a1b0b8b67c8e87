"""Leads of long WFDB records: chosen by name or position, in mV, with stretches of no usable signal marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.format_212 import decode_212
from datamodules.wfdb_header import WfdbHeader, read_header

# Value that stands for "no value", https://physionet.org/physiotools/wag/signal-5.htm.
INVALID_SAMPLES = {"212": -2048, "16": -32768, "310": -512, "311": -512, "80": -128, "24": -(2**23), "32": -(2**31)}
FLAT_S = 0.5  # longer than any isoelectric line that a resolution of 5 uV leaves without a change
CLIPPED_S = 0.02  # an R peak touches the end of the range for a sample or two; a saturated amplifier stays


@dataclass(frozen=True, eq=False, slots=True)
class LeadSignal:
    """Some leads of one record.

    Attributes
    ----------
    signal_mv : ndarray of float32, shape (leads, time)
        Signal in mV; missing samples are bridged by a straight line, so that filters can pass.
    bad : ndarray of bool, shape (time,)
        Samples without a usable value in any of the leads: missing, saturated or flat.
    n_missing, n_saturated, n_flat : int
        Samples of each kind, summed over the leads.
    """

    signal_mv: NDArray[np.float32]
    bad: NDArray[np.bool_]
    n_missing: int
    n_saturated: int
    n_flat: int


class LeadNotFoundError(ValueError):
    """A record does not have the lead that was asked for."""


def read_leads(
    path: Path | str,
    *,
    record_id: str,
    fs: float,
    lead_names: Sequence[str],
    channels: Sequence[int] | None = None,
) -> LeadSignal:
    """Read the named leads of one record, checksums verified.

    Parameters
    ----------
    path : Path or str
        Record, without extension.
    record_id : str
        Named in errors.
    fs : float
        Expected sampling frequency in Hz.
    lead_names : sequence of str
        Leads to return, found by name.
    channels : sequence of int, optional
        Positions of these leads in the record, from 0, where several have the same name; the names are verified.

    Returns
    -------
    LeadSignal
        The leads in mV.

    Raises
    ------
    FileNotFoundError
        If the signal file is missing.
    LeadNotFoundError
        If a lead is missing or named otherwise, or its name is not unique and no position given.
    ValueError
        If the record cannot be decoded, or frequency, units or checksums are not as expected.
    """
    header = read_header(path)
    taken = _find_channels(list(header.sig_name), record_id, lead_names, channels)
    try:
        digital = _read_digital(Path(path), header, taken)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"record {record_id!r} ({path}) cannot be decoded: {error}. Its signal file may be truncated: get the"
            f" record again"
        ) from error
    if header.fs != fs:
        raise ValueError(
            f"record {record_id!r} has fs {header.fs!r} Hz, expected {fs!r} Hz (datamodule.fs): set the one or get"
            f" the other records"
        )
    for lead, samples in zip(taken, digital, strict=True):
        _check(header, lead, samples, record_id)
    signal_mv = np.empty((len(taken), len(digital[0])), dtype=np.float32)
    bad = np.zeros(signal_mv.shape[1], dtype=bool)
    counts = np.zeros(3, dtype=np.int64)
    for row, lead, samples in zip(signal_mv, taken, digital, strict=True):
        for number, marked in enumerate(_convert(header, lead, samples, row)):
            counts[number] += np.count_nonzero(marked)
            bad |= marked
    return LeadSignal(signal_mv, bad, *counts.tolist())


def find_runs(same: NDArray[np.bool_], at_least: int) -> NDArray[np.bool_]:
    """Keep those runs of true values that are long enough.

    Parameters
    ----------
    same : ndarray of bool, shape (n,)
        Runs and what lies between them.
    at_least : int
        Shortest run to keep.

    Returns
    -------
    ndarray of bool, shape (n,)
        True within the runs that were kept.
    """
    kept = np.zeros(len(same), dtype=bool)
    if not same.any():
        return kept
    padded = np.concatenate([[False], same, [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    starts, stops = edges[::2], edges[1::2]
    long = stops - starts >= at_least
    for start, stop in zip(starts[long].tolist(), stops[long].tolist(), strict=True):  # few
        kept[start:stop] = True
    return kept


def _find_channels(
    names: list[str], record_id: str, lead_names: Sequence[str], channels: Sequence[int] | None
) -> list[int]:
    if channels is None:
        if wrong := [name for name in lead_names if names.count(name) != 1]:
            raise LeadNotFoundError(
                f"record {record_id!r} has leads {names!r}, expected each of {list(lead_names)!r} once"
                f" (datamodule.lead_names); missing or not unique: {wrong!r}. Choose a lead that all records have, its"
                f" position where its name is not unique (datamodule.source.channels), or go on without this record"
                f" with datamodule.missing=skip"
            )
        return [names.index(name) for name in lead_names]
    if [names[at] if 0 <= at < len(names) else None for at in channels] != list(lead_names):
        raise LeadNotFoundError(
            f"record {record_id!r} has leads {names!r}, expected {list(lead_names)!r} (datamodule.lead_names) at the"
            f" positions {list(channels)!r} (datamodule.source.channels), counted from 0"
        )
    return list(channels)


def _read_digital(path: Path, header: WfdbHeader, channels: list[int]) -> list[NDArray[np.integer]]:
    """Return the samples of each channel, shape (time,)."""
    plain = not any(header.byte_offset) and not any(header.skew)
    if plain and header.fmt == ("212",) * 2 and header.samps_per_frame == (1, 1) and len(set(header.file_name)) == 1:
        raw = np.fromfile(path.with_name(header.file_name[0]), dtype=np.uint8)
        n_bytes = 3 * (header.sig_len or len(raw) // 3)
        if len(raw) < n_bytes:
            raise ValueError(f"{header.file_name[0]} has {len(raw)} bytes, expected {n_bytes}")
        return [decode_212(raw[:n_bytes], lead) for lead in channels]
    import wfdb

    record = wfdb.rdrecord(str(path), channels=channels, physical=False, return_res=16)
    return [np.ascontiguousarray(samples) for samples in record.d_signal.T]


def _check(header: WfdbHeader, lead: int, samples: NDArray[np.integer], record_id: str) -> None:
    name, units, stated = header.sig_name[lead], header.units[lead], header.checksum[lead]
    if units != "mV":
        raise ValueError(f"record {record_id!r}, lead {name!r} has units {units!r}, expected 'mV': convert it")
    found = int(samples.sum(dtype=np.int64)) & 0xFFFF
    if stated is not None and found != stated & 0xFFFF:
        raise ValueError(
            f"record {record_id!r}, lead {name!r}: checksum of the samples is {found}, the header says"
            f" {stated!r}: signal or header is damaged, get the record again"
        )


def _convert(
    header: WfdbHeader, lead: int, digital: NDArray[np.integer], signal_mv: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Fill in the signal in mV; return where it is missing, saturated and flat."""
    half = 1 << (header.adc_res[lead] or 12) - 1
    zero = header.adc_zero[lead] or 0
    missing = digital == INVALID_SAMPLES.get(header.fmt[lead], -(2**31))
    at_limit = ((digital >= zero + half - 1) | (digital <= zero - half)) & ~missing
    flat = find_flat(digital, max(2, round(FLAT_S * header.fs)))
    np.subtract(digital, np.float32(header.baseline[lead]), out=signal_mv, casting="same_kind")
    signal_mv /= np.float32(header.adc_gain[lead])
    if missing.all():
        signal_mv[:] = 0
    elif missing.any():
        signal_mv[missing] = np.interp(np.flatnonzero(missing), np.flatnonzero(~missing), signal_mv[~missing])
    return missing, find_runs(at_limit, max(2, round(CLIPPED_S * header.fs))), flat & ~missing


def find_flat(digital: NDArray[np.integer], at_least: int) -> NDArray[np.bool_]:
    """Find runs of equal samples.

    Parameters
    ----------
    digital : ndarray of int, shape (time,)
        Samples.
    at_least : int
        Shortest run to find, 2 samples or more.

    Returns
    -------
    ndarray of bool, shape (time,)
        True within the runs.
    """
    flat = np.zeros(len(digital), dtype=bool)
    # Every long run shows in every few samples; only around these is each sample looked at.
    step = max(1, at_least // 8)
    coarse = digital[::step]
    edges = np.diff(
        find_runs(coarse[1:] == coarse[:-1], max(1, at_least // step - 1)).astype(np.int8), prepend=0, append=0
    )
    for first, last in zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True):
        around = slice(max(0, (first - 1) * step), (last + 1) * step)
        samples = digital[around]
        # A run of n equal samples is n - 1 that repeat the one before; the first of them is marked too.
        still = find_runs(samples[1:] == samples[:-1], at_least - 1)
        flat[around][1:] |= still
        flat[around][:-1] |= still
    return flat
