"""One record from its files to beats; runs in reader processes, so nothing slow is imported here."""

import functools
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.beats import N_AFTER, N_BEFORE, choose_beats, iterate_beats
from datamodules.filters import Filters, apply_filters
from datamodules.rhythm_db import read_rhythm_record
from datamodules.rhythm_signal import LeadNotFoundError, read_leads
from datamodules.rpeaks import Detector, correct_beats, locate_rpeaks
from datamodules.shared_rows import SharedRows, open_part

log = logging.getLogger(__name__)

OTHER = "other"
"""Class of all rhythms that have none of their own."""


@dataclass(frozen=True, slots=True)
class BeatSpec:
    """What is done to every record; see `datamodules.rhythm_beats.load_beats`."""

    fs: float
    lead_names: tuple[str, ...]
    class_names: tuple[str, ...]
    filters: Filters
    detector: Detector
    min_rr_s: float
    max_rr_s: float
    missing: Literal["error", "skip"]
    channels: tuple[int, ...] | None = None

    @property
    def n_samples(self) -> int:
        """Samples of a beat."""
        return N_BEFORE + N_AFTER

    def describe(self) -> dict[str, Any]:
        """Return plain data for a digest."""
        function: Any = self.detector
        options: dict[str, Any] = {}
        if isinstance(function, functools.partial):
            # A partial that binds nothing is the function itself.
            options = {**function.keywords, **({"args": list(function.args)} if function.args else {})}
            function = function.func
        names = ("fs", "lead_names", "channels", "class_names", "min_rr_s", "max_rr_s")
        plain = {name: getattr(self, name) for name in names}
        detector = [function.__module__, function.__qualname__, options]
        return {**plain, "missing": self.missing, "filters": asdict(self.filters), "detector": detector}


@dataclass(frozen=True, eq=False, slots=True)
class BeatRequest:
    """One record, and the array that its beats go to: float32, shape (n, leads, time), this record's as one part."""

    spec: BeatSpec
    root: Path
    record_id: str
    beat_annotators: tuple[str, ...]
    rhythm_annotator: str
    rows: SharedRows
    part: int


@dataclass(frozen=True, eq=False, slots=True)
class RecordBeats:
    """What is kept of each beat besides its samples.

    Attributes
    ----------
    record_id : str
        The record.
    times_s : ndarray of float64, shape (n,)
        R peaks in seconds from the start of the record.
    targets : ndarray of float32, shape (n, n_classes)
        1 for the class of the rhythm at the R peak.
    signal_hashes : ndarray of uint64, shape (n,)
        Hash of each beat's samples.
    lead_means_mv, lead_variances_mv2 : ndarray of float64, shape (n, leads)
        Mean and variance over time.
    counts : dict of str to int
        What became of the annotated beats, see `datamodules.rhythm_beats.REJECTIONS`; ``moved``; bad samples. None
        at all where the record has no signal or lacks an annotation file.
    note : str
        Why nothing was cut, if so.
    """

    record_id: str
    times_s: NDArray[np.float64]
    targets: NDArray[np.float32]
    signal_hashes: NDArray[np.uint64]
    lead_means_mv: NDArray[np.float64]
    lead_variances_mv2: NDArray[np.float64]
    counts: dict[str, int]
    note: str = ""


