"""Groups side by side, models against recipes, the Pareto front, and texts that nobody can put commands into."""

import json
from urllib.parse import unquote

import pytest

from tests.test_compare import INT8, STUDENT, TEACHER, log_row, run
from tests.tracking_examples import example_predictions, example_row
from tracking.comparison import ComparisonRefused
from tracking.fronts import find_front, mark_front, tell_fronts
from tracking.pivot import tabulate_pivot
from tracking.plots import tradeoff_figure
from tracking.rendering import escape_latex, escape_markdown, to_latex, to_safe_markdown
from tracking.rows import Estimate, own_settings
from tracking.side_by_side import match_rows
from tracking.statistics import paired_bootstrap
from tracking.tables import TableText, to_html
from tracking.ui_views import VIEW_TAG

HOSTILE = "<script>alert(1)</script> [x](javascript:alert(1)) `b` $\\input{/etc/passwd}$ a|b & 5% #1 _x_"


def figure(value, **changes):
    return example_row(metrics={"test/auroc_macro": Estimate(value, value - 0.01, value + 0.01)}, **changes)


def log_group(store, group, predictions, **changes):
    with store.job("job", group=group) as job:
        return [log_row(store, job, predictions, **({"name": "student"} | changes))]


def test_match_rows_takes_what_is_equal_in_both():
    first = [figure(0.9, name="t", role="teacher", seed=0), figure(0.8, name="s", model="small", seed=0)]
    second = [figure(0.8, name="s2", model="other", seed=1), figure(0.9, name="t2", role="teacher", seed=1)]
    # Neither seed nor the students' model is the same anywhere: they are what is compared.
    assert [(a.name, b.name) for a, b in match_rows(first, second)] == [("t", "t2"), ("s", "s2")]
    seeds = [
        [figure(0.9, name=f"{side}{seed}", seed=seed) for seed in range(start, 3)]
        for side, start in (("a", 0), ("b", 1))
    ]
    assert [(a.name, b.name) for a, b in match_rows(*seeds)] == [("a1", "b1"), ("a2", "b2")]
    # Before each recipe of a sweep stands the same student.
    again = [figure(0.9, name=f"again{number}", run_id=str(number), seed=0) for number in range(3)]
    assert [(a.name, b.name) for a, b in match_rows(again, [figure(0.9, name="b", seed=0)])] == [("again2", "b")]
    lr = [figure(0.9, name=name, settings={"optim.lr": lr}) for name, lr in (("x", "0.1"), ("y", "0.2"))]
    assert [(a.name, b.name) for a, b in match_rows(lr, lr[1:])] == [("y", "y")]


def test_match_rows_asks_which_rows_belong_together():
    with pytest.raises(ComparisonRefused, match=r"(?s)which of these rows belong together is open.* b1 .* b2 "):
        match_rows([figure(0.9, seed=0)], [figure(0.9, name="b1", seed=1), figure(0.9, name="b2", seed=2)])
    assert match_rows([figure(0.9)], [figure(0.9, role="teacher")]) == []


def test_own_settings_are_those_of_the_own_steps():
    settings = {"optim.lr": "1", "compression.steps.prune.amount": ".5", "compression.teacher.weights": "x"}
    assert own_settings(example_row(settings=settings)) == {"optim.lr": "1"}
    assert own_settings(example_row(recipe="prune_int8", settings=settings)) == settings
    assert "compression.steps.prune.amount" not in own_settings(example_row(recipe="int8", settings=settings))


def test_compare_puts_two_groups_side_by_side(store, capsys):
    log_group(store, "g1", STUDENT, seed=0)
    log_group(store, "g2", TEACHER, seed=1, size_bytes=1_000)
    code, out, err = run(capsys, "--groups", "g1", "g2", "--resamples", "100", "--metric", "test/auroc_macro")
    assert (code, err) == (0, "")
    delta = paired_bootstrap(TEACHER, STUDENT, 100)["test/auroc_macro"]
    assert f"{delta.value:+.4f} [{delta.low:+.4f}, {delta.high:+.4f}]" in out
    assert "A: g1; B: g2; different in every row: seed 0 | 1" in out
    assert "B against A" in out
    assert "1,000" in out


