"""The jobs of a table: what is composed, what is run, what is found again. No net is trained here."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hydra.utils import instantiate

from composition import tables as jobs
from tests.configs import ROOT, names_of
from tests.table_jobs import DIGESTS, TABLE, hydra, make_run, open_store, table_config
from tracking.papers import read_papers
from tracking.rows import read_rows_file

MODELS = ("inception1d", "cnn1d_plain")
TABLES = names_of("table")


@pytest.fixture
def store(tmp_path, monkeypatch):
    return open_store(tmp_path, monkeypatch)


@pytest.mark.parametrize("table", TABLES)
def test_every_table_composes_and_takes_rows_that_its_jobs_give(tmp_path, table, composed):
    with hydra():
        config = table_config(tmp_path, table=table)
        planned = {job.name: job.config for job in jobs.plan_jobs(config, known=composed)}
    for row in config.table.rows.values():
        job, take = planned[row.job], row.take
        steps = [instantiate(step).name for step in job.compression.steps.values()]
        recipes = ["none", *itertools.accumulate(steps, "{}_{}".format)]
        assert take.get("recipe", "none") in recipes
        assert take.get("role") != "teacher" or "teacher" in job.compression
        assert take.get("role") != "baseline" or take.model in job.baselines


@pytest.mark.parametrize("profile", names_of("profile"))
@pytest.mark.parametrize("table", ["p2_models", "p3_distillation"])
def test_every_profile_has_the_data_of_the_tables(tmp_path, table, profile, composed):
    paper = read_papers(ROOT / "papers")[table[:2]]
    with hydra():
        config = table_config(tmp_path, f"profile={profile}", table=table)
        assert {cell.row for cell in paper.tables[table].cells} == set(config.table.rows)
        assert {row.job for row in config.table.rows.values()} == set(config.table.jobs)
        planned = jobs.plan_jobs(config, known=composed)
    assert [job.name for job in planned] == list(config.table.jobs)
    for job in planned:
        assert job.config.gate == "report"
        kind = config.profile.data[config.table.jobs[job.name].data].kind
        assert job.config.datamodule.name.startswith("synthetic") == (kind == "synthetic")
        jobs.find_setting(job.config)


@pytest.fixture(scope="module")
def composed():
    """Configurations that several tables share."""
    return {}


def test_overrides_of_the_command_line_win_and_those_of_the_table_stay_there(tmp_path):
    with hydra():
        config = table_config(tmp_path)
        given = [
            f"table={TABLE}",
            "profile=synthetic",
            "profile.seeds=[3]",
            "trainer.max_epochs=7",
            "allow_missing=true",
        ]
        planned = jobs.plan_jobs(config, given)
    assert {job.config.trainer.max_epochs for job in planned} == {7}
    assert {job.config.bootstrap.n_resamples for job in planned} == {500}


def test_a_quick_profile_shortens_what_the_job_names(tmp_path):
    with hydra():
        for profile, epochs in (("ci", 1), ("full", 12)):
            config = table_config(tmp_path, f"profile={profile}", table="p3_pruning")
            job = next(job for job in jobs.plan_jobs(config) if job.name == "pruned")
            assert job.config.compression.steps.prune_structured.max_epochs == epochs


def test_a_job_whose_data_the_profile_does_not_know_is_named(tmp_path):
    with hydra():
        config = table_config(tmp_path, "table.jobs.plain.data=chapman")
        with pytest.raises(jobs.CellError, match=r"job 'plain': profile 'synthetic' knows no data 'chapman'"):
            jobs.plan_jobs(config)


def test_a_table_runs_each_job_under_each_seed(tmp_path, store):
    ran = []
    with hydra():
        config = table_config(tmp_path, "profile.seeds=[0,1]")
        rows = jobs.fill_with_runs(config, [f"table={TABLE}"], make_run(store, ran))
    assert ran == [(model, seed) for model in MODELS for seed in (0, 1)]
    assert len(rows) == 4
    assert read_rows_file(tmp_path / "out" / "rows.json") == rows


def test_a_table_skips_what_the_store_holds_for_the_same_digests(tmp_path, store, monkeypatch):
    ran = []
    with hydra():
        config = table_config(tmp_path)
        first = jobs.fill_with_runs(config, (), make_run(store, ran))
        again = jobs.fill_with_runs(config, (), make_run(store, ran))
        assert len(ran) == 2
        assert again == first
        # Another setting, and other data, are not held.
        jobs.fill_with_runs(config, ("trainer.max_epochs=3",), make_run(store, ran))
        assert len(ran) == 4
        changed = SimpleNamespace(setup=lambda: None, pooled=False, **{**DIGESTS, "data_digest": "changed"})
        monkeypatch.setattr(jobs, "instantiate", lambda node: changed)
        jobs.fill_with_runs(config, (), make_run(store, ran))
    assert len(ran) == 6


def test_of_two_processes_that_want_the_same_job_one_waits_for_the_other(tmp_path, store, caplog):
    ran, started = [], threading.Event()
    quick = make_run(store, ran)

    def slow(config):
        started.set()
        # Until the other has met the lock.
        deadline = time.monotonic() + 20
        while "waiting for" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        return quick(config)

    with hydra():
        job = jobs.plan_jobs(table_config(tmp_path))[0]
    same = [jobs.prepare(job, 0, "g", str(tmp_path / name)) for name in ("first", "second")]
    caplog.set_level("INFO")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(jobs.find_or_run, same[0], "first", store, {}, slow)
        assert started.wait(20)
        second = pool.submit(jobs.find_or_run, same[1], "second", store, {}, quick)
        assert first.result() == second.result()
    assert ran == [(MODELS[0], 0)]
    assert "second: MLflow holds it" in caplog.text


def test_a_job_that_fails_does_not_stop_the_others(tmp_path, store):
    ran = []
    with hydra():
        config = table_config(tmp_path)
        run = make_run(store, ran, fails=("inception1d",))
        with pytest.raises(jobs.IncompleteTableError, match="inception-seed0: RuntimeError: the disk is on fire"):
            jobs.fill_with_runs(config, (), run)
        assert [model for model, _ in ran] == list(MODELS)
        assert len(read_rows_file(tmp_path / "out" / "rows.json")) == 1
        # What was missing is made up for, and nothing else.
        ran.clear()
        jobs.fill_with_runs(config, (), make_run(store, ran))
    assert ran == [("inception1d", 0)]


def test_a_table_without_data_runs_nothing_and_says_so(tmp_path, store):
    ran, root = [], f"paths.ptbxl={tmp_path / 'nowhere'}"
    with hydra():
        config = table_config(tmp_path, "profile=ci", root)
        with pytest.raises(
            jobs.IncompleteTableError, match=r"no data: there is no folder .*nowhere \(datamodule\.root"
        ):
            jobs.fill_with_runs(config, [root], make_run(store, ran))
        allowed = table_config(tmp_path, "profile=ci", root, "allow_missing=true")
        assert jobs.fill_with_runs(allowed, [root, "allow_missing=true"], make_run(store, ran)) == []
    assert ran == []


def test_simulated_recordings_are_no_data_for_a_real_profile(tmp_path):
    with hydra():
        config = table_config(tmp_path, "profile=full", table="p2_models")
        (first, *_) = jobs.plan_jobs(config)
    assert first.missing == "no data: datamodule.root of afdb_inter names no folder (paths.* on the command line)"