def cut_record(request: BeatRequest) -> RecordBeats:
    """Read, filter, correct, choose and cut; write the beats to their place in the array.

    Raises
    ------
    FileNotFoundError, ValueError
        If the record is not as expected. A lead that is missing, or a file, is no error where ``missing`` is "skip".
    """
    spec, record_id = request.spec, request.record_id
    counts: dict[str, int] = {}
    try:
        record = read_rhythm_record(
            request.root,
            record_id,
            subject_id=record_id,  # the caller knows better
            beat_annotators=request.beat_annotators,
            rhythm_annotator=request.rhythm_annotator,
        )
        if record.n_samples == 0:
            return _nothing(request, {}, "it has no signals in this data base")
        counts = {**record.counts, "moved": 0, "used": 0, "skipped": len(record.beats_s)}
        leads = read_leads(
            record.path, record_id=record_id, fs=spec.fs, lead_names=spec.lead_names, channels=spec.channels
        )
    except (FileNotFoundError, LeadNotFoundError) as error:
        if spec.missing == "error":
            raise
        return _nothing(request, counts, f"{error} (datamodule.missing=skip)")
    beats = np.rint(record.beats_s * spec.fs).astype(np.int64)
    beats = np.unique(beats[beats < leads.signal_mv.shape[1]])
    signal: NDArray[np.floating] = leads.signal_mv
    rpeaks = np.empty(0, dtype=np.int64)
    if len(beats) >= 3:  # else nothing can be cut out, and the signal may be too short for the filters
        try:
            signal = apply_filters(leads.signal_mv, spec.fs, spec.filters)
            rpeaks = locate_rpeaks(signal[0], spec.detector(signal[0], spec.fs), spec.fs)
        except ValueError as error:
            raise ValueError(f"record {record_id!r}: {error}") from error
    corrected = correct_beats(beats, rpeaks, spec.fs)
    rhythms = record.rhythm_at(corrected.rpeaks / spec.fs)
    chosen = choose_beats(
        corrected.rpeaks,
        spec.fs,
        confirmed=corrected.confirmed,
        labelled=rhythms != "",
        bad=leads.bad,
        min_rr_s=spec.min_rr_s,
        max_rr_s=spec.max_rr_s,
    )
    described = _write(request, signal, corrected.rpeaks, chosen.rows)
    return RecordBeats(
        record_id,
        corrected.rpeaks[chosen.rows] / spec.fs,
        encode_rhythms(rhythms[chosen.rows], spec.class_names),
        *described,
        counts={
            **record.counts,
            "skipped": 0,
            "moved": corrected.n_moved,
            "repeated": corrected.n_repeated,
            **chosen.counts,
            "samples_missing": leads.n_missing,
            "samples_saturated": leads.n_saturated,
            "samples_flat": leads.n_flat,
        },
    )


def encode_rhythms(rhythms: NDArray[np.str_], class_names: tuple[str, ...]) -> NDArray[np.float32]:
    """Return 1 for the class of each rhythm, shape (n, n_classes); `OTHER` is whatever the others are not."""
    targets = (rhythms[:, None] == np.array(class_names)).astype(np.float32)
    if OTHER in class_names:
        targets[:, class_names.index(OTHER)] = targets.sum(axis=1) == 0
    return targets


def hash_signals(signals: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Hash each row's samples to 64 bits: a sum of products with odd numbers, so equal samples, equal hash."""
    bits = signals.reshape(len(signals), -1).view(np.uint32)
    return np.einsum("bt,t->b", bits, _draw_factors(bits.shape[1]))


@functools.cache
def _draw_factors(n: int) -> NDArray[np.uint64]:
    return np.random.default_rng(0).integers(0, 2**64, n, dtype=np.uint64) | np.uint64(1)


def _write(
    request: BeatRequest, signal: NDArray[np.floating], rpeaks: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.float64]]:
    hashes = np.empty(len(rows), dtype=np.uint64)
    means, variances = np.empty((len(rows), len(signal))), np.empty((len(rows), len(signal)))
    path, position = open_part(request.rows, request.part, len(rows))
    first = 0
    # Written, not mapped: a full disk is then an error and not a killed process.
    with path.open("r+b") as file:
        file.seek(position)
        for block in iterate_beats(signal, rpeaks, rows):
            file.write(block.astype("<f4", copy=False).data)
            here = slice(first, first + len(block))
            hashes[here] = hash_signals(block)
            means[here] = block.mean(axis=2, dtype=np.float64)
            squares = np.einsum("blt,blt->bl", block, block) / block.shape[2]
            variances[here] = np.maximum(squares - means[here] ** 2, 0)
            first = here.stop
    return hashes, means, variances


def _nothing(request: BeatRequest, counts: dict[str, int], note: str) -> RecordBeats:
    open_part(request.rows, request.part, 0, patience_s=0)
    shape = (0, len(request.spec.lead_names))
    return RecordBeats(
        request.record_id,
        np.empty(0),
        np.empty((0, len(request.spec.class_names)), dtype=np.float32),
        np.empty(0, dtype=np.uint64),
        np.empty(shape),
        np.empty(shape),
        counts,
        note,
    )
