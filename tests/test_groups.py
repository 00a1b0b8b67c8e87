import numpy as np
import pytest

from datamodules.groups import encode_ids, unique_ids


@pytest.mark.parametrize("values", [["b", "b", "a", "b"], ["x"], [], ["a", "b", "c"]])
def test_groups_are_numpys_unique_values(values):
    values = np.array(values, dtype="<U3")
    expected, inverse = np.unique(values, return_inverse=True)
    unique, codes = encode_ids(values)
    np.testing.assert_array_equal(unique, expected)
    np.testing.assert_array_equal(codes, inverse)
    np.testing.assert_array_equal(unique_ids(values), expected)


def test_groups_unique_hashes_are_numpys():
    values = np.random.default_rng(0).integers(0, 500, 1000, dtype=np.uint64) << np.uint64(55)
    np.testing.assert_array_equal(unique_ids(values), np.unique(values))
