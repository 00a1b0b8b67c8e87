from dataclasses import replace

import pytest

from tests.mlflow_template import fresh_store
from tests.tracking_examples import example_row
from tracking.finished import FinishedJob, choose_jobs, find_finished


def log_job(store, *, config="config-a", data="data-a", fails=False, name="student"):
    """Log a job with one row; its id."""
    row = replace(example_row(name=name), config_digest=config, data_digest=data, preprocessing_digest="p")
    try:
        with store.job("job", group="g") as job:
            with job.child(name) as run:
                store.log_row(run.run_id, row)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    return job.run_id


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return fresh_store(tmp_path_factory.mktemp("finished"))


def test_find_finished_gives_jobs_by_their_configuration_newest_first(store):
    first, second = log_job(store), log_job(store)
    other = log_job(store, config="config-b", data="data-b")
    found = find_finished(store.client)
    assert [job.run_id for job in found["config-a"]] == [second, first]
    (job,) = found["config-b"]
    assert job.run_id == other
    assert job.digests == {("data-b", "split-a", "p")}
    assert store.read_row(job.row_ids[0]).config_digest == "config-b"


def test_find_finished_leaves_out_what_was_killed_half_way(store):
    log_job(store, config="config-killed", fails=True)
    # Killed hard: nothing closes its runs.
    run = store.client.create_run(store.experiment_id, tags={"group": "g"})
    row = store.client.create_run(
        store.experiment_id,
        tags={"mlflow.parentRunId": run.info.run_id, "is_row": "true", "config_digest": "config-open"},
    )
    store.client.set_terminated(row.info.run_id, "FINISHED")
    assert not {"config-killed", "config-open"} & set(find_finished(store.client))


def job(name, started_ms, data="a"):
    digests = frozenset({(data, "split", "p")})
    return FinishedJob(run_id=name, started_ms=started_ms, row_ids=(f"{name}-row",), digests=digests)


def test_choose_jobs_takes_the_newest_of_two_and_lists_both():
    chosen, others = choose_jobs({0: [job("new", 2), job("old", 1)]})
    assert chosen[0].run_id == "new"
    assert [other.run_id for other in others] == ["old"]


def test_choose_jobs_never_joins_seeds_of_different_data():
    jobs = {0: [job("new", 9, "b"), job("old", 1)], 1: [job("one", 5)], 2: [job("two-new", 6), job("two", 3, "b")]}
    chosen, others = choose_jobs(jobs)
    assert {seed: own.run_id for seed, own in chosen.items()} == {0: "new", 2: "two"}
    assert {other.run_id for other in others} == {"old", "one", "two-new"}


def test_choose_jobs_of_nothing_is_nothing():
    assert choose_jobs({0: [], 1: []}) == ({}, [])
