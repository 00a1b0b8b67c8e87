"""Small valid data sets of simulated recordings, in the layouts that the readers of real ones read."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from datamodules import findings, simulated_ecg
from datamodules.cache import cached_directory, content_digest
from datamodules.findings import FINDINGS, apply_finding
from datamodules.origin import ORIGIN_JSON
from datamodules.ptbxl import load_ptbxl
from datamodules.ptbxl_index import STATEMENTS_CSV, TABLE_CSV
from datamodules.records import EcgWindows
from datamodules.simulated_ecg import LEAD_NAMES, Heart, draw_heart, record_heart

log = logging.getLogger(__name__)

_DURATION_S = 10.0
_N_FOLDS = 10
_FIRST_PATIENT_ID = 10_000
_RESOLUTIONS = {100: ("records100", "lr"), 500: ("records500", "hr")}
# Share of patients with each combination: PTB-XL's larger ones, the rare classes raised for small folds.
_COMBINATIONS: tuple[tuple[float, tuple[str, ...]], ...] = (
    (0.34, ("NORM",)),
    (0.03, ("NORM", "CD")),
    (0.12, ("MI",)),
    (0.06, ("MI", "CD")),
    (0.05, ("MI", "STTC")),
    (0.12, ("STTC",)),
    (0.07, ("STTC", "HYP")),
    (0.10, ("HYP",)),
    (0.01, ("HYP", "CD")),
    (0.10, ("CD",)),
)
_RECORDS_PER_PATIENT = (0.6, 0.24, 0.1, 0.06)
# Beta distribution: the mildest cases cannot be told from health, which keeps every net below 1.
_SEVERITY = (3.0, 1.2)
# Share of repeat records with a rhythm and no superclass, as PTB-XL has some; of the others with that rhythm.
_UNLABELLED, _FIBRILLATION = 0.05, 0.04


@dataclass(frozen=True)
class _Record:
    patient_id: int
    fold: int
    scp_codes: dict[str, float]
    digital: NDArray[np.int16]


def load_synthetic_ptbxl(
    root: Path | str,
    *,
    n_patients: int = 800,
    synthetic_seed: int = 0,
    fs: int = 100,
    download: bool = False,
    **options: Any,
) -> EcgWindows:
    """Load the simulated counterpart of PTB-XL through PTB-XL's own reader; the first call writes it.

    Parameters
    ----------
    root : path
        Folder of the simulated data sets.
    n_patients, synthetic_seed : int
        See `write_synthetic_ptbxl`.
    fs : {100, 500}
        Sampling rate in Hz.
    download : bool, default False
        There is nothing to download: an error if true.
    **options
        Passed on to `datamodules.ptbxl.load_ptbxl`.

    Returns
    -------
    EcgWindows
        One window per labelled record.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    if download:
        raise ValueError(
            f"datamodule.download={download!r}: synthetic data are simulated, not downloaded; leave it"
            f" false, or choose datamodule=ptbxl"
        )
    data_set = write_synthetic_ptbxl(root, n_patients=n_patients, seed=synthetic_seed, fs=fs)
    return load_ptbxl(data_set, fs=fs, **options)


def write_synthetic_ptbxl(root: Path | str, *, n_patients: int = 800, seed: int = 0, fs: int = 100) -> Path:
    """Write a small simulated data set in PTB-XL's published layout, unless it is there.

    Patients have one to four records and stay in one ``strat_fold``; all folds hold the same mix of findings.
    The same arguments give the same bytes. Several processes may call at once; a failed call leaves nothing.

    Parameters
    ----------
    root : path
        Folder of the simulated data sets: each gets a folder of its own, named by a digest of its arguments
        and of the simulation's source.
    n_patients : int, default 800
        Patients, with 1.6 records each on average. Tens from 60 on put every superclass in every fold.
    seed : int, default 0
        Seed of everything drawn.
    fs : {100, 500}
        Sampling rate in Hz: writes ``records100`` or ``records500``.

    Returns
    -------
    Path
        Folder of ``ptbxl_database.csv``.

    Raises
    ------
    ValueError
        If `fs` or `n_patients` is out of range.
    OSError
        If the disk is full or not writable.
    """
    if fs not in _RESOLUTIONS:
        raise ValueError(f"datamodule.fs={fs!r}: synthetic PTB-XL comes at {sorted(_RESOLUTIONS)} Hz")
    if n_patients < _N_FOLDS:
        raise ValueError(
            f"datamodule.source.n_patients={n_patients!r} cannot fill {_N_FOLDS} folds: expected at least {_N_FOLDS}"
        )
    origin = {
        "kind": "synthetic",
        "n_patients": n_patients,
        "seed": seed,
        "fs": fs,
        "generator": _digest_generator(),
    }
    key = content_digest(origin)
    return cached_directory(root, "ptbxl", key, lambda target: _write_data_set(target, origin))


def _digest_generator() -> str:
    """Digest of the simulation's source, so that nobody trains on files of an older one."""
    sources = (__file__, findings.__file__, simulated_ecg.__file__)
    return hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources)).hexdigest()


