"""Whether recordings were simulated: their folder says so."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

ORIGIN_JSON = "synthetic.json"
"""Lies in every folder of simulated recordings and tells how they were made."""

Kind = Literal["real", "synthetic"]


def find_kind(root: Path) -> Kind:
    """Tell whether a folder's recordings are real or were simulated by this project."""
    return "synthetic" if (root / ORIGIN_JSON).is_file() else "real"


def find_root(root: Path | str | None, simulate: Callable[[], Path] | None, download: bool) -> Path:
    """Choose the folder to read from: the one that is named, or simulated recordings where there is none.

    Parameters
    ----------
    root : Path, str or None
        Folder of the recordings.
    simulate : callable, optional
        Writes simulated recordings unless they are there, and returns their folder.
    download : bool
        Whether missing recordings shall be fetched, which needs a folder to put them in.

    Raises
    ------
    ValueError
        If no folder is named and there is nothing to simulate, or a download was asked for.
    """
    if root is not None:
        return Path(root).expanduser().absolute()
    if simulate is None or download:
        raise ValueError(
            f"datamodule.root is {root!r} with datamodule.download={download!r}: name the folder of the recordings,"
            f" datamodule.root=/path/to/records"
        )
    return simulate()
