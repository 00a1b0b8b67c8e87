"""Coverage of the 95 % intervals that rows print, and errors of the paired test, over tables whose truth is known.

Scores are binormal with an effect of each subject; the true value of every figure is its limit over infinitely many
subjects. Subjects of cohorts with many rows also differ in their prevalence, as patients with atrial fibrillation do.
"""

import argparse
import time
from collections import Counter
from dataclasses import dataclass, field
from unittest.mock import patch

import numpy as np
from scipy import stats

import tracking.statistics
from tracking.intervals import subject_interval, take_percentiles
from tracking.predictions import Predictions, make_predictions
from tracking.seeds import pool_seeds
from tracking.statistics import draw_resamples, leave_out, resample_metrics

PREVALENCE = 0.4


@dataclass(frozen=True)
class Cohort:
    """What tables are simulated from.

    Parameters
    ----------
    n_subjects, n_rows : int
        Subjects, and rows of each.
    signal : float
        Mean score of positives less that of negatives, in standard deviations within a subject.
    spread : float
        Standard deviation of the subjects' effect on all of their scores.
    concentration : float or None
        Of the beta distribution of the subjects' prevalence; None for the same prevalence in all.
    """

    n_subjects: int
    n_rows: int
    signal: float = 1.5
    spread: float = 0.0
    concentration: float | None = None

    @property
    def truth(self) -> dict[str, float]:
        """Figures over infinitely many subjects, by name."""
        sd = float(np.hypot(1, self.spread))
        right = float(stats.norm.cdf(self.signal / 2 / sd))
        hits, false_calls = PREVALENCE * right, (1 - PREVALENCE) * (1 - right)
        return {
            "auroc_A": float(stats.norm.cdf(self.signal / np.sqrt(2) / sd)),
            "sensitivity_A": right,
            "specificity_A": right,
            "accuracy_macro": right,
            "precision_A": hits / (hits + false_calls),
            "f1_A": 2 * hits / (hits + false_calls + PREVALENCE),
        }

    def simulate(self, rng: np.random.Generator, n_models: int = 1, noise: float = 1.0) -> list[Predictions]:
        """Draw one table and the answers of equally good models, whose own share of the noise is `noise` squared."""
        subjects = np.repeat(np.arange(self.n_subjects), self.n_rows)
        prevalence = np.full(self.n_subjects, PREVALENCE)
        if self.concentration is not None:
            prevalence = rng.beta(
                PREVALENCE * self.concentration, (1 - PREVALENCE) * self.concentration, len(prevalence)
            )
        targets = rng.random(len(subjects)) < prevalence[subjects]
        shared = self.spread * rng.normal(size=self.n_subjects)[subjects] + self.signal * (targets - 0.5)
        shared += np.sqrt(1 - noise**2) * rng.normal(size=len(subjects))
        return [
            make_predictions(
                *(np.arange(len(subjects)), subjects, targets[:, None]),
                stats.norm.cdf(shared + noise * rng.normal(size=len(subjects)))[:, None],
                *(["A"], [0.5]),
            )
            for _ in range(n_models)
        ]


COHORTS = {
    "5 subjects of 20 rows": Cohort(5, 20, spread=0.5, concentration=4),
    "23 subjects of 20 rows": Cohort(23, 20, spread=0.5, concentration=4),
    "23 subjects of 2 rows": Cohort(23, 2, spread=0.5),
    "2,000 subjects of 1 row": Cohort(2000, 1),
}


@dataclass
class Outcome:
    """How many tables went how, by figure.

    Parameters
    ----------
    n_tables : int
        Tables with an interval: too few subjects may leave a class without one.
    covered, covered_plainly : Counter
        Tables whose interval holds the truth: that of rows, and plain percentiles.
    wrong : Counter
        Tables in which the paired interval of two equally good models leaves 0 out.
    """

    n_tables: int = 0
    covered: Counter[str] = field(default_factory=Counter)
    covered_plainly: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)


