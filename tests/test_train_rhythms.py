"""Jobs on beats: a cross-validation with baselines, a leaky split, and what a sweep prints."""

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

import train
from composition.sweep import PrintSweep
from tests.configs import compose_config
from tests.mlflow_template import template_database
from tracking.rows import read_rows_file, row_to_dict, rows_to_json
from tracking.store import initialise

SMALL = (
    "model=resnet21",
    "trainer.max_epochs=1",
    "callbacks=quiet",
    "bootstrap.n_resamples=100",
    "latency_window_s.synthetic=0.05",
    "gate=report",
    "datamodule.source.simulate.n_records=12",
    f"datamodule.source.simulate.hours={1 / 40}",
    "datamodule.source.detector._target_=tests.rhythm_files.find_spikes",
    "+datamodule.source.workers=1",
    "datamodule.batch_size=16",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rhythms")
    (folder / "mlflow.db").write_bytes(template_database())
    return folder


def run_job(folder: Path, number: int, *overrides: str):
    config = compose_config(*SMALL, *overrides, f"group=job{number}")
    config.paths.update(
        synthetic=str(folder / "data"),
        cache=str(folder / "cache"),
        floats=str(folder / "floats"),
        output=str(folder / "sweep" / str(number)),
    )
    config.tracking.update(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_location=str(folder / "mlruns"))
    return train.run(config)


@pytest.fixture(scope="module")
def pooled(folder):
    return run_job(folder, 0, "datamodule=afdb_cv", "datamodule.split.n_folds=3", "compression=ptq_int8")


@pytest.fixture(scope="module")
def leaky(folder):
    return run_job(folder, 1, "datamodule=afdb_intra")


@pytest.fixture(scope="module")
def honest(folder):
    return run_job(folder, 2, "datamodule=afdb_inter")


def test_cross_validation_gives_rows_of_all_folds_and_baselines(pooled):
    assert [(row.role, row.model, row.precision) for row in pooled] == [
        ("student", "resnet21", "float32"),
        ("student", "resnet21", "int8"),
        ("baseline", "class_prior", "float64"),
        ("baseline", "rr_irregularity", "float64"),
    ]
    assert {(row.data, row.level, row.leaky, row.n_subjects) for row in pooled} == {("synthetic", "beat", False, 12)}
    assert len({(row.split_digest, row.n_test) for row in pooled}) == 1


def test_cross_validation_has_intervals_and_a_spread_over_folds(pooled):
    for row in pooled:
        assert len(row.folds) == 3
        assert sum(fold["n_test"] for fold in row.folds) == row.n_test
        estimate = row.metrics["test/f1_weighted_beat"]
        assert estimate.low <= estimate.value <= estimate.high
        accuracies = [fold["metrics"]["accuracy_beat"] for fold in row.folds]
        assert row.metrics["folds/accuracy_beat_mean"].value == pytest.approx(np.mean(accuracies))
        assert row.metrics["folds/accuracy_beat_std"].value == pytest.approx(np.std(accuracies, ddof=1))
    assert pooled[1].delta["test/auroc_macro_beat"].low <= pooled[1].delta["test/auroc_macro_beat"].high


def test_cross_validation_baselines_are_no_files(pooled):
    prior, irregularity = pooled[2:]
    assert prior.metrics["test/auroc_macro_beat"].value < 0.6
    assert irregularity.metrics["test/auroc_macro_beat"].value > 0.75
    assert (prior.size_bytes, prior.latency_ms_p50, prior.params) == (None, None, None)


def test_exclusive_classes_go_to_the_most_probable_one(folder, pooled):
    store = initialise(f"sqlite:///{folder / 'mlflow.db'}")
    assert set(np.unique(store.read_predictions(pooled[0].run_id).thresholds)) == {0.5}
    # The class prior's is the most frequent class.
    prior = store.read_predictions(pooled[2].run_id)
    assert pooled[2].metrics["test/accuracy_beat"].value == pytest.approx(prior.targets[:, 0].mean())


def test_cross_validation_tracks_folds_below_the_job(folder, pooled):
    store = initialise(f"sqlite:///{folder / 'mlflow.db'}")
    runs = store.client.search_runs([store.experiment_id], "tags.group = 'job0'")
    folds = {run.info.run_id: run for run in runs if "fold" in run.data.tags}
    assert sorted(run.data.tags["fold"] for run in folds.values()) == ["0", "1", "2"]
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") in folds]
    assert {run.info.run_id for run in below} == {fold["run_id"] for row in pooled for fold in row.folds}
    assert {run.info.status for run in runs} == {"FINISHED"}
    # Only what stands for all folds is a row.
    # As dictionaries, for a figure that is undefined is not equal to itself.
    assert [row_to_dict(row) for row in store.read_rows(group="job0")] == [row_to_dict(row) for row in pooled]


def test_cross_validation_predictions_hold_every_window_once(folder, pooled):
    store = initialise(f"sqlite:///{folder / 'mlflow.db'}")
    predictions = store.read_predictions(pooled[0].run_id)
    assert len(predictions.record_ids) == pooled[0].n_test
    assert len(set(zip(predictions.record_ids, predictions.times_s, strict=True))) == pooled[0].n_test


def test_leaky_split_is_tagged_and_named_in_its_rows(folder, leaky):
    store = initialise(f"sqlite:///{folder / 'mlflow.db'}")
    assert all(row.leaky for row in leaky)
    assert store.client.get_run(leaky[0].run_id).data.tags["leaky"] == "True"


def test_few_test_subjects_get_no_interval(honest):
    assert honest[0].n_subjects < 10
    assert np.isnan(honest[0].metrics["test/auroc_macro_beat"].low)
    assert np.isfinite(honest[0].metrics["test/auroc_macro_beat"].value)


def test_sweep_prints_all_jobs_and_the_leak_gap(folder, leaky, honest, pooled, capsys):
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder / "sweep")}}})
    PrintSweep().on_multirun_end(config)
    printed = capsys.readouterr().out
    table, gaps = printed.split("leak gap")
    assert all(name in table for name in ("afdb_cv", "afdb_intra", "afdb_inter", "rr_irregularity", "synthetic"))
    assert len([line for line in gaps.splitlines() if line.strip().startswith("afdb_intra")]) == 3
    assert rows_to_json(read_rows_file(folder / "sweep" / "1" / "rows.json")) == rows_to_json(leaky)


def test_sweep_without_rows_says_so(tmp_path, caplog):
    PrintSweep().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert "no job of this sweep" in caplog.text
