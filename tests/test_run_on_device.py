import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from deploy import run_on_device
from deploy.bundle import write_bundle
from deploy.device_report import BundleError, read_report
from deploy.run_on_device import Rapl, Sensors, find_rail, lay_out, quantize, read_temperature
from tests.bundles import export_small, load_script, make_content, sign

QUICK = ["--seconds", "0.05", "--warmup-seconds", "0"]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    return write_bundle(make_content(export_small(folder)), folder / "cpu")


@pytest.fixture
def bundle(original, tmp_path):
    return shutil.copytree(original, tmp_path / "cpu")


def run(bundle, *arguments):
    return load_script(bundle).main([*QUICK, "--output", str(bundle / "device.json"), *arguments])


def change(bundle, **values):
    path = bundle / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_script_measures_and_writes_device_json(bundle, capsys):
    assert run(bundle) == 0
    report = json.loads((bundle / "device.json").read_text())
    assert report["bundle"]["run_id"] == "run1"
    assert report["golden"]["max_abs"] <= report["golden"]["tolerance"]
    assert len(report["slice"]["logits"]) == 16
    assert report["slice"]["flipped_decisions"] == 0
    latency = report["latency_ms"]
    assert latency["min"] <= latency["p50"] <= latency["p90"] <= latency["p99"]
    assert latency["seconds"] >= 0.05
    assert report["throughput_per_s"] == pytest.approx(latency["n"] / latency["seconds"])
    assert report["power_w"] is None or report["power_w"] >= 0
    assert "golden       8 windows agree" in capsys.readouterr().out
    # A measurement of less than 10 s does not come home.
    with pytest.raises(BundleError, match="seconds"):
        read_report(bundle / "device.json")


def test_script_runs_as_a_file_and_exits_with_its_code(bundle):
    (bundle / "model.onnx").write_bytes(b"")
    done = subprocess.run([sys.executable, bundle / "run_on_device.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "model.onnx was altered" in done.stderr


def test_script_tells_which_golden_value_differs_and_how_far(bundle, capsys):
    with np.load(bundle / "golden.npz") as arrays:
        golden = dict(arrays)
    golden["logits"][5, 2] += 0.25
    np.savez(bundle / "golden.npz", **golden)
    sign(bundle)
    assert run(bundle) == 3
    error = capsys.readouterr().err
    assert "golden window 5, class 2" in error
    assert "0.25 apart" in error
    assert "1 of 32 values" in error
    assert not (bundle / "device.json").exists()


def test_golden_check_refuses_nan():
    golden = {"windows": np.zeros((1, 1, 4)), "logits": np.zeros((1, 2)), "tolerance": np.array(1.0)}
    with pytest.raises(run_on_device.Stop, match="class 1") as stop:
        run_on_device.check_golden(lambda window: np.array([0.0, np.nan]), golden)
    assert stop.value.code == 3


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "slice.npz", "MODEL_CARD.md"])
def test_script_refuses_an_altered_file(bundle, name, capsys):
    with (bundle / name).open("r+b") as file:
        file.seek(20)
        file.write(b"\x00\x01\x02")
    assert run(bundle) == 2
    assert f"{name} was altered" in capsys.readouterr().err


def test_script_refuses_a_missing_file(bundle, capsys):
    (bundle / "slice.npz").unlink()
    assert run(bundle) == 2
    assert "slice.npz is missing" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/../../secret"])
def test_script_refuses_a_file_outside_its_folder(bundle, name, capsys):
    (bundle.parent / "secret").write_text("x")
    change(bundle, files={name: "0" * 64})
    assert run(bundle) == 2
    assert "leaves the folder" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_script_refuses_a_broken_manifest(bundle, text, capsys):
    (bundle / "bundle.json").write_text(text)
    assert run(bundle) == 2
    assert "bundle.json cannot be read" in capsys.readouterr().err


def test_script_refuses_a_runtime_that_is_too_old(bundle, capsys):
    change(bundle, runtimes={"onnxruntime": "99.1"})
    assert run(bundle) == 4
    assert "is too old, this model needs 99.1 or newer" in capsys.readouterr().err


def test_script_names_the_runtimes_that_are_missing(bundle, capsys, monkeypatch):
    change(bundle, runtimes={"tensorrt": "8.6.0"})
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert run(bundle) == 4
    assert "tensorrt is not there" in capsys.readouterr().err


