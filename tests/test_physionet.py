import contextlib
import hashlib
import http.server
import re
import shutil
import threading

import pytest
import wfdb.io.download
from wfdb.io import _url

from datamodules.physionet import ChecksumError, download_files, download_matching
from datamodules.ptbxl import load_ptbxl
from tests.ptbxl_files import write_ptbxl

BASE = "/ptb-xl/1.0.3/"


class PhysioNet:
    """A local server with PhysioNet's file layout, byte ranges and, on demand, failures."""

    def __init__(self, root):
        self.root = root
        self.requests: list[str] = []
        self.replaced: dict[str, bytes] = {}
        self.broken_after: int | None = None
        names = [path for path in sorted(root.rglob("*")) if path.is_file()]
        lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(root)}\n" for path in names]
        self.sums = "".join(lines)

    def content(self, name):
        if name == "SHA256SUMS.txt":
            return self.sums.encode()
        if name in self.replaced:
            return self.replaced[name]
        return (self.root / name).read_bytes() if (self.root / name).is_file() else None

    def fetched(self, suffix):
        return sorted({name for name in self.requests if name.endswith(suffix)})


def handler(physionet):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix(BASE)
            physionet.requests.append(name)
            content = physionet.content(name)
            if content is None:
                self.send_error(404)
                return
            start = 0
            if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                start = int(match[1])
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            broken = physionet.broken_after is not None and len(physionet.requests) > physionet.broken_after
            if self.command == "GET":
                self.wfile.write(content[start : start + 100] if broken else content[start:])

        def do_HEAD(self):
            self.do_GET()

        def log_message(self, *args):
            pass

    return Handler


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_ptbxl(tmp_path_factory.mktemp("published"), folds=(1, 2))


@pytest.fixture
def physionet(published, monkeypatch):
    physionet = PhysioNet(published)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(physionet))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(wfdb.io.download.config, "db_index_url", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(_url, "_SESSION", None)
    yield physionet
    if _url._SESSION is not None:
        _url._SESSION.close()
    server.shutdown()
    thread.join()
    server.server_close()


def load(root, **options):
    return load_ptbxl(root, cache_dir=root.parent / "cache", **{"folds": [1], "download": True, **options})


def test_physionet_fetches_what_the_folds_need(physionet, published, tmp_path):
    windows = load(tmp_path / "ptbxl")
    assert windows.record_ids.tolist() == ["1", "2", "3", "4", "5"]
    assert windows.data_digest == load(published, download=False).data_digest
    assert len(physionet.fetched(".dat")) == 5
    assert sorted(path.name for path in (tmp_path / "ptbxl").iterdir()) == [
        ".download.lock",
        "ptbxl_database.csv",
        "records100",
        "scp_statements.csv",
    ]


def test_physionet_is_left_alone_when_everything_is_there(physionet, tmp_path):
    load(tmp_path / "ptbxl")
    physionet.requests.clear()
    load(tmp_path / "ptbxl")
    assert physionet.requests == []
    load(tmp_path / "ptbxl", folds=[1, 2])
    assert len(physionet.fetched(".hea")) == 5


def test_physionet_interrupted_download_goes_on_where_it_was(physionet, tmp_path):
    physionet.broken_after = 8
    with pytest.raises(ConnectionError, match=r"could not download 'records100/.*start again to go on.*wget"):
        load(tmp_path / "ptbxl")
    complete = [path.name for path in (tmp_path / "ptbxl" / "records100").rglob("*.dat")]
    assert 0 < len(complete) < 5
    physionet.broken_after = None
    physionet.requests.clear()
    assert len(load(tmp_path / "ptbxl")) == 5
    assert not {name.rpartition("/")[2] for name in physionet.requests} & set(complete)


def test_physionet_partial_file_is_continued(physionet, published, tmp_path):
    name = "records100/00000/00001_lr.dat"
    staged = tmp_path / ".download" / name
    staged.parent.mkdir(parents=True)
    staged.write_bytes((published / name).read_bytes()[:1000])
    assert download_files("ptb-xl", "1.0.3", tmp_path, [name]) == 1
    assert (tmp_path / name).read_bytes() == (published / name).read_bytes()
    assert not staged.parent.exists()


def test_physionet_damaged_partial_file_is_fetched_anew(physionet, published, tmp_path):
    name = "records100/00000/00001_lr.dat"
    staged = tmp_path / ".download" / name
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"x" * 1000)
    download_files("ptb-xl", "1.0.3", tmp_path, [name])
    assert (tmp_path / name).read_bytes() == (published / name).read_bytes()


def test_physionet_wrong_checksum_is_refused(physionet, tmp_path):
    name = "records100/00000/00003_lr.dat"
    physionet.replaced[name] = b"\0" * 24000
    with pytest.raises(ChecksumError, match=rf"{name} of ptb-xl/1\.0\.3 has SHA-256 .*in two downloads"):
        load(tmp_path / "ptbxl")
    assert not (tmp_path / "ptbxl" / name).exists()
    assert not (tmp_path / "ptbxl" / ".download" / name).exists()
    physionet.replaced.clear()
    assert len(load(tmp_path / "ptbxl")) == 5


def test_physionet_file_without_a_published_checksum_is_refused(physionet, tmp_path):
    physionet.sums = "".join(line for line in physionet.sums.splitlines(True) if "00002_lr.hea" not in line)
    with pytest.raises(ChecksumError, match=r"does not list \['records100/00000/00002_lr\.hea'\] \(1 files\)"):
        load(tmp_path / "ptbxl")


def test_physionet_file_that_the_server_lacks_is_named(physionet, tmp_path):
    physionet.sums += f"{'0' * 64} absent.txt\n"
    with pytest.raises(ConnectionError, match=r"could not download 'absent\.txt' from http.*404"):
        download_files("ptb-xl", "1.0.3", tmp_path, ["absent.txt"])


def test_physionet_without_network_says_how_to_get_the_files(physionet, tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("requests.Session.request", refuse)
    with pytest.raises(ConnectionError, match=r"SHA256SUMS\.txt.*no route to host.*wget -r -N"):
        load(tmp_path / "ptbxl")


def test_physionet_downloads_of_two_threads_do_not_mix(physionet, published, tmp_path):
    root = tmp_path / "ptbxl"
    names = [str(path.relative_to(published)) for path in published.rglob("*_lr.*")]
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(download_files("ptb-xl", "1.0.3", root, names)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, len(names)]
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(root / ".download")
    assert all((root / name).read_bytes() == (published / name).read_bytes() for name in names)


def test_physionet_fetches_matching_files_of_the_top_folder(physionet, tmp_path):
    assert download_matching("ptb-xl", "1.0.3", tmp_path / "db", (".csv", ".dat")) == 2
    present = sorted(path.name for path in (tmp_path / "db").iterdir() if not path.name.startswith("."))
    assert present == ["SHA256SUMS.txt", "ptbxl_database.csv", "scp_statements.csv"]
    n_requests = len(physionet.requests)
    assert download_matching("ptb-xl", "1.0.3", tmp_path / "db", (".csv",)) == 0
    assert len(physionet.requests) == n_requests


def test_physionet_needs_the_name_of_a_data_base(tmp_path):
    with pytest.raises(ValueError, match=r"datamodule\.source\.database"):
        download_matching(None, None, tmp_path, (".dat",))
