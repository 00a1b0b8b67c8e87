import numpy as np
import pytest

from datamodules.shared_rows import create_rows, finish_rows, open_part

SIZES = (3, 0, 2, 4)


def write(rows, part, patience_s):
    path, position = open_part(rows, part, SIZES[part], patience_s)
    with path.open("r+b") as file:
        file.seek(position)
        file.write(np.full((SIZES[part], *rows.shape), part, dtype="<f4").tobytes())
    return path


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_shared_rows_lie_in_order_whenever_they_are_written(tmp_path, order):
    rows = create_rows(tmp_path / "a.npy", len(SIZES), (1, 5))
    paths = [write(rows, part, patience_s=0.01) for part in order]
    # Who knows its place writes there at once.
    assert (set(paths) == {rows.path}) == (order == (0, 1, 2, 3))
    finish_rows(rows, SIZES)
    array = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert array.shape == (9, 1, 5)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array[:, 0, 4], np.repeat(range(4), SIZES))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_shared_rows_that_are_not_all_there_are_an_error(tmp_path):
    rows = create_rows(tmp_path / "a.npy", len(SIZES), (1, 5))
    for part in range(3):
        write(rows, part, patience_s=0.01)
    with pytest.raises(RuntimeError, match=r"a\.npy has \d+ bytes, expected \d+ for 9 rows"):
        finish_rows(rows, SIZES)
