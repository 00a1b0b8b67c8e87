"""Directories built once: keyed by a digest, guarded by a lock, complete or absent."""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import DTypeLike

log = logging.getLogger(__name__)

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


def content_digest(description: Mapping[str, Any]) -> str:
    """Digest plain nested data, whatever the order of its keys.

    Parameters
    ----------
    description : mapping
        Strings, numbers, booleans, None, lists, tuples and mappings of them.

    Returns
    -------
    str
        SHA-256, 64 hexadecimal digits.
    """
    text = json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def cached_directory(cache_dir: Path | str, name: str, key: str, build: Callable[[Path], None]) -> Path:
    """Return the directory for ``key``, building it first if it is not there.

    Several processes may ask at once: one builds, the others wait and use its result. A build goes to a
    directory beside the final one and is renamed when complete, so an interrupted or failed build leaves
    nothing that could be taken for a cache.

    Parameters
    ----------
    cache_dir : Path or str
        Folder of all caches; made if absent.
    name : str
        Readable first part of the directory's name.
    key : str
        Digest of everything that the content depends on.
    build : callable
        Fills the empty directory that it is given.

    Returns
    -------
    Path
        The complete directory.

    Raises
    ------
    OSError
        If the disk is full or not writable; the message names the cache folder.
    """
    root = Path(cache_dir).expanduser().absolute()
    final = root / f"{name}-{key[:24]}"
    if final.is_dir():
        return final
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f"{final.name}.lock"):
            if not final.is_dir():
                _build(final, build)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise OSError(
            error.errno,
            f"could not write the cache of {name!r} ({error.strerror}): nothing was left behind; make room,"
            f" or choose"
            f" another folder with paths.cache",
            str(root),
        ) from error
    return final


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, whose folder is there, for a ``with`` block; a process that must wait for another says so."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process is making the same; waiting for %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(final: Path, build: Callable[[Path], None]) -> None:
    # Whoever holds the lock is the only builder: what is still here was left by one that was killed.
    for leftover in final.parent.glob(f"{final.name}.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = final.parent / f"{final.name}.partial-{os.getpid()}"
    partial.mkdir()
    try:
        build(partial)
        for path in partial.iterdir():
            _flush_to_disk(path)
        partial.rename(final)
        _flush_to_disk(final.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _flush_to_disk(path: Path) -> None:
    # Without it a power cut after the rename may leave a complete-looking directory of empty files.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def allocate_array(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> int:
    """Create a ``.npy`` file of this shape with all its disk space reserved.

    A memory map of a sparse file kills the process when the disk runs full; reserving first turns that into
    an error before anything is computed.

    Parameters
    ----------
    path : Path
        File to create.
    shape : tuple of int
        Shape of the array, C order.
    dtype : dtype
        Element type.

    Returns
    -------
    int
        Offset of the first element in the file, in bytes.

    Raises
    ------
    OSError
        If the disk cannot hold the array.
    """
    with path.open("wb") as file:
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_2_0(file, header)
        offset = file.tell()
        size = offset + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        file.flush()
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return offset
