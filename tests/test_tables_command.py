"""tables.py: pages of what the store holds, and what is expected of them. No net is trained here."""

import pytest

import tables
from composition import tables as jobs
from tests.table_jobs import TABLE, hydra, make_run, open_store, table_config
from tracking.finished import find_finished


@pytest.fixture
def store(tmp_path, monkeypatch):
    return open_store(tmp_path, monkeypatch)


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
