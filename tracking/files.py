"""Files that are either whole or absent."""

import os
import tempfile
from pathlib import Path


def replace_file(path: Path | str, content: bytes) -> Path:
    """Write `content` to `path` in one step; an interrupted write leaves the previous file.

    Parameters
    ----------
    path : Path or str
        Its folder is created when it is missing.
    content : bytes
        The whole file.

    Returns
    -------
    Path
        `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # mkstemp makes the file private; a result is as readable as its folder's other files.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
