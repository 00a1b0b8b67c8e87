import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from tracking.rows import Estimate
from tracking.significance import holm, judge_noninferiority, wilcoxon_seeds

# Heights of cross-fertilised less those of self-fertilised maize, in eighths of an inch, from Darwin's pots.
# Fisher: The Design of Experiments (1935), section 17.
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def test_holm_is_that_of_a_worked_example():
    """By hand: .005 * 4, .01 * 3, .03 * 2, and .04 * 1, which may not be smaller than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_holm_is_that_of_statsmodels(n):
    p_values = np.random.default_rng(n).beta(0.4, 2, n).round(2).tolist()
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist(), abs=1e-15)


def test_holm_keeps_the_error_of_a_family():
    """Of twenty true null hypotheses one falls in 5 % of the families; without Holm in 64 %."""
    p_values = np.random.default_rng(4).random((2000, 20))
    wrong = np.mean([min(holm(family.tolist())) < 0.05 for family in p_values])
    print(f"family-wise error with Holm {wrong:.1%}, without {(p_values.min(axis=1) < 0.05).mean():.1%}")
    assert wrong == pytest.approx(0.05, abs=0.015)


def test_holm_takes_nothing_and_refuses_what_is_no_p():
    assert holm([]) == []
    for wrong in (1.2, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"expected a number in \[0, 1\]"):
            holm([0.5, wrong])


def test_wilcoxon_is_that_of_darwins_plants():
    """The sum of ranks of the two negative differences is 24; exact p as in scipy's documentation."""
    assert wilcoxon_seeds(DARWIN) == pytest.approx(0.041259765625)
    # From every assignment of signs.
    ranks = stats.rankdata(np.abs(DARWIN))
    signs = (np.arange(2**15)[:, None] >> np.arange(15)) & 1
    below = signs @ ranks
    assert wilcoxon_seeds(DARWIN) == pytest.approx(np.mean(np.minimum(below, ranks.sum() - below) <= 24))


@pytest.mark.parametrize(("n", "p"), [(1, 1.0), (5, 1 / 16), (6, 1 / 32)])
def test_wilcoxon_of_few_seeds_has_its_smallest_p(n, p):
    assert wilcoxon_seeds([0.01 * (i + 1) for i in range(n)]) == p


def test_wilcoxon_takes_equal_and_tied_seeds():
    assert wilcoxon_seeds([0.0] * 5) == 1
    # Ties are exact too: of 2^3 assignments of signs to the three that differ, two are as extreme.
    assert wilcoxon_seeds([0.1, 0.1, 0.1, 0.0]) == pytest.approx(0.25)


def test_wilcoxon_refuses_what_is_undefined():
    for differences in ([], [0.1, float("nan")]):
        with pytest.raises(ValueError, match="expected a finite number"):
            wilcoxon_seeds(differences)


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        *((-0.005, 0.02, "yes"), (0.01, 0.02, "yes"), (-0.02, 0.02, "open"), (-0.01, 0.0, "open")),
        *((-0.05, -0.02, "no"), (float("nan"), float("nan"), "open")),
    ],
)
def test_noninferiority_is_where_the_interval_lies(low, high, answer):
    assert judge_noninferiority(Estimate(0, low, high), 0.01) == answer
    assert judge_noninferiority(Estimate(0, -high, -low), 0.01, larger_is_better=False) == answer


def test_noninferiority_agrees_with_the_one_sided_test_of_statsmodels():
    rng = np.random.default_rng(3)
    answers = set()
    for _ in range(50):
        sample = DescrStatsW(rng.normal(-0.1, 1, 60))
        difference = Estimate(sample.mean, *sample.tconfint_mean(0.05))
        shown = sample.ttest_mean(-0.5, alternative="larger")[1] < 0.025
        refuted = sample.ttest_mean(-0.5, alternative="smaller")[1] < 0.025
        answers.add(judge_noninferiority(difference, 0.5))
        assert judge_noninferiority(difference, 0.5) == ("yes" if shown else "no" if refuted else "open")
    assert answers == {"yes", "open"}


@pytest.mark.parametrize("margin", [0.0, -0.01, float("nan"), float("inf")])
def test_noninferiority_refuses_a_margin_that_is_none(margin):
    with pytest.raises(ValueError, match="expected a number above 0"):
        judge_noninferiority(Estimate(0, -0.1, 0.1), margin)