def test_compare_refuses_two_groups_of_other_test_sides(store, capsys):
    log_group(store, "g1", STUDENT)
    log_group(store, "g2", example_predictions(100), split_digest="split-b")
    code, out, err = run(capsys, "--groups", "g1", "g2")
    assert (code, out) == (2, "")
    assert "not evaluated on the same test split" in err
    assert "split 'split-b'" in err
    code, out, _ = run(capsys, "--groups", "g1", "g2", "--figures")
    assert code == 0
    assert "other test side" in out
    assert "B against A" not in out


def test_compare_tells_what_has_no_counterpart(store, capsys):
    log_group(store, "g1", STUDENT)
    log_group(store, "g2", STUDENT)
    log_group(store, "g2", INT8, name="small", recipe="ptq_int8", precision="int8")
    code, out, _ = run(capsys, "--groups", "g1", "g2", "--resamples", "50")
    assert code == 0
    assert "only in B: small" in out
    code, _, err = run(capsys, "--groups", "g1", "absent")
    assert code == 2
    assert "no row of group 'absent'" in err


@pytest.mark.parametrize(
    "options",
    [
        ("--pivot", "--seeds"),
        ("--groups", "a", "b", "--pivot"),
        ("--pivot", "--format", "csv"),
        ("--groups", "a", "b", "--format", "json"),
        ("--seeds", "--figures"),
        ("--groups", "a", "b", "--reference", "x"),
        ("--ui", "--plot", "x.png"),
    ],
)
def test_compare_refuses_options_that_do_not_go_together(store, capsys, options):
    code, out, err = run(capsys, *options)
    assert (code, out) == (2, "")
    assert options[0] in err


def test_pivot_lays_models_against_recipes():
    rows = [
        figure(0.90, model="big", role="teacher"),
        figure(0.80, model="small", seed=0),
        figure(0.82, model="small", seed=1),
        figure(0.79, model="small", recipe="int8", size_bytes=500),
    ]
    table = tabulate_pivot(rows)
    assert table.header == ("model", "none", "int8")
    assert table.cells[0] == ("big", "0.900 [0.890, 0.910]", "-")
    assert table.cells[1][1].startswith("0.810 [")
    assert table.cells[1][1].endswith(" (2)")
    assert table.cells[1][2] == "0.790 [0.780, 0.800]"
    assert tabulate_pivot(rows, "bytes").cells[1][1:] == ("2,140,000 (2)", "500")
    assert tabulate_pivot(rows, "latency").cells[0][1] == "2.19"


def test_pivot_splits_a_recipe_that_means_several_things():
    amounts = [
        figure(0.9 - amount / 10, recipe="prune", settings={"compression.steps.prune.amount": str(amount)})
        for amount in (0.5, 0.8)
    ]
    files = [figure(0.7, recipe="int8", runtime=runtime) for runtime in ("onnxruntime", "litert")]
    table = tabulate_pivot([*amounts, *files])
    assert table.header[1:] == ("prune amount=0.5", "prune amount=0.8", "int8 onnxruntime", "int8 litert")
    assert [cell[:5] for cell in table.cells[0][1:]] == ["0.850", "0.820", "0.700", "0.700"]


def test_pivot_refuses_what_does_not_belong_in_one_cell():
    with pytest.raises(ComparisonRefused, match="differ in dataset"):
        tabulate_pivot([figure(0.9), figure(0.8, dataset="other")])
    with pytest.raises(ComparisonRefused, match="no row has 'test/nothing'"):
        tabulate_pivot([figure(0.9)], "test/nothing")


