"""The papers' tables: the jobs that fill them, run where MLflow does not hold them yet, and found again for reports."""

import logging
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from composition.facts import DIGESTS, data_digests, describe, pool_facts
from composition.fits import plain
from composition.folds import count_folds
from composition.rows import find_setting
from datamodules.cache import locked
from tracking.cells import CellError, JobRows
from tracking.digests import digest
from tracking.finished import FinishedJob, choose_jobs, find_finished
from tracking.rows import DATA_KINDS, Row, write_rows
from tracking.store import Store, initialise

log = logging.getLogger(__name__)
Run = Callable[[DictConfig], list[Row]]
# Overrides that are about the table and not about its jobs.
OF_TABLE = ("table", "profile", "allow_missing", "group", "seed", "paths.output")


class IncompleteTableError(RuntimeError):
    """Jobs of a table that failed, or whose data are not there."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job of a table, under any seed.

    Attributes
    ----------
    name : str
    config : DictConfig
        As `train.py` would compose it, but for seed, group and output.
    missing : str
        Why it cannot run: the data that are not there; else empty.
    not_comparable : str or None
        Why its figures cannot be held against published ones.
    """

    name: str
    config: DictConfig
    missing: str
    not_comparable: str | None


def plan_jobs(
    config: DictConfig, overrides: Sequence[str] = (), known: dict[Any, DictConfig] | None = None
) -> list[Job]:
    """Compose every job of a table.

    Overrides come in this order, the last one wins: those of the profile for the job's data, the job's, with a quick
    profile its ``quick`` ones, the profile's for all jobs, those of the command line.

    Parameters
    ----------
    config : DictConfig
        With ``table`` and ``profile``.
    overrides : sequence of str
        Of the command line; those about the table itself are left out.
    known : dict, optional
        Configs composed before, by their overrides; it is added to. Several tables have jobs in common.

    Raises
    ------
    CellError
        If a job needs data that the profile does not know.
    """
    table, profile = config.table, config.profile
    known = {} if known is None else known
    jobs = []
    for name, job in table.jobs.items():
        if job.data not in profile.data:
            raise CellError(
                f"table {table.name!r}, job {name!r}: profile {profile.name!r} knows no data {job.data!r}, expected one"
                f" of {list(profile.data)}"
            )
        data = profile.data[job.data]
        quick = job.get("quick", []) if profile.quick else []
        own = [item for item in overrides if not _is_of_table(item)]
        # A recipe that is meant to fail its gate is a row like others.
        key = (*data.overrides, *job.overrides, *quick, *profile.overrides, "gate=report", *own)
        if key not in known:
            known[key] = compose("config", [*key, "group=table", "paths.output=table"])
        jobs.append(
            Job(
                name=str(name),
                config=known[key],
                missing=find_missing(known[key]) if data.kind == "real" else "",
                not_comparable=data.not_comparable,
            )
        )
    return jobs


def find_missing(config: DictConfig) -> str:
    """Say which data of a job are not there; empty if all are."""
    data = config.datamodule
    for key in ("root", "test_root"):
        if key not in data or (key == "test_root" and data.get("test_source") is None):
            continue
        if data[key] is None:
            return f"no data: datamodule.{key} of {data.name} names no folder (paths.* on the command line)"
        if not Path(data[key]).is_dir() and not data.get("download"):
            return f"no data: there is no folder {data[key]} (datamodule.{key} of {data.name})"
    return ""


def fill_with_runs(config: DictConfig, overrides: Sequence[str], run: Run) -> list[Row]:
    """Run the jobs of a table that MLflow does not hold yet, under every seed of the profile.

    Parameters
    ----------
    config : DictConfig
        With ``table`` and ``profile``.
    overrides : sequence of str
        Of the command line.
    run : callable
        Carries out one job.

    Returns
    -------
    list of Row
        Of all jobs, those found in MLflow included; also in ``rows.json`` of the table's folder.

    Raises
    ------
    IncompleteTableError
        After all other jobs: if one failed, or if its data are not there and ``allow_missing`` is not set.
    """
    store = initialise(**config.tracking)
    finished = find_finished(store.client)
    rows: list[Row] = []
    failed: list[str] = []
    for job in plan_jobs(config, overrides):
        if job.missing:
            log.warning("%s %s: not measured, %s", config.table.name, job.name, job.missing)
            failed += [] if config.allow_missing else [f"{job.name}: {job.missing}"]
            continue
        for seed in config.profile.seeds:
            name = f"{job.name}-seed{seed}"
            own = prepare(job, seed, config.group, f"{config.paths.output}/{name}")
            try:
                rows += find_or_run(own, f"{config.table.name} {name}", store, finished, run)
            except Exception as error:
                # The other jobs of a night do not depend on this one.
                log.exception("%s %s failed", config.table.name, name)
                failed.append(f"{name}: {type(error).__name__}: {error}")
    write_rows(Path(config.paths.output) / "rows.json", rows)
    if failed:
        raise IncompleteTableError(f"table {config.table.name}: " + "; ".join(failed))
    return rows


