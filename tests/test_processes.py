import operator
import os

import pytest

from datamodules.processes import run_tasks


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_answer_every_task(workers):
    answers = []
    run_tasks(operator.neg, list(range(20)), workers=workers, collect=answers.append)
    assert sorted(answers) == [-task for task in range(19, -1, -1)]


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_pass_errors_on(workers):
    with pytest.raises(TypeError):
        run_tasks(operator.neg, [1, "two", 3], workers=workers, collect=lambda _: None)


def test_processes_that_die_are_reported():
    with pytest.raises(RuntimeError, match=r"process died \(exit code 3\)"):
        run_tasks(os._exit, [3], workers=2, collect=lambda _: None)


def test_processes_end_when_collecting_fails():
    def refuse(_):
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        run_tasks(operator.neg, list(range(100)), workers=2, collect=refuse)