def test_script_refuses_a_runtime_that_does_not_run_this_file(bundle, capsys):
    assert run(bundle, "--runtime", "tflite-runtime") == 1
    assert "this model runs on onnxruntime" in capsys.readouterr().err


def test_script_tells_that_a_corrupt_model_cannot_be_loaded(bundle, capsys):
    path = bundle / "model.onnx"
    path.write_bytes(path.read_bytes()[:500])
    sign(bundle)
    assert run(bundle) == 5
    assert "cannot run model.onnx" in capsys.readouterr().err


def test_script_refuses_no_time(bundle):
    assert run(bundle, "--seconds", "0") == 1


def test_windows_find_their_layout():
    window = np.arange(12.0).reshape(3, 4)
    assert np.array_equal(lay_out(window, (1, 1, 4, 3))[0, 0], window.T)
    assert np.array_equal(lay_out(window, (1, 3, 4))[0], window)
    assert lay_out(np.zeros((1, 300)), (1, 1, 300, 1)).shape == (1, 1, 300, 1)
    with pytest.raises(ValueError, match="the model takes"):
        lay_out(window, (1, 1, 5, 3))


def test_inputs_are_quantized_as_the_model_says():
    details = {"dtype": np.int8, "quantization": (0.5, -3)}
    assert quantize(np.array([0.0, 1.0, 1000.0, -1000.0]), details).tolist() == [-3, -1, 127, -128]


def test_decisions_are_those_of_the_workstation():
    from lightning_modules.metrics import decide, to_probabilities

    rng = np.random.default_rng(0)
    for exclusive, n in ((False, 5), (True, 2), (True, 4)):
        logits, thresholds = rng.normal(size=(200, n)) * 3, rng.uniform(0.2, 0.8, n)
        expected = decide(to_probabilities(logits, exclusive), thresholds, exclusive)
        assert np.array_equal(run_on_device.decide(logits, thresholds, exclusive), expected)


def write(root, name, value):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")


def test_power_of_a_jetson_comes_from_the_rail_of_the_whole_board(tmp_path):
    folder = "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    for channel, name, volts, amperes in ((1, "VDD_IN", 5000, 1200), (2, "VDD_CPU_GPU_CV", 5000, 400)):
        write(tmp_path, f"{folder}/in{channel}_label", name)
        write(tmp_path, f"{folder}/in{channel}_input", volts)
        write(tmp_path, f"{folder}/curr{channel}_input", amperes)
    assert find_rail(tmp_path)[1].name == "curr1_input"
    sensors = Sensors(tmp_path)
    sensors.sample()
    report = sensors.report(seconds=10.0, calls=1000)
    assert report["power_w"] == pytest.approx(6.0)
    assert report["energy_mj"] == pytest.approx(60.0)


def test_energy_counters_may_wrap_around(tmp_path):
    for name in ("intel-rapl:0", "intel-rapl:0:1"):
        write(tmp_path, f"class/powercap/{name}/energy_uj", 9_000_000)
        write(tmp_path, f"class/powercap/{name}/max_energy_range_uj", 10_000_000)
    rapl = Rapl(tmp_path)
    write(tmp_path, "class/powercap/intel-rapl:0/energy_uj", 9_500_000)
    rapl.update()
    write(tmp_path, "class/powercap/intel-rapl:0/energy_uj", 500_000)
    rapl.update()
    assert rapl.readable
    assert rapl.joules == pytest.approx(1.5)


def test_what_a_board_does_not_show_is_not_measured(tmp_path):
    write(tmp_path, "class/thermal/thermal_zone0/temp", 0)
    write(tmp_path, "class/powercap/intel-rapl:0/energy_uj", "secret")
    sensors = Sensors(tmp_path)
    sensors.sample()
    assert set(sensors.report(10.0, 100).values()) == {None}


def test_temperature_is_the_highest_that_a_zone_shows(tmp_path):
    for zone, value in enumerate((41500, 0, 55250, 999999999)):
        write(tmp_path, f"class/thermal/thermal_zone{zone}/temp", value)
    assert read_temperature(tmp_path) == 55.25


def test_version_of_a_system_package_is_its_modules(monkeypatch):
    module = SimpleNamespace(__name__="odd_runtime.interpreter")
    monkeypatch.setitem(sys.modules, "odd_runtime", SimpleNamespace(__version__="2.7.1"))
    assert run_on_device.find_version("odd-runtime", module) == "2.7.1"
    assert run_on_device.version_numbers("2.14.0.post1") == (2, 14, 0)
