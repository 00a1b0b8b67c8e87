"""Writes tiny valid data sets in PTB-XL's published layout, and damages them."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import wfdb

LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
CLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
STATEMENTS = [
    ("NORM", 1.0, "NORM"),
    ("IMI", 1.0, "MI"),
    ("NDT", 1.0, "STTC"),
    ("LAFB", 1.0, "CD"),
    ("LVH", 1.0, "HYP"),
    ("SR", "", ""),  # a rhythm, not a diagnosis
]
CODES = [
    "{'NORM': 100.0, 'SR': 0.0}",
    "{'IMI': 35.0, 'LAFB': 0.0}",
    "{'NDT': 100.0, 'LVH': 50.0}",
    "{'IMI': 80.0, 'NDT': 15.0}",
    "{'LAFB': 100.0, 'LVH': 100.0, 'SR': 0.0}",
]
TABLE = "ptbxl_database.csv"
COLUMNS = ["ecg_id", "patient_id", "scp_codes", "strat_fold", "filename_lr", "filename_hr"]


def samples(record: int, fs: int = 100) -> np.ndarray:
    """Integer samples of a record, shape (time, leads), in microvolts."""
    rng = np.random.default_rng(record)
    return rng.integers(-1500, 1500, (10 * fs, len(LEADS)), dtype=np.int16)


def write_record(
    path: Path,
    digital: np.ndarray,
    *,
    fs: int = 100,
    leads: Sequence[str] = LEADS,
    units: str = "mV",
    fmt: str = "16",
    gain: float = 1000.0,
    baseline: int = 0,
) -> None:
    """Write one WFDB record through wfdb."""
    n = len(leads)
    path.parent.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        path.name,
        fs=fs,
        units=[units] * n,
        sig_name=list(leads),
        d_signal=digital,
        fmt=[fmt] * n,
        adc_gain=[gain] * n,
        baseline=[baseline] * n,
        write_dir=str(path.parent),
    )


def write_tables(root: Path, rows: Sequence[Sequence[object]]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with (root / TABLE).open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    with (root / "scp_statements.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["", "diagnostic", "diagnostic_class"], *STATEMENTS])


def table_row(record: int, fold: int, codes: str, patient: int | None = None) -> list[object]:
    names = (f"records{n}00/00000/{record:05d}_{tag}" for n, tag in ((1, "lr"), (5, "hr")))
    return [record, f"{patient or 1000 + record}.0", codes, fold, *names]


def write_ptbxl(root: Path, *, folds: Sequence[int] = (1, 2, 3), fs: int = 100, unlabelled: bool = True) -> Path:
    """Write five records, one per row of CODES, in each fold; and one without a superclass in the first."""
    rows, record = [], 0
    for fold in folds:
        codes = [*CODES, "{'SR': 0.0}"] if unlabelled and fold == folds[0] else CODES
        for text in codes:
            record += 1
            rows.append(table_row(record, fold, text))
            write_record(record_path(root, record, fs), samples(record, fs), fs=fs)
    write_tables(root, rows)
    return root


def record_path(root: Path, record: int, fs: int = 100) -> Path:
    return root / f"records{fs}" / "00000" / f"{record:05d}_{'lr' if fs == 100 else 'hr'}"


def edit_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    if old not in text:
        raise ValueError(f"{old!r} is not in {path}")
    path.write_text(text.replace(old, new))
