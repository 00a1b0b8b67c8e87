import csv
import re
from typing import Any

import pytest

from tests.mlflow_template import fresh_store
from tests.table_examples import example_cell, example_table, fill, real_row
from tests.tracking_examples import example_predictions, example_row
from tracking.figures import draw_answers, draw_png
from tracking.plots import roc_figure
from tracking.report_plots import draw_groups, draw_parameters
from tracking.reports import Figure, Report, collect_figures, write_reports
from tracking.rows import Estimate

URL = "http://127.0.0.1:5000/#/experiments/1/runs/{run_id}"
PARAMS = example_cell(
    id="student.params", column="parameters", metric="params", unit="count", value=534_000, tolerance=5e3
)


def report(cells, **changes) -> Report:
    values: dict[str, Any] = {
        "table": example_table(),
        "paper": "P3: PTB-XL",
        "profile": "ci",
        "profile_title": "real data",
        "figures": (),
    }
    return Report(cells=cells, **({"figures": (), **values} | changes))


def pages(folder, *reports):
    write_reports(folder, reports, URL)
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_reports_come_as_html_markdown_and_csv_with_an_index(tmp_path):
    made = pages(tmp_path, report(fill(real_row())))
    assert sorted(made) == ["index.html", "index.md", *(f"p3_distillation.{end}" for end in ("csv", "html", "md"))]
    for name in ("p3_distillation.html", "p3_distillation.md"):
        for text in ("92.80 %", "93.10 %", "[92.50, 93.70 %]", "+0.30 %", "reproduced", "ci: real data"):
            assert text in made[name], (name, text)
    assert f'href="{URL.format(run_id=real_row().run_id)}"' in made["p3_distillation.html"]
    assert 'href="p3_distillation.html"' in made["index.html"]


def test_reports_need_nothing_from_elsewhere(tmp_path):
    figure = Figure(caption="ROC", uri="data:image/png;base64,AAAA")
    made = pages(tmp_path, report(fill(real_row()), figures=(figure,)))
    for name in ("index.html", "p3_distillation.html"):
        sources = re.findall(r'(?:src|href)="([^"]*)"', made[name])
        assert sources
        assert all(source.startswith(("data:", "http://127.0.0.1", "p3_", "index")) for source in sources)
        assert "width=device-width" in made[name]
        assert "@media print" in made[name]


def test_reports_say_that_a_cell_has_no_run(tmp_path):
    made = pages(tmp_path, report(fill()))
    assert "not measured" in made["p3_distillation.html"]
    assert "no finished run" in made["p3_distillation.html"]
    assert "| not measured: no finished run | - |" in made["p3_distillation.md"]
    (line,) = csv.DictReader((tmp_path / "p3_distillation.csv").read_text().splitlines())
    assert (line["published"], line["ours"], line["verdict"]) == ("92.8", "", "not measured")


def test_reports_label_synthetic_figures_wherever_they_stand(tmp_path):
    made = pages(tmp_path, report(fill(example_row())))
    html = made["p3_distillation.html"]
    assert re.search(r'93\.10 %<br><span class="faint">synthetic</span>', html)
    assert "not comparable" in html
    assert "93.10 % (synthetic)" in made["p3_distillation.md"]
    assert 'class="warning"' in html
    assert 'class="warning"' in made["index.html"]
    (line,) = csv.DictReader((tmp_path / "p3_distillation.csv").read_text().splitlines())
    assert (line["data"], line["why"]) == ("synthetic", "synthetic data")


def test_reports_of_real_data_have_no_warning(tmp_path):
    made = pages(tmp_path, report(fill(real_row())))
    assert 'class="warning"' not in made["p3_distillation.html"] + made["index.html"]


def test_reports_say_why_there_is_no_interval(tmp_path):
    few = real_row(n_subjects=5, metrics={"test/auroc_macro": Estimate(0.93)})
    made = pages(tmp_path, report(fill(few)))
    reason = "no interval: 5 test subjects, fewer than 10"
    assert f'-<br><span class="faint">{reason}</span>' in made["p3_distillation.html"]
    assert f"| - ({reason}) |" in made["p3_distillation.md"]
    made = pages(tmp_path, report(fill(real_row(n_subjects=2000))))
    assert "no interval" not in made["p3_distillation.html"]


