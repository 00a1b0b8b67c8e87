"""Quantization recipes end to end, on synthetic data that is small enough for a test."""

import csv
from pathlib import Path

import numpy as np
import pytest

import train
from composition.classification import Classification
from composition.evaluation import Evaluator
from compression.recipe import ExportSpec
from deploy.onnx import export_onnx
from tests.mlflow_template import template_database
from tests.test_train import job_config, open_store
from tests.tiny import CLASS_NAMES, TinyDataModule, tiny_module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "mlflow.db").write_bytes(template_database())
    return folder


def test_accuracy_control_logs_which_layer_did_it(folder):
    options = ("compression=ptq_int8_control", "compression.steps.ptq_int8.max_drop=0.5")
    rows = train.run(job_config(folder, "control", *options))
    assert [row.recipe for row in rows] == ["none", "ptq_int8_control"]
    assert [row.test_looks for row in rows] == [1, 2]
    assert rows[1].int8_macs_share > 0.9
    client = open_store(folder).client
    paths = {item.path for item in client.list_artifacts(rows[1].run_id)}
    assert {"sensitivity.md", "sensitivity.csv", "sensitivity.png"} <= paths
    with Path(client.download_artifacts(rows[1].run_id, "sensitivity.csv", str(folder))).open() as file:
        layers = list(csv.DictReader(file))
    assert {layer["layer"] for layer in layers} == {"features.0", "features.5", "head"}
    assert all(float(layer["sqnr_db"]) > 5 for layer in layers)
    assert sum(int(layer["macs"]) for layer in layers) == rows[0].macs


def test_qat_row_is_a_real_int8_file_of_the_float_model_that_is_there(folder):
    rows = train.run(job_config(folder, "qat", "compression=qat_int8", "compression.steps.qat_int8.max_epochs=1"))
    assert [(row.recipe, row.precision) for row in rows] == [("none", "float32"), ("qat_int8", "int8")]
    assert rows[1].int8_macs_share > 0.9
    assert rows[1].params == rows[0].params
    assert rows[1].training_s > 0
    checks = {check["name"]: check["status"] for check in rows[1].checks}
    assert checks["parity/noise"] == "PASS"


@pytest.mark.parametrize(
    ("recipe", "fails"),
    [
        ("ptq_uncalibrated", {"parity/noise", "parity/flipped"}),
        ("quantize_dynamic", {"int8_macs_share", "size_ratio"}),
    ],
)
def test_negatives_fail_the_gate(folder, recipe, fails):
    row = train.run(job_config(folder, recipe, f"compression={recipe}"))[1]
    assert row.verdict == "FAIL"
    assert fails <= {check["name"] for check in row.checks if check["status"] == "FAIL"}


def test_half_precision_passes_on_half_the_bytes(folder):
    # So many test windows that one decision at its threshold is no large share of them.
    rows = train.run(job_config(folder, "half", "compression=fp16", "datamodule.source.n_patients=400"))
    assert rows[1].precision == "float16"
    assert rows[1].size_bytes < 0.55 * rows[0].size_bytes
    checks = {check["name"]: check["status"] for check in rows[1].checks}
    assert checks["size_ratio"] == checks["parity/noise"] == checks["parity/flipped"] == "PASS"


def make_evaluator(folder):
    data = TinyDataModule()
    data.n_leads, data.n_samples, data.class_names, data.exclusive = 2, 64, CLASS_NAMES, False
    data.targets = lambda split: data.all_targets[data.splits[split]]
    looked = []
    windows = data.windows

    def watch(split, positions=None):
        looked.append(split)
        return windows(split, positions)

    data.windows = watch
    return Evaluator(data, Classification(None, 16), export_onnx, folder / "evaluate.onnx", seed=0), looked


def test_evaluator_looks_at_validation_alone(tmp_path):
    evaluate, looked = make_evaluator(tmp_path)
    module = tiny_module().eval()
    spec = ExportSpec("int8", calibration_positions=tuple(range(16)))
    result = evaluate(module, spec, n_windows=40)
    assert set(looked) == {"train", "val"}
    assert result.scores.shape == (40, 2)
    assert result.int8_macs_share == 1.0
    again = evaluate(module, spec, n_windows=40)
    np.testing.assert_array_equal(result.scores, again.scores)
    assert 0 <= result.metric <= 1


def test_evaluator_says_where_a_class_is_missing(tmp_path):
    evaluate, _ = make_evaluator(tmp_path)
    with pytest.raises(ValueError, match=r"1 validation windows \(sensitivity_windows\): class"):
        evaluate(tiny_module().eval(), ExportSpec(), n_windows=1)
