from dataclasses import replace

import numpy as np
import pytest

import compare
from tests.mlflow_template import fresh_store
from tests.tracking_examples import example_beats, example_predictions, example_row
from tracking.comparison import ComparisonRefused
from tracking.rows import Estimate
from tracking.seeds import group_seeds, pool_seeds, summarise_seeds, tabulate_seeds
from tracking.statistics import bootstrap_metrics, paired_bootstrap, point_metrics

METRIC = "auroc_macro"


def trained(name, signal, seeds, first_noise=0, **changes):
    """Rows of one training with several seeds, and what each answered."""
    rows = [example_row(name=name, seed=seed, run_id=f"{name}-{seed}", **changes) for seed in seeds]
    return rows, {
        row.run_id: example_predictions(noise_seed=first_noise + row.seed, signal=signal, records_per_subject=3)
        for row in rows
    }


@pytest.fixture
def two():
    """Five seeds of a teacher and of a student that refers to it; the student's rows are not in order."""
    teachers, of_teachers = trained("teacher", 1.8, range(5), role="teacher")
    students, of_students = trained("student", 1.5, (3, 0, 4, 1, 2), 100)
    students = [replace(row, reference="teacher", reference_run_id=f"teacher-{row.seed}") for row in students]
    return [*students, *teachers], of_teachers | of_students


def test_seeds_join_rows_that_differ_in_nothing_else():
    rows = [
        *(example_row(seed=seed, run_id=f"a{seed}", settings={"trainer.max_epochs": "3"}) for seed in (1, 0)),
        example_row(seed=0, run_id="b", settings={"trainer.max_epochs": "4"}),
        example_row(seed=0, run_id="c", precision="int8", settings={"trainer.max_epochs": "3"}),
        example_row(seed=1, run_id="newer", settings={"trainer.max_epochs": "3"}),
    ]
    assert [[row.run_id for row in group] for group in group_seeds(rows)] == [["a0", "newer"], ["b"], ["c"]]


def test_seeds_refuse_a_row_without_one():
    with pytest.raises(ComparisonRefused, match=r"student-alone \(run x\) has no seed"):
        group_seeds([example_row(seed=None, run_id="x")])


def test_seeds_pool_to_the_mean_of_the_differences(two):
    rows, answers = two
    student, teacher = summarise_seeds(rows, answers.__getitem__, n_resamples=200)
    values = {run: point_metrics(predictions)[METRIC] for run, predictions in answers.items()}
    ours, theirs = ([values[f"{name}-{seed}"] for seed in range(5)] for name in ("student", "teacher"))
    assert [row.seed for row in student.rows] == list(range(5))
    assert (student.mean.value, teacher.mean.value) == pytest.approx((np.mean(ours), np.mean(theirs)))
    assert student.spread == pytest.approx(np.std(ours, ddof=1))
    assert (student.reference, student.n_pairs, teacher.reference, teacher.delta) == ("teacher", 5, None, None)
    assert student.delta.value == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert student.delta.low < student.delta.value < student.delta.high < 0
    # Every one of five seeds is worse.
    assert student.p == 1 / 16


