import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from tracking.digests import digest, digest_source, git_state, package_versions

GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")


def git(folder, *arguments):
    subprocess.run([*GIT, "-C", str(folder), *arguments], check=True, capture_output=True)


def test_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1, {"c": 2, "d": 3}]}) == digest({"b": (1, {"d": 3, "c": 2}), "a": 1})


def test_digest_is_the_same_in_every_process():
    code = "from tracking.digests import digest; print(digest({'fs': 100, 'leads': ['I', 'II']}))"
    here = digest({"leads": ["I", "II"], "fs": 100})
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        assert done.stdout.strip() == here


def test_digest_is_fixed():
    # A changed value here makes every float model train again and every stored digest differ.
    assert digest({"fs": 100, "leads": ["I", "II"], "window_s": 10.0, "path": None}) == "020c069fd6fb134d"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (1, "1"),
        (None, "None"),
        ([1, 2], [2, 1]),
        (["ab"], ["a", "b"]),
        ([["a"], []], [["a", []]]),
        ({"a": {"b": 1}}, {"a": {}, "b": 1}),
        ("a", b"a"),
        ({1: "a"}, {"1": "a"}),
        (np.zeros(4, np.float32), np.zeros(4, np.float64)),
        (np.zeros((2, 2)), np.zeros(4)),
        ("", []),
    ],
)
def test_digest_tells_values_apart(one, other):
    assert digest(one) != digest(other)
    assert digest([one]) != digest([other])


def test_digest_takes_numpy_numbers_as_numbers():
    assert digest({"n": np.int64(3), "x": np.float64(0.5)}) == digest({"n": 3, "x": 0.5})
    transposed = np.arange(6).reshape(2, 3).T
    assert digest(transposed) == digest(np.ascontiguousarray(transposed))


@pytest.mark.parametrize("value", [object(), {1, 2}, print, np.array([object()])])
def test_digest_refuses_what_has_no_stable_content(value):
    with pytest.raises(TypeError, match=r"cannot digest .* at '\.model\[1\]'"):
        digest({"model": [0, value]})


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small project whose net imports a helper, which imports the net again."""
    files = {
        "room_x/__init__.py": "",
        "room_x/net.py": "import numpy\nfrom room_x import layers\n\n\nclass Net:\n    pass\n",
        "room_x/layers.py": "from .deep.blocks import WIDTH\n\n\ndef late():\n    import room_x.net\n",
        "room_x/deep/__init__.py": "",
        "room_x/deep/blocks.py": "WIDTH = 3\n",
        "room_x/other.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("room_x")]:
        del sys.modules[name]


def test_digest_source_follows_the_imports_of_the_project(project):
    net = import_module("room_x.net").Net
    before = digest_source(net)
    assert before == digest_source(net, net)
    (project / "room_x/other.py").write_text("x = 1\n")
    assert digest_source(net) == before
    (project / "room_x/deep/blocks.py").write_text("WIDTH = 4\n")
    assert digest_source(net) != before


def test_digest_source_does_not_depend_on_place_or_line_ends(project, tmp_path_factory, monkeypatch):
    before = digest_source(import_module("room_x.net").Net)
    for name in [name for name in sys.modules if name.startswith("room_x")]:
        del sys.modules[name]
    place = tmp_path_factory.mktemp("elsewhere") / "deep" / "down"
    place.mkdir(parents=True)
    (project / "room_x").rename(place / "room_x")
    for path in place.rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    monkeypatch.syspath_prepend(place)
    assert digest_source(import_module("room_x.net").Net) == before


def test_digest_source_leaves_installed_packages_out(project):
    module = import_module("room_x.net")
    assert digest_source(module.Net, np.ndarray, pytest) == digest_source(module)


def test_digest_source_refuses_what_has_no_file():
    with pytest.raises(TypeError, match="no source file"):
        digest_source(len)


def test_git_state_names_commit_and_everything_uncommitted(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("ignored\n")
    (tmp_path / "a.py").write_text("x = 1\n")
    commit, diff = git_state(tmp_path)
    assert commit == ""
    assert "+x = 1" in diff
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    commit, diff = git_state(tmp_path)
    assert (len(commit), diff) == (40, "")
    (tmp_path / "a.py").write_text("x = 2\n")
    (tmp_path / "new.py").write_text("y = 3\n")
    (tmp_path / "ignored").write_text("z")
    git(tmp_path, "add", "a.py")
    before = (tmp_path / ".git/index").read_bytes()
    again, diff = git_state(tmp_path)
    assert again == commit
    assert "-x = 1\n+x = 2" in diff
    assert "+y = 3" in diff
    assert "ignored" not in diff
    assert (tmp_path / ".git/index").read_bytes() == before


def test_git_state_is_empty_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) == ("", "")


def test_git_state_is_empty_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state(Path(__file__).parent) == ("", "")


def test_package_versions_name_what_is_missing():
    versions = package_versions(["numpy", "no-such-package"])
    assert versions == {"numpy": np.__version__, "no-such-package": "not installed"}
