import numpy as np
import pytest
from scipy import stats

from bench.bench_coverage import COHORTS, Cohort, count_covered_by_seeds, simulate_intervals
from tests.tracking_examples import example_predictions
from tracking.intervals import accelerate, measure_acceleration, subject_interval, tail_share, take_percentiles
from tracking.statistics import bootstrap_metrics, draw_resamples, leave_out, resample_metrics


def test_intervals_have_the_shares_of_printed_tables():
    """Quantiles of t as printed, 2.776 with 4 degrees of freedom and so on, times sqrt(n / (n - 1)), in the normal."""
    widened = {n: tail_share(n - 1, np.sqrt(n / (n - 1))) for n in (5, 10, 23, 41)}
    assert widened == pytest.approx({5: 0.00095, 10: 0.00855, 23: 0.01698, 41: 0.02037}, abs=1e-4)
    assert tail_share(1e9) == pytest.approx(0.025)


@pytest.mark.parametrize("n", [10, 23, 200])
def test_intervals_of_a_mean_are_those_of_student(n):
    sample = stats.norm.ppf((np.arange(n) + 0.5) / n)
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), 20_000)
    low, high = subject_interval(counts @ sample / n, n)
    expected = stats.t.interval(0.95, n - 1, sample.mean(), stats.sem(sample))
    assert (low, high) == pytest.approx(expected, rel=0.06)


def test_intervals_are_scipys_percentiles_at_a_higher_level():
    sample = np.random.default_rng(1).exponential(size=23)
    plain = stats.bootstrap((sample,), np.mean, n_resamples=9999, method="percentile", rng=2)
    low, high = subject_interval(plain.bootstrap_distribution, 23)
    assert low < plain.confidence_interval.low < plain.confidence_interval.high < high
    level = 1 - 2 * tail_share(22, np.sqrt(23 / 22))
    at_level = stats.bootstrap(
        (sample,), np.mean, n_resamples=0, method="percentile", confidence_level=level, bootstrap_result=plain
    )
    assert (low, high) == pytest.approx(tuple(at_level.confidence_interval))


def test_intervals_accelerate_as_scipy_does():
    """BCa of a statistic without bias: scipy's, of resamples that lie evenly on both sides of the figure."""
    sample = np.random.default_rng(3).exponential(size=23)
    plain = stats.bootstrap((sample,), np.mean, n_resamples=9999, method="percentile", rng=2)
    drawn = plain.bootstrap_distribution
    drawn = drawn - np.median(drawn) + sample.mean()
    plain.bootstrap_distribution = drawn
    tail = tail_share(22, np.sqrt(23 / 22))
    expected = stats.bootstrap(
        (sample,), np.mean, n_resamples=0, method="BCa", confidence_level=1 - 2 * tail, bootstrap_result=plain
    ).confidence_interval
    left_out = (sample.sum() - sample) / 22
    assert subject_interval(drawn, 23, left_out=left_out) == pytest.approx(tuple(expected), rel=1e-3)
    # A long tail upward moves both ends up.
    low, high = subject_interval(drawn, 23)
    assert low < expected.low
    assert high < expected.high


def test_intervals_accelerate_a_mirrored_figure_the_other_way():
    left_out = np.random.default_rng(3).exponential(size=23)
    acceleration = measure_acceleration(left_out)
    below, above = accelerate(0.02, acceleration)
    assert accelerate(0.02, measure_acceleration(-left_out)) == pytest.approx((above, below))
    assert accelerate(0.02, 0.0) == pytest.approx((0.02, 0.02))
    assert measure_acceleration(np.ones(23)) == measure_acceleration(np.full(23, np.nan)) == 0


def test_intervals_need_no_single_subject_where_there_are_many():
    """The skewness of groups of subjects stands for that of subjects: .0200 and .0203 here."""
    subjects = np.random.default_rng(4).exponential(size=2000)
    single = (subjects.sum() - subjects) / 1999
    counts = leave_out(draw_resamples(example_predictions(4000), 2)).counts
    assert counts.shape == (100, 2000)
    assert set(counts.sum(axis=1)) == {1980}
    assert (counts.sum(axis=0) == 99).all()
    grouped = counts @ subjects / 1980
    assert measure_acceleration(grouped) == pytest.approx(measure_acceleration(single), abs=0.01)


