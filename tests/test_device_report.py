import json
import zipfile

import numpy as np
import pytest

from deploy.bundle import BundleError
from deploy.device_report import read_report
from tests.bundles import example_report

LOGITS = np.random.default_rng(0).normal(size=(4, 3))
POSITIONS = [0, 3, 5, 9]


def save(folder, **changes):
    path = folder / "device.json"
    path.write_text(json.dumps(example_report(LOGITS, POSITIONS, **changes)))
    return path


def test_report_gives_what_was_measured(tmp_path):
    report = read_report(save(tmp_path), macs=9000)
    assert (report.run_id, report.device, report.runtime) == ("run1", "raspberry_pi", "ai-edge-litert 2.3.0")
    assert (report.p50_ms, report.p90_ms, report.p99_ms) == (1.9, 2.4, 3.1)
    assert report.energy_mj == pytest.approx(8.08)
    assert np.array_equal(report.logits, LOGITS)


def test_report_takes_what_was_not_measured(tmp_path):
    unknown = dict.fromkeys(("power_w", "power_source", "energy_mj", "temperature_c", "peak_memory_bytes"))
    report = read_report(save(tmp_path, **unknown))
    assert report.energy_mj is None
    assert report.peak_memory_bytes is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latency_ms.p50": -1.0}, "latency_ms.p50 is -1.0"),
        ({"latency_ms.p50": 5.0}, "expected them to rise"),
        ({"latency_ms.p99": float("nan")}, "holds NaN"),
        ({"latency_ms.mean": float("inf")}, "holds Infinity"),
        ({"latency_ms.p99": 1e9}, "latency_ms.p99"),
        ({"latency_ms.n": 50_000}, "do not fit into"),
        ({"latency_ms.n": True}, "latency_ms.n is True"),
        ({"latency_ms.seconds": 2.0}, "latency_ms.seconds is 2.0, expected 10"),
        ({"latency_ms.p50": "fast"}, "could not convert"),
        ({"throughput_per_s": 9000.0}, "throughput_per_s"),
        ({"runtime.threads": 0}, "runtime.threads"),
        ({"golden.max_abs": 0.5}, "golden.max_abs"),
        ({"golden.n": 0}, "golden.n"),
        ({"peak_memory_bytes": -5}, "peak_memory_bytes"),
        ({"temperature_c": {"max": 900.0}}, "temperature_c.max"),
        ({"power_w": -3.0}, "power_w"),
        ({"power_w": None}, "one gives the other"),
        ({"energy_mj": 0.001}, "energy_mj"),
        ({"slice.logits": [[0.0, 1.0]]}, "positions of shape"),
        ({"slice.positions": [0, 3, 3, 9]}, "repeat"),
        ({"slice.positions": [-1, 3, 5, 9]}, "negative"),
        ({"bundle.device": "toaster"}, "'toaster', expected one of"),
        ({"format": 2}, "format 2"),
        ({"golden": {}}, "'max_abs' is missing|'n' is missing"),
    ],
)
def test_report_refuses_figures_that_cannot_be(tmp_path, changes, message):
    with pytest.raises(BundleError, match=message):
        read_report(save(tmp_path, **changes))


def test_report_refuses_a_latency_that_no_device_reaches(tmp_path):
    path = save(tmp_path)
    assert read_report(path, macs=10**9)
    with pytest.raises(BundleError, match="no device does"):
        read_report(path, macs=10**13)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}"])
def test_report_refuses_what_is_no_report(tmp_path, text):
    path = tmp_path / "device.json"
    path.write_text(text)
    with pytest.raises(BundleError, match=r"run run_on_device\.py again"):
        read_report(path)


def test_report_refuses_a_missing_file(tmp_path):
    with pytest.raises(BundleError, match="cannot be read"):
        read_report(tmp_path / "device.json")


def test_report_comes_in_a_folder_or_a_zip_file(tmp_path):
    path = save(tmp_path)
    with zipfile.ZipFile(tmp_path / "back.zip", "w") as archive:
        archive.write(path, "cpu/device.json")
        archive.writestr("cpu/model.onnx", b"x")
    assert read_report(tmp_path).source_digest == read_report(tmp_path / "back.zip").source_digest


@pytest.mark.parametrize("name", ["../device.json", "/tmp/x", "a/../../x", "C:\\x", "..\\x"])
def test_report_refuses_a_zip_file_with_an_entry_that_leaves_the_folder(tmp_path, name):
    path = save(tmp_path)
    with zipfile.ZipFile(tmp_path / "back.zip", "w") as archive:
        archive.write(path, "device.json")
        archive.writestr(name, b"x")
    with pytest.raises(BundleError, match="leaves the folder"):
        read_report(tmp_path / "back.zip")


def test_report_refuses_a_damaged_zip_file_and_one_without_a_report(tmp_path):
    path = tmp_path / "back.zip"
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(BundleError, match="cannot be read"):
        read_report(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", b"x")
    with pytest.raises(BundleError, match="holds 0 files"):
        read_report(path)
