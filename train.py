"""Train, compress, export, measure, judge and track: one job, one row per artifact.

``python train.py`` runs the main job on synthetic data; ``python train.py --help`` lists the config groups.
"""

import logging
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from composition.baselines import answer_baselines
from composition.bundles import build_bundle, file_tags, find_fitting
from composition.documents import describe_row
from composition.facts import data_digests
from composition.fits import plain
from composition.folds import make_folds, pool_folds
from composition.measurement import Answers, Measured, Unmeasured, measure_split
from composition.reports import report_layers
from composition.rows import make_baseline_row, make_row, make_unmeasured_row
from composition.tables import IncompleteTableError, fill_with_runs
from deploy.devices import find_device
from deploy.gate import GateFailed
from deploy.profile import Profile, profile_artifacts
from lightning_modules.metrics import RULES
from tracking import digests, tables
from tracking.connection import TrackingError
from tracking.figures import draw_answers, draw_png
from tracking.hr_tables import tabulate_heart_rates
from tracking.logger import MlflowLogger
from tracking.outbox import UNSENT, Outbox
from tracking.rows import Row, read_rows_file, write_rows
from tracking.store import OpenRun, Store, initialise

log = logging.getLogger("train")
ROOT = Path(__file__).resolve().parent
GATES = ("enforce", "report")


def run(config: DictConfig) -> list[Row]:
    """Carry out one job.

    Data -> models -> files -> predictions -> profile -> gate -> rows.

    Returns
    -------
    list of Row
        One for each candidate and target, as tracked and as in ``rows.json``.

    Raises
    ------
    GateFailed
        After everything is logged, if a row fails and ``gate`` is ``enforce``.
    TrackingError
        If the tracking store cannot be reached at the beginning, or went away and is not back at the end: everything is
        in the output folder then.
    """
    if config.gate not in GATES:
        raise ValueError(f"gate={config.gate!r} must be one of {GATES}")
    if config.evaluation.get("threshold_rule") not in (None, *RULES):
        raise ValueError(f"evaluation.threshold_rule={config.evaluation.threshold_rule!r} must be null or in {RULES}")
    if 1 not in config.deploy.profile.batch_sizes:
        raise ValueError(f"deploy.profile.batch_sizes={config.deploy.profile.batch_sizes} must hold 1")
    check_bundle(config)
    # Now, because files may be edited while the job runs.
    origin = find_origin(config)
    output = Path(config.paths.output)
    output.mkdir(parents=True, exist_ok=True)
    store = replace(initialise(**config.tracking), outbox=Outbox(output / UNSENT))
    datamodule = instantiate(config.datamodule)
    datamodule.setup()
    # What was found in the folder: other keys depend on it.
    config.datamodule.kind = datamodule.kind
    with ExitStack() as stack:
        job = stack.enter_context(open_job(store, config, origin))
        MlflowLogger(store, job.run_id).log_hyperparams({**plain(config), **describe_data(datamodule)})
        answered, baselines = answer_all(config, datamodule, store, stack, job)
        measured = [item for item in answered if isinstance(item, Measured)]
        unmeasured = [item for item in answered if isinstance(item, Unmeasured)]
        profiles = profile_measured(config, measured, datamodule.kind)
        rows = []
        for index, item in enumerate(measured):
            at = find_reference(measured, item)
            reference = (None, None) if at is None else (measured[at], profiles[at])
            rows.append(make_row(config, item, profiles[index], *reference))
        rows += [make_unmeasured_row(config, item) for item in unmeasured]
        rows += [make_baseline_row(config, item) for item in baselines]
        write_rows(output / "rows.json", rows)
        items: list[Answers | Unmeasured] = [*measured, *unmeasured, *baselines]
        rows = [log_row(store, config, origin, item, row) for item, row in zip(items, rows, strict=True)]
        write_rows(output / "rows.json", rows)
    print(tables.to_plain(tables.tabulate_rows(rows), title=job.name))
    if rows[0].task == "heart_rate":
        print(tables.to_plain(tabulate_heart_rates(rows), title="as in P1"))
    for row in rows:
        for reason in row.reasons:
            print(f"{row.verdict} {row.name}: {reason}")
    rows = send_kept(store, output) or rows
    print(f"rows: {output / 'rows.json'}   compare: python compare.py --group {config.group}   browse: make ui")
    if (device := config.deploy.get("bundle")) is not None:
        chosen = measured[find_fitting([item.artifact for item in measured], device)]
        folder = output / f"bundle_{device}"
        build_bundle(store, chosen.run.run_id, device, folder, datamodule=chosen.candidate.datamodule)
        print(f"bundle of {chosen.run.name}: {folder}")
    failed = [row for row in rows if row.verdict == "FAIL"]
    if failed and config.gate == "enforce":
        raise GateFailed(", ".join(row.name for row in failed), [reason for row in failed for reason in row.reasons])
    return rows