def test_reports_escape_hostile_names(tmp_path):
    evil = '"><script>alert(1)</script>'
    cells = fill(real_row(name=evil), cells=(example_cell(label=evil, column=evil),))
    figure = Figure(caption=evil, uri="data:image/png;base64,AAAA")
    made = pages(tmp_path, report(cells, figures=(figure,), profile_title=evil, paper=evil))
    for name in ("index.html", "p3_distillation.html"):
        assert "<script" not in made[name]
        assert "&lt;script&gt;alert(1)" in made[name]
    assert f'title="{evil}' not in made["p3_distillation.html"]


def test_reports_list_the_runs_that_could_have_filled_a_cell(tmp_path):
    made = pages(tmp_path, report(fill(real_row(), others=("feedc0de" + 24 * "0",))))
    assert ">feedc0de</a>" in made["p3_distillation.html"]
    assert "older or of other data" in made["p3_distillation.html"]


def test_reports_count_the_seeds_that_were_found(tmp_path):
    made = pages(tmp_path, report(fill(real_row(0.93, 0), real_row(0.94, 1), n_seeds=5)))
    assert "2 of 5 seeds" in made["p3_distillation.html"]
    assert "seed 0" in made["p3_distillation.html"]


def test_the_index_keeps_the_order_of_the_papers(tmp_path):
    other = example_table()
    first = report((), paper="P1: video", table=type(other)(**{**vars(other), "id": "p1_stages", "title": "Stages"}))
    made = pages(tmp_path, first, report(fill(real_row())))
    assert made["index.html"].index("p1_stages.html") < made["index.html"].index("p3_distillation.html")


def test_figures_come_from_the_runs_as_they_lie_there(tmp_path):
    store = fresh_store(tmp_path)
    predictions = example_predictions()
    with store.job("job", group="g") as job, job.child("student") as run:
        row = store.log_row(run.run_id, real_row(run_id=None), images={"roc.png": draw_png(roc_figure(predictions))})
    table = example_table(plots=("roc", "confusion"))
    figures = collect_figures(table, fill(row), store)
    assert [figure.caption for figure in figures] == ["student alone: ROC curves, real data, seed 0"]
    assert figures[0].uri.startswith("data:image/png;base64,iVBOR")
    assert not figures[0].wide


def test_a_picture_of_several_panels_takes_the_whole_width(tmp_path):
    store = fresh_store(tmp_path)
    with store.job("job", group="g") as job, job.child("student") as run:
        drawn = draw_answers(example_predictions(), "student")
        row = store.log_row(
            run.run_id, real_row(run_id=None), images={"confusion.png": draw_png(drawn["confusion.png"])}
        )
    (figure,) = collect_figures(example_table(plots=("confusion",)), fill(row), store)
    assert figure.wide
    page = pages(tmp_path / "pages", report(fill(row), figures=(figure,)))["p3_distillation.html"]
    assert '<figure class="wide">' in page


def test_the_figure_over_parameters_shows_both_sides():
    drawn = draw_parameters(fill(real_row(), cells=(PARAMS, example_cell()))).decode()
    for text in ("published", "ours", "student alone", "parameters"):
        assert text in drawn
    assert "synthetic" not in drawn
    assert "synthetic data" in draw_parameters(fill(example_row(), cells=(PARAMS, example_cell()))).decode()


def test_the_figure_over_parameters_needs_both_figures_of_a_row():
    assert draw_parameters(fill(cells=(example_cell(value=None), PARAMS))) is None


def test_the_figure_of_groups_shows_errors_of_heart_rates():
    cell = example_cell(metric="test/hr_mae_bpm_low_window", unit="bpm", value=26, column="low rates")
    assert "low rates" in draw_groups(fill(cells=(cell,))).decode()
    assert draw_groups(fill(real_row())) is None


@pytest.mark.parametrize("drawer", [draw_parameters])
def test_figures_are_the_same_bytes_each_time(drawer):
    cells = fill(real_row(), cells=(PARAMS, example_cell()))
    assert drawer(cells) == drawer(cells)
