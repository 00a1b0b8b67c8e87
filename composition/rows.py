"""From what was measured to a row: the gate's verdict, the figures with their intervals, the origin."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from omegaconf import DictConfig

from composition.candidates import Candidate
from composition.fits import plain
from composition.folds import summarise_folds
from composition.measurement import Answers, Measured, Unmeasured
from deploy import engine, gate
from deploy.artifact import Artifact
from deploy.hardware import multiplies_int8
from deploy.profile import Profile, latency_ratio
from tracking.digests import digest, flatten
from tracking.headline import find_headline
from tracking.pairing import count_flips
from tracking.rows import Estimate, Row
from tracking.statistics import bootstrap_metrics, explain_no_interval, paired_bootstrap

# The verdict of a row without figures.
NOT_MEASURED = "not measured"
# What a setting is made of; where things lie and how they are reported is not part of it.
SETTINGS = (
    "datamodule",
    "model",
    "optim",
    "compression",
    "deploy",
    "trainer",
    "callbacks",
    "evaluation",
    "bootstrap",
    "seed",
)


def judge(
    measured: Measured,
    profile: Profile,
    reference: Measured | None,
    reference_profile: Profile | None,
    delta: Mapping[str, Estimate],
    max_drop: float,
    timed: bool,
) -> tuple[gate.Verdict, list[gate.Check]]:
    """Hold a measured file against what its recipe claims.

    A model that no step has touched claims nothing: it only has to survive saving and export.
    """
    checks = list(measured.checks)
    notes: list[gate.Check] = []
    stage = measured.candidate.stage
    if stage.recipe != "none" and reference and reference_profile:
        claims = dict(stage.claims)
        if "int8_macs_share" in claims:
            checks.append(gate.check_share("int8_macs_share", profile.int8_macs_share, claims.pop("int8_macs_share")))
        if "sparsity" in claims:
            checks.append(gate.check_share("sparsity", profile.weights.sparsity, claims.pop("sparsity")))
            notes.append(gate.note_zeros(latency_ratio(profile, reference_profile, 1) if timed else None))
        if "latency_ratio" in claims and not timed:
            limit = claims.pop("latency_ratio")
            checks.append(gate.Check("latency_ratio", "INFO", None, limit, "latency not measured: no such device here"))
        elif "latency_ratio" in claims and is_int8_on_cpu(measured.artifact) and not multiplies_int8():
            notes.append(gate.note_slow_int8(latency_ratio(profile, reference_profile, 1), claims.pop("latency_ratio")))
        ratios = {
            "size_ratio": (profile.size_bytes, reference_profile.size_bytes),
            "compressed_ratio": (profile.compressed_bytes, reference_profile.compressed_bytes),
            "macs_ratio": (profile.macs, reference_profile.macs),
            "params_ratio": (count_params(measured.candidate), count_params(reference.candidate)),
            "latency_ratio": (latency_ratio(profile, reference_profile, 1), 1.0),
        }
        for claim, limit in claims.items():
            if claim not in ratios:
                raise ValueError(
                    f"step of {stage.recipe!r} claims {claim!r}: expected int8_macs_share, sparsity or {sorted(ratios)}"
                )
            checks.append(gate.check_ratio(claim, *ratios[claim], limit))
        headline = find_headline(measured.predictions.task, measured.predictions.level)
        change = delta[name := headline.named("test")]
        reason = explain_no_interval(len(np.unique(measured.predictions.subject_ids)))
        better = headline.larger_is_better
        checks.append(gate.check_metric(change.low, change.high, max_drop, name, reason, larger_is_better=better))
    verdict = gate.judge(checks)
    reasons = [*verdict.reasons, *(note.reason for note in notes)]
    return gate.Verdict(verdict.status, reasons), [*checks, *notes]


def is_int8_on_cpu(artifact: Artifact) -> bool:
    """Whether a file computes in int8 on this machine's CPU."""
    return artifact.precision == "int8" and artifact.runtime != engine.RUNTIME


def find_setting(config: DictConfig) -> dict[str, Any]:
    """Give the part of the config that a result depends on, the same on every machine."""
    setting = {key: plain(config)[key] for key in SETTINGS}
    data = setting["datamodule"]
    for key in ("root", "test_root", "cache_dir", "download"):
        data.pop(key, None)
    source = data.get("source") or {}
    source.pop("cache_dir", None)
    (source.get("simulate") or {}).pop("root", None)
    data.get("faces", {}).get("make_detector", {}).pop("weights", None)
    setting["callbacks"].pop("progress_bar", None)
    return setting


def shows(name: str) -> bool:
    """Whether a setting tells what the columns of a row do not: its model, recipe and seed stand there already."""
    return not name.startswith(("model.", "compression.teacher.", "compression.name", "callbacks.", "deploy.")) and (
        name.rpartition(".")[2] not in ("seed", "_partial_", "name")
    )


def count_params(candidate: Candidate) -> int:
    """Trainable values of the net behind the artifact."""
    return sum(value.numel() for value in candidate.stage.module.net.parameters() if value.requires_grad)


