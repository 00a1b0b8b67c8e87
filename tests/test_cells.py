import math

import numpy as np
import pytest
from scipy import stats

from tests.table_examples import example_cell, example_table, fill, real_row
from tests.tracking_examples import example_row
from tracking.cells import CellError, JobRows, fill_table, join_seeds, look_up, take_row
from tracking.rows import Estimate
from tracking.verdicts import judge_cell


def judge(ours, low=math.nan, high=math.nan, *, data="real", absent="", profile=None, **changes):
    estimate = None if ours is None else Estimate(ours, low, high)
    return judge_cell(example_cell(**changes), estimate, data=data, absent=absent, not_comparable=profile)


def test_judge_cell_calls_a_published_figure_within_the_interval_reproduced():
    assert judge(95.0, 92.4, 97.6)[0] == "reproduced"


def test_judge_cell_widens_the_interval_by_the_tolerance():
    assert judge(94.0, 93.2, 94.8)[0] == "reproduced"
    assert judge(94.0, 93.4, 94.6)[0] == "better"


def test_judge_cell_goes_by_the_tolerance_where_there_is_no_interval():
    assert [judge(value)[0] for value in (92.3, 93.3, 93.31, 92.29)] == ["reproduced", "reproduced", "better", "worse"]


def test_judge_cell_knows_that_less_error_is_better():
    about = {"metric": "test/hr_mae_bpm_video", "unit": "bpm", "value": 13.94, "tolerance": 0.3}
    assert judge(4.0, 3.0, 5.0, **about)[0] == "better"
    assert judge(18.0, 17.0, 19.0, **about)[0] == "worse"


def test_judge_cell_calls_counts_different_rather_than_worse():
    about = {"metric": "params", "unit": "count", "value": 534_005, "tolerance": 0.0}
    assert judge(534_005.0, **about)[0] == "reproduced"
    assert judge(534_006.0, **about)[0] == "different"


def test_judge_cell_never_compares_synthetic_data():
    assert judge(92.8, data="synthetic") == ("not comparable", "synthetic data")
    assert judge(1.0, data="synthetic", metric="params", value=1.0) == ("not comparable", "synthetic data")


def test_judge_cell_gives_the_reason_why_figures_are_not_comparable():
    assert judge(92.8, value=None) == ("not comparable", "the paper prints no figure")
    assert judge(92.8, not_comparable="another device") == ("not comparable", "another device")
    assert judge(92.8, profile="one fold of eight") == ("not comparable", "one fold of eight")


def test_judge_cell_compares_the_file_itself_whatever_it_was_trained_on():
    assert judge(5.0, profile="one fold of eight", metric="params", unit="count", value=5.0)[0] == "reproduced"


def test_judge_cell_says_why_nothing_is_measured():
    assert judge(None, absent="no finished run") == ("not measured", "no finished run")
    assert judge(math.nan) == ("not measured", "undefined on these test data")


def test_fill_table_gives_figures_in_the_papers_unit():
    (filled,) = fill(real_row(0.931))
    assert filled.estimate.value == pytest.approx(93.1)
    assert (filled.estimate.low, filled.estimate.high) == pytest.approx((92.5, 93.7))
    assert filled.difference == pytest.approx(0.3)
    assert filled.verdict == "reproduced"


def test_fill_table_leaves_a_cell_without_a_run_empty():
    (filled,) = fill()
    assert (filled.estimate, filled.difference, filled.says) == (None, None, "not measured: no finished run")


def test_fill_table_says_which_metric_a_run_lacks():
    (filled,) = fill(real_row(metrics={}))
    assert filled.says == "not measured: the run has no test/auroc_macro"
    (filled,) = fill(real_row(), take={"recipe": "distill"})
    assert filled.says == "not measured: the job has no row with {'recipe': 'distill'}"


def test_fill_table_says_that_the_data_are_missing():
    (filled,) = fill(absent="no data: there is no folder x", no_data=True)
    assert filled.no_data
    assert filled.says == "not measured: no data: there is no folder x"


def test_fill_table_labels_a_mean_with_a_synthetic_row():
    (filled,) = fill(real_row(), example_row(seed=1))
    assert filled.synthetic
    assert filled.says == "not comparable: synthetic data"


def test_fill_table_refuses_rows_that_it_cannot_tell_apart():
    rows = (real_row(name="a"), real_row(name="b"))
    with pytest.raises(CellError, match=r"means 2 rows, \['a', 'b'\]: add a field"):
        take_row(rows, {"role": "student"}, "here")
    with pytest.raises(CellError, match=r"here: rows have no fields \['rolle'\]"):
        take_row(rows, {"rolle": "student"}, "here")


def test_fill_table_names_the_row_that_nothing_fills():
    job = JobRows(rows={}, others=(), n_seeds=1, absent="x")
    with pytest.raises(CellError, match="table 'p3_distillation': nothing fills row 'student'"):
        fill_table(example_table(), {"teacher": ("job", {})}, {"job": job})
    with pytest.raises(CellError, match="row 'student': there is no job 'lost'"):
        fill_table(example_table(), {"student": ("lost", {})}, {"job": job})


def test_look_up_takes_the_size_relative_to_the_rows_own_reference():
    before, after = real_row(size_bytes=4000, run_id="a"), real_row(size_bytes=1000, run_id="b", reference_run_id="a")
    assert look_up(after, "size_ratio", (before, after)).value == 0.25
    assert look_up(before, "size_ratio", (before, after)) is None
    assert look_up(after, "params", (after,)).value == 534_005
    assert look_up(after, "role", (after,)) is None


def test_join_seeds_keeps_the_interval_of_one_seed():
    assert join_seeds([Estimate(0.9, 0.8, 0.95)], 100.0) == Estimate(90.0, 80.0, pytest.approx(95.0))


def test_join_seeds_adds_the_spread_over_seeds_to_that_over_subjects():
    values = np.array([0.91, 0.93, 0.95])
    joined = join_seeds([Estimate(value, value - 0.03, value + 0.01) for value in values])
    over_seeds = stats.t.ppf(0.975, 2) * values.std(ddof=1) / math.sqrt(3)
    assert joined.value == pytest.approx(0.93)
    assert joined.value - joined.low == pytest.approx(math.hypot(0.03, over_seeds))
    assert joined.high - joined.value == pytest.approx(math.hypot(0.01, over_seeds))


def test_join_seeds_has_no_interval_without_one_over_subjects():
    assert math.isnan(join_seeds([Estimate(0.9), Estimate(0.8)]).low)


def test_the_interval_of_join_seeds_holds_the_true_mean():
    """Simulated: subjects and seeds move figures independently; about 95 of 100 intervals hold the truth."""
    rng = np.random.default_rng(0)
    n_seeds, over_subjects, over_seeds, held = 5, 0.004, 0.004, 0
    for _ in range(2000):
        subjects = rng.normal(0, over_subjects)
        values = 0.93 + subjects + rng.normal(0, over_seeds, n_seeds)
        half = 1.96 * over_subjects
        joined = join_seeds([Estimate(value, value - half, value + half) for value in values])
        held += joined.low <= 0.93 <= joined.high
    assert 0.93 <= held / 2000 <= 0.985
