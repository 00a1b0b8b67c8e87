"""Jobs of a table without any training: their configuration, the store that they fill, what stands in for a run."""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

from hydra import compose, initialize_config_dir

import tables
from composition import tables as jobs
from composition.rows import find_setting
from tests.configs import CONF
from tests.mlflow_template import fresh_store
from tests.tracking_examples import example_row
from tracking.digests import digest
from tracking.rows import Estimate

TABLE = "p3_models"
DIGESTS = {"data_digest": "data", "split_digest": "split", "preprocessing_digest": "prep"}


@contextmanager
def hydra():
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        yield


def table_config(folder, *overrides, table=TABLE):
    config = compose("config", [f"table={table}", "group=g", f"paths.output={folder / 'out'}", *overrides])
    (folder / "out").mkdir(exist_ok=True)
    return config


def open_store(folder, monkeypatch):
    """A store that the jobs of a test write to and find, and data that are as they were."""
    own = fresh_store(folder)
    monkeypatch.chdir(folder)  # locks lie in the output folder
    monkeypatch.setattr(jobs, "initialise", lambda **options: own)
    monkeypatch.setattr(tables, "initialise", lambda **options: own)
    data = SimpleNamespace(setup=lambda: None, pooled=False, **DIGESTS)
    monkeypatch.setattr(jobs, "instantiate", lambda config: data)
    return own


def make_run(store, ran, *, data="synthetic", value=0.93, fails=()):
    """Stand in for a job: one row in the store, or an error."""

    def run(config):
        model = config.model.name
        ran.append((model, config.seed))
        if model in fails:
            raise RuntimeError("the disk is on fire")
        config.datamodule.kind = data
        row = replace(
            example_row(data=data, model=model, seed=config.seed, metrics={"val/auroc_macro": Estimate(value)}),
            config_digest=digest(find_setting(config)),
            **DIGESTS,
        )
        with store.job(model, group=config.group) as job, job.child(model) as run:
            return [store.log_row(run.run_id, row)]

    return run
