"""A JSON file that is written while a stream runs."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


class ListFile:
    """Writes a list as JSON while its items come; the file appears whole, at the end.

    Until then its name ends in ``.part``: what a crash leaves behind.

    Parameters
    ----------
    path : Path
        File to write.
    about : mapping
        Plain data for the head of the file.
    key : str
        What the list is called.

    Raises
    ------
    OSError
        If it cannot be written.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], key: str) -> None:
        self.path, self._part = path, path.with_name(f"{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("w", encoding="utf-8")
        self._file.write(f"{json.dumps(dict(about), indent=1)[:-2]},\n {json.dumps(key)}: [")
        self._separator = "\n"

    def __enter__(self) -> "ListFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, item: Mapping[str, Any]) -> None:
        """Write one item."""
        self._file.write(f"{self._separator}  {json.dumps(dict(item))}")
        self._separator = ",\n"

    def finish(self, rest: Mapping[str, Any]) -> None:
        """Write what is known at the end, and give the file its name."""
        self._file.write("\n ]" + "".join(f",\n {json.dumps(key)}: {json.dumps(value)}" for key, value in rest.items()))
        self._file.write("\n}\n")
        self._file.close()
        os.replace(self._part, self.path)  # noqa: PTH105 - same folder, atomic
