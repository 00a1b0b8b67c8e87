"""The face crops of a data set's videos: made once, each video in a cache directory of its own.

Crops of faces are personal data. A cache holds these crops, their mean colours and the ground truth, and no frame;
without a cache directory nothing is written and the crops stay in memory, some 8 KB a frame at 36 pixels.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from datamodules.cache import allocate_array, cached_directory, content_digest
from datamodules.clips import pack_crop
from datamodules.faces import FaceCrop, FaceStage, find_usable, track_faces
from datamodules.processes import count_cores
from datamodules.video_records import VideoEntry, VideoListing, VideoRecord

log = logging.getLogger(__name__)

CROPS, ARRAYS, META, README = "crops.npy", "arrays.npz", "meta.json", "README.txt"
# Changes whenever the same sources would give other arrays: caches of older code are then left alone.
CACHE_FORMAT = 1
# Mean difference between colours, of 0 to 1, below which a camera shows none.
_LEAST_COLOUR = 0.006
# Part of a crop whose mean colour is the trace: the skin, without hair and background.
_TRACE_SHARE = 0.6


@dataclass(frozen=True, eq=False, slots=True)
class RecordCrops:
    """The crops of one video with its ground truth.

    Attributes
    ----------
    record_id, subject_id : str
        Ids of the video and of the person.
    crops : ndarray of uint16, shape (n, size, size, 3)
        RGB, 65535 is white; memory-mapped where they come from the cache.
    times_s : ndarray of float64, shape (n,)
        Times of the frames in seconds.
    traces : ndarray of float64, shape (n, 3)
        Mean RGB of each crop's middle, 0 to 1.
    usable : ndarray of bool, shape (n,)
        Frames in which there is a face.
    bvp, hr_bpm : ndarray of float64, shape (n,), optional
        Ground truth, see `VideoRecord`.
    mean_hr_bpm : float, optional
        Mean heart rate in bpm.
    miss_rate : float
        Share of frames for which no face was found.
    n_faces : int
        Most faces in one frame.
    notes : tuple of str
        What was found odd while reading.
    digest : str
        SHA-256 of crops, times and ground truth.
    """

    record_id: str
    subject_id: str
    crops: NDArray[np.uint16]
    times_s: NDArray[np.float64]
    traces: NDArray[np.float64]
    usable: NDArray[np.bool_]
    bvp: NDArray[np.float64] | None
    hr_bpm: NDArray[np.float64] | None
    mean_hr_bpm: float | None
    miss_rate: float
    n_faces: int
    notes: tuple[str, ...]
    digest: str


def load_crops(
    listing: VideoListing,
    stage: FaceStage,
    size: int,
    *,
    cache_dir: Path | str | None,
    bad_records: Literal["error", "skip"] = "error",
    workers: int | None = None,
) -> tuple[list[RecordCrops], dict[str, int]]:
    """Cut the faces out of all videos, or take them from the cache.

    Parameters
    ----------
    listing : VideoListing
        The data set.
    stage : FaceStage
        How faces are found.
    size : {36, 72, 96}
        Side of the crops in pixels.
    cache_dir : Path or str, optional
        Folder of all caches. None: nothing is written.
    bad_records : {"error", "skip"}
        What to do about videos that are damaged or show no face. Skipped ones are counted and logged.
    workers : int, optional
        Videos that are worked on at a time; as many as there are cores by default.

    Returns
    -------
    records : list of RecordCrops
        In the order of the listing.
    counts : dict of str to int
        Videos that were skipped, and what was odd about the others.

    Raises
    ------
    FileNotFoundError, ValueError
        If a video is refused and ``bad_records`` is ``"error"``, or none is left; the message names it.
    """
    if bad_records not in ("error", "skip"):
        raise ValueError(f"datamodule.bad_records is {bad_records!r}, expected 'error' or 'skip'")

    def load(entry: VideoEntry) -> RecordCrops | Exception:
        try:
            return load_record(entry, stage, size, cache_dir)
        except (ValueError, FileNotFoundError) as error:
            if bad_records == "error":
                raise
            return error

    loaded = _load_all(listing, load, workers or count_cores())
    for entry, result in zip(listing.entries, loaded, strict=True):
        if isinstance(result, Exception):
            log.warning("skipped (datamodule.bad_records=skip) %s: %s", entry.record_id, result)
        elif result.n_faces > 1 or result.miss_rate > 0:
            log.info(
                "record %r: no face in %.1f %% of the frames, up to %d faces in one; followed is the largest central",
                result.record_id, 100 * result.miss_rate, result.n_faces,
            )  # fmt: skip
    records = [result for result in loaded if isinstance(result, RecordCrops)]
    if not records:
        raise ValueError(f"all {len(loaded)} videos of {listing.name!r} were skipped, the last because: {loaded[-1]}")
    counts = {"skipped": len(loaded) - len(records), "several_faces": sum(record.n_faces > 1 for record in records)}
    for note in sorted({note for record in records for note in record.notes}):
        counts[note] = sum(note in record.notes for record in records)
    return records, counts


def load_record(entry: VideoEntry, stage: FaceStage, size: int, cache_dir: Path | str | None) -> RecordCrops:
    """Cut the face out of one video, or take it from the cache; see `load_crops`."""
    if cache_dir is None:
        record = entry.read()
        crops = np.empty((len(record.times_s), size, size, 3), np.uint16)
        return _finish(record, crops, stage.max_gap, *_fill(record, crops, stage))
    files = [
        (path.name, stat.st_size, stat.st_mtime_ns)
        for path, stat in ((path, path.stat()) for path in entry.files if path.is_file())
    ]
    settings = {"format": CACHE_FORMAT, "size": size, "stage": stage.describe(), "limit": stage.max_miss_rate}
    key = content_digest({"files": files, "record": entry.record_id, **settings, "reader": _about(entry)})
    name = f"crops{size}-" + "".join(letter if letter.isalnum() else "_" for letter in entry.record_id)

    def build(target: Path) -> None:
        record = entry.read()
        shape = (len(record.times_s), size, size, 3)
        allocate_array(target / CROPS, shape, "<u2")
        crops = np.load(target / CROPS, mmap_mode="r+")
        _save(_finish(record, crops, stage.max_gap, *_fill(record, crops, stage)), target)
        crops.flush()

    return _open(cached_directory(Path(cache_dir) / "faces", name, key, build))


def _load_all(
    listing: VideoListing, load: Callable[[VideoEntry], RecordCrops | Exception], workers: int
) -> list[RecordCrops | Exception]:
    console = Console(stderr=True)
    # Decoding, detection and resizing all release the interpreter's lock.
    with (
        ThreadPoolExecutor(workers) as pool,
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        try:
            return list(bar.track(pool.map(load, listing.entries), len(listing.entries), description="cutting faces"))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _about(entry: VideoEntry) -> list[str]:
    """Return what the reader was told, such as another frame rate: it shapes the record as much as the files do."""
    options = getattr(entry.read, "args", ())
    return [repr(option) for option in options if isinstance(option, int | float | str | None)]


def _fill(
    record: VideoRecord, crops: NDArray[np.uint16], stage: FaceStage
) -> tuple[NDArray[np.float64], NDArray[np.bool_], int, str]:
    """Fill in the crops; return traces, frames without a face, most faces in one, and the crops' digest."""
    traces, missed = np.zeros((len(crops), 3)), np.ones(len(crops), dtype=bool)
    n_faces, colour = 0, 0.0
    content = hashlib.sha256()
    for number, crop in enumerate(_crops_of(record, stage, crops.shape[1])):
        crops[number] = pack_crop(crop.image)
        content.update(crops[number].data)
        missed[number], n_faces = crop.missed, max(n_faces, crop.n_faces)
        edge = round(crop.image.shape[0] * (1 - _TRACE_SHARE) / 2)
        middle = crop.image[edge:-edge, edge:-edge]
        traces[number] = middle.mean(axis=(0, 1), dtype=np.float64)
        colour += float(np.abs(middle - middle.mean(axis=2, keepdims=True)).mean())
    _check_face(record, float(missed.mean()), stage)
    if not record.infrared and colour / max(1, int((~missed).sum())) < _LEAST_COLOUR:
        raise ValueError(
            f"record {record.record_id!r} has no colour, as from an infrared or grey camera: there is no pulse to see;"
            f" leave the record out (datamodule.bad_records=skip)"
        )
    return traces, missed, n_faces, content.hexdigest()


