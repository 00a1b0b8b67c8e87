"""Coverage of the 95 % intervals that rows print, and errors of the paired test, over tables whose truth is known.

Scores are binormal with an effect of each subject; the true value of every figure is its limit over infinitely many
subjects. Subjects of cohorts with many rows also differ in their prevalence, as patients with atrial fibrillation do.
"""

import argparse
import time
from collections import Counter
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
from scipy import stats

import tracking.statistics
from tracking.intervals import take_percentiles
from tracking.predictions import Predictions, make_predictions
from tracking.rows import Estimate
from tracking.seeds import pool_seeds
from tracking.statistics import bootstrap_metrics, draw_resamples, paired_bootstrap, resample_metrics

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
        """Figures over infinitely many subjects, by their names in a row."""
        sd = float(np.hypot(1, self.spread))
        right = float(stats.norm.cdf(self.signal / 2 / sd))
        hits, false_calls = PREVALENCE * right, (1 - PREVALENCE) * (1 - right)
        return {
            "test/auroc_A": float(stats.norm.cdf(self.signal / np.sqrt(2) / sd)),
            "test/sensitivity_A": right,
            "test/specificity_A": right,
            "test/accuracy_macro": right,
            "test/precision_A": hits / (hits + false_calls),
            "test/f1_A": 2 * hits / (hits + false_calls + PREVALENCE),
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


def count_covered(cohort: Cohort, n_tables: int, n_resamples: int = 1000, seed: int = 0) -> tuple[Counter[str], int]:
    """Count tables whose interval holds the truth.

    Returns
    -------
    covered : Counter
        By figure; with ``percentile`` before it of the plain percentile interval.
    n_used : int
        Tables with an interval: too few subjects may leave a class without one.
    """
    rng = np.random.default_rng(seed)
    covered: Counter[str] = Counter()
    n_used = 0
    for number in range(n_tables):
        (predictions,) = cohort.simulate(rng)
        try:
            estimates = bootstrap_metrics(predictions, n_resamples, seed=number)
        except ValueError:
            continue
        n_used += 1
        resampled = resample_metrics(predictions, draw_resamples(predictions, n_resamples, seed=number))
        for name, truth in cohort.truth.items():
            plain = Estimate(0, *take_percentiles(resampled[name.removeprefix("test/")], 0.025))
            covered[name] += estimates[name].low <= truth <= estimates[name].high
            covered[f"percentile {name}"] += plain.low <= truth <= plain.high
    return covered, n_used


def count_false_positives(
    cohort: Cohort, n_tables: int, n_resamples: int = 1000, seed: int = 0
) -> tuple[Counter[str], int]:
    """Count tables in which the paired interval of two equally good models leaves 0 out, by figure."""
    rng = np.random.default_rng(seed)
    found: Counter[str] = Counter()
    n_used = 0
    for number in range(n_tables):
        a, b = cohort.simulate(rng, 2, noise=0.7)
        try:
            estimates = paired_bootstrap(a, b, n_resamples, seed=number)
        except ValueError:
            continue
        n_used += 1
        found.update(name for name in cohort.truth if not estimates[name].low <= 0 <= estimates[name].high)
    return found, n_used


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
            covered, n_used = count_covered(cohort, *size)
            wrong, n_pairs = count_false_positives(cohort, *size)
        seconds = time.process_time() - start
        print(f"{label}, {n_used} tables, CPU {seconds:.0f} s{f'; rows print {reason!r}' if reason else ''}")
        for name in cohort.truth:
            shares = (covered[name] / n_used, covered[f"percentile {name}"] / n_used, wrong[name] / n_pairs)
            print("  {:20} covered {:.1%} (plain percentiles {:.1%}), false positives {:.1%}".format(name, *shares))
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
