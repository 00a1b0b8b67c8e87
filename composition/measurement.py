"""From a candidate to its row: export, predict with the file's own runtime, measure, judge."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig

from composition.candidates import Candidate, plain
from deploy import gate
from deploy.artifact import Artifact, predict
from deploy.profile import Profile, latency_ratio
from lightning_modules.classifier import Classifier
from lightning_modules.fitting import load_weights, save_weights
from lightning_modules.metrics import choose_thresholds, classification_metrics, to_log_odds, to_probabilities
from tracking.digests import digest, flatten
from tracking.predictions import Predictions, make_predictions
from tracking.rows import Estimate, Row
from tracking.statistics import bootstrap_metrics, paired_bootstrap
from tracking.store import OpenRun

Export = Callable[..., Artifact]
# What a setting is made of; where things lie and how they are reported is not part of it.
SETTINGS = ("datamodule", "model", "optim", "compression", "deploy", "trainer", "callbacks", "bootstrap", "seed")


@dataclass(frozen=True)
class Measured:
    """An exported file of a candidate, with what it answered on the test split and how it was held against torch."""

    candidate: Candidate
    target: str
    run: OpenRun
    artifact: Artifact
    predictions: Predictions
    val_metrics: dict[str, float]
    looks: int
    checks: list[gate.Check]


def export_candidate(candidate: Candidate, export: Export, datamodule: Any, path: Path) -> Artifact:
    """Write the candidate as one file of a target's format, with its input contract inside."""
    spec = candidate.stage.spec
    positions = np.asarray(spec.calibration_positions, dtype=np.int64)
    return export(
        candidate.stage.module.net,
        path,
        example=torch.zeros(2, datamodule.n_leads, datamodule.n_samples),
        precision=spec.precision,
        calibration=datamodule.windows("train", positions) if len(positions) else None,
        per_channel=spec.per_channel,
        float_nodes=spec.float_nodes,
        metadata=input_contract(candidate, datamodule),
    )


