"""One job on ONNX Runtime and LiteRT side by side, through train.py."""

import pytest
import torch

import train
from tests.mlflow_template import template_database
from tests.test_train import job_config, open_store


@pytest.mark.slow
def test_job_on_all_targets_gives_rows_of_both_with_their_reports(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(template_database())
    overrides = ("compression=ptq_int8", "deploy=all", "deploy.profile.layers=true", "deploy.profile.batch_sizes=[1]")
    rows = train.run(job_config(tmp_path, "all", *overrides))
    table = {(row.runtime, row.precision): row for row in rows}
    runtimes = ("onnxruntime", "litert", "tensorrt")
    assert set(table) == {(name, bits) for name in runtimes for bits in ("float32", "int8")}
    if not torch.cuda.is_available():
        assert table["tensorrt", "int8"].latency_ms_p50 is None
    quantized, single = table["litert", "int8"], table["litert", "float32"]
    assert quantized.reference_run_id == single.run_id
    assert quantized.int8_macs_share == 1.0
    assert quantized.size_bytes < 0.5 * single.size_bytes
    assert quantized.latency_ms_p50 is not None
    checks = {check["name"]: check for check in quantized.checks}
    assert checks["edgetpu"]["status"] == checks["float_operators"]["status"] == "INFO"
    assert checks["parity/noise"]["status"] == "PASS"
    store = open_store(tmp_path)
    files = {item.path for item in store.client.list_artifacts(quantized.run_id)}
    assert {"edgetpu.md", "layers.md", "layers.png"} <= files
    assert any(name.endswith(".tflite") for name in files)
    onnx_files = {item.path for item in store.client.list_artifacts(table["onnxruntime", "int8"].run_id)}
    assert {"layers.md", "layers.png"} <= onnx_files
    assert "edgetpu.md" not in onnx_files