def simulate_intervals(cohort: Cohort, n_tables: int, n_resamples: int = 1000, seed: int = 0) -> Outcome:
    """Draw tables, give intervals as `tracking.statistics` does, and hold them against the truth."""
    rng = np.random.default_rng(seed)
    outcome = Outcome()
    for number in range(n_tables):
        a, b = cohort.simulate(rng, 2, noise=0.7)
        try:
            resamples = draw_resamples(a, n_resamples, seed=number)
        except ValueError:
            continue
        outcome.n_tables += 1
        of_a, of_b = (resample_metrics(side, resamples) for side in (a, b))
        left_out = resample_metrics(a, leave_out(resamples))
        for name, truth in cohort.truth.items():
            low, high = subject_interval(of_a[name], cohort.n_subjects, left_out=left_out[name])
            outcome.covered[name] += low <= truth <= high
            low, high = take_percentiles(of_a[name], 0.025, 0.025)
            outcome.covered_plainly[name] += low <= truth <= high
            low, high = subject_interval(of_a[name] - of_b[name], cohort.n_subjects)
            outcome.wrong[name] += not low <= 0 <= high
    return outcome


def count_covered_by_seeds(
    n_seeds: int, n_subjects: int, seed_sd: float, subject_sd: float, n_tables: int, n_resamples: int = 1000
) -> int:
    """Count tables in which the interval over seeds and subjects holds the true mean, which is 0.

    A table has an effect of each seed, an effect of each subject and noise of standard deviation 1 in each of 10 rows
    a subject and seed; the figure is their mean.
    """
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(n_tables):
        cells = seed_sd * rng.normal(size=(n_seeds, 1)) + subject_sd * rng.normal(size=(1, n_subjects))
        cells = cells + rng.normal(size=(n_seeds, n_subjects)) / np.sqrt(10)
        weights = rng.multinomial(n_subjects, np.full(n_subjects, 1 / n_subjects), n_resamples)
        estimate = pool_seeds(cells.mean(axis=1), cells @ weights.T / n_subjects, n_subjects)
        covered += estimate.low <= 0 <= estimate.high
    return covered


def main() -> None:
    """Print shares of tables; each is uncertain by .7 % with 1,000 tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--only", choices=[*COHORTS, "seeds"], help="one cohort instead of all")
    arguments = parser.parse_args()
    size = (arguments.tables, arguments.resamples)
    for label, cohort in COHORTS.items():
        if arguments.only not in (None, label):
            continue
        start = time.process_time()
        reason = tracking.statistics.explain_no_interval(cohort.n_subjects)
        # Measured too where rows have no interval, to show why.
        with patch.object(tracking.statistics, "MIN_SUBJECTS", 2):
            outcome = simulate_intervals(cohort, *size)
        n, seconds = outcome.n_tables, time.process_time() - start
        print(f"{label}, {n} tables, CPU {seconds:.0f} s{f'; rows print {reason!r}' if reason else ''}")
        for name in cohort.truth:
            shares = (counts[name] / n for counts in (outcome.covered, outcome.covered_plainly, outcome.wrong))
            print("  {:15} covered {:.1%} (plain percentiles {:.1%}), false positives {:.1%}".format(name, *shares))
    if arguments.only in (None, "seeds"):
        print("interval over seeds and subjects")
        for n_seeds, n_subjects, seed_sd, subject_sd in (
            *((5, 23, 0.0, 1.0), (5, 23, 0.2, 1.0), (5, 23, 1.0, 1.0)),
            *((5, 500, 0.0, 1.0), (5, 500, 0.05, 1.0), (5, 500, 1.0, 1.0), (10, 500, 0.05, 1.0)),
        ):
            covered_by = count_covered_by_seeds(n_seeds, n_subjects, seed_sd, subject_sd, *size)
            print(
                f"  {n_seeds} seeds of s.d. {seed_sd:g} x {n_subjects} subjects of s.d. {subject_sd:g}:"
                f" covered {covered_by / arguments.tables:.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
