"""Annotation files of WFDB records: beats and rhythm changes, a whole file in a few array operations.

The format is MIT's (https://physionet.org/physiotools/wag/annot-5.htm): 16-bit little-endian words of a 6-bit
code and a 10-bit interval. `wfdb.rdann` reads the same, a word at a time: seconds for ten hours of beats.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# https://physionet.org/physiotools/wag/annot-5.htm, ecgcodes.h: the codes that stand for a QRS complex.
BEAT_CODES = (*range(1, 14), 25, 30, 34, 35, 38, 41)
RHYTHM_CODE, NOTE_CODE = 28, 22
_SKIP, _NUM, _SUB, _CHN, _AUX = 59, 60, 61, 62, 63
_RESOLUTION = re.compile(r"## time resolution: ([0-9.]+)")


@dataclass(frozen=True, eq=False, slots=True)
class Annotations:
    """Content of one annotation file, in the order of the file.

    Attributes
    ----------
    samples : ndarray of int64, shape (n,)
        Position of each annotation, in ticks of the file's clock.
    codes : ndarray of int64, shape (n,)
        Annotation codes: `BEAT_CODES` are QRS complexes, `RHYTHM_CODE` is a rhythm change.
    notes : dict of int to str
        Auxiliary text of the annotations that have one, by position in the arrays.
    fs : float or None
        Ticks per second if the file states its clock; the record's sampling frequency holds if not.
    """

    samples: NDArray[np.int64]
    codes: NDArray[np.int64]
    notes: dict[int, str]
    fs: float | None

    def beats(self) -> NDArray[np.int64]:
        """Return the positions of the QRS complexes, shape (n_beats,)."""
        return self.samples[np.isin(self.codes, BEAT_CODES)]

    def rhythms(self) -> tuple[NDArray[np.int64], list[str]]:
        """Return where each rhythm starts, shape (n_rhythms,), and its name without bracket, such as ``AFIB``."""
        found = [
            (self.samples[row], note[1:])
            for row, note in self.notes.items()
            if self.codes[row] == RHYTHM_CODE and note.startswith("(")
        ]
        return np.array([start for start, _ in found], dtype=np.int64), [name for _, name in found]


def read_annotations(path: Path | str) -> Annotations:
    """Read one annotation file.

    Parameters
    ----------
    path : Path or str
        The file, with its extension.

    Returns
    -------
    Annotations
        Its content.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file ends within an annotation.
    """
    raw = Path(path).read_bytes()
    words = np.frombuffer(raw, dtype="<u2", count=len(raw) // 2).astype(np.int64)
    codes, intervals = words >> 10, words & 0x3FF
    plain = np.ones(len(words), dtype=bool)  # words that are annotations, neither modifiers nor their payload
    texts: list[tuple[int, str]] = []
    resume, end = 0, None
    # Only the words that are not plain beats need a look one by one.
    for word in np.flatnonzero((codes >= _SKIP) | (words == 0)).tolist():
        if word < resume:
            continue
        code = int(codes[word])
        if code == 0:
            end = word
            break
        payload = 2 if code == _SKIP else (int(intervals[word]) + 1) // 2 if code == _AUX else 0
        resume = word + 1 + payload
        if resume > len(words):
            raise ValueError(f"{path} ends within an annotation: it is truncated, get the file again")
        plain[word:resume] = False
        if code == _SKIP:
            intervals[word] = _signed(int(words[word + 1]) << 16 | int(words[word + 2]))
        else:
            intervals[word] = 0
            if code == _AUX:
                text = raw[2 * word + 2 : 2 * word + 2 + int(words[word] & 0x3FF)]
                texts.append((word, text.decode("latin-1").rstrip("\0")))
        intervals[word + 1 : resume] = 0
    if end is None and len(words) and words[-1] != 0:
        raise ValueError(f"{path} has no end mark: it is truncated or no annotation file, get the file again")
    # Code 0 stands for nothing; wfdb writes one behind the clock.
    rows = np.flatnonzero(plain[:end] & (codes[:end] != 0))
    samples, found = np.cumsum(intervals[:end])[rows], codes[rows]
    notes = {int(np.searchsorted(rows, word)) - 1: text for word, text in texts}
    return _split_off_clock(samples, found, notes)


def write_annotations(
    path: Path | str, samples: NDArray[np.int64], codes: NDArray[np.int64], notes: Mapping[int, str] | None = None
) -> None:
    """Write an annotation file.

    Parameters
    ----------
    path : Path or str
        The file, with its extension.
    samples : ndarray of int64, shape (n,)
        Position of each annotation; what comes before its predecessor is written as a negative interval.
    codes : ndarray of int64, shape (n,)
        Annotation codes.
    notes : mapping of int to str, optional
        Auxiliary text of some annotations, by position in the arrays.
    """
    intervals = np.diff(samples, prepend=0)
    skipped = (intervals > 0x3FF) | (intervals < 0)
    far = np.flatnonzero(skipped)
    words = codes << 10 | np.where(skipped, 0, intervals)
    skips = np.stack([np.full(len(far), _SKIP << 10), intervals[far] >> 16 & 0xFFFF, intervals[far] & 0xFFFF], axis=1)
    pieces: list[NDArray[np.int64]] = []
    places: list[NDArray[np.int64]] = []
    for row, note in sorted((notes or {}).items()):
        text = note.encode("latin-1")
        payload = np.frombuffer(text + b"\0" * (len(text) % 2), dtype="<u2").astype(np.int64)
        pieces.append(np.concatenate([[_AUX << 10 | len(text)], payload]))
        places.append(np.full(1 + len(payload), row + 1))
    # A note belongs to the annotation before it, a skip to the one behind: notes first.
    content = np.insert(words, np.concatenate([*places, np.repeat(far, 3)]), np.concatenate([*pieces, skips.ravel()]))
    Path(path).write_bytes(np.append(content, 0).astype("<u2").tobytes())


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value


def _split_off_clock(samples: NDArray[np.int64], codes: NDArray[np.int64], notes: dict[int, str]) -> Annotations:
    """Take a leading note that states the clock off the annotations."""
    clock = _RESOLUTION.match(notes.get(0, ""))
    if clock is None or codes[0] != NOTE_CODE:
        return Annotations(samples, codes, notes, None)
    rest = {row - 1: text for row, text in notes.items() if row}
    return Annotations(samples[1:], codes[1:], rest, float(clock[1]))
