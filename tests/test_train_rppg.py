"""The whole way of train.py about heart rates, on clips that fit in a test."""

import json

import numpy as np
import onnx
import pytest

import train
from tests.configs import compose_config
from tests.mlflow_template import template_database
from tracking.hr_predictions import HeartRates
from tracking.rows import read_rows_file, rows_to_json
from tracking.statistics import point_metrics
from tracking.store import initialise

TINY = {
    "_target_": "tests.tiny_video.TinyVideoData",
    "n_frames": 120,
    "image_size": 10,
    "max_drop": 0.3,
    "name": "tiny_video",
    "kind": "synthetic",
    "leaky": False,
}
SMALL = (
    "experiment=rppg_tscan",
    "callbacks=quiet",
    "trainer.max_epochs=6",
    "trainer.log_every_n_steps=1",
    "model.module.net.widths=[8,8]",
    "model.module.net.dense_width=16",
    "model.limits.int8={int8_macs_share:0.9}",
    "optim.optimizer.lr=0.01",
    "bootstrap.n_resamples=200",
    "latency_window_s.synthetic=0.02",
    "evaluation.parity_windows=6",
    "gate=report",
)


def job_config(folder, name, *overrides):
    config = compose_config(*SMALL, *overrides, f"group={name}")
    config.datamodule = TINY
    folders = {key: str(folder / key) for key in ("data", "synthetic", "cache", "floats")}
    config.paths.update(**folders, output=str(folder / name))
    config.tracking.update(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_location=str(folder / "mlruns"))
    return config


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rppg")
    (folder / "mlflow.db").write_bytes(template_database())
    return folder, train.run(job_config(folder, "main"))


def test_one_row_per_file_and_baseline(job):
    folder, rows = job
    assert [(row.role, row.model, row.precision) for row in rows] == [
        ("student", "tscan", "float32"),
        ("student", "tscan", "int8"),
        *(("baseline", name, "float64") for name in ("mean_rate", "green", "chrom", "pos")),
    ]
    assert {(row.task, row.level, row.n_subjects) for row in rows} == {("heart_rate", "clip", 11)}
    # As text, since a constant answer has no correlation and NaN equals nothing.
    assert rows_to_json(read_rows_file(folder / "main" / "rows.json")) == rows_to_json(rows)


def test_a_file_for_another_device_is_a_row_of_the_same_task(job):
    folder, _ = job
    rows = train.run(job_config(folder, "board", "deploy=tensorrt", "baselines=none"))
    assert {(row.role, row.runtime, row.verdict) for row in rows} == {("student", "tensorrt", "not measured")}
    assert {row.task for row in rows} == {"heart_rate"}


def test_a_net_learns_the_pulse_and_int8_keeps_it(job):
    _, (plain, int8, mean, *_) = job
    headline = "test/hr_mae_bpm_video"
    assert plain.metrics[headline].high < 3 < mean.metrics[headline].low
    assert int8.delta[headline].low <= int8.delta[headline].value <= int8.delta[headline].high
    checks = {check["name"]: check for check in int8.checks}
    assert checks[headline]["limit"] == 0.3
    assert checks["parity/wave_r"]["status"] == checks["parity/hr_bpm"]["status"] == "PASS"
    assert int8.flips is None


def test_the_run_keeps_rates_and_figures_and_no_frames(job):
    folder, rows = job
    store = initialise(f"sqlite:///{folder / 'mlflow.db'}")
    files = {item.path for item in store.client.list_artifacts(rows[1].run_id)}
    assert {"row.json", "predictions.npz", "bland_altman.png", "rates.png", "net.pt"} <= files
    rates = store.read_predictions(rows[1].run_id)
    assert isinstance(rates, HeartRates)
    for name, value in point_metrics(rates).items():
        np.testing.assert_allclose(rows[1].metrics[f"test/{name}"].value, value, err_msg=name)
    assert store.client.get_run(rows[1].run_id).data.tags["task"] == "heart_rate"
    # 11 x 3 clips of 120 frames would be megabytes.
    assert all((path.stat().st_size < 500_000) for path in (folder / "mlruns").rglob("*.np*"))


def test_the_file_carries_its_input_contract(job):
    folder, rows = job
    path = next((folder / "main").glob("*int8*.onnx"))
    facts = {item.key: item.value for item in onnx.load(path).metadata_props}
    assert (facts["task"], json.loads(facts["fs"]), json.loads(facts["n_frames"])) == ("heart_rate", 30.0, 120)
    assert facts["split_digest"] == rows[0].split_digest


def test_the_job_prints_p1s_table(job, capsys, monkeypatch):
    folder, _ = job
    monkeypatch.setattr("pytorch_lightning.Trainer.fit", None)
    train.run(job_config(folder, "again", "compression=none", "baselines=none"))
    printed = capsys.readouterr().out
    assert "as in P1" in printed
    assert "low < 77" in printed


def test_a_search_takes_less_error_for_better(job, monkeypatch):
    folder, _ = job
    monkeypatch.setattr("pytorch_lightning.Trainer.fit", None)
    grid = "compression.search.grid={ptq_int8:{n_calibration:[2,8]}}"
    options = (grid, "compression.search.budget={size_ratio:null}", "compression.search.n_points=1")
    rows = train.run(job_config(folder, "search", "compression=search", "baselines=none", *options))
    store = initialise(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = [
        item
        for item in store.client.search_runs([store.experiment_id], "tags.group = 'search'")
        if item.info.run_name == "student tscan search"
    ]
    table = store.client.download_artifacts(run.info.run_id, "search.md", str(folder))
    with open(table) as file:  # noqa: PTH123
        header, _, *trials = [[cell.strip() for cell in line.split("|")[1:-1]] for line in file if "|" in line]
    assert header[1] == "val/hr_mae_bpm_video"
    errors = {name: float(error) for name, error, *_ in trials}
    assert min(errors.values()) >= 0
    assert rows[0].recipe == "none"
    assert errors[rows[1].recipe] == min(errors.values())


@pytest.mark.slow
def test_a_narrow_tscan_learns_from_the_wave_of_a_wide_one(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(template_database())
    wide = ("widths=[8,8]", "dense_width=16")
    options = (
        "model=tscan_narrow",
        "compression=distill_wave",
        "baselines=none",
        "model.module.net.widths=[4,4]",
        "model.module.net.dense_width=8",
        *(f"compression.teacher.module.net.{option}" for option in wide),
    )
    rows = train.run(job_config(tmp_path, "distilled", *options))
    assert [(row.role, row.model, row.recipe) for row in rows] == [
        ("teacher", "tscan", "none"),
        ("student", "tscan_narrow", "none"),
        ("student", "tscan_narrow", "distill_wave"),
    ]
    teacher, alone, distilled = rows
    assert distilled.params == alone.params < teacher.params / 2
    assert distilled.metrics["test/hr_mae_bpm_video"].value < 3
