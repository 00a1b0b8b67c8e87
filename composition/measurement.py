"""From a candidate to its row: export, predict with the file's own runtime, measure, judge."""

import copy
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import nn

from composition.candidates import Candidate, make_candidates
from composition.facts import DataFacts, describe
from composition.fits import Fitter, plain
from composition.search import Weighed
from composition.window_rules import describe_windows
from deploy import gate
from deploy.artifact import Artifact, predict
from deploy.profile import count_macs
from lightning_modules.fitting import load_weights, save_weights
from lightning_modules.metrics import choose_thresholds, classification_metrics, to_log_odds, to_probabilities
from tracking.logger import MlflowLogger
from tracking.predictions import Predictions, make_predictions
from tracking.store import OpenRun, Store

log = logging.getLogger(__name__)

Export = Callable[..., Artifact]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a file, or a baseline, answered on the test split; of one split or of all folds together.

    Attributes
    ----------
    run : OpenRun
        Where its row goes.
    predictions : Predictions
    val_metrics : dict of str to float
        Of the validation split; mean over folds.
    looks : int
        Evaluations of the test split so far, this one included.
    facts : DataFacts
    folds : tuple of dict
        Number, run and figures of each fold; empty for one split.
    """

    run: OpenRun
    predictions: Predictions
    val_metrics: dict[str, float]
    looks: int
    facts: DataFacts
    folds: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Measured(Answers):
    """An exported file of a candidate, with its answers and how it was held against torch."""

    candidate: Candidate
    target: str
    artifact: Artifact
    checks: list[gate.Check]


def measure_split(
    config: DictConfig, datamodule: Any, store: Store, stack: ExitStack, job: OpenRun
) -> Iterator[Measured]:
    """Yield every candidate's file on every target; fits happen on the way.

    Runs below the job stay open until the stack unwinds: a failure closes all of them as FAILED.
    """
    targets = instantiate(config.deploy.targets)
    fitter = Fitter(config, datamodule, store, job)

    def open_run(name: str) -> OpenRun:
        run = stack.enter_context(job.child(name))
        MlflowLogger(store, run.run_id).log_hyperparams(plain(config))
        return run

    def find_path(name: str, target: str) -> Path:
        # The module of a target is named like the ending of its files.
        ending = targets[target].func.__module__.rpartition(".")[2]
        return Path(config.paths.output) / f"{name}-{target}.{ending}"

    def weigh(candidate: Candidate, name: str) -> Weighed:
        target = next(iter(targets))
        return weigh_candidate(candidate, targets[target], find_path(f"search/{name}", target))

    for candidate in make_candidates(config, fitter, open_run, weigh):
        for index, (target, export) in enumerate(targets.items()):
            run = candidate.run if index == 0 else open_run(f"{candidate.run.name} {target}")
            log.info("exporting and evaluating %s on %s", candidate.run.name, target)
            path = find_path(candidate.name, target)
            # Before the look, so that a job that dies right after it is counted too.
            looks = store.record_test_look(run.run_id, candidate.datamodule.split_digest)
            yield measure(candidate, target, run, export, path, config.evaluation, looks)


def export_candidate(candidate: Candidate, export: Export, path: Path) -> Artifact:
    """Write the candidate as one file of a target's format, with its input contract inside."""
    spec, datamodule = candidate.stage.spec, candidate.datamodule
    positions = np.asarray(spec.calibration_positions, dtype=np.int64)
    return export(
        candidate.stage.module.net,
        path,
        example=torch.zeros(2, datamodule.n_leads, datamodule.n_samples),
        precision=spec.precision,
        calibration=datamodule.windows("train", positions) if len(positions) else None,
        per_channel=spec.per_channel,
        float_nodes=spec.float_nodes,
        metadata=input_contract(candidate),
    )


def weigh_candidate(candidate: Candidate, export: Export, path: Path) -> Weighed:
    """Export a candidate and evaluate the file on validation; the test split is not looked at."""
    artifact, datamodule = export_candidate(candidate, export, path), candidate.datamodule
    probabilities = to_probabilities(predict(artifact, datamodule.windows("val")), datamodule.exclusive)
    names = datamodule.class_names
    metrics = classification_metrics(
        probabilities, datamodule.targets("val"), names, np.full(len(names), 0.5), "val", datamodule.exclusive
    )
    return Weighed(artifact, metrics["val/auroc_macro"], count_macs(artifact.path).macs)