def count_params_keras(candidate: Candidate) -> int:
    """Parameters as Keras counts them: with the running mean and variance of every batch norm."""
    buffers = candidate.stage.module.net.named_buffers()
    return count_params(candidate) + sum(value.numel() for name, value in buffers if name.endswith(("mean", "var")))


def make_row(
    config: DictConfig,
    measured: Measured,
    profile: Profile,
    reference: Measured | None,
    reference_profile: Profile | None,
) -> Row:
    """Join everything that was measured into the row of one artifact."""
    candidate, artifact = measured.candidate, measured.artifact
    resampling = {"n_resamples": config.bootstrap.n_resamples, "seed": config.bootstrap.seed}
    delta = paired_bootstrap(measured.predictions, reference.predictions, **resampling) if reference else {}
    timed = measured.target in config.deploy.timed
    max_drop = config.datamodule.max_drop
    verdict, checks = judge(measured, profile, reference, reference_profile, delta, max_drop, timed)
    return Row(
        role=candidate.role,
        model=candidate.model.name,
        recipe=candidate.stage.recipe,
        runtime=artifact.runtime,
        precision=artifact.precision,
        params=count_params(candidate),
        params_keras=count_params_keras(candidate),
        macs=profile.macs,
        nonzero_weights=profile.weights.nonzero,
        sparsity=profile.weights.sparsity,
        size_bytes=profile.size_bytes,
        compressed_bytes=profile.compressed_bytes,
        sparse_bytes=profile.sparse_bytes,
        int8_macs_share=profile.int8_macs_share,
        **(latency_columns(profile, reference_profile) if timed else {}),
        threads=profile.threads,
        peak_memory_bytes=profile.peak_memory_bytes,
        training_s=candidate.training_s,
        flips=count_flips(measured.predictions, reference.predictions) if reference else None,
        delta=dict(delta),
        reference=reference.run.name if reference else None,
        reference_run_id=reference.run.run_id if reference else None,
        verdict=verdict.status,
        reasons=list(verdict.reasons),
        checks=[asdict(check) for check in checks],
        **answer_columns(config, measured),
    )


def make_unmeasured_row(config: DictConfig, item: Unmeasured) -> Row:
    """Row of a file for a device that is not here: what is known without running it, and no figure."""
    setting = find_setting(config)
    return Row(
        role=item.candidate.role,
        name=item.run.name,
        task=item.task,
        model=item.candidate.model.name,
        recipe=item.candidate.stage.recipe,
        runtime=item.outcome.runtime,
        precision=item.outcome.precision,
        params=count_params(item.candidate),
        params_keras=count_params_keras(item.candidate),
        training_s=item.candidate.training_s,
        seed=config.seed,
        settings={name: str(value) for name, value in flatten(setting).items() if shows(name)},
        run_id=item.run.run_id,
        group=item.run.group,
        config_digest=digest(setting),
        verdict=NOT_MEASURED,
        reasons=[item.outcome.reason],
        test_looks=0,
        **asdict(item.facts),
    )


def make_baseline_row(config: DictConfig, baseline: Answers) -> Row:
    """Row of something that is no file: it has figures, and nothing to weigh or to time."""
    return Row(
        role="baseline",
        model=baseline.run.name.removeprefix("baseline "),
        recipe="none",
        runtime="none",
        precision="float64",
        **answer_columns(config, baseline),
    )


def answer_columns(config: DictConfig, answers: Answers) -> dict[str, Any]:
    """Figures with their intervals, and what they depend on."""
    predictions = answers.predictions
    resampled = bootstrap_metrics(predictions, config.bootstrap.n_resamples, config.bootstrap.seed)
    over_folds = summarise_folds([fold["metrics"] for fold in answers.folds]) if answers.folds else {}
    plain_figures = answers.val_metrics | over_folds | (answers.stages if isinstance(answers, Measured) else {})
    setting = find_setting(config)
    return {
        "name": answers.run.name,
        "task": predictions.task,
        "seed": config.seed,
        "metrics": resampled | {name: Estimate(value) for name, value in plain_figures.items()},
        "folds": list(answers.folds),
        "settings": {name: str(value) for name, value in flatten(setting).items() if shows(name)},
        "run_id": answers.run.run_id,
        "group": answers.run.group,
        "config_digest": digest(setting),
        "n_test": len(predictions.record_ids),
        "n_subjects": len(np.unique(predictions.subject_ids)),
        "test_looks": answers.looks,
        **asdict(answers.facts),
    }


def latency_columns(profile: Profile, reference: Profile | None) -> dict[str, Any]:
    """Latency at batch 1 and, where measured, at batch 64; energy; the ratio to the reference as the gate sees it."""
    columns: dict[str, Any] = {
        f"latency_ms_{quantile}{suffix}": getattr(profile.latency[size], f"{quantile}_ms")
        for size, suffix in ((1, ""), (64, "_b64"))
        if size in profile.latency
        for quantile in ("p50", "p90", "p99")
    }
    columns["energy_mj"] = profile.latency[1].energy_mj
    return columns if reference is None else {**columns, "latency_ratio": latency_ratio(profile, reference, 1)}
