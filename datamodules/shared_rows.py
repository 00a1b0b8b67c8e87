"""One array on disk that several processes fill at once, each part at its place; nothing slow is imported here."""

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# A part is rarely ahead of an earlier one by more than a moment: they are begun in order and are often of one length.
PATIENCE_S = 0.5
_POLL_S = 0.002
_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class SharedRows:
    """A ``.npy`` file of float32 whose rows come in parts, in order, of sizes that turn out one by one.

    Attributes
    ----------
    path : Path
        The file.
    offset : int
        Offset of its first row in bytes.
    shape : tuple of int
        Shape of a row.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]

    @property
    def sizes_path(self) -> Path:
        """File of int64: rows of each part, where they are known."""
        return self.path.with_suffix(".sizes")

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return 4 * int(np.prod(self.shape))


def create_rows(path: Path, n_parts: int, shape: tuple[int, ...]) -> SharedRows:
    """Create the file without rows.

    Parameters
    ----------
    path : Path
        ``.npy`` file.
    n_parts : int
        Parts to come.
    shape : tuple of int
        Shape of a row.

    Returns
    -------
    SharedRows
        To be handed to the processes that write.
    """
    from datamodules.cache import allocate_array  # slow to import

    rows = SharedRows(path, allocate_array(path, (0, *shape), "<f4"), shape)
    np.full(n_parts, _UNKNOWN, dtype="<i8").tofile(rows.sizes_path)
    return rows


def open_part(rows: SharedRows, part: int, n_rows: int, patience_s: float = PATIENCE_S) -> tuple[Path, int]:
    """Say how many rows a part has, and learn where they go.

    Parameters
    ----------
    rows : SharedRows
        The array.
    part : int
        Position of the part, from 0.
    n_rows : int
        Its rows.
    patience_s : float
        How long to wait for the sizes of the parts before it.

    Returns
    -------
    path : Path
        The array's own file; one beside it, to be moved by `finish_rows`, if the place is not known in time.
    position : int
        Where in this file the rows start, in bytes.
    """
    deadline = time.monotonic() + patience_s
    with rows.sizes_path.open("r+b", buffering=0) as file:
        file.seek(8 * part)
        file.write(np.array(n_rows, dtype="<i8").tobytes())
        if n_rows == 0:
            return rows.path, rows.offset
        while time.monotonic() < deadline:
            file.seek(0)
            before = np.frombuffer(file.read(8 * part), dtype="<i8")
            if (before != _UNKNOWN).all():
                return rows.path, rows.offset + int(before.sum()) * rows.row_bytes
            time.sleep(_POLL_S)
    aside = _path_aside(rows, part)
    aside.touch()
    return aside, 0


def flush_rows(rows: SharedRows) -> None:
    """Wait until the disk has what was written so far, so that there is less to wait for at the end."""
    with rows.path.open("r+b") as file:
        getattr(os, "fdatasync", os.fsync)(file.fileno())


def finish_rows(rows: SharedRows, sizes: Sequence[int]) -> None:
    """Put the parts that were written aside where they belong, and state the number of rows.

    Parameters
    ----------
    rows : SharedRows
        The array.
    sizes : sequence of int
        Rows of each part.

    Raises
    ------
    OSError
        If the disk cannot hold the array.
    RuntimeError
        If the file does not have the expected size then.
    """
    starts = np.cumsum([0, *sizes])
    with rows.path.open("r+b") as target:
        for part, start in enumerate(starts[:-1].tolist()):
            aside = _path_aside(rows, part)
            if aside.is_file():
                target.seek(rows.offset + start * rows.row_bytes)
                with aside.open("rb") as source:
                    shutil.copyfileobj(source, target, 1 << 22)
                aside.unlink()
        size, expected = target.seek(0, 2), rows.offset + int(starts[-1]) * rows.row_bytes
        if size != expected:
            raise RuntimeError(f"{rows.path} has {size} bytes, expected {expected} for {starts[-1]} rows")
        target.seek(0)  # NumPy leaves room in the header for whatever number of rows
        shape = (int(starts[-1]), *rows.shape)
        np.lib.format.write_array_header_2_0(target, {"descr": "<f4", "fortran_order": False, "shape": shape})
        if target.tell() != rows.offset:
            raise RuntimeError(f"{rows.path}: the header takes {target.tell()} bytes, expected {rows.offset}")
    rows.sizes_path.unlink()


def _path_aside(rows: SharedRows, part: int) -> Path:
    return rows.path.with_name(f"{rows.path.stem}.{part}.part")