def input_contract(candidate: Candidate) -> dict[str, str]:
    """Tell what a user of the file must know to feed it and to read it, as strings."""
    datamodule = candidate.datamodule
    normalizer = datamodule.normalizer
    facts = {
        "model": candidate.model.name,
        "recipe": candidate.stage.recipe,
        "fs": datamodule.fs,
        "unit": datamodule.unit,
        "lead_names": datamodule.lead_names,
        "class_names": datamodule.class_names,
        "level": datamodule.level,
        "exclusive": datamodule.exclusive,
        "windows": describe_windows(datamodule),
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
    path: Path,
    evaluation: DictConfig,
    looks: int,
) -> Measured:
    """Export a candidate and evaluate the file: thresholds on validation, predictions on test, parity with torch."""
    artifact = export_candidate(candidate, export, path)
    datamodule = candidate.datamodule
    exclusive = datamodule.exclusive
    windows = datamodule.windows("test")
    val, logits = predict(artifact, datamodule.windows("val")), predict(artifact, windows)
    predictions, val_metrics = make_test_predictions(
        datamodule, to_probabilities(val, exclusive), to_probabilities(logits, exclusive), evaluation.threshold_rule
    )
    some = windows[: evaluation.parity_windows]
    in_memory = torch_logits(candidate.stage.module.net, some)
    checks = [
        gate.check_reload(in_memory, reloaded_logits(candidate.stage.module.net, some)),
        *gate.check_parity(
            to_log_odds(in_memory, exclusive),
            to_log_odds(logits[: len(some)], exclusive),
            predictions.thresholds,
            artifact.precision,
            delta_auroc=auroc_difference(
                logits[: len(some)], in_memory, predictions.targets[: len(some)], predictions.class_names, exclusive
            ),
        ),
    ]
    return Measured(
        candidate=candidate,
        target=target,
        run=run,
        artifact=artifact,
        predictions=predictions,
        val_metrics=val_metrics,
        looks=looks,
        checks=checks,
        facts=describe(datamodule),
    )


def make_test_predictions(
    datamodule: Any, val: NDArray[np.float64], test: NDArray[np.float64], threshold_rule: str | None
) -> tuple[Predictions, dict[str, float]]:
    """Join test probabilities with what pairing needs; thresholds, and the metrics returned beside, are of validation.

    Parameters
    ----------
    datamodule : EcgDataModule
    val, test : ndarray of float64, shape (n, classes)
        Probabilities.
    threshold_rule : {"f1", "accuracy", "half"} or None
        What the thresholds serve; by default "half" where classes are exclusive and "f1" where they are not.
    """
    targets, names, exclusive = datamodule.targets("val"), datamodule.class_names, datamodule.exclusive
    thresholds = choose_thresholds(val, targets, exclusive, threshold_rule or ("half" if exclusive else "f1"))
    predictions = make_predictions(
        datamodule.record_ids("test"),
        datamodule.subject_ids("test"),
        datamodule.targets("test"),
        test,
        names,
        thresholds,
        exclusive=exclusive,
        level=datamodule.level,
        times_s=datamodule.times_s("test"),
    )
    return predictions, classification_metrics(val, targets, names, thresholds, "val", exclusive, datamodule.level)


def torch_logits(net: nn.Module, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (n, classes) of the float net in memory, in float32."""
    net = net.eval().cpu().float()
    with torch.inference_mode():
        return torch.cat([net(part) for part in torch.from_numpy(windows).split(64)]).numpy()


def reloaded_logits(net: nn.Module, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of the weights after a way to disk and into a net without weights; what no net can hold gives NaN."""
    try:
        # A copy and not a new net of the config: a step may have changed the structure.
        fresh = copy.deepcopy(net)
    except RuntimeError:
        # torch copies no weights that are computed from others, such as masked ones.
        return np.full((len(windows), 1), np.nan, np.float32)
    for value in fresh.state_dict().values():
        value.fill_(torch.nan if value.is_floating_point() else 0)
    with tempfile.TemporaryDirectory(prefix="lightheart-") as folder:
        path = Path(folder) / "net.pt"
        save_weights(net, path)
        load_weights(fresh, path)
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
