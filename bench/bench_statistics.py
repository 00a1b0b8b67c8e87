"""Time and memory of the intervals of every metric: 2,000 resamples of 25 subjects with 1.2 million beats."""

import argparse
import resource
import time

import numpy as np

from tracking.predictions import Predictions, make_predictions
from tracking.statistics import bootstrap_metrics

LIMIT_S, LIMIT_BYTES = 10.0, 2 * 2**30


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


def main() -> None:
    """Print seconds and memory against their limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beats", type=int, default=1_200_000)
    parser.add_argument("--subjects", type=int, default=25)
    parser.add_argument("--resamples", type=int, default=2000)
    arguments = parser.parse_args()
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
