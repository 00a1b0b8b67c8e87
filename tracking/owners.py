"""Which process a run belongs to, and what happens to the run when that process is killed."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


def machine_name() -> str:
    """Host name and, on Linux, process namespace: where a process id means something."""
    try:
        namespace = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{namespace}"


def owner_tag() -> str:
    """Name the present process, as the runs that it opens carry it."""
    return f"{machine_name()}:{os.getpid()}"


def is_orphan(tag: str) -> bool:
    """Whether the process of an `owner_tag` was one of this machine and is gone."""
    machine, _, process = tag.rpartition(":")
    if machine != machine_name() or not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@contextmanager
def terminate_cleanly() -> Iterator[None]:
    """Turn SIGTERM into SystemExit for the length of the block, so that ``finally`` clauses run.

    Does nothing outside the main thread or where the program has its own handler.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
