"""WFDB data bases with rhythm annotations: AFDB, LTAFDB, MITDB and their kin, through one reader.

MIT-BIH Atrial Fibrillation Database, 10.13026/C2MW2D; Long-Term AF Database, 10.13026/C2QG6Q; MIT-BIH
Arrhythmia Database, 10.13026/C2F305. What differs between them (annotators, leads, people with two records) are
arguments. All times are seconds from the start of the record.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.annotations import Annotations, read_annotations
from datamodules.wfdb_header import WfdbHeader, read_header

log = logging.getLogger(__name__)

RECORDS_LIST = "RECORDS"


@dataclass(frozen=True, eq=False, slots=True)
class RhythmRecord:
    """Annotations of one recording; its signal is read by `datamodules.rhythm_signal.read_leads`.

    Attributes
    ----------
    record_id, subject_id : str
        Ids of the recording and of the person.
    path : Path
        Record, without extension.
    fs : float
        Sampling frequency in Hz.
    n_samples : int
        Samples per lead; 0 if the data base has no signals of this record.
    lead_names : tuple of str
        Leads of the signals.
    beats_s : ndarray of float64, shape (n_beats,)
        Annotated QRS complexes, strictly increasing.
    rhythm_starts_s : ndarray of float64, shape (n_rhythms,)
        Where each rhythm starts, increasing.
    rhythms : tuple of str
        Name of each, such as ``N`` or ``AFIB``.
    counts : dict of str to int
        ``annotated`` beats, and of them ``duplicate``, ``unordered`` and ``beyond_end``.
    """

    record_id: str
    subject_id: str
    path: Path
    fs: float
    n_samples: int
    lead_names: tuple[str, ...]
    beats_s: NDArray[np.float64]
    rhythm_starts_s: NDArray[np.float64]
    rhythms: tuple[str, ...]
    counts: dict[str, int]

    def rhythm_at(self, times_s: NDArray[np.float64]) -> NDArray[np.str_]:
        """Return the rhythm at each time, shape (n,); an empty string before the first rhythm label."""
        names = np.array(["", *self.rhythms])
        return names[np.searchsorted(self.rhythm_starts_s, times_s, side="right")]


def read_rhythm_db(
    root: Path | str,
    *,
    beat_annotators: Sequence[str],
    rhythm_annotator: str = "atr",
    subjects: Mapping[str, str] | None = None,
    missing: Literal["error", "skip"] = "error",
) -> Iterator[RhythmRecord]:
    """Read the annotations of all records, one record after the other.

    Parameters
    ----------
    root : Path or str
        Folder of the records. Those in its file ``RECORDS`` are read, or every header if there is none.
    beat_annotators : sequence of str
        Extensions of the beat annotations; the first that a record has is used.
    rhythm_annotator : str
        Extension of the rhythm annotations.
    subjects : mapping of str to str, optional
        Person behind a record, where that is not the record's own id.
    missing : {"error", "skip"}
        What to do about records that lack a header or an annotation file.

    Yields
    ------
    RhythmRecord
        Beats and rhythms; also of records without signals.

    Raises
    ------
    FileNotFoundError
        If the folder has no records, or a record lacks a file and ``missing`` is "error".
    ValueError
        If a header, an annotation file or the map of subjects is not as expected.
    """
    root = Path(root).expanduser().absolute()
    record_ids = list_records(root)
    check_subjects(subjects or {}, record_ids)
    for record_id in record_ids:
        try:
            record = read_rhythm_record(
                root,
                record_id,
                subject_id=(subjects or {}).get(record_id, record_id),
                beat_annotators=beat_annotators,
                rhythm_annotator=rhythm_annotator,
            )
        except FileNotFoundError as error:
            if missing == "error":
                raise
            log.warning("record %r is skipped (datamodule.missing=skip): %s", record_id, error)
            continue
        warn_beyond_end(record_id, record.counts)
        yield record


def warn_beyond_end(record_id: str, counts: Mapping[str, int]) -> None:
    """Log a warning if beats of a record lie beyond the end of its signal."""
    if beyond := counts.get("beyond_end"):
        log.warning("record %r: %d beats lie beyond the end of the signal; they are left out", record_id, beyond)


def list_records(root: Path) -> list[str]:
    """Return the ids of the records in a folder, from its file ``RECORDS`` or from its headers.

    Raises
    ------
    FileNotFoundError
        If there are none.
    ValueError
        If a record is listed twice.
    """
    if (root / RECORDS_LIST).is_file():
        found = (root / RECORDS_LIST).read_text(encoding="utf-8").split()
    else:
        found = sorted(path.stem for path in root.glob("*.hea"))
    if not found:
        raise FileNotFoundError(
            f"no {RECORDS_LIST} and no header (*.hea) in {str(root)!r} (datamodule.root): name the folder of the"
            f" records with datamodule.root=/path/to/them, or get them with datamodule.download=true"
        )
    if twice := sorted({record for record in found if found.count(record) > 1}):
        raise ValueError(f"{root / RECORDS_LIST} lists {twice!r} twice, expected each record once")
    return found


def check_subjects(subjects: Mapping[str, str], record_ids: Sequence[str]) -> None:
    """Refuse a map of subjects that gives one person two ids, or names a record as nobody else does.

    Raises
    ------
    ValueError
        If a record's person is named after a record that is mapped to another person.
    """
    for record, subject in subjects.items():
        if subject in record_ids and subjects.get(subject, subject) != subject:
            raise ValueError(
                f"datamodule.source.subjects gives record {record!r} the subject {subject!r}, but record {subject!r}"
                f" the subject {subjects[subject]!r}: one person under two ids; give both records the same"
            )


def read_rhythm_record(
    root: Path, record_id: str, *, subject_id: str, beat_annotators: Sequence[str], rhythm_annotator: str
) -> RhythmRecord:
    """Read header and annotations of one record.

    Parameters
    ----------
    root : Path
        Folder of the records.
    record_id, subject_id : str
        Record and person.
    beat_annotators, rhythm_annotator
        See `read_rhythm_db`.

    Returns
    -------
    RhythmRecord
        Beats in order, each once, none beyond the signal's end.

    Raises
    ------
    FileNotFoundError
        If the header or an annotation file is missing.
    ValueError
        If one cannot be read.
    """
    path = root / record_id
    header = _read_header(path, record_id)
    beat_file = next((path.with_name(f"{record_id}.{end}") for end in beat_annotators if _has(path, end)), None)
    rhythm_file = path.with_name(f"{record_id}.{rhythm_annotator}")
    if beat_file is None or not rhythm_file.is_file():
        lacking = f"rhythm annotations .{rhythm_annotator}"
        if beat_file is None:
            lacking = f"beat annotations {' or '.join(f'.{end}' for end in beat_annotators)}"
        raise FileNotFoundError(
            f"record {record_id!r} has no {lacking} in {str(root)!r}: get the file, or go on without the record with"
            f" datamodule.missing=skip"
        )
    fs, n_samples = float(header.fs), int(header.sig_len or 0) if header.n_sig else 0
    rhythm_source, beat_source = read_annotations(rhythm_file), read_annotations(beat_file)
    beats, counts = _clean_beats(beat_source.beats(), _clock(beat_source, fs), n_samples / fs)
    starts, rhythms = rhythm_source.rhythms()
    order = np.argsort(starts, kind="stable")
    return RhythmRecord(
        record_id=record_id,
        subject_id=subject_id,
        path=path,
        fs=fs,
        n_samples=n_samples,
        lead_names=header.sig_name,
        beats_s=beats,
        rhythm_starts_s=starts[order] / _clock(rhythm_source, fs),
        rhythms=tuple(rhythms[row] for row in order),
        counts=counts,
    )


def _has(path: Path, extension: str) -> bool:
    return path.with_name(f"{path.name}.{extension}").is_file()


def _clock(annotations: Annotations, fs: float) -> float:
    return annotations.fs or fs


def _clean_beats(
    ticks: NDArray[np.int64], clock: float, duration_s: float
) -> tuple[NDArray[np.float64], dict[str, int]]:
    """Order the beats, take each once, and leave out those beyond the signal's end."""
    ordered = np.unique(ticks)
    beats = ordered / clock
    inside = beats < duration_s if duration_s > 0 else np.ones(len(beats), dtype=bool)
    counts = {
        "annotated": len(ticks),
        "duplicate": len(ticks) - len(ordered),
        "unordered": int((np.diff(ticks) < 0).sum()),
        "beyond_end": int((~inside).sum()),
    }
    return beats[inside], counts


def _read_header(path: Path, record_id: str) -> WfdbHeader:
    try:
        header = read_header(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"record {record_id!r} has no header {path.name}.hea in {str(path.parent)!r}: get the file, or go on"
            f" without the record with datamodule.missing=skip"
        ) from None
    except Exception as error:
        raise ValueError(f"the header of record {record_id!r} ({path}.hea) cannot be read: {error}") from error
    if not header.fs or header.fs <= 0:
        raise ValueError(f"record {record_id!r} has fs {header.fs!r} Hz, expected a positive number in its header")
    return header
