import pytest

from datamodules.origin import ORIGIN_JSON, find_kind, find_root


def test_find_kind_is_what_the_folder_says(tmp_path):
    assert find_kind(tmp_path) == "real"
    (tmp_path / ORIGIN_JSON).write_text("{}")
    assert find_kind(tmp_path) == "synthetic"


def test_find_root_simulates_only_without_a_folder(tmp_path):
    assert find_root(None, lambda: tmp_path, download=False) == tmp_path
    assert find_root("elsewhere", lambda: tmp_path, download=False).name == "elsewhere"


@pytest.mark.parametrize(("simulate", "download"), [(None, False), (lambda: None, True)])
def test_find_root_asks_for_a_folder(simulate, download):
    with pytest.raises(ValueError, match=r"datamodule\.root=/path"):
        find_root(None, simulate, download)