def _simulate_patients(n_patients: int, seed: int, fs: int) -> Iterator[list[_Record]]:
    bank = simulated_ecg.simulate_sources()
    # Patient i goes to fold i % 10 + 1; by quantiles instead of draws every fold gets the same mix.
    shares = np.cumsum([share for share, _ in _COMBINATIONS])
    quantiles = (np.arange(n_patients) // _N_FOLDS + 0.5) / -(-n_patients // _N_FOLDS)
    combinations = np.searchsorted(shares / shares[-1], quantiles)
    for patient in np.random.default_rng(seed).permutation(n_patients).tolist():
        rng = np.random.default_rng([seed, patient])
        _, superclasses = _COMBINATIONS[combinations[patient]]
        heart, codes = _draw_patient(rng, bank, superclasses)
        n_records = 1 + rng.choice(len(_RECORDS_PER_PATIENT), p=_RECORDS_PER_PATIENT)
        yield [_record_patient(rng, patient, heart, codes, fs, first=n == 0) for n in range(n_records)]


def _draw_patient(
    rng: np.random.Generator, bank: NDArray[np.float64], superclasses: tuple[str, ...]
) -> tuple[Heart, dict[str, float]]:
    """Draw a heart with one finding per superclass; return it and its statements, likelihoods in %."""
    heart, codes = draw_heart(rng, bank), {}
    for superclass in superclasses:
        choices = [finding for finding in FINDINGS if finding.superclass == superclass]
        finding, severity = choices[rng.integers(len(choices))], float(rng.beta(*_SEVERITY))
        heart = apply_finding(heart, finding, severity)
        sure = severity > 0.45 or superclass == "NORM"
        codes[finding.code] = 100.0 if sure else 80.0 if severity > 0.25 else 50.0
        if finding.sign and severity > 0.5:
            codes[finding.sign] = 0.0
    return heart, codes


def _record_patient(
    rng: np.random.Generator, patient: int, heart: Heart, codes: dict[str, float], fs: int, *, first: bool
) -> _Record:
    # Every patient keeps one labelled record, so that small folds keep their classes.
    labelled = rng.random() >= _UNLABELLED or first
    fibrillation = bool(not labelled or rng.random() < _FIBRILLATION)
    return _Record(
        patient_id=_FIRST_PATIENT_ID + patient,
        fold=patient % _N_FOLDS + 1,
        scp_codes=(codes if labelled else {}) | {"AFIB" if fibrillation else "SR": 0.0},
        digital=record_heart(rng, heart, fs, _DURATION_S, fibrillation),
    )


def _write_data_set(target: Path, origin: Mapping[str, Any]) -> None:
    n_patients, fs = origin["n_patients"], origin["fs"]
    rows: list[tuple[object, ...]] = []
    log.info("simulating %d patients at %d Hz", n_patients, fs)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        patients = _simulate_patients(n_patients, origin["seed"], fs)
        for records in bar.track(patients, total=n_patients, description="synthetic PTB-XL: simulating patients"):
            for record in records:
                rows.append(_write_record(target, len(rows) + 1, record, fs))
    columns = ["ecg_id", "patient_id", "scp_codes", "strat_fold", "filename_lr", "filename_hr"]
    pd.DataFrame(rows, columns=columns).to_csv(target / TABLE_CSV, index=False)
    _statements().to_csv(target / STATEMENTS_CSV)
    (target / ORIGIN_JSON).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")


def _write_record(root: Path, ecg_id: int, record: _Record, fs: int) -> tuple[object, ...]:
    """Write one record in WFDB format 16, which takes ``wfdb.wrsamp`` 20 ms; return its table row."""
    folder = f"{ecg_id // 1000 * 1000:05d}"
    names = {rate: f"{records}/{folder}/{ecg_id:05d}_{tag}" for rate, (records, tag) in _RESOLUTIONS.items()}
    stem = root / names[fs]
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".dat").write_bytes(np.ascontiguousarray(record.digital, dtype="<i2").tobytes())
    lines = [f"{stem.name} {len(LEAD_NAMES)} {fs} {len(record.digital)}"]
    for name, signal in zip(LEAD_NAMES, record.digital.T, strict=True):
        checksum = int(signal.sum(dtype=np.int64)) % 65536
        lines.append(f"{stem.name}.dat 16 1000.0(0)/mV 16 0 {signal[0]} {checksum} 0 {name}")
    lines.append("# synthetic: simulated, not recorded from a person")
    stem.with_suffix(".hea").write_text("\n".join(lines) + "\n", encoding="ascii")
    return ecg_id, float(record.patient_id), str(record.scp_codes), record.fold, names[100], names[500]


def _statements() -> pd.DataFrame:
    kinds: dict[str, dict[str, object]] = {}
    for finding in FINDINGS:
        kinds[finding.code] = {
            "diagnostic": 1.0,
            "diagnostic_class": finding.superclass,
            "diagnostic_subclass": finding.code,
        }
        if finding.sign:
            kinds[finding.sign] = {"form": 1.0}
    kinds |= {rhythm: {"rhythm": 1.0} for rhythm in ("SR", "AFIB")}
    columns = ["description", "diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass"]
    return pd.DataFrame(
        [{"description": f"{code} (simulated)"} | kind for code, kind in kinds.items()],
        index=list(kinds),
        columns=columns,
    )
