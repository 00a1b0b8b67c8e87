"""Writes tiny valid data bases with rhythm annotations, through wfdb, and damages them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import wfdb
from scipy.signal import find_peaks

FS = 250
LEADS = ("ECG1", "ECG2")


def find_spikes(signal: np.ndarray, fs: float, height: float = 0.5) -> np.ndarray:
    """A quick detector: neurokit2 takes seconds to import."""
    return find_peaks(signal, height=height, distance=round(0.3 * fs))[0]


def ecg(n_samples: int, rpeaks: np.ndarray, *, fs: int = FS, seed: int = 0) -> np.ndarray:
    """A spike of 1 mV at each R peak over a small wander and noise, shape (time, 2), in mV."""
    rng = np.random.default_rng(seed)
    time = np.arange(n_samples)
    signal = 0.1 * np.sin(2 * np.pi * 0.3 * time / fs)
    for peak in rpeaks:
        signal += np.exp(-0.5 * ((time - peak) / (0.012 * fs)) ** 2)
        signal += 0.2 * np.exp(-0.5 * ((time - peak - 0.28 * fs) / (0.04 * fs)) ** 2)
    return np.stack([signal, 0.5 * signal], axis=1) + 0.01 * rng.standard_normal((n_samples, 2))


def regular_beats(duration_s: float, *, fs: int = FS, rr_s: float = 0.8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    beats_s = 0.4 + np.cumsum(rr_s + 0.05 * rng.uniform(-1, 1, int(duration_s / rr_s)))
    return np.rint(beats_s[beats_s < duration_s - 0.7] * fs).astype(np.int64)


def write_signals(
    root: Path, record: str, signal_mv: np.ndarray, *, fs: int = FS, leads: Sequence[str] = LEADS, units: str = "mV"
) -> None:
    root.mkdir(parents=True, exist_ok=True)
    n = len(leads)
    wfdb.wrsamp(
        record,
        fs=fs,
        units=[units] * n,
        sig_name=list(leads),
        p_signal=signal_mv,
        fmt=["212"] * n,
        adc_gain=[200.0] * n,
        baseline=[0] * n,
        write_dir=str(root),
    )


def write_beats(
    root: Path, record: str, beats: Sequence[int] | np.ndarray, *, extension: str = "qrs", fs: int = FS
) -> None:
    root.mkdir(parents=True, exist_ok=True)
    wfdb.wrann(record, extension, np.asarray(beats), symbol=["N"] * len(beats), fs=fs, write_dir=str(root))


def write_rhythms(root: Path, record: str, rhythms: Sequence[tuple[int, str]], *, fs: int = FS) -> None:
    starts, names = zip(*rhythms, strict=True)
    wfdb.wrann(
        record,
        "atr",
        np.array(starts),
        symbol=["+"] * len(starts),
        aux_note=[f"({name}" for name in names],
        fs=fs,
        write_dir=str(root),
    )


def write_record(
    root: Path,
    record: str,
    *,
    duration_s: float = 30,
    rhythms: Sequence[tuple[float, str]] = ((0.04, "N"), (15, "AFIB")),
    fs: int = FS,
    leads: Sequence[str] = LEADS,
    seed: int = 0,
) -> np.ndarray:
    """Write one complete record in AFDB's layout; return its R peaks in samples."""
    beats = regular_beats(duration_s, fs=fs, seed=seed)
    write_signals(root, record, ecg(round(duration_s * fs), beats, fs=fs, seed=seed), fs=fs, leads=leads)
    write_beats(root, record, beats, fs=fs)
    write_rhythms(root, record, [(round(start * fs), name) for start, name in rhythms], fs=fs)
    return beats


def write_header_without_signals(root: Path, record: str, *, fs: int = FS) -> None:
    (root / f"{record}.hea").write_text(f"{record} 0 {fs} 0\n")
