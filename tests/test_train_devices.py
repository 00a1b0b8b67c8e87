"""Jobs for devices: bundles that cannot be made are refused at once, files that cannot run here are not measured."""

import pytest
import torch

import compare
import train
from tests.configs import compose_config
from tests.mlflow_template import template_database
from tests.test_train import SMALL, job_config, open_store


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["deploy.bundle=toaster"], "'toaster' is unknown"),
        (["deploy.bundle=coral"], r"takes \.tflite, but this job makes \.onnx"),
        (["deploy=tensorrt", "deploy.bundle=cpu"], r"but this job makes \.engine"),
        (["deploy.bundle=cpu", "datamodule.pooled=true"], "pools folds"),
    ],
)
def test_a_bundle_that_no_file_fills_is_refused_before_training(overrides, message):
    with pytest.raises(ValueError, match=message):
        train.run(compose_config(*overrides))


def test_a_job_makes_no_bundle_unless_asked():
    config = compose_config()
    assert config.deploy.bundle is None
    train.check_bundle(config)


@pytest.mark.slow
def test_a_row_without_its_device_has_no_figure(tmp_path, monkeypatch, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device, so the engine is measured")
    (tmp_path / "mlflow.db").write_bytes(template_database())
    small = [item for item in SMALL if "teacher" not in item]
    overrides = ["compression=ptq_int8", "deploy=tensorrt", *small, "trainer.max_epochs=1", "group=trt"]
    rows = train.run(job_config(tmp_path, "trt", *overrides))
    assert [(row.runtime, row.precision, row.verdict) for row in rows] == [
        ("tensorrt", "float32", "not measured"),
        ("tensorrt", "int8", "not measured"),
    ]
    for row in rows:
        assert row.metrics == row.delta == {}
        assert row.latency_ms_p50 is row.size_bytes is row.macs is row.peak_memory_bytes is row.energy_mj is None
        assert "trtexec --onnx=" in row.reasons[0]
        assert row.test_looks == 0
    store = open_store(tmp_path)
    assert store.count_test_looks(rows[0].split_digest) == 0
    files = {item.path for item in store.client.list_artifacts(rows[1].run_id)}
    assert any(name.endswith("-tensorrt.onnx") for name in files)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    capsys.readouterr()
    assert compare.main(["--group", "trt"]) == 0
    assert "not measured: no CUDA device" in capsys.readouterr().out
