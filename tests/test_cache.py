import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules.cache import allocate_array, cached_directory, content_digest
from datamodules.ptbxl import load_ptbxl
from tests.ptbxl_files import write_ptbxl

PROJECT = Path(__file__).resolve().parents[1]
KEY = content_digest({"a": 1})


def write_text(directory):
    (directory / "text").write_text("content")


def only_the_lock(cache):
    return [path.suffix for path in cache.iterdir()] == [".lock"]


def test_cache_digest_is_that_of_the_content():
    assert content_digest({"a": 1, "b": [1, 2]}) == content_digest({"b": (1, 2), "a": 1})
    assert content_digest({"a": 1}) != content_digest({"a": 2})
    assert content_digest({"a": [1, 2]}) != content_digest({"a": [2, 1]})


def test_cache_is_built_once(tmp_path):
    directory = cached_directory(tmp_path, "x", KEY, write_text)
    assert (directory / "text").read_text() == "content"

    def refuse(directory):
        raise AssertionError("built twice")

    assert cached_directory(tmp_path, "x", KEY, refuse) == directory
    assert cached_directory(tmp_path, "x", content_digest({"a": 2}), write_text) != directory


def test_cache_failed_build_leaves_nothing(tmp_path):
    def fail(directory):
        write_text(directory)
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        cached_directory(tmp_path, "x", KEY, fail)
    assert only_the_lock(tmp_path)
    assert (cached_directory(tmp_path, "x", KEY, write_text) / "text").exists()


def test_cache_interrupted_build_leaves_nothing(tmp_path):
    def interrupt(directory):
        write_text(directory)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_directory(tmp_path, "x", KEY, interrupt)
    assert only_the_lock(tmp_path)


def test_cache_removes_what_a_killed_build_left(tmp_path):
    leftover = tmp_path / f"x-{KEY[:24]}.partial-1"
    leftover.mkdir()
    (leftover / "text").write_text("half")
    directory = cached_directory(tmp_path, "x", KEY, write_text)
    assert not leftover.exists()
    assert (directory / "text").read_text() == "content"


def test_cache_of_several_processes_is_built_by_one(tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from datamodules.cache import cached_directory

def build(directory):
    with open({str(tmp_path / "builds")!r}, "a") as file:
        file.write("build\\n")
    (directory / "text").write_text("con")
    time.sleep(0.5)
    (directory / "text").write_text("content")

directory = cached_directory(Path({str(tmp_path / "cache")!r}), "x", {KEY!r}, build)
print((directory / "text").read_text())
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert [process.communicate()[0].strip() for process in processes] == ["content"] * 3
    assert [process.returncode for process in processes] == [0] * 3
    assert (tmp_path / "builds").read_text() == "build\n"


def test_cache_array_has_its_space_reserved(tmp_path):
    offset = allocate_array(tmp_path / "a.npy", (3, 2, 100), "<f4")
    assert (tmp_path / "a.npy").stat().st_size == offset + 2400
    assert (tmp_path / "a.npy").stat().st_blocks > 0
    array = np.load(tmp_path / "a.npy", mmap_mode="r+")
    assert (array.shape, array.dtype) == ((3, 2, 100), np.float32)
    array[1, 1, 5] = 7
    array.flush()
    values = np.frombuffer((tmp_path / "a.npy").read_bytes()[offset:], dtype="<f4")
    assert np.flatnonzero(values).tolist() == [305]


@pytest.mark.parametrize("call", ["os.posix_fallocate", "numpy.savez", "os.fsync", "pathlib.Path.write_text"])
def test_cache_disk_full_leaves_no_half_file(tmp_path, monkeypatch, call):
    root = write_ptbxl(tmp_path / "ptbxl", folds=[1])
    cache = tmp_path / "cache"

    def refuse(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(call, refuse)
        with pytest.raises(OSError, match=r"No space left.*nothing was left behind.*paths\.cache") as error:
            load_ptbxl(root, cache_dir=cache, folds=[1])
    assert error.value.errno == errno.ENOSPC
    assert only_the_lock(cache)
    assert len(load_ptbxl(root, cache_dir=cache, folds=[1])) == 5


def test_cache_limit_of_the_system_leaves_no_half_file(tmp_path):
    root = write_ptbxl(tmp_path / "ptbxl", folds=[1])
    cache = tmp_path / "cache"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="nothing was left behind"):
            load_ptbxl(root, cache_dir=cache, folds=[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert only_the_lock(cache)
    assert len(load_ptbxl(root, cache_dir=cache, folds=[1])) == 5


def test_cache_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "cache").mkdir()

    def refuse(directory):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with pytest.raises(PermissionError, match=rf"could not write the cache of 'x'.*{tmp_path}"):
        cached_directory(tmp_path / "cache", "x", KEY, refuse)
