"""The tables of PTB-XL: which record belongs to whom, to which fold and to which superclasses."""

import ast
import dataclasses
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

TABLE_CSV, STATEMENTS_CSV = "ptbxl_database.csv", "scp_statements.csv"
FILENAME_COLUMNS = {100: "filename_lr", 500: "filename_hr"}


@dataclass(frozen=True, eq=False, slots=True)
class PtbxlIndex:
    """Labelled records, in the order of the table.

    Attributes
    ----------
    record_ids, subject_ids : tuple of str
        ``ecg_id`` and ``patient_id``.
    paths : tuple of str
        Record relative to the root, without extension.
    folds : ndarray of int16, shape (n,)
        ``strat_fold``.
    targets : ndarray of float32, shape (n, n_classes)
        1 where a record has the superclass.
    class_names : tuple of str
        Columns of ``targets``.
    tables_digest : str
        Digest of both tables' bytes.
    counts : dict of str to int
        Records listed in the folds asked for, and those dropped from them.
    """

    record_ids: tuple[str, ...]
    subject_ids: tuple[str, ...]
    paths: tuple[str, ...]
    folds: NDArray[np.int16]
    targets: NDArray[np.float32]
    class_names: tuple[str, ...]
    tables_digest: str
    counts: dict[str, int]

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.record_ids)

    def file_names(self) -> tuple[str, ...]:
        """Return header and signal file of every record, relative to the root."""
        return tuple(f"{path}{suffix}" for path in self.paths for suffix in (".hea", ".dat"))

    def select(self, keep: NDArray[np.bool_], *, missing: int) -> "PtbxlIndex":
        """Return the records where ``keep`` is true, with the number of missing ones in the counts."""
        rows = np.flatnonzero(keep)
        return dataclasses.replace(
            self,
            record_ids=tuple(self.record_ids[row] for row in rows),
            subject_ids=tuple(self.subject_ids[row] for row in rows),
            paths=tuple(self.paths[row] for row in rows),
            folds=self.folds[rows],
            targets=self.targets[rows],
            counts={**self.counts, "missing": missing},
        )


def read_index(root: Path, *, fs: int, class_names: Sequence[str], folds: Collection[int] | None) -> PtbxlIndex:
    """Read both tables and drop records without a superclass.

    A record has a superclass when one of its SCP codes, whatever its likelihood, is a diagnostic statement of
    that class: the published aggregation.

    Parameters
    ----------
    root : Path
        Folder of the tables.
    fs : {100, 500}
        Version whose file names are returned, in Hz.
    class_names : sequence of str
        Superclasses, in the order of the targets.
    folds : collection of int or None
        Folds to keep; all if None.

    Returns
    -------
    PtbxlIndex
        The labelled records.

    Raises
    ------
    FileNotFoundError
        If a table is missing.
    ValueError
        If a column, class or value is not as expected.
    """
    if fs not in FILENAME_COLUMNS:
        raise ValueError(f"datamodule.fs is {fs!r}, expected one of {sorted(FILENAME_COLUMNS)!r}: PTB-XL has no other")
    superclasses = _read_superclasses(root)
    if unknown := [name for name in class_names if name not in superclasses.values()]:
        raise ValueError(
            f"datamodule.class_names has {unknown!r}, expected names out of"
            f" {sorted(set(superclasses.values()))!r} ({STATEMENTS_CSV})"
        )
    columns = ["ecg_id", "patient_id", "scp_codes", "strat_fold", FILENAME_COLUMNS[fs]]
    table = _read_table(root / TABLE_CSV, columns)
    _check_values(table)
    if folds is not None:
        table = table[table["strat_fold"].isin(list(folds))]
    listed = len(table)
    found = [
        {superclasses[code] for code in _parse_codes(text, record) if code in superclasses}
        for record, text in zip(table["ecg_id"], table["scp_codes"], strict=True)
    ]
    labelled = np.array([bool(names) for names in found], dtype=bool)
    table = table[labelled]
    targets = [[name in names for name in class_names] for names in found if names]
    return PtbxlIndex(
        record_ids=tuple(table["ecg_id"].astype(str)),
        subject_ids=tuple(table["patient_id"].astype(np.int64).astype(str)),
        paths=tuple(table[FILENAME_COLUMNS[fs]]),
        folds=table["strat_fold"].to_numpy(dtype=np.int16),
        targets=np.array(targets, dtype=np.float32).reshape(len(table), len(class_names)),
        class_names=tuple(class_names),
        tables_digest=_digest_files(root / TABLE_CSV, root / STATEMENTS_CSV),
        counts={"listed": listed, "unlabelled": listed - len(table), "missing": 0},
    )


def _read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path.name} in {str(path.parent)!r} (datamodule.root). If PTB-XL is elsewhere, name its"
            f" folder with datamodule.root=/path/to/ptb-xl. If not, get it with datamodule.download=true, or"
            f" with `wget -r -N -c -np -nH --cut-dirs=3 https://physionet.org/files/ptb-xl/1.0.3/`"
        )
    present = list(pd.read_csv(path, nrows=0).columns)
    if lacking := [column for column in columns if column not in present]:
        raise ValueError(f"{path} lacks the columns {lacking!r}, expected {columns!r}; it has {present!r}")
    return pd.read_csv(path, usecols=columns)


def _check_values(table: pd.DataFrame) -> None:
    empty = table.isna()
    if empty.any(axis=None):
        row = int(empty.any(axis=1).to_numpy().argmax())
        columns = list(table.columns[empty.iloc[row]])
        raise ValueError(f"{TABLE_CSV}, line {row + 2}: no value in {columns!r}, expected one in every line")
    twice = table["ecg_id"][table["ecg_id"].duplicated()]
    if len(twice):
        raise ValueError(f"{TABLE_CSV} lists record {str(twice.iloc[0])!r} twice, expected each ecg_id once")


def _read_superclasses(root: Path) -> dict[str, str]:
    """Map each diagnostic SCP code to its superclass."""
    table = _read_table(root / STATEMENTS_CSV, ["diagnostic", "diagnostic_class"])
    codes = pd.read_csv(root / STATEMENTS_CSV, usecols=[0]).iloc[:, 0]
    diagnostic = (table["diagnostic"] == 1) & table["diagnostic_class"].notna()
    return dict(zip(codes[diagnostic].astype(str), table["diagnostic_class"][diagnostic].astype(str), strict=True))


def _parse_codes(text: str, record: object) -> Collection[str]:
    try:
        # A Python dict as text; parsed as JSON it takes a seventh of the time, at every start.
        codes = json.loads(text.replace("'", '"'))
    except json.JSONDecodeError:
        try:
            codes = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            codes = None
    if not isinstance(codes, dict):
        raise ValueError(f"record {str(record)!r} has scp_codes {text!r}, expected a dict such as {{'NORM': 100.0}}")
    return codes.keys()


def _digest_files(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
