"""compare.py on rows about heart rates, and its refusal to mix tasks."""

from dataclasses import replace

import pytest

import compare
from tests.tracking_examples import example_predictions, example_rates, example_row
from tracking.headline import find_headline
from tracking.hr_tables import tabulate_heart_rates
from tracking.plots import tradeoff_figure
from tracking.rows import Estimate
from tracking.statistics import bootstrap_metrics, paired_bootstrap
from tracking.tables import default_metric

FACTS = {"task": "heart_rate", "level": "clip", "dataset": "synthetic_ubfc", "model": "tscan"}


def log_rates(store, job, rates, against=None, **changes):
    row = example_row(metrics=bootstrap_metrics(rates, 50), **FACTS | changes)
    if against is not None:
        delta = paired_bootstrap(rates, store.read_predictions(against.run_id), 50)
        row = replace(row, delta=delta, reference=against.name, reference_run_id=against.run_id)
    with job.child(row.name) as run:
        return store.log_row(run.run_id, row, predictions=rates)


@pytest.fixture
def rows(store):
    with store.job("job", group="g1") as job:
        plain = log_rates(store, job, example_rates(), name="float", size_bytes=2_000_000)
        worse = example_rates(noise_seed=2, error_bpm=5)
        int8 = log_rates(store, job, worse, plain, name="int8", precision="int8", size_bytes=600_000)
    return [plain, int8]


def test_compare_shows_heart_rates_by_their_error(store, rows, capsys):
    assert compare.main([]) == 0
    text = capsys.readouterr().out
    assert "test/hr_mae_bpm_video [95 %]" in text
    assert "As in P1" in text
    assert "30.00%" in text
    assert "Against the reference, group by group" in text
    assert "below 0 is better than the reference" in text
    assert "auroc" not in text.lower()


def test_compare_pairs_heart_rates_with_another_reference(store, rows, capsys):
    assert compare.main(["--reference", "int8", "--resamples", "50", "--format", "json"]) == 0
    assert f'"reference_run_id": "{rows[1].run_id}"' in capsys.readouterr().out


def test_compare_refuses_rows_of_several_tasks(store, rows, capsys):
    predictions = example_predictions(100)
    with store.job("job", group="g1") as job, job.child("classes") as run:
        row = example_row(name="classes", metrics=bootstrap_metrics(predictions, 50))
        store.log_row(run.run_id, row, predictions=predictions)
    for options in ([], ["--figures"]):
        assert compare.main(["--group", "g1", *options]) == compare.REFUSED
        message = capsys.readouterr().err
        assert "figures of different tasks do not compare" in message
        assert "classes" in message
    assert compare.main(["tags.task = 'heart_rate'"]) == 0


def test_compare_refuses_a_reference_of_another_task(store, rows, capsys):
    predictions = example_predictions(100)
    with store.job("job", group="g2") as job, job.child("classes") as run:
        row = example_row(name="classes", metrics=bootstrap_metrics(predictions, 50))
        other = store.log_row(run.run_id, row, predictions=predictions)
    assert compare.main(["--group", "g1", "--reference", str(other.run_id)]) == compare.REFUSED
    assert "figures of different tasks do not compare" in capsys.readouterr().err


def test_rows_of_heart_rates_have_their_own_headline(rows):
    assert default_metric(rows) == "test/hr_mae_bpm_video"
    assert find_headline("heart_rate", "clip").sign == -1
    assert tradeoff_figure(rows).axes[0].get_ylabel() == "test/hr_mae_bpm_video"
    with pytest.raises(ValueError, match=r"rows of the tasks \['classification', 'heart_rate'\]"):
        default_metric([*rows, example_row()])
    with pytest.raises(ValueError, match="task is 'ranking', expected one of"):
        find_headline("ranking")
    with pytest.raises(ValueError, match="task 'ranking' is not one of"):
        example_row(task="ranking")


def test_every_shown_figure_of_heart_rates_is_measured(rows):
    for name in find_headline("heart_rate").shown:
        assert f"test/{name}" in rows[0].metrics


def test_p1_table_has_groups_ratio_and_shares(rows):
    shares = {"faces": 0.475, "pulse": 0.489, "rate": 0.036}
    timed = {f"stages/{name}_share": Estimate(value) for name, value in shares.items()}
    timed["stages/time_over_video"] = Estimate(0.0412)
    table = tabulate_heart_rates([rows[0], replace(rows[1], metrics=rows[1].metrics | timed)])
    cells = dict(zip(table.header, table.cells[1], strict=True))
    assert cells["of reference"] == "30.00%"
    assert (cells["stages %"], cells["time/video"]) == ("47.5 / 48.9 / 3.6", "4.12%")
    assert cells["low < 77"].startswith(f"{rows[1].metrics['test/hr_mae_bpm_low_window'].value:.3f} [")
    assert dict(zip(table.header, table.cells[0], strict=True))["stages %"] == "-"