def _crops_of(record: VideoRecord, stage: FaceStage, size: int) -> Iterator[FaceCrop]:
    try:
        yield from track_faces(record.frames(), stage, size)
    except ValueError as error:
        if record.record_id in str(error):
            raise
        raise ValueError(f"record {record.record_id!r}: {error}") from error


def _check_face(record: VideoRecord, miss_rate: float, stage: FaceStage) -> None:
    if miss_rate > stage.max_miss_rate:
        what = "shows no face" if miss_rate == 1 else f"shows no face in {miss_rate:.0%} of its frames"
        raise ValueError(
            f"record {record.record_id!r} {what}, at most {stage.max_miss_rate:.0%} are allowed"
            f" (datamodule.faces.max_miss_rate): try another detector (datamodule/faces=ssd or cascade), or leave the"
            f" record out (datamodule.bad_records=skip)"
        )


def _finish(
    record: VideoRecord,
    crops: NDArray[np.uint16],
    max_gap: int,
    traces: NDArray[np.float64],
    missed: NDArray[np.bool_],
    n_faces: int,
    crops_digest: str,
) -> RecordCrops:
    truth = {"bvp": record.bvp, "hr_bpm": record.hr_bpm}
    about = {
        name: None if values is None else hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
        for name, values in {**truth, "times_s": record.times_s}.items()
    }
    return RecordCrops(
        record_id=record.record_id,
        subject_id=record.subject_id,
        crops=crops,
        times_s=record.times_s,
        traces=traces,
        usable=find_usable(missed, max_gap),
        **truth,
        mean_hr_bpm=record.mean_hr_bpm,
        miss_rate=float(missed.mean()),
        n_faces=n_faces,
        notes=record.notes,
        digest=content_digest({"crops": crops_digest, "mean_hr_bpm": record.mean_hr_bpm, **about}),
    )