def test_intervals_leave_out_what_is_undefined():
    assert take_percentiles(np.array([np.nan, 1.0, 2.0, 3.0]), 0.0, 0.0) == (1, 3)
    assert np.isnan(subject_interval(np.full(5, np.nan), 20)).all()


def test_intervals_of_rows_are_these():
    predictions = example_predictions(60)
    resamples = draw_resamples(predictions, 200)
    values = resample_metrics(predictions, resamples)["auroc_macro"]
    estimate = bootstrap_metrics(predictions, 200)["test/auroc_macro"]
    left_out = resample_metrics(predictions, leave_out(resamples))["auroc_macro"]
    assert (estimate.low, estimate.high) == subject_interval(values, 30, left_out=left_out)
    # Each subject is left out once.
    assert (leave_out(resamples).counts.sum(axis=1) == 29).all()


def test_intervals_cover_the_truth():
    """A quick look; `python -m bench.bench_coverage` counts over 1,000 tables."""
    outcome = simulate_intervals(COHORTS["23 subjects of 2 rows"], 200, 400)
    for name in ("auroc_A", "accuracy_macro", "sensitivity_A"):
        covered, wrong = outcome.covered[name] / 200, outcome.wrong[name] / 200
        print(f"{name}: covered {covered:.1%}, false positives {wrong:.1%}")
        # Three standard errors of 200 tables either way.
        assert 0.90 <= covered <= 0.99
        assert 0.01 <= wrong <= 0.10


def test_intervals_would_not_cover_another_truth():
    """The count is able to fail: these models are better than the other cohort's."""
    better = Cohort(23, 20, signal=2.2, spread=0.5, concentration=4)
    (predictions,) = better.simulate(np.random.default_rng(0))
    estimate = bootstrap_metrics(predictions, 200)["test/auroc_A"]
    assert not estimate.low <= COHORTS["23 subjects of 20 rows"].truth["auroc_A"] <= estimate.high


def test_intervals_know_the_true_figures_of_a_cohort():
    cohort = Cohort(4000, 10, spread=0.5, concentration=4)
    (predictions,) = cohort.simulate(np.random.default_rng(5))
    values = {name: item.value for name, item in bootstrap_metrics(predictions, 10).items()}
    assert {name: values[f"test/{name}"] for name in cohort.truth} == pytest.approx(cohort.truth, abs=0.015)


@pytest.mark.parametrize(("seed_sd", "subject_sd"), [(0.0, 1.0), (0.2, 1.0), (1.0, 0.2)])
def test_intervals_over_seeds_and_subjects_cover_the_truth(seed_sd, subject_sd):
    covered = count_covered_by_seeds(5, 60, seed_sd, subject_sd, 200, 400) / 200
    print(f"seeds {seed_sd}, subjects {subject_sd}: covered {covered:.1%}")
    assert 0.89 <= covered <= 0.995


@pytest.mark.slow
@pytest.mark.parametrize("label", [label for label, cohort in COHORTS.items() if cohort.n_subjects >= 23])
def test_intervals_cover_the_truth_in_a_thousand_tables(label):
    """From 93 to 97 %, and 3 to 7 % of false positives, each give or take two standard errors of the count."""
    outcome = simulate_intervals(COHORTS[label], 1000)
    slack = 2 * np.sqrt(0.05 * 0.95 / outcome.n_tables)
    for name in COHORTS[label].truth:
        covered, wrong = (counts[name] / outcome.n_tables for counts in (outcome.covered, outcome.wrong))
        print(f"{label}, {name}: covered {covered:.1%}, false positives {wrong:.1%}")
        assert 0.93 - slack <= covered <= 0.97 + slack
        assert 0.03 - slack <= wrong <= 0.07 + slack