def test_seeds_of_one_are_the_interval_over_subjects():
    rows, answers = trained("a", 1.5, [0])
    others, of_others = trained("b", 1.4, [0], 50)
    (first, _) = summarise_seeds([*rows, *others], (answers | of_others).__getitem__, reference="b", n_resamples=300)
    a, b = answers["a-0"], of_others["b-0"]
    assert first.mean == bootstrap_metrics(a, 300)[f"test/{METRIC}"]
    expected = paired_bootstrap(a, b, 300)[f"test/{METRIC}"]
    assert (first.delta.low, first.delta.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert np.isnan(first.spread)


def test_seeds_widen_the_interval_by_their_own_spread():
    """Without a spread of subjects it is Student's interval over seeds; without one of seeds that over subjects."""
    rng = np.random.default_rng(0)
    seeds = rng.normal(0.9, 0.01, 30)
    only_seeds = pool_seeds(seeds, np.tile(seeds[:, None], (1, 20_000)), 500)
    half = 2.045 * seeds.std(ddof=1) / np.sqrt(30)
    assert (only_seeds.low, only_seeds.high) == pytest.approx((seeds.mean() - half, seeds.mean() + half), abs=3e-4)
    draws = rng.normal(0.9, 0.01, 20_000)
    only_subjects = pool_seeds(np.full(5, 0.9), np.tile(draws, (5, 1)), 500)
    assert (only_subjects.low, only_subjects.high) == pytest.approx((0.9 - 0.0196, 0.9 + 0.0196), abs=6e-4)
    both = pool_seeds(seeds, seeds[:, None] + draws - 0.9, 500)
    expected = 1.97 * np.hypot(0.01, seeds.std(ddof=1) / np.sqrt(30))
    assert (both.high - both.low) / 2 == pytest.approx(expected, rel=0.04)


def test_seeds_refuse_draws_of_other_seeds():
    for values, draws in ((np.ones(3), np.ones((2, 10))), (np.ones(0), np.ones((0, 10)))):
        with pytest.raises(ValueError, match="for one seed or more"):
            pool_seeds(values, draws, 20)


def test_seeds_judge_noninferiority_in_the_direction_of_the_metric(two):
    rows, answers = two
    options = {"read": answers.__getitem__, "n_resamples": 200}
    assert summarise_seeds(rows, margin=0.5, **options)[0].noninferior == "yes"
    student = summarise_seeds(rows, margin=0.001, **options)[0]
    assert (student.delta.high < -0.001, student.noninferior) == (True, "no")
    # Against the student, whose calibration is better or worse, an error has to fall.
    for item in summarise_seeds(rows, margin=1e-4, metric="test/ece_macro", reference="student-0", **options):
        if item.delta is not None:
            expected = "yes" if item.delta.high < 1e-4 else "no" if item.delta.low > 1e-4 else "open"
            assert item.noninferior == expected
    with pytest.raises(ValueError, match="expected a number above 0"):
        summarise_seeds(rows, margin=0, **options)


def test_seeds_pair_only_seeds_that_both_have(two):
    rows, answers = two
    kept = [row for row in rows if row.run_id not in ("teacher-0", "teacher-4")]
    student = summarise_seeds(kept, answers.__getitem__, n_resamples=50)[0]
    assert (len(student.rows), student.n_pairs) == (5, 3)


def test_seeds_of_few_subjects_have_no_interval():
    rows = [example_row(seed=seed, run_id=str(seed), level="beat", n_subjects=5) for seed in range(3)]
    answers = {str(seed): example_beats(600, n_subjects=5, noise_seed=seed) for seed in range(3)}
    (pooled,) = summaries = summarise_seeds(rows, answers.__getitem__)
    assert np.isnan([pooled.mean.low, pooled.mean.high]).all()
    assert np.isfinite([pooled.mean.value, pooled.spread]).all()
    assert "no interval: 5 test subjects, fewer than 10" in tabulate_seeds(summaries).caption


def test_seeds_refuse_what_does_not_fit_together(two):
    rows, answers = two
    with pytest.raises(ComparisonRefused, match="0 pools of seeds have a row with the run id or name 'nobody'"):
        summarise_seeds(rows, answers.__getitem__, reference="nobody")
    with pytest.raises(ValueError, match=r"'test/hr_mae_bpm' does not follow from test predictions"):
        summarise_seeds(rows, answers.__getitem__, metric="test/hr_mae_bpm")
    answers["teacher-2"] = example_predictions(100)
    with pytest.raises(ComparisonRefused, match=r"teacher \(run teacher-2\) against .*different records"):
        summarise_seeds(rows, answers.__getitem__)


def test_seeds_are_one_line_each_in_compare(two, tmp_path, monkeypatch, capsys):
    rows, answers = two
    store = fresh_store(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    with store.job("job", group="g") as job:
        for row in [item for item in rows if item.seed < 2]:
            with job.child(row.name) as run:
                metrics = {f"test/{METRIC}": Estimate(0.9)}
                unplaced = replace(row, run_id=None, reference_run_id=None, metrics=metrics)
                store.log_row(run.run_id, unplaced, predictions=answers[row.run_id])
    options = ["--seeds", "--reference", "teacher", "--resamples", "50"]
    assert compare.main([*options, "--margin", "0.5", "--format", "markdown"]) == 0
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert "Wilcoxon p | non-inferior |" in header
    assert [line.split(" | ")[5] for line in lines[:2]] == ["0 1", "0 1"]
    assert lines[0].startswith("| student |")
    assert lines[0].endswith("| 0.5 | yes |")
    for wrong in ("--format=json", "--figures", "--plot=x.png"):
        assert compare.main([*options, wrong]) == compare.REFUSED
        assert "--seeds gives a table" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compare.main(["--margin", "0.5"])
    assert "--margin needs --seeds" in capsys.readouterr().err