def send_kept(store: Store, output: Path) -> list[Row]:
    """Send what the store missed while it was away; the job's rows, or none where it missed nothing.

    Raises
    ------
    TrackingError
        If the store is still away; the message says how to send it later.
    """
    if store.outbox is None or not store.outbox.waiting:
        return []
    try:
        store.push()
    except TrackingError as error:
        raise TrackingError(
            f"{error} This job's rows are in {output / 'rows.json'}, what the tracking store lacks is in"
            f" {store.outbox.folder}. When it is back: python runs.py push {output}"
        ) from error
    return read_rows_file(output / "rows.json")


def check_bundle(config: DictConfig) -> None:
    """Refuse a bundle that no file of this job could fill, before anything is trained.

    Raises
    ------
    ValueError
        If the device is unknown, or takes no file of the job's targets, or the job pools folds.
    """
    name = config.deploy.get("bundle")
    if name is None:
        return
    endings = find_device(name).endings
    made = [f".{target._target_.split('.')[1]}" for target in config.deploy.targets.values()]
    if not set(endings) & set(made):
        raise ValueError(f"deploy.bundle={name} takes {' or '.join(endings)}, but this job makes {', '.join(made)}")
    if config.datamodule.pooled:
        raise ValueError(f"deploy.bundle={name}: this job pools folds, each with its own model: there is none to ship")


def profile_measured(config: DictConfig, measured: Sequence[Measured], kind: str) -> list[Profile]:
    """Measure latency and memory of all files side by side."""
    if not measured:
        return []
    log.info("measuring latency and memory of %d files, side by side", len(measured))
    options = {name: value for name, value in plain(config.deploy.profile).items() if name != "layers"}
    artifacts = [item.artifact for item in measured]
    return profile_artifacts(artifacts, window_s=config.latency_window_s[kind], **options)


def open_job(store: Store, config: DictConfig, origin: "Origin") -> Any:
    """Open the parent run of this job."""
    name = f"{config.datamodule.name} {config.model.name} {config.compression.name}"
    tags = {"recipe": config.compression.name, "paper": config.model.paper, "data": config.datamodule.kind}
    if config.datamodule.leaky:
        tags["leaky"] = "true"
    return store.job(name, group=config.group, tags={**origin.tags, **tags})


def describe_data(datamodule: Any) -> dict[str, Any]:
    """Give counts and digests of the data, as parameters of the job."""
    return {
        "counts": datamodule.counts,
        "n_records": datamodule.leakage.n_records,
        "n_subjects": datamodule.leakage.n_subjects,
        "digests": data_digests(datamodule),
    }