def test_front_holds_what_nobody_beats():
    assert find_front([(3, 0.9), (1, 0.5), (2, 0.4), (2, 0.9), (4, 0.95), (4, 0.95)]) == [1, 3, 4]
    assert find_front([]) == []
    rows = [
        figure(0.90, name="big", size_bytes=900, latency_ms_p50=9.0),
        figure(0.85, name="small", size_bytes=100, latency_ms_p50=1.0),
        figure(0.84, name="beaten", size_bytes=200, latency_ms_p50=2.0),
        figure(0.86, name="untimed", size_bytes=300, latency_ms_p50=None),
        figure(float("nan"), name="undefined", size_bytes=1),
    ]
    assert [row.name for row in mark_front(rows, cost="size_bytes")] == ["small", "untimed", "big"]
    assert tell_fronts(rows) == ["size, latency", "size, latency", "-", "size", "-"]
    errors = [example_row(metrics={"test/hr_mae_bpm_video": Estimate(value)}, size_bytes=1) for value in (5.0, 2.0)]
    assert tell_fronts(errors, "test/hr_mae_bpm_video") == ["-", "size, latency"]
    drawn = tradeoff_figure(rows[:3])
    labels = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert labels[-2:] == ["Pareto front of size", "Pareto front of latency"]


def test_compare_shows_the_front(store, capsys):
    with store.job("job", group="g1") as job:
        log_row(store, job, TEACHER, name="big", size_bytes=9_000, latency_ms_p50=9.0)
        log_row(store, job, INT8, name="small", size_bytes=1_000, latency_ms_p50=0.5)
    _, out, _ = run(capsys)
    assert "Pareto front" in out
    small = next(line for line in out.splitlines() if line.split()[:1] == ["small"])
    assert small.rstrip().endswith("size, latency")


def test_hostile_names_are_text_in_every_format(store, capsys):
    log_group(store, "g1", STUDENT, name=HOSTILE, verdict="FAIL", reasons=[HOSTILE])
    latex, markdown, page = (run(capsys, "--format", form)[1] for form in ("latex", "markdown", "html"))
    for text in (markdown, page):
        assert "<script>" not in text
        assert "&lt;script>" in text or "&lt;script&gt;" in text
    assert "](javascript" not in markdown
    assert "`b`" not in markdown.replace("\\`", "")
    assert "\\input" not in latex
    assert r"\textbackslash{}input\{/etc/passwd\}\$" in latex
    assert r"5\% \#1 \_x\_" in latex


def test_latex_is_a_table_that_compiles():
    table = TableText(("name", "params"), [("a_b", "1,000"), ("c\nd", "2")], "50 %")
    assert to_latex(table, "A & B").splitlines() == [
        "\\begin{table}",
        "\\caption{A \\& B. 50 \\%}",
        "\\begin{tabular}{lr}",
        "\\toprule",
        "name & params \\\\",
        "\\midrule",
        "a\\_b & 1,000 \\\\",
        "c d & 2 \\\\",
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    assert escape_latex("~^\\") == r"\textasciitilde{}\textasciicircum{}\textbackslash{}"
    # A backslash before a bar must not set the bar free.
    assert to_safe_markdown(TableText(("name",), [("a\\|b",)])).splitlines()[2] == "| a\\\\\\|b |"
    assert escape_markdown("[0.1, 0.2]") == "[0.1, 0.2]"
    assert "<b>" not in to_html(TableText(("<b>",), [("<b>",)], "<b>"), "<b>")


def test_compare_saves_a_view_of_the_ui(store, capsys):
    (row,) = log_group(store, "g1", STUDENT)
    code, out, _ = run(capsys, "--ui", "http://host:5000/")
    assert code == 0
    table, compared = out.splitlines()
    address, _, key = table.partition("?viewStateShareKey=")
    assert address == f"runs table: http://host:5000/#/experiments/{store.experiment_id}/runs"
    assert f'runs=["{row.run_id}"]&experiments=["{store.experiment_id}"]' in unquote(compared)
    view = json.loads(store.client.get_experiment(store.experiment_id).tags[f"{VIEW_TAG}{key}"])
    state = json.loads(view["state"])
    assert state["searchFilter"] == "tags.is_row = 'true' and tags.group = 'g1'"
    assert "metrics.`delta/test/auroc_macro`" in state["selectedColumns"]
    # Again: the same view.
    assert run(capsys, "--ui", "http://host:5000/")[1] == out
    assert run(capsys, "params.model = 'cnn1d_student'", "--ui")[1].startswith("runs table: http://127.0.0.1:5000/#/")
