"""From a candidate to its row: export, predict with the file's own runtime, measure, judge."""

import copy
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import nn

from composition.candidates import Candidate, make_candidates
from composition.evaluation import Evaluator, export_net, log_sensitivity, predict_split
from composition.facts import DataFacts, describe
from composition.fits import Fitter, plain
from composition.kept_answers import answer_split
from composition.reports import check_devices
from composition.search import Weighed
from composition.task import Task
from deploy import gate
from deploy.artifact import Artifact, NotMeasured
from deploy.profile import count_macs
from lightning_modules.fitting import load_weights, save_weights
from tracking.answers import Answered
from tracking.logger import MlflowLogger
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
    predictions : Predictions or HeartRates
    val_metrics : dict of str to float
        Of the validation split; mean over folds.
    looks : int or None
        Evaluations of the test split so far, this one included; None where the store is away.
    facts : DataFacts
    folds : tuple of dict
        Number, run and figures of each fold; empty for one split.
    """

    run: OpenRun
    predictions: Answered
    val_metrics: dict[str, float]
    looks: int | None
    facts: DataFacts
    folds: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Measured(Answers):
    """An exported file of a candidate, with its answers and how it was held against torch.

    ``stages`` are times of what is around the net, ``texts`` reports about the file by file name.
    """

    candidate: Candidate
    target: str
    artifact: Artifact
    checks: list[gate.Check]
    stages: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Unmeasured:
    """A candidate whose file cannot be evaluated on this machine.

    Attributes
    ----------
    run : OpenRun
        Where its row goes.
    candidate : Candidate
    target, task : str
        What it was made for, and what it answers.
    outcome : NotMeasured
        What was made, and why there is no figure.
    facts : DataFacts
    """

    run: OpenRun
    candidate: Candidate
    target: str
    task: str
    outcome: NotMeasured
    facts: DataFacts


def measure_split(
    config: DictConfig, datamodule: Any, store: Store, stack: ExitStack, job: OpenRun
) -> Iterator[Measured | Unmeasured]:
    """Yield every candidate's file on every target; fits happen on the way.

    Runs below the job stay open until the stack unwinds: a failure closes all of them as FAILED.
    """
    targets, task = instantiate(config.deploy.targets), instantiate(config.evaluation)
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
        return weigh_candidate(candidate, targets[target], find_path(f"search/{name}", target), task)

    first, export_first = next(iter(targets.items()))
    evaluate = Evaluator(datamodule, task, export_first, find_path("evaluate", first), config.seed)
    log_report = partial(log_sensitivity, fitter)
    for candidate in make_candidates(config, fitter, open_run, weigh, evaluate, log_report):
        for index, (target, export) in enumerate(targets.items()):
            run = candidate.run if index == 0 else open_run(f"{candidate.run.name} {target}")
            log.info("exporting and evaluating %s on %s", candidate.run.name, target)
            try:
                artifact = export_candidate(candidate, export, find_path(candidate.name, target), task)
            except NotMeasured as outcome:
                log.warning("%s on %s is not measured: %s", candidate.run.name, target, outcome.reason)
                facts = describe(candidate.datamodule)
                yield Unmeasured(
                    run=run, candidate=candidate, target=target, task=task.name, outcome=outcome, facts=facts
                )
                continue
            # Before the look, so that a job that dies right after it is counted too.
            looks = store.record_test_look(run.run_id, candidate.datamodule.split_digest)
            measured = measure(candidate, target, run, artifact, task, looks, Path(config.paths.answers))
            if target in config.deploy.timed:
                measured = replace(measured, stages=task.time_stages(candidate.datamodule, measured.artifact))
            yield measured


def export_candidate(candidate: Candidate, export: Export, path: Path, task: Task) -> Artifact:
    """Write the candidate as one file of a target's format, with its input contract inside."""
    stage, example = candidate.stage, task.make_example(candidate.datamodule)
    return export_net(
        stage.module.net,
        stage.spec,
        candidate.datamodule,
        export,
        path,
        example=example,
        metadata=input_contract(candidate, task),
    )


def weigh_candidate(candidate: Candidate, export: Export, path: Path, task: Task) -> Weighed:
    """Export a candidate and evaluate the file on validation; the test split is not looked at."""
    artifact, datamodule = export_candidate(candidate, export, path, task), candidate.datamodule
    figure = task.weigh(datamodule, predict_split(artifact, datamodule, "val", task))
    return Weighed(artifact, figure, count_macs(artifact.path).macs, task.headline)


def input_contract(candidate: Candidate, task: Task) -> dict[str, str]:
    """Tell what a user of the file must know to feed it and to read it, as strings."""
    datamodule = candidate.datamodule
    facts = {
        "model": candidate.model.name,
        "recipe": candidate.stage.recipe,
        **task.describe_input(datamodule),
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
    artifact: Artifact,
    task: Task,
    looks: int | None,
    kept: Path,
) -> Measured:
    """Evaluate a candidate's file: choices on validation, answers on test, parity with torch.

    `kept` is the folder of answers to whole splits.
    """
    datamodule, net = candidate.datamodule, candidate.stage.module.net
    val, test = (answer_split(artifact, datamodule, split, task, kept) for split in ("val", "test"))
    predictions, val_metrics = task.conclude(
        datamodule, task.read(datamodule, "val", val), task.read(datamodule, "test", test)
    )
    some = datamodule.windows("test", datamodule.splits["test"][: task.parity_windows])
    batch_size = min(64, task.batch_size)
    in_memory = torch_outputs(net, some, batch_size)
    checks = [
        gate.check_reload(in_memory, reloaded_outputs(net, some, batch_size)),
        *task.check_parity(datamodule, predictions, in_memory, test[: len(some)], artifact.precision),
    ]
    device_checks, texts = check_devices(artifact)
    return Measured(
        candidate=candidate,
        target=target,
        run=run,
        artifact=artifact,
        predictions=predictions,
        val_metrics=val_metrics,
        looks=looks,
        checks=[*checks, *device_checks],
        texts=texts,
        facts=describe(datamodule),
    )


def torch_outputs(net: nn.Module, windows: NDArray[np.float32], batch_size: int = 64) -> NDArray[np.float32]:
    """Give the outputs of the float net in memory, in float32: logits (n, classes), or waves (n, frames)."""
    net = net.eval().cpu().float()
    with torch.inference_mode():
        return torch.cat([net(part) for part in torch.from_numpy(windows).split(batch_size)]).numpy()


def reloaded_outputs(net: nn.Module, windows: NDArray[np.float32], batch_size: int = 64) -> NDArray[np.float32]:
    """Send the weights to disk and into a net without weights, and give its outputs; NaN for what no net can hold."""
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
    return torch_outputs(fresh, windows, batch_size)
