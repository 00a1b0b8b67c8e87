import ast
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy import bundle as bundle_module
from deploy.bundle import BundleError, choose_slice, find_tolerance, list_requirements, write_bundle
from deploy.devices import DEVICES, find_device, refuse_artifact
from deploy.licences import describe_licences
from tests.bundles import export_small, make_content
from tests.configs import ROOT

SCRIPT = Path(ROOT, "deploy", "run_on_device.py")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return export_small(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(artifact, tmp_path_factory):
    return write_bundle(make_content(artifact), tmp_path_factory.mktemp("bundle") / "cpu")


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_bundle_holds_what_a_device_needs(folder):
    assert set(content_of(folder)) == {
        *("model.onnx", "bundle.json", "preprocessing.json", "golden.npz", "slice.npz", "run_on_device.py"),
        *("MODEL_CARD.md", "LICENCES.md", "requirements.txt"),
    }
    bundle = json.loads((folder / "bundle.json").read_text())
    assert set(bundle["files"]) == set(content_of(folder)) - {"bundle.json"}
    assert bundle["class_names"] == ["a", "b", "c", "d"]
    assert bundle["thresholds"] == [0.5] * 4


def test_bundle_is_the_same_bytes_again(folder, artifact, tmp_path):
    assert content_of(write_bundle(make_content(artifact), tmp_path / "again")) == content_of(folder)


def test_bundle_arrays_hold_no_pickles(folder):
    for name in ("golden.npz", "slice.npz"):
        with np.load(folder / name, allow_pickle=False) as arrays:
            assert all(arrays[key].dtype != object for key in arrays.files)


def test_bundle_refuses_a_path_that_exists(artifact, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    with pytest.raises(BundleError, match="exists already"):
        write_bundle(make_content(artifact), tmp_path / "there")
    assert (tmp_path / "there" / "mine.txt").read_text() == "mine"


def test_bundle_appears_whole_or_not_at_all(artifact, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(bundle_module, "describe_licences", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bundle(make_content(artifact), tmp_path / "cpu")
    assert list(tmp_path.iterdir()) == []


def test_bundle_refuses_a_file_that_the_device_does_not_take(artifact, tmp_path):
    content = replace(make_content(artifact), device=find_device("coral"))
    with pytest.raises(BundleError, match=r"coral takes \.tflite, not '\.onnx'"):
        write_bundle(content, tmp_path / "coral")


def test_bundle_holds_a_compiled_copy_where_there_is_a_compiler(artifact, tmp_path, monkeypatch):
    compiler = tmp_path / "bin" / "tpuc"
    compiler.parent.mkdir()
    compiler.write_text('#!/bin/sh\n[ -s "$3" ] || exit 1\ncat "$3" "$3" > "$2/model_edgetpu.onnx"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{compiler.parent}:/usr/bin:/bin")
    content = replace(make_content(artifact), device=replace(find_device("cpu"), compiler="tpuc"))
    folder = write_bundle(content, tmp_path / "compiled")
    bundle = json.loads((folder / "bundle.json").read_text())
    assert bundle["delegated"] == "model_edgetpu.onnx"
    assert (folder / "model_edgetpu.onnx").stat().st_size == 2 * artifact.size_bytes
    assert "model_edgetpu.onnx" in bundle["files"]
    compiler.write_text("#!/bin/sh\necho operator NOT_EQUAL is not mapped; exit 1\n")
    with pytest.raises(BundleError, match=r"tpuc refused model.onnx: operator NOT_EQUAL"):
        write_bundle(content, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_devices_refuse_the_wrong_precision(artifact):
    tflite = replace(artifact, path=artifact.path.with_suffix(".tflite"))
    assert "takes int8, not float32" in refuse_artifact(find_device("coral"), tflite)
    assert refuse_artifact(find_device("coral"), replace(tflite, precision="int8")) == ""
    assert refuse_artifact(find_device("jetson_orin_nano"), artifact) == ""


def test_an_unknown_device_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'arduino' is unknown, expected one of .*'coral'.*'watch'"):
        find_device("arduino")


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_has_a_runtime_for_every_ending(name):
    device = DEVICES[name]
    assert set(device.runtimes) == set(device.endings)
    assert all(device.runtimes[ending] for ending in device.endings)


def test_slice_holds_every_class_and_is_always_the_same():
    targets = np.zeros((500, 3), np.float32)
    targets[[7, 9, 311], 0] = 1
    targets[250:, 1] = 1
    targets[:, 2] = 1
    targets[499, 2] = 0
    positions = choose_slice(targets, 20)
    assert len(positions) == 20
    assert np.array_equal(positions, choose_slice(targets, 20))
    assert np.array_equal(positions, np.unique(positions))
    assert (targets[positions].any(axis=0) & ~targets[positions].all(axis=0)).all()
    assert np.array_equal(choose_slice(targets, 10_000), np.arange(500))


def test_slice_needs_a_window():
    with pytest.raises(BundleError, match="n_slice=0"):
        choose_slice(np.ones((4, 1)), 0)


def test_tolerance_is_known_for_every_precision_of_a_file(artifact):
    logits = np.array([[-2.0, 2.0]])
    assert find_tolerance(artifact, logits) == pytest.approx(4e-4)
    assert find_tolerance(replace(artifact, precision="int8_dynamic"), logits) == pytest.approx(0.2)
    with pytest.raises(BundleError, match="'bfloat16' has no tolerance"):
        find_tolerance(replace(artifact, precision="bfloat16"), logits)


def test_requirements_name_what_pip_can_install():
    assert list_requirements(DEVICES["coral"].runtimes[".tflite"]).splitlines()[:2] == [
        "numpy<2",
        "tflite-runtime>=2.5.0",
    ]
    jetson = list_requirements(DEVICES["jetson_orin_nano"].runtimes[".onnx"])
    assert jetson.splitlines()[0] == "numpy"
    assert jetson.splitlines()[1].startswith("# tensorrt")


def test_licences_name_the_data_or_say_that_they_are_unknown():
    assert "CC BY 4.0" in describe_licences("ptbxl", "real", ["onnxruntime"])
    assert "ODC-By" in describe_licences("ltafdb_inter", "real", ["onnxruntime"])
    assert "does not know" in describe_licences("my_holters", "real", ["onnxruntime"])
    assert "simulated" in describe_licences("afdb_inter", "synthetic", ["onnxruntime"])


def test_device_script_is_old_python_and_needs_numpy_alone():
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 9))
    names = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert names - set(sys.stdlib_module_names) == {"numpy"}
    # Types that a call would need at run time came later than 3.9.
    assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
