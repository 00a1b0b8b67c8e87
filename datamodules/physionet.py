"""Fetch files of an open PhysioNet data base: resumable, each checked against the published SHA-256."""

import contextlib
import hashlib
import logging
import posixpath
import shutil
import sys
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.progress import Progress

log = logging.getLogger(__name__)

CONNECTIONS = 2  # what PhysioNet's own tools allow themselves
SUMS = "SHA256SUMS.txt"


class ChecksumError(OSError):
    """A downloaded file is not the published one."""


def download_files(database: str, version: str, root: Path, names: Collection[str]) -> int:
    """Fetch the files that are not in ``root`` yet.

    A file appears in ``root`` only when it is complete and its checksum is right; until then it lies in
    ``root/.download``, where an interrupted download is taken up again.

    Parameters
    ----------
    database, version : str
        PhysioNet's short name of the data base, and its version.
    root : Path
        Target folder; made if absent.
    names : collection of str
        Files to have, relative to ``root`` and to the data base, with forward slashes.

    Returns
    -------
    int
        Number of files fetched.

    Raises
    ------
    ChecksumError
        If a file has the wrong checksum twice, or the data base publishes none for it.
    ConnectionError
        If the server cannot be reached or has no such file; complete files are kept.
    """
    if all((root / name).is_file() for name in names):
        return 0
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".download.lock"), contextlib.redirect_stdout(sys.stderr):
        wanted = [name for name in names if not (root / name).is_file()]
        if wanted:
            _fetch_all(f"{database}/{version}", root, wanted)
    return len(wanted)


def download_matching(database: str | None, version: str | None, root: Path, suffixes: Sequence[str]) -> int:
    """Fetch the files of a data base's top folder that end like this, and its list of records.

    The published list of checksums says which files there are; it is kept in ``root``.

    Parameters
    ----------
    database, version : str or None
        PhysioNet's short name of the data base, and its version.
    root : Path
        Target folder; made if absent.
    suffixes : sequence of str
        Ends of the file names, with the dot.

    Returns
    -------
    int
        Number of files fetched.

    Raises
    ------
    ValueError
        If the data base has no name: it cannot be downloaded.
    ChecksumError, ConnectionError
        See `download_files`.
    """
    if not database or not version:
        raise ValueError(
            "datamodule.download is true, but datamodule.source.database or datamodule.source.version is not set:"
            " this data set cannot be downloaded"
        )
    if not (root / SUMS).is_file():
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".download.lock"), contextlib.redirect_stdout(sys.stderr):
            _fetch(f"{database}/{version}", root / ".download", SUMS, overwrite=True)
            (root / ".download" / SUMS).replace(root / SUMS)
            with contextlib.suppress(OSError):  # files of an interrupted download stay, to be taken up again
                (root / ".download").rmdir()
    listed = _read_sums(root / SUMS)
    wanted = [name for name in listed if "/" not in name and (name == "RECORDS" or name.endswith(tuple(suffixes)))]
    return download_files(database, version, root, wanted)


def _fetch_all(database: str, root: Path, wanted: list[str]) -> None:
    staging = root / ".download"
    _fetch(database, staging, SUMS, overwrite=True)
    sums = _read_sums(staging / SUMS)
    if unlisted := [name for name in wanted if name not in sums]:
        raise ChecksumError(
            f"{SUMS} of {database} does not list {unlisted[:5]!r} ({len(unlisted)} files): expected a"
            f" published checksum for every file"
        )
    log.info("downloading %d files of %s to %s", len(wanted), database, root)

    def fetch_checked(name: str) -> None:
        found = ""
        # First take up what is there; if that is not the published file, start from nothing.
        for overwrite in (False, True):
            _fetch(database, staging, name, overwrite=overwrite)
            found = hashlib.sha256((staging / name).read_bytes()).hexdigest()
            if found == sums[name]:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (staging / name).replace(root / name)
                return
        (staging / name).unlink()
        raise ChecksumError(
            f"{name} of {database} has SHA-256 {found!r}, expected {sums[name]!r}, in two downloads: try"
            f" again later, or get it by hand from {_url(database)}{name}"
        )

    console = Console(stderr=True)
    with (
        ThreadPoolExecutor(CONNECTIONS) as pool,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        for _ in progress.track(pool.map(fetch_checked, wanted), len(wanted), description=f"downloading {database}"):
            pass
    shutil.rmtree(staging)


def _fetch(database: str, staging: Path, name: str, *, overwrite: bool) -> None:
    # Of wdfb's functions this one takes a version: `wfdb.dl_files` always fetches the newest.
    from wfdb.io.download import dl_pn_file

    folder, base = posixpath.split(name)
    (staging / folder).mkdir(parents=True, exist_ok=True)
    try:
        dl_pn_file((base, folder, database, str(staging), True, overwrite))
    except OSError as error:
        raise ConnectionError(
            f"could not download {name!r} from {_url(database)}: {error}. Complete files are kept: start"
            f" again to go on, or get them by hand with `wget -r -N -c -np -nH --cut-dirs=3 {_url(database)}`"
        ) from error


def _url(database: str) -> str:
    from wfdb.io.download import config

    return f"{posixpath.join(config.db_index_url, database)}/"


def _read_sums(path: Path) -> dict[str, str]:
    lines = (line.split(maxsplit=1) for line in path.read_text().splitlines() if line.strip())
    return {name.removeprefix("*"): digest for digest, name in lines}
