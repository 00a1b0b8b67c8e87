import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

import compare
from tests.tracking_examples import CLASS_NAMES, example_beats, example_predictions, example_row
from tracking.comparison import ComparisonRefused, check_same_split, compare_with, find_reference, refer_to
from tracking.paired_tests import delong, mcnemar
from tracking.rows import Estimate, read_rows_file, rows_from_json, write_rows
from tracking.significance import holm
from tracking.statistics import bootstrap_metrics, paired_bootstrap

RESAMPLES = ("--resamples", "100")
TEACHER, STUDENT, INT8 = (
    example_predictions(noise_seed=seed, signal=signal) for seed, signal in ((1, 2.0), (2, 1.5), (3, 1.4))
)


def log_row(store, job, predictions, against=None, **changes):
    row = example_row(metrics=bootstrap_metrics(predictions, 50), **changes)
    if against is not None:
        row = replace(
            row,
            delta=paired_bootstrap(predictions, store.read_predictions(against.run_id), 50),
            reference=against.name,
            reference_run_id=against.run_id,
        )
    with job.child(row.name) as run:
        return store.log_row(run.run_id, row, predictions=predictions)


@pytest.fixture
def rows(store):
    """Three rows of one job: teacher, student against it, int8 against the student."""
    with store.job("job", group="g1") as job:
        teacher = log_row(store, job, TEACHER, name="teacher", role="teacher", model="cnn1d_teacher")
        student = log_row(store, job, STUDENT, teacher, name="student", recipe="distill", verdict="PASS")
        int8 = log_row(
            store,
            job,
            INT8,
            student,
            name="int8",
            precision="int8",
            verdict="FAIL",
            reasons=["latency 0.5 > 0.3"],
            size_bytes=550_000,
        )
    return [teacher, student, int8]


def log_other_split(store, **changes):
    with store.job("job", group="g2") as job:
        return log_row(store, job, example_predictions(100), **({"split_digest": "split-b", "name": "other"} | changes))


def run(capsys, *arguments):
    code = compare.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_compare_json_is_the_rows_file(store, rows, tmp_path, capsys):
    path = write_rows(tmp_path / "rows.json", rows)
    code, out, err = run(capsys, "--format", "json")
    assert (code, err) == (0, "")
    assert out == path.read_text()


def test_compare_table_tests_every_row_against_its_reference(store, rows, capsys):
    code, out, _ = run(capsys)
    assert code == 0
    lines = out.splitlines()
    (line,) = [line for line in lines if line.split()[:3] == ["int8", "student", "MI"]]
    column = CLASS_NAMES.index("MI")
    areas = delong(INT8.probabilities, STUDENT.probabilities, INT8.targets)[column]
    decisions = mcnemar(INT8.probabilities >= 0.5, STUDENT.probabilities >= 0.5, INT8.targets)[column]
    assert f"{areas.difference:+.4f} [{areas.low:+.4f}, {areas.high:+.4f}]" in line
    assert f"{rows[2].delta['test/auroc_MI'].low:+.4f}" in line
    # Two rows are compared with their references in five classes each.
    pairs = ((STUDENT, TEACHER), (INT8, STUDENT))
    areas_p = [item.p for a, b in pairs for item in delong(a.probabilities, b.probabilities, a.targets)]
    right = [mcnemar(a.decisions, b.decisions, a.targets) for a, b in pairs]
    decisions_p = [item.p for results in right for item in results]
    assert line.split()[-6:] == [
        f"{areas.p:.3g}",
        f"{holm(areas_p)[5 + column]:.3g}",
        str(decisions.only_a_right),
        str(decisions.only_b_right),
        f"{decisions.p:.3g}",
        f"{holm(decisions_p)[5 + column]:.3g}",
    ]
    assert "p corrected for the 10 comparisons of this table" in out
    assert len([line for line in lines if line.split()[:2] == ["student", "teacher"]]) == len(CLASS_NAMES)
    assert "int8: FAIL: latency 0.5 > 0.3" in lines
    assert "the same in every row: runtime onnxruntime" in out
    assert "\x1b" not in out


def test_compare_takes_another_reference(store, rows, capsys):
    code, out, _ = run(capsys, "--reference", "teacher", "--format", "json", *RESAMPLES)
    assert code == 0
    teacher, student, int8 = rows_from_json(out)
    assert teacher == rows[0]
    assert int8.delta == paired_bootstrap(INT8, TEACHER, 100)
    assert int8.delta != rows[2].delta
    assert (int8.reference, int8.reference_run_id) == ("teacher", rows[0].run_id)
    # The gate judged against another reference.
    assert (int8.verdict, int8.reasons) == (None, [])
    assert student.metrics == rows[1].metrics