def _save(record: RecordCrops, directory: Path) -> None:
    arrays = {name: getattr(record, name) for name in ("times_s", "traces", "usable", "bvp", "hr_bpm")}
    np.savez(
        directory / ARRAYS, allow_pickle=False, **{key: array for key, array in arrays.items() if array is not None}
    )
    plain = ("record_id", "subject_id", "mean_hr_bpm", "miss_rate", "n_faces", "notes", "digest")
    (directory / META).write_text(json.dumps({name: getattr(record, name) for name in plain}, indent=1))
    side = record.crops.shape[1]
    (directory / README).write_text(
        f"Crops of a person's face, {side} x {side} pixels, of the video {record.record_id!r}: personal data.\n"
        f"Delete this folder when they are not needed any more. To write none: datamodule.cache_dir=null\n"
    )


def _open(directory: Path) -> RecordCrops:
    try:
        meta: dict[str, Any] = json.loads((directory / META).read_text())
        with np.load(directory / ARRAYS, allow_pickle=False) as file:
            arrays = dict(file)
        crops = np.load(directory / CROPS, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise RuntimeError(
            f"the cache {str(directory)!r} is damaged ({error}): delete it, it will be built again"
        ) from error
    meta["notes"] = tuple(meta["notes"])
    truth = {"bvp": None, "hr_bpm": None}
    return RecordCrops(crops=crops, **{**truth, **arrays}, **meta)