def find_or_run(
    config: DictConfig, name: str, store: Store, finished: Mapping[str, Sequence[FinishedJob]], run: Run
) -> list[Row]:
    """Rows of a job: from MLflow where it holds them. Of two processes that want the same one, one waits for them."""
    locks = Path(config.paths.floats) / "jobs"
    locks.mkdir(parents=True, exist_ok=True)
    with locked(locks / f"{setting_digests(config)[0]}.lock"):
        # The store is read again only for what is to be run: another process may have run it since.
        held = find_held(config, finished) or find_held(config, find_finished(store.client))
        if held is None:
            log.info("%s", name)
            return run(config)
    log.info("%s: MLflow holds it, run %s", name, held.run_id)
    return [store.read_row(run_id) for run_id in held.row_ids]


def prepare(job: Job, seed: int, group: str, output: str) -> DictConfig:
    """Give a job's configuration under one seed."""
    config = deepcopy(job.config)
    OmegaConf.set_struct(config, False)
    config.seed, config.group, config.paths.output = seed, group, output
    return config


def setting_digests(config: DictConfig) -> list[str]:
    """Digests that rows of this job have: the kind of the data is known only when they were read."""
    setting = find_setting(config)
    return [digest({**setting, "datamodule": {**setting["datamodule"], "kind": kind}}) for kind in DATA_KINDS]


def find_held(config: DictConfig, finished: Mapping[str, Sequence[FinishedJob]]) -> FinishedJob | None:
    """Find the newest finished job of the same configuration, data, split and preprocessing."""
    jobs = [job for key in setting_digests(config) for job in finished.get(key, ())]
    if not jobs:
        return None
    datamodule = instantiate(config.datamodule)
    datamodule.setup()
    facts = data_digests(datamodule)
    if datamodule.pooled:
        folds = []
        for number in range(count_folds(datamodule)):
            own = deepcopy(config.datamodule)
            own.split.fold = number
            fold = instantiate(own)
            fold.setup()
            folds.append(describe(fold))
        facts = {name: getattr(pool_facts(folds), name) for name in DIGESTS}
    wanted = tuple(facts[name] for name in DIGESTS)
    return next((job for job in jobs if wanted in job.digests), None)


def find_rows(
    config: DictConfig,
    store: Store,
    finished: dict[str, list[FinishedJob]],
    overrides: Sequence[str] = (),
    known: dict[Any, DictConfig] | None = None,
) -> dict[str, JobRows]:
    """Find what the store holds for each job of a table.

    Parameters
    ----------
    config : DictConfig
        With ``table`` and ``profile``.
    store : Store
    finished : dict of str to list of FinishedJob
        From `tracking.finished.find_finished`.
    overrides, known
        As in `plan_jobs`.
    """
    seeds = plain(config.profile.seeds)
    return {job.name: _find_job_rows(job, seeds, store, finished) for job in plan_jobs(config, overrides, known)}


def _find_job_rows(job: Job, seeds: Sequence[int], store: Store, finished: dict[str, list[FinishedJob]]) -> JobRows:
    by_seed: dict[int, list[FinishedJob]] = {}
    for seed in seeds:
        keys = setting_digests(prepare(job, seed, "table", "table"))
        # Real recordings come first, whatever else was run.
        by_seed[seed] = next((finished[key] for key in keys if key in finished), [])
    chosen, others = choose_jobs(by_seed)
    rows = {seed: tuple(store.read_row(run_id) for run_id in own.row_ids) for seed, own in chosen.items()}
    return JobRows(
        rows=rows,
        others=tuple(other.run_id for other in others),
        n_seeds=len(seeds),
        absent="" if rows else job.missing or "no finished run",
        no_data=not rows and bool(job.missing),
        not_comparable=job.not_comparable,
    )


def _is_of_table(override: str) -> bool:
    key = override.partition("=")[0].lstrip("+~").partition("@")[0]
    return any(key == name or key.startswith(f"{name}.") for name in OF_TABLE)