def test_compare_takes_a_reference_from_elsewhere(store, rows, capsys):
    with store.job("job", group="g2") as job:
        log_row(store, job, STUDENT, name="new")
    code, out, _ = run(capsys, "--reference", rows[0].run_id, "--format", "json", *RESAMPLES)
    assert code == 0
    (row,) = rows_from_json(out)
    assert row.delta == paired_bootstrap(STUDENT, TEACHER, 100)
    code, _, err = run(capsys, "--reference", "teacher")
    assert (code, "run 'teacher'" in err) == (2, True)


def test_compare_selects_by_group_and_filter(store, rows, capsys):
    with store.job("job", group="g2") as job:
        new = log_row(store, job, STUDENT, name="new")
    assert rows_from_json(run(capsys, "--format", "json")[1]) == [new]
    assert rows_from_json(run(capsys, "--format", "json", "--group", "g1")[1]) == rows
    found = run(capsys, "--format", "json", "params.model = 'cnn1d_student' and params.precision = 'float32'")[1]
    assert rows_from_json(found) == [rows[1], new]


def test_compare_refuses_runs_of_another_test_split(store, rows, capsys):
    other = log_other_split(store)
    for form in ("table", "json", "csv", "markdown", "html"):
        code, out, err = run(capsys, "params.role != 'nobody'", "--format", form)
        assert (code, out) == (2, "")
        for row in [*rows, other]:
            assert f"{row.name} (run {row.run_id}): split {row.split_digest!r}" in err
    assert "not evaluated on the same test split" in err


def test_compare_shows_figures_of_several_splits_without_pairing_them(store, rows, capsys):
    other = log_other_split(store)
    code, out, err = run(capsys, "params.role != 'nobody'", "--figures")
    assert (code, err) == (0, "")
    assert out.count(rows[0].model) >= 1
    assert "delta" not in out
    found = rows_from_json(run(capsys, "params.role != 'nobody'", "--figures", "--format", "json")[1])
    assert {row.run_id for row in found} == {*(row.run_id for row in rows), other.run_id}


def test_compare_refuses_a_reference_of_another_test_split(store, rows, capsys):
    other = log_other_split(store)
    code, out, err = run(capsys, "--group", "g1", "--reference", other.run_id, *RESAMPLES)
    assert (code, out) == (2, "")
    assert f"other (run {other.run_id}): split 'split-b'" in err


def test_compare_refuses_its_own_reference_of_another_test_split(store, rows, capsys):
    log_other_split(store, reference="teacher", reference_run_id=rows[0].run_id)
    code, out, err = run(capsys)
    assert (code, out) == (2, "")
    assert "'split-a'" in err
    assert "'split-b'" in err


def test_compare_refuses_other_records_behind_the_same_digest(store, rows, capsys):
    """A digest that lies, or a row whose predictions were exchanged: the records decide."""
    log_other_split(store, split_digest="split-a", reference="teacher", reference_run_id=rows[0].run_id)
    code, out, err = run(capsys)
    assert (code, out) == (2, "")
    assert "cannot pair predictions of different records: 0 only on the first side" in err
    assert "200 only on the second" in err
    code, out, err = run(capsys, "--reference", rows[0].run_id, "--format", "json", *RESAMPLES)
    assert (code, out) == (2, "")
    assert "different records" in err


def test_compare_refuses_rows_without_a_digest(store, capsys):
    with pytest.raises(ComparisonRefused, match="split None"):
        check_same_split([example_row(split_digest=None), example_row(split_digest=None)])
    check_same_split([example_row(split_digest=None)])
    check_same_split([])


def test_compare_refuses_other_targets_in_the_statistics():
    other = replace(STUDENT, targets=1 - STUDENT.targets)
    with pytest.raises(ComparisonRefused, match=r"student-alone \(run None\) against .*other targets"):
        refer_to(example_row(), example_row(), TEACHER, other, 10)


def test_compare_says_when_nothing_matches(store, capsys):
    code, out, err = run(capsys)
    assert (code, out) == (2, "")
    assert "no row in sqlite:///" in err
    code, _, err = run(capsys, "nonsense filter")
    assert code == 2
    assert "nonsense filter" in err