def answer_all(
    config: DictConfig, datamodule: Any, store: Store, stack: ExitStack, job: OpenRun
) -> tuple[list[Measured | Unmeasured], list[Answers]]:
    """Answers of every candidate's files and of every baseline: on the one split, or pooled over all folds."""
    if not datamodule.pooled:
        split = (config, datamodule, store, stack, job)
        return list(measure_split(*split)), list(answer_baselines(*split))
    measured, baselines = [], []
    for own, fold, run in make_folds(config, datamodule, stack, job):
        split = (own, fold, store, stack, run)
        measured.append(list(measure_split(*split)))
        baselines.append(list(answer_baselines(*split)))

    def open_run(name: str) -> OpenRun:
        return stack.enter_context(job.child(name))

    return pool_folds(measured, open_run), pool_folds(baselines, open_run)


def find_reference(measured: Sequence[Measured], item: Measured) -> int | None:
    """Position of the file that a file is compared with: its candidate's reference on the same target."""
    for index, other in enumerate(measured):
        if other.candidate is item.candidate.reference and other.target == item.target:
            return index
    return None


@dataclass(frozen=True)
class Origin:
    """What a row must carry so that it can be made again."""

    texts: dict[str, str]
    tags: dict[str, str]


def find_origin(config: DictConfig) -> Origin:
    """Collect config, commit, uncommitted changes and package versions."""
    commit, diff = digests.git_state(ROOT)
    versions = digests.package_versions(re.split(r"[^\w.-]", need)[0] for need in requires("lightheart") or ())
    texts = {
        "config.yaml": OmegaConf.to_yaml(config, resolve=True),
        "diff.patch": diff,
        "packages.txt": "".join(f"{name}=={version}\n" for name, version in versions.items()),
        "python.txt": sys.version,
    }
    tags = {"mlflow.source.name": "train.py", "mlflow.source.git.commit": commit}
    return Origin(texts, {**tags, "uncommitted": str(bool(diff)).lower()})


def log_row(store: Store, config: DictConfig, origin: Origin, item: Answers | Unmeasured, row: Row) -> Row:
    """Write a row with its predictions, plots, weights, file, reports and origin to its run."""
    texts, figures = dict(origin.texts), {}
    files: list[Path | str] = []
    about: dict[str, Any] = {"tags": origin.tags}
    if isinstance(item, Unmeasured):
        files = [item.candidate.fit.weights, item.outcome.path]
    else:
        figures = draw_answers(item.predictions, row.name)
        about["predictions"] = item.predictions
    if isinstance(item, Measured):
        fit, artifact = item.candidate.fit, item.artifact
        texts |= item.texts
        if config.deploy.profile.layers:
            more_texts, more_figures = report_layers(artifact, row.name)
            texts, figures = {**texts, **more_texts}, {**figures, **more_figures}
        files = [fit.weights, artifact.path]
        about |= {
            "model_path": artifact.path if artifact.runtime == "onnxruntime" else None,
            "tags": {
                **origin.tags,
                **(file_tags(artifact) if not item.folds else {}),
                "paper": item.candidate.model.paper,
                "fit_run": fit.run_id,
            },
            "params": {f"fit.{name}": getattr(fit, name) for name in ("digest", "epochs", "seconds", "reused")},
        }
    images = {name: draw_png(figure) for name, figure in figures.items()}
    names = [*texts, *(Path(file).name for file in files)]
    texts |= describe_row(config, item, row, images, names, origin.tags, origin.texts["config.yaml"])
    return store.log_row(item.run.run_id, row, images=images, texts=texts, files=files, **about)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Run one job of the command line, or those of ``table=...``; a failed gate or job ends it with exit code 1."""
    # Lightning 2.6 calls what torch 2.13 deprecates; loading by whole batches from memory needs no workers.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    try:
        if "table" in config:
            fill_with_runs(config, HydraConfig.get().overrides.task, run)
        else:
            run(config)
    except (GateFailed, IncompleteTableError, TrackingError) as error:
        # A sweep goes on with its other jobs and reports the failure at its end.
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise
        sys.exit(str(error))


if __name__ == "__main__":
    main()
