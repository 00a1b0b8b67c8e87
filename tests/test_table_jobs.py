"""The jobs of a table: what is composed, what is run, what is found again. No net is trained here."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import tables
from composition import tables as jobs
from composition.rows import find_setting
from tests.configs import CONF, ROOT, names_of
from tests.mlflow_template import fresh_store
from tests.tracking_examples import example_row
from tracking.digests import digest
from tracking.finished import find_finished
from tracking.papers import read_papers
from tracking.rows import Estimate, read_rows_file

TABLE = "p3_models"
DIGESTS = {"data_digest": "data", "split_digest": "split", "preprocessing_digest": "prep"}
MODELS = ("inception1d", "cnn1d_plain")
TABLES = names_of("table")


@contextmanager
def hydra():
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        yield


def table_config(folder, *overrides, table=TABLE):
    paths = [f"paths.output={folder / 'out'}", f"paths.floats={folder / 'floats'}"]
    config = compose("config", [f"table={table}", "group=g", *paths, *overrides])
    (folder / "out").mkdir(exist_ok=True)
    return config


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store that the jobs of a test write to and find, and data that are as they were."""
    own = fresh_store(tmp_path)
    monkeypatch.setattr(jobs, "initialise", lambda **options: own)
    monkeypatch.setattr(tables, "initialise", lambda **options: own)
    data = SimpleNamespace(setup=lambda: None, pooled=False, **DIGESTS)
    monkeypatch.setattr(jobs, "instantiate", lambda config: data)
    return own


def make_run(store, ran, *, data="synthetic", value=0.93, fails=()):
    """Stand in for a job: one row in the store, or an error."""

    def run(config):
        model = config.model.name
        ran.append((model, config.seed))
        if model in fails:
            raise RuntimeError("the disk is on fire")
        config.datamodule.kind = data
        row = replace(
            example_row(data=data, model=model, seed=config.seed, metrics={"val/auroc_macro": Estimate(value)}),
            config_digest=digest(find_setting(config)),
            **DIGESTS,
        )
        with store.job(model, group=config.group) as job, job.child(model) as run:
            return [store.log_row(run.run_id, row)]

    return run


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
    for config in same:
        config.paths.floats = str(tmp_path / "floats")
    caplog.set_level("INFO")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(jobs.find_or_run, same[0], "first", store, slow)
        assert started.wait(20)
        second = pool.submit(jobs.find_or_run, same[1], "second", store, quick)
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


def render(folder, *overrides, table=TABLE, command="render", extra=()):
    given = [command, *overrides, "--table", table, "--output", str(folder / "reports"), *extra]
    return tables.main(given)


def test_render_leaves_cells_without_data_empty_and_the_exit_code_says_so(tmp_path, store, capsys):
    options = ("profile=ci", f"paths.ptbxl={tmp_path / 'nowhere'}")
    assert render(tmp_path, *options) == 1
    assert "no data for p3_models" in capsys.readouterr().err
    text = (tmp_path / "reports" / f"{TABLE}.md").read_text()
    assert "not measured: no data: there is no folder" in text
    assert "ci: real data" in text
    assert render(tmp_path, *options, "allow_missing=true") == 0


def test_render_fills_cells_from_runs_alone(tmp_path, store):
    ran = []
    with hydra():
        jobs.fill_with_runs(table_config(tmp_path), (), make_run(store, ran))
    assert render(tmp_path) == 0
    text = (tmp_path / "reports" / f"{TABLE}.md").read_text()
    assert "| Inception CNN | mean AUC, validation | 87.00 % | 93.00 % (synthetic) | - | +6.00 % |" in text
    assert "not comparable: synthetic data" in text
    # Under another seed nothing was run.
    assert render(tmp_path, "profile.seeds=[1]") == 0
    assert "(synthetic)" not in (tmp_path / "reports" / f"{TABLE}.md").read_text()


def test_render_takes_the_newest_of_two_runs_and_lists_both(tmp_path, store):
    with hydra():
        config = table_config(tmp_path)
        job = next(job for job in jobs.plan_jobs(config) if job.name == "plain")
        for value in (0.90, 0.95):
            make_run(store, [], value=value)(jobs.prepare(job, 0, "g", "out"))
        old = find_finished(store.client)[jobs.setting_digests(jobs.prepare(job, 0, "g", "out"))[1]][1].run_id
    assert render(tmp_path) == 0
    html = (tmp_path / "reports" / f"{TABLE}.html").read_text()
    assert "95.00 %" in html
    assert "90.00 %" not in html
    assert f">{old[:8]}</a>" in html


def test_render_ignores_runs_that_did_not_finish(tmp_path, store):
    with hydra():
        make = make_run(store, [])
        jobs.fill_with_runs(table_config(tmp_path), (), make)
    for run in store.client.search_runs([store.experiment_id]):
        if "mlflow.parentRunId" not in run.data.tags:
            store.client.set_terminated(run.info.run_id, "FAILED")
    assert render(tmp_path) == 0
    assert "(synthetic)" not in (tmp_path / "reports" / f"{TABLE}.md").read_text()


def test_overrides_may_stand_behind_options():
    given = tables.parse_arguments(["render", "profile=ci", "--table", "p3_models", "paths.data=x"])
    assert (given.command, given.overrides, given.table) == ("render", ["profile=ci", "paths.data=x"], ["p3_models"])


def test_render_refuses_a_table_that_no_paper_has(tmp_path, store, capsys):
    assert render(tmp_path, table="p9_models") == 2
    assert "there are no tables ['p9_models']" in capsys.readouterr().err


def test_check_passes_on_what_was_expected_and_fails_on_drift(tmp_path, store, capsys):
    with hydra():
        jobs.fill_with_runs(table_config(tmp_path), (), make_run(store, []))
    folder = tmp_path / "expected"
    extra = ("--expected", str(folder))
    assert render(tmp_path, command="check", extra=extra) == 2
    assert "write it with `python tables.py expect`" in capsys.readouterr().err
    assert render(tmp_path, command="expect", extra=extra) == 0
    assert render(tmp_path, command="check", extra=extra) == 0
    path = folder / f"synthetic-{TABLE}.csv"
    wrong = path.read_text().replace("plain.val,val/auroc_macro,%,93,", "plain.val,val/auroc_macro,%,80,")
    path.write_text(wrong)
    capsys.readouterr()
    assert render(tmp_path, command="check", extra=extra) == 1
    shown = capsys.readouterr().out
    assert "DRIFT p3_models plain.val: is 93, expected 80 +- 10 %" in shown
    assert "expected: " in shown
    assert "measured: The two models (synthetic" in shown
