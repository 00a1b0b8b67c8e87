"""Jobs that came to their end, found again by what they depend on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracking.search import IS_ROW, PARENT, search_runs

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DIGESTS = ("data_digest", "split_digest", "preprocessing_digest")


@dataclass(frozen=True, kw_only=True)
class FinishedJob:
    """A job whose runs are all closed as FINISHED: what was killed or failed half-way is none.

    Attributes
    ----------
    run_id : str
        Of the job.
    started_ms : int
        Since the epoch.
    row_ids : tuple of str
        Runs of its rows, in the order in which they were opened.
    digests : frozenset of tuple of str
        Data, split and preprocessing of its rows; a teacher may have seen other leads than its student.
    """

    run_id: str
    started_ms: int
    row_ids: tuple[str, ...]
    digests: frozenset[tuple[str, ...]]


def find_finished(client: "MlflowClient") -> dict[str, list[FinishedJob]]:
    """Find every finished job of a store by the digest of its configuration, newest first.

    Raises
    ------
    TrackingError
        If the store cannot be reached.
    """
    runs = {run.info.run_id: run for run in search_runs(client, "attributes.status = 'FINISHED'")}
    rows: dict[str, list[str]] = {}
    for run_id, run in runs.items():
        if run.data.tags.get(IS_ROW) == "true" and run.data.tags.get(PARENT) in runs:
            rows.setdefault(run.data.tags[PARENT], []).append(run_id)
    found: dict[str, list[FinishedJob]] = {}
    for parent, row_ids in rows.items():
        ordered = sorted(row_ids, key=lambda run_id: runs[run_id].info.start_time)
        tags = [runs[run_id].data.tags for run_id in ordered]
        job = FinishedJob(
            run_id=parent,
            started_ms=runs[parent].info.start_time,
            row_ids=tuple(ordered),
            digests=frozenset(tuple(tag.get(name, "") for name in DIGESTS) for tag in tags),
        )
        found.setdefault(tags[0].get("config_digest", ""), []).append(job)
    return {digest: sorted(jobs, key=lambda job: -job.started_ms) for digest, jobs in found.items()}


def choose_jobs(
    by_seed: Mapping[int, Sequence[FinishedJob]],
) -> tuple[dict[int, FinishedJob], list[FinishedJob]]:
    """Choose one job for each seed: the newest of the data that the newest job of all has seen.

    Parameters
    ----------
    by_seed : mapping of int to sequence of FinishedJob
        Newest first.

    Returns
    -------
    dict of int to FinishedJob
        Seeds without such a job are left out.
    list of FinishedJob
        All others.
    """
    every = [job for jobs in by_seed.values() for job in jobs]
    if not every:
        return {}, []
    digests = max(every, key=lambda job: job.started_ms).digests
    chosen = {}
    for seed, jobs in by_seed.items():
        same = [job for job in jobs if job.digests == digests]
        if same:
            chosen[seed] = same[0]
    return chosen, [job for job in every if job not in chosen.values()]
