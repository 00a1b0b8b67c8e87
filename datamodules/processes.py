"""Run a function over tasks in several processes that start quickly and hold little.

The processes are plain children that talk over pipes, not ``multiprocessing`` ones: a fork would copy the
thread pools of a loaded torch, and a spawn would import the caller's main script, torch included, once per
process.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

Task = TypeVar("Task")
Answer = TypeVar("Answer")

_END = object()
# One thread each, and glibc keeps freed memory for the next task: given back, the pages of arrays of a long recording
# would be asked for and zeroed again and again, a third of the time. Other C libraries ignore these names.
_CHILD_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "NUMPY_MADVISE_HUGEPAGE": "0",  # the kernel would look for room for large pages, longer than they save
}


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    function: Callable[[Task], Answer], tasks: Sequence[Task], *, workers: int, collect: Callable[[Answer], object]
) -> None:
    """Run a function over tasks; hand each answer on as it comes.

    Parameters
    ----------
    function : callable
        Of a module that imports neither torch nor anything else that is slow to import; picklable.
    tasks : sequence
        Picklable arguments, one per call, begun in this order.
    workers : int
        Processes; 1 stays in this one.
    collect : callable
        Called here with each answer, in the order in which they are ready.

    Raises
    ------
    Exception
        The first that the function raised; tasks that were not begun are left out.
    RuntimeError
        If a process died.
    """
    if workers <= 1:
        for task in tasks:
            collect(function(task))
        return
    requests: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for task in tasks:
        requests.put(task)
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    stop = threading.Event()

    def drive(process: "subprocess.Popen[bytes]") -> None:
        try:
            while not stop.is_set():
                answers.put(_ask(process, (function, requests.get_nowait())))
        except queue.Empty:
            pass
        except Exception as error:
            answers.put(error)
        finally:
            answers.put(_END)

    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_child()) for _ in range(workers)]
        threads = [threading.Thread(target=drive, args=(process,), daemon=True) for process in processes]
        for thread in threads:
            thread.start()
        running = len(threads)
        try:
            while running:
                answer = answers.get()
                if answer is _END:
                    running -= 1
                elif isinstance(answer, Exception):
                    raise answer
                else:
                    collect(answer)
        finally:
            stop.set()
            if running:
                for process in processes:
                    process.kill()
            for thread in threads:
                thread.join()


@contextlib.contextmanager
def _child() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import main; main()"],
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, **_CHILD_ENVIRONMENT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    except BaseException:
        process.kill()
        raise
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # type: ignore[union-attr]
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def _ask(process: "subprocess.Popen[bytes]", message: object) -> Any:
    try:
        pickle.dump(message, process.stdin)  # type: ignore[arg-type]
        process.stdin.flush()  # type: ignore[union-attr]
        return pickle.load(process.stdout)  # type: ignore[arg-type]
    except (BrokenPipeError, EOFError) as error:
        raise RuntimeError(f"a reader process died (exit code {process.wait()}): see its message above") from error


def main() -> None:
    """Serve tasks from standard input until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and closes the pipes
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up between the answers
    while True:
        try:
            function, task = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer: object
        try:
            answer = function(task)
        except Exception as error:
            answer = error
        pickle.dump(answer, answers)
        answers.flush()
