"""Rows and predictions that the tracking tests share."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracking.hr_predictions import HeartRates, make_heart_rates
from tracking.predictions import Predictions, make_predictions
from tracking.rows import Estimate, Row

CLASS_NAMES = ("NORM", "MI", "STTC", "CD", "HYP")
PREVALENCE = (0.44, 0.25, 0.24, 0.22, 0.12)


def example_row(**changes: Any) -> Row:
    """Row of a plausible student, on synthetic data."""
    values: dict[str, Any] = {
        "role": "student",
        "name": "student-alone",
        "model": "cnn1d_student",
        "recipe": "none",
        "runtime": "onnxruntime",
        "precision": "float32",
        "data": "synthetic",
        "dataset": "synthetic_ptbxl",
        "seed": 0,
        "params": 534_005,
        "macs": 147_700_000,
        "size_bytes": 2_140_000,
        "latency_ms_p50": 2.19,
        "latency_ms_p99": 3.5,
        "metrics": {"test/auroc_macro": Estimate(0.931, 0.925, 0.937)},
        "split_digest": "split-a",
    }
    return Row(**(values | changes))


def example_predictions(
    n: int = 300,
    *,
    seed: int = 0,
    signal: float = 1.5,
    noise_seed: int = 1,
    class_names: Sequence[str] = CLASS_NAMES,
    records_per_subject: int = 2,
) -> Predictions:
    """Predictions with binormal scores; `seed` fixes the targets, `noise_seed` the model's answers."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, len(class_names))) < PREVALENCE[: len(class_names)]).astype(np.float32)
    scores = np.random.default_rng(noise_seed).normal(size=targets.shape) + signal * targets
    return make_predictions(
        np.arange(1, n + 1),
        np.arange(n) // records_per_subject,
        targets,
        1 / (1 + np.exp(-scores + signal / 2)),
        class_names,
        [0.5] * len(class_names),
    )


def example_beats(n: int = 300, *, n_subjects: int = 12, noise_seed: int = 1) -> Predictions:
    """Beats of exclusive classes, 0.8 s apart, with rhythms of 60 beats; a record and a subject are the same."""
    subjects = np.arange(n) * n_subjects // n
    targets = (np.arange(n) // 60 + subjects) % 2
    scores = np.random.default_rng(noise_seed).normal(size=n) + 2 * targets - 1
    last = 1 / (1 + np.exp(-scores))
    return make_predictions(
        np.char.add("r", subjects.astype(str)),
        subjects,
        np.stack([1 - targets, targets], axis=1),
        np.stack([1 - last, last], axis=1),
        ("other", "AFIB"),
        (0.6, 0.4),
        exclusive=True,
        level="beat",
        times_s=np.arange(n) * 0.8,
    )


def example_rates(
    n_subjects: int = 12, *, n_windows: int = 3, error_bpm: float = 2.0, noise_seed: int = 1, bias_bpm: float = 0.0
) -> HeartRates:
    """Heart rates of one video for each subject, in windows of 10 s; `noise_seed` makes the model's answers."""
    truth = np.linspace(52, 118, n_subjects)
    noise = np.random.default_rng(noise_seed)
    windows = np.repeat(truth, n_windows) + np.tile(np.arange(n_windows), n_subjects)
    videos = np.array([f"v{number:02d}" for number in range(n_subjects)])
    return make_heart_rates(
        record_ids=np.repeat(videos, n_windows),
        subject_ids=np.repeat(np.char.add("p", videos), n_windows),
        times_s=np.tile(10.0 * np.arange(n_windows), n_subjects),
        true_bpm=windows,
        bpm=windows + bias_bpm + noise.normal(0, error_bpm, len(windows)),
        snr_db=noise.normal(3, 1, len(windows)),
        video_ids=videos,
        video_true_bpm=truth,
        video_bpm=truth + bias_bpm + noise.normal(0, error_bpm, n_subjects),
        video_snr_db=noise.normal(3, 1, n_subjects),
    )