def test_compare_creates_no_store(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/absent.db")
    code, _, err = run(capsys)
    assert code == 2
    assert "run train.py" in err
    assert list(tmp_path.iterdir()) == []


def test_compare_asks_which_of_several_rows_is_meant():
    rows = [example_row(run_id="a"), example_row(run_id="b"), example_row(run_id="c", name="b")]
    with pytest.raises(ComparisonRefused, match=r"2 rows are named 'student-alone'.*: a, b"):
        find_reference(rows, "student-alone")
    assert find_reference(rows, "b") is rows[1]
    assert find_reference(rows, "z") is None


def test_compare_writes_every_format(store, rows, tmp_path, capsys):
    files = {}
    for form in ("table", "markdown", "csv", "json", "html"):
        path = tmp_path / "out" / f"comparison.{form}"
        assert run(capsys, "--format", form, "--output", str(path)) == (0, "", "")
        files[form] = path.read_text()
    assert files["table"].count("synthetic") >= 3
    assert files["markdown"].startswith("| name | role | model |")
    assert "### Against the reference, class by class" in files["markdown"]
    assert "- int8: FAIL: latency 0.5 > 0.3" in files["markdown"]
    assert [record["name"] for record in csv.DictReader(io.StringIO(files["csv"]))] == [
        "teacher",
        "student",
        "int8",
    ]
    assert [item["name"] for item in json.loads(files["json"])] == ["teacher", "student", "int8"]
    assert read_rows_file(tmp_path / "out" / "comparison.json") == rows
    assert files["html"].count("<table>") == 2
    assert "latency 0.5 &gt; 0.3" in files["html"]


def test_compare_plots_the_rows(store, rows, tmp_path, capsys):
    path = tmp_path / "plots" / "tradeoff.png"
    code, _, _ = run(capsys, "--plot", str(path))
    assert code == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    code, _, err = run(capsys, "--plot", str(path), "--metric", "test/hr_mae_bpm")
    assert code == 2
    assert "test/hr_mae_bpm" in err


def test_compare_shows_another_metric(store, rows, capsys):
    _, out, _ = run(capsys, "--metric", "test/f1_macro")
    estimate = rows[0].metrics["test/f1_macro"]
    assert isinstance(estimate, Estimate)
    assert f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]" in out


def log_beats(store, n_subjects, **changes):
    """A row of beats and a worse one against it."""
    first, second = (example_beats(600, n_subjects=n_subjects, noise_seed=seed) for seed in (1, 2))
    shared = {"level": "beat", "n_subjects": n_subjects} | changes
    with store.job("job", group="beats") as job:
        reference = log_row(store, job, first, name="float", **shared)
        return reference, log_row(store, job, second, reference, name="int8", precision="int8", **shared)


def test_compare_shows_beats_by_their_own_macro_auroc(store, capsys):
    _, row = log_beats(store, 12)
    code, out, _ = run(capsys)
    assert code == 0
    macro = row.metrics["test/auroc_macro_beat"]
    assert f"{macro.value:.3f} [{macro.low:.3f}, {macro.high:.3f}]" in out
    assert "test/auroc_macro_beat [95 %]" in out
    (line,) = [line for line in out.splitlines() if line.split()[:3] == ["int8", "float", "AFIB"]]
    delta = row.delta["test/auroc_AFIB_beat"]
    assert f"{delta.value:+.4f} [{delta.low:+.4f}, {delta.high:+.4f}]" in line
    assert "DeLong and McNemar take every beat as independent" in out
    assert "no interval" not in out


def test_compare_says_once_why_beats_of_few_subjects_have_no_interval(store, capsys):
    _, row = log_beats(store, 5)
    code, out, _ = run(capsys)
    assert code == 0
    assert out.count("no interval: 5 test subjects, fewer than 10") == 1
    line = next(line for line in out.splitlines() if line.split()[:1] == ["int8"])
    assert f"{row.metrics['test/auroc_macro_beat'].value:.3f}" in line
    assert f"{row.delta['test/auroc_macro_beat'].value:+.4f}" in line
    assert "[" not in line


@pytest.mark.parametrize("options", [(), ("--metric", "test/auroc_macro"), ("--format", "json")])
def test_compare_refuses_several_levels(store, rows, capsys, options):
    log_beats(store, 12, split_digest="split-a")
    code, out, err = run(capsys, "params.role != 'nobody'", *options)
    assert (code, out) == (2, "")
    assert "figures of beats, windows and records do not compare" in err
    assert f"teacher (run {rows[0].run_id}): record" in err


def test_compare_leaves_out_a_class_that_is_absent():
    sick = replace(example_beats(60, n_subjects=1), targets=np.tile(np.float32([0, 1]), (60, 1)))
    row = example_row(level="beat")
    assert compare_with(row, row, sick, sick) == []