def input_contract(candidate: Candidate, datamodule: Any) -> dict[str, str]:
    """Tell what a user of the file must know to feed it and to read it, as strings."""
    normalizer = datamodule.normalizer
    facts = {
        "model": candidate.model.name,
        "recipe": candidate.stage.recipe,
        "fs": datamodule.fs,
        "unit": "mV",
        "lead_names": datamodule.lead_names,
        "class_names": datamodule.class_names,
        "mean_mv": [float(value) for value in normalizer.mean_mv],
        "std_mv": [float(value) for value in normalizer.std_mv],
        "data": datamodule.kind,
        "dataset": datamodule.name,
        "split_digest": datamodule.split_digest,
        "weights_digest": candidate.fit.digest,
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


def measure(
    candidate: Candidate,
    target: str,
    run: OpenRun,
    export: Export,
    datamodule: Any,
    path: Path,
    parity_windows: int,
    looks: int,
) -> Measured:
    """Export a candidate and evaluate the file: thresholds on validation, predictions on test, parity with torch."""
    artifact = export_candidate(candidate, export, datamodule, path)
    names, exclusive = datamodule.class_names, datamodule.exclusive
    val = to_probabilities(predict(artifact, datamodule.windows("val")), exclusive)
    thresholds = choose_thresholds(val, datamodule.targets("val"), exclusive)
    windows = datamodule.windows("test")
    logits = predict(artifact, windows)
    predictions = make_predictions(
        datamodule.record_ids("test"),
        datamodule.subject_ids("test"),
        datamodule.targets("test"),
        to_probabilities(logits, exclusive),
        names,
        thresholds,
    )
    some = windows[:parity_windows]
    in_memory = torch_logits(candidate.stage.module, some)
    checks = [
        gate.check_reload(in_memory, reloaded_logits(candidate, some)),
        *gate.check_parity(
            to_log_odds(in_memory, exclusive),
            to_log_odds(logits[: len(some)], exclusive),
            thresholds,
            artifact.precision,
            delta_auroc=auroc_difference(
                logits[: len(some)], in_memory, predictions.targets[: len(some)], names, exclusive
            ),
        ),
    ]
    val_metrics = classification_metrics(val, datamodule.targets("val"), names, thresholds, "val", exclusive)
    return Measured(candidate, target, run, artifact, predictions, val_metrics, looks, checks)


def torch_logits(module: Classifier, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (n, classes) of the float net in memory, in float32."""
    net = module.net.eval().cpu().float()
    with torch.inference_mode():
        return torch.cat([net(part) for part in torch.from_numpy(windows).split(64)]).numpy()


def reloaded_logits(candidate: Candidate, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of the weights after a way to disk and into a fresh net; what no net can hold gives NaN."""
    fresh = instantiate(candidate.model.module)
    with tempfile.TemporaryDirectory(prefix="lightheart-") as folder:
        path = Path(folder) / "net.pt"
        save_weights(candidate.stage.module.net, path)
        try:
            load_weights(fresh.net, path)
        except ValueError:
            return np.full((len(windows), len(fresh.class_names)), np.nan, np.float32)
    return torch_logits(fresh, windows)


def auroc_difference(
    logits: NDArray[np.floating],
    reference: NDArray[np.floating],
    targets: NDArray[np.float32],
    names: Sequence[str],
    exclusive: bool = False,
) -> float | None:
    """Macro AUROC of logits minus that of the reference's; None where these few windows lack a class."""
    half = np.full(len(names), 0.5)
    try:
        ours, theirs = (
            classification_metrics(to_probabilities(scores, exclusive), targets, names, half, "parity", exclusive)
            for scores in (logits, reference)
        )
    except ValueError:
        return None
    return ours["parity/auroc_macro"] - theirs["parity/auroc_macro"]


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
    stage = measured.candidate.stage
    if stage.recipe != "none" and reference and reference_profile:
        claims = dict(stage.claims)
        if "int8_macs_share" in claims:
            checks.append(gate.check_int8_coverage(profile.int8_macs_share, claims.pop("int8_macs_share")))
        if not timed and (limit := claims.pop("latency_ratio", None)) is not None:
            checks.append(gate.Check("latency_ratio", "INFO", None, limit, "latency not measured: no such device here"))
        ratios = {
            "size_ratio": (profile.size_bytes, reference_profile.size_bytes),
            "macs_ratio": (profile.macs, reference_profile.macs),
            "params_ratio": (count_params(measured.candidate), count_params(reference.candidate)),
            "latency_ratio": (latency_ratio(profile, reference_profile, 1), 1.0),
        }
        for claim, limit in claims.items():
            if claim not in ratios:
                raise ValueError(
                    f"step of {stage.recipe!r} claims {claim!r}: expected int8_macs_share or {sorted(ratios)}"
                )
            checks.append(gate.check_ratio(claim, *ratios[claim], limit))
        macro = delta["test/auroc_macro"]
        checks.append(gate.check_metric(macro.low, macro.high, max_drop))
    return gate.judge(checks), checks


def find_setting(config: DictConfig) -> dict[str, Any]:
    """Give the part of the config that a result depends on, the same on every machine."""
    setting = {key: plain(config)[key] for key in SETTINGS}
    for key in ("root", "download"):
        setting["datamodule"].pop(key, None)
    setting["datamodule"].get("source", {}).pop("cache_dir", None)
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
    datamodule: Any,
    measured: Measured,
    profile: Profile,
    reference: Measured | None,
    reference_profile: Profile | None,
) -> Row:
    """Join everything that was measured into the row of one artifact."""
    candidate, artifact = measured.candidate, measured.artifact
    predictions = measured.predictions
    resampling = {"n_resamples": config.bootstrap.n_resamples, "seed": config.bootstrap.seed}
    delta = paired_bootstrap(predictions, reference.predictions, **resampling) if reference else {}
    timed = measured.target in config.deploy.timed
    verdict, checks = judge(measured, profile, reference, reference_profile, delta, datamodule.max_drop, timed)
    return Row(
        role=candidate.role,
        name=measured.run.name,
        model=candidate.model.name,
        recipe=candidate.stage.recipe,
        runtime=artifact.runtime,
        precision=artifact.precision,
        data=datamodule.kind,
        dataset=datamodule.name,
        seed=config.seed,
        params=count_params(candidate),
        params_keras=count_params_keras(candidate),
        macs=profile.macs,
        size_bytes=profile.size_bytes,
        int8_macs_share=profile.int8_macs_share,
        **(latency_columns(profile, reference_profile) if timed else {}),
        threads=profile.threads,
        peak_memory_bytes=profile.peak_memory_bytes,
        metrics={
            **bootstrap_metrics(predictions, **resampling),
            **{name: Estimate(value) for name, value in measured.val_metrics.items()},
        },
        delta=dict(delta),
        settings={name: str(value) for name, value in flatten(find_setting(config)).items() if shows(name)},
        reference=reference.run.name if reference else None,
        reference_run_id=reference.run.run_id if reference else None,
        verdict=verdict.status,
        reasons=list(verdict.reasons),
        checks=[asdict(check) for check in checks],
        run_id=measured.run.run_id,
        group=measured.run.group,
        data_digest=datamodule.data_digest,
        split_digest=datamodule.split_digest,
        preprocessing_digest=datamodule.preprocessing_digest,
        config_digest=digest(find_setting(config)),
        n_test=len(predictions.record_ids),
        n_subjects=len(np.unique(predictions.subject_ids)),
        test_looks=measured.looks,
    )


def latency_columns(profile: Profile, reference: Profile | None) -> dict[str, float]:
    """Latency at batch 1 and, where it was measured, at batch 64; the ratio to the reference as the gate sees it."""
    columns = {
        f"latency_ms_{quantile}{suffix}": getattr(profile.latency[size], f"{quantile}_ms")
        for size, suffix in ((1, ""), (64, "_b64"))
        if size in profile.latency
        for quantile in ("p50", "p90", "p99")
    }
    return columns if reference is None else {**columns, "latency_ratio": latency_ratio(profile, reference, 1)}
