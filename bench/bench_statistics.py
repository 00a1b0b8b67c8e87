"""Time and memory of intervals: of two runs against each other on 2,000 records, and of 25 subjects with many beats."""

import argparse
import resource
import time

import numpy as np

from tracking.predictions import Predictions, make_predictions
from tracking.statistics import bootstrap_metrics, paired_bootstrap

LIMIT_S, LIMIT_BYTES = 10.0, 2 * 2**30
PAIRED_LIMIT_S = 2.0


def make_beats(n: int, n_subjects: int, seed: int = 0) -> Predictions:
    """Beats of recordings with episodes of atrial fibrillation, and answers that differ in quality by subject."""
    rng = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(n_subjects), -(-n // n_subjects))[:n]
    # Rhythms last for 500 beats; every subject has its own burden.
    rhythm = np.arange(n) // 500
    targets = (rng.random(rhythm[-1] + 1) < rng.beta(1, 1.5, n_subjects)[subjects[::500]])[rhythm]
    logits = rng.normal(0, 1.5, n) + (4 * targets - 2) + rng.normal(0, 1, n_subjects)[subjects]
    last = 1 / (1 + np.exp(-logits))
    times_s = np.cumsum(rng.uniform(0.6, 1.0, n))
    truth, probabilities = (np.stack([1 - values, values], axis=1) for values in (targets, last))
    ids, names = subjects.astype(str), ("other", "AFIB")
    return make_predictions(ids, ids, truth, probabilities, names, (0.5, 0.5), True, "beat", times_s)


def make_records(n: int = 2000, seed: int = 0) -> list[Predictions]:
    """Draw records of one subject each with five classes, as answered by two models."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, 5)) < 0.25).astype(float)
    ids, names = np.arange(n), ("NORM", "MI", "STTC", "CD", "HYP")
    scores = (rng.normal(size=targets.shape) + 1.5 * targets for _ in range(2))
    return [make_predictions(ids, ids, targets, 1 / (1 + np.exp(-score)), names, [0.5] * 5) for score in scores]


def time_pairs(n_resamples: int) -> None:
    """Print the seconds of a paired bootstrap of two runs."""
    first, second = make_records()
    start, start_cpu = time.perf_counter(), time.process_time()
    difference = paired_bootstrap(first, second, n_resamples)["test/auroc_macro"]
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    print(
        f"two runs on {len(first.record_ids):,} records, {n_resamples:,} resamples: {seconds:.1f} s (CPU {cpu_s:.1f} s,"
        f" target <= {PAIRED_LIMIT_S:g} s); macro AUROC differs by {difference.value:+.4f}"
        f" [{difference.low:+.4f}, {difference.high:+.4f}]"
    )


def main() -> None:
    """Print seconds and memory against their limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beats", type=int, default=1_200_000)
    parser.add_argument("--subjects", type=int, default=25)
    parser.add_argument("--resamples", type=int, default=2000)
    arguments = parser.parse_args()
    time_pairs(arguments.resamples)
    predictions = make_beats(arguments.beats, arguments.subjects)
    start, start_cpu = time.perf_counter(), time.process_time()
    estimates = bootstrap_metrics(predictions, arguments.resamples)
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    macro = estimates["test/auroc_macro_beat"]
    print(
        f"{len(estimates)} metrics of {arguments.beats:,} beats, {arguments.resamples:,} resamples of"
        f" {arguments.subjects} subjects: {seconds:.1f} s (CPU {cpu_s:.1f} s, target <= {LIMIT_S:g} s), peak memory"
        f" {peak / 2**20:.0f} MiB (target <= {LIMIT_BYTES / 2**20:.0f}); macro AUROC {macro.value:.4f}"
        f" [{macro.low:.4f}, {macro.high:.4f}]"
    )


if __name__ == "__main__":
    main()
