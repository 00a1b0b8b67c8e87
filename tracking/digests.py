"""Digests of configs and source code, and the state of the checkout that a run came from."""

import ast
import hashlib
import inspect
import logging
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

LOGGER = logging.getLogger(__name__)
DIGEST_CHARS = 16
GIT_TIMEOUT_S = 30
# git's name for a tree without files: what a checkout without commits is compared with.
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def digest(value: Any) -> str:
    """Digest plain nested data: the same on every machine, whatever the order of a mapping's keys.

    Parameters
    ----------
    value : nested mappings, sequences, str, bytes, numbers, bool, None, Path or ndarray
        1, 1.0, True and "1" are different; a list and a tuple of the same items are not.

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    TypeError
        If something has no stable content, for example an object or a function.
    """
    state = hashlib.sha256()
    _feed(state.update, value, "")
    return state.hexdigest()[:DIGEST_CHARS]


def digest_source(*objects: Callable[..., Any] | ModuleType) -> str:
    """Digest the source files behind classes, functions or modules, and the project files that these import.

    Packages that are installed are left out: their versions say what they are, see `package_versions`.

    Parameters
    ----------
    *objects : class, function or module

    Returns
    -------
    str
        16 hexadecimal digits; independent of where the checkout lies.

    Raises
    ------
    TypeError
        If an object has no source file.
    """
    found: dict[Path, str] = {}
    for item in objects:
        module = inspect.getmodule(item)
        file = getattr(module, "__file__", None)
        if module is None or file is None:
            raise TypeError(f"{item!r} has no source file")
        path = Path(file).resolve()
        if not _is_installed(path):
            _follow(path, _root_of(path, module.__name__), found)
    return digest(sorted((name, path.read_bytes().replace(b"\r\n", b"\n")) for path, name in found.items()))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping, names joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def git_state(root: Path | str) -> tuple[str, str]:
    """Commit of a checkout and everything in it that is not committed.

    Parameters
    ----------
    root : Path or str
        Folder inside the checkout.

    Returns
    -------
    commit : str
        Full hash; empty without git, outside a checkout or before the first commit.
    diff : str
        Patch against that commit, new files included and ignored ones left out; empty when all is committed.
    """
    folder = _git(root, "rev-parse", "--absolute-git-dir").strip()
    if not folder:
        return "", ""
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD").strip()
    with tempfile.TemporaryDirectory(prefix="lightheart-") as temporary:
        # New files are announced in a copy of the index: the user's own stays as it is.
        index = Path(temporary) / "index"
        if (own := Path(folder) / "index").exists():
            shutil.copyfile(own, index)
        _git(root, "add", "--intent-to-add", "--all", index=index)
        return commit, _git(root, "diff", "--no-color", "--no-ext-diff", commit or EMPTY_TREE, index=index)


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of installed distributions; "not installed" for those that are absent."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _feed(update: Callable[[bytes], Any], value: Any, where: str) -> None:
    """Hash a value as its type, its length and its content, so that no two values run into each other."""

    def put(kind: str, content: bytes) -> None:
        update(f"{kind}:{len(content)}:".encode() + content)

    if isinstance(value, Mapping):
        keys = sorted(value, key=lambda key: (type(key).__name__, str(key)))
        update(f"map:{len(keys)}:".encode())
        for key in keys:
            _feed(update, key, where)
            _feed(update, value[key], f"{where}.{key}")
    elif isinstance(value, list | tuple):
        update(f"list:{len(value)}:".encode())
        for position, item in enumerate(value):
            _feed(update, item, f"{where}[{position}]")
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        put("array", f"{value.dtype.str}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, np.generic):
        _feed(update, value.item(), where)
    elif isinstance(value, bytes):
        put("bytes", value)
    elif isinstance(value, Path):
        put("str", value.as_posix().encode())
    elif value is None or isinstance(value, str | bool | int | float):
        put(type(value).__name__, (value if isinstance(value, str) else repr(value)).encode())
    else:
        raise TypeError(f"cannot digest {type(value).__name__} at {where or 'the top'!r}: {value!r}")


def _is_installed(path: Path) -> bool:
    places = (sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib"))
    return any(path.is_relative_to(Path(place).resolve()) for place in places)


def _root_of(path: Path, module: str) -> Path:
    depth = module.count(".") + (path.name == "__init__.py")
    return path.parents[depth]


def _follow(path: Path, root: Path, found: dict[Path, str]) -> None:
    if path in found:
        return
    found[path] = path.relative_to(root).as_posix()
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = path.relative_to(root).parts[: -node.level] if node.level else ()
            base = ".".join([*parts, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            place = root.joinpath(*name.split("."))
            for file in (place.with_suffix(".py"), place / "__init__.py"):
                if file.is_file():
                    _follow(file.resolve(), root, found)


def _git(root: Path | str, *arguments: str, index: Path | None = None) -> str:
    environment = os.environ | ({"GIT_INDEX_FILE": str(index)} if index else {})
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            check=True,
            env=environment,
            timeout=GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        LOGGER.debug("git %s: %s", " ".join(arguments), error)
        return ""
    return done.stdout.decode(errors="replace")
