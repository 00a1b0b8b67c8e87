import logging

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.mlflow_template import fresh_store
from tracking import connection, logger
from tracking.logger import MlflowLogger


@pytest.fixture
def store(tmp_path):
    return fresh_store(tmp_path)


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests move by hand; waiting moves it too."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(logger.time, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(connection.time, "sleep", lambda seconds: None)
    return Clock


def count_batches(store, monkeypatch):
    """Sizes of the batches of metrics that reach the store."""
    sizes, real = [], store.client.log_batch

    def log_batch(run_id, metrics=(), params=(), tags=(), **options):
        sizes.append(len(metrics))
        return real(run_id, metrics=metrics, params=params, tags=tags, **options)

    monkeypatch.setattr(store.client, "log_batch", log_batch)
    return sizes


def values_of(store, run_id, name):
    return [(item.step, item.value) for item in store.client.get_metric_history(run_id, name)]


def test_logger_writes_in_batches(store, clock, monkeypatch):
    with store.job("job", group="g") as job:
        sizes = count_batches(store, monkeypatch)
        log = MlflowLogger(store, job.run_id, flush_s=10)
        for step in range(100):
            clock.now += 0.25
            log.log_metrics({"train/loss": 1 / (step + 1), "epoch": 0}, step)
            log.save()
        log.finalize("success")
        log.finalize("success")
    assert sizes == [80, 80, 40]
    assert values_of(store, job.run_id, "train/loss") == [(step, 1 / (step + 1)) for step in range(100)]


def test_logger_writes_early_when_memory_fills(store, clock, monkeypatch):
    with store.job("job", group="g") as job:
        sizes = count_batches(store, monkeypatch)
        log = MlflowLogger(store, job.run_id, flush_metrics=30)
        for step in range(35):
            log.log_metrics({"loss": 1.0}, step)
    assert sizes == [30]


def test_logger_survives_a_store_that_is_down(store, clock, monkeypatch, caplog):
    attempts = []

    def fail(*arguments, **options):
        attempts.append(clock.now)
        raise ConnectionError("connection refused")

    with store.job("job", group="g") as job:
        log = MlflowLogger(store, job.run_id, flush_s=10, flush_metrics=50)
        with monkeypatch.context() as patch:
            patch.setattr(store.client, "log_batch", fail)
            for step in range(200):
                clock.now += 1
                log.log_metrics({"loss": float(step)}, step)
            # Waits double: the training is not held up by every epoch's attempt.
            assert attempts == [10, 30, 70, 150]
            log.log_hyperparams({"width": 3})
            log.finalize("success")
        assert "200 training metrics" in caplog.text
        log.log_metrics({"loss": 200.0}, 200)
        log.finalize("success")
    # Nothing was lost once the store was back.
    assert values_of(store, job.run_id, "loss") == [(step, float(step)) for step in range(201)]
    assert "connection refused" in caplog.text


def test_logger_takes_values_and_names_of_every_kind(store, clock):
    with store.job("job", group="g") as job:
        log = MlflowLogger(store, job.run_id)
        log.log_metrics({"val/auroc:macro?": torch.tensor(0.5), "loss": float("nan")}, None)
        log.log_hyperparams({"model": {"widths": [50, 150], "dropout": 0.2}, "teacher": None})
        log.finalize("success")
    data = store.client.get_run(job.run_id).data
    assert data.metrics["val/auroc_macro_"] == 0.5
    assert data.params == {"model.widths": "[50, 150]", "model.dropout": "0.2"}
    assert (log.version, log.name, log.experiment) == (job.run_id, store.experiment_id, store.client)


class Line(pl.LightningModule):
    def __init__(self, width=1):
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(1, width)

    def training_step(self, batch, index):
        loss = self.layer(batch[0]).square().mean()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(log, folder, module, **options):
    trainer = pl.Trainer(
        max_epochs=2,
        logger=log,
        log_every_n_steps=1,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    trainer.fit(module, DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=2))


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")
def test_logger_follows_a_lightning_fit(store, tmp_path, monkeypatch):
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with store.job("job", group="g") as job:
        sizes = count_batches(store, monkeypatch)
        fit(MlflowLogger(store, job.run_id), tmp_path, Line())
        # Hyperparameters, and one batch of metrics for all eight steps.
        assert sizes == [0, 16]
        assert store.client.get_run(job.run_id).info.status == "RUNNING"
    assert [step for step, _ in values_of(store, job.run_id, "train/loss")] == list(range(8))
    assert store.client.get_run(job.run_id).data.params == {"width": "1"}


class Broken(Line):
    def on_train_epoch_end(self):
        raise RuntimeError("broken")


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")
def test_logger_keeps_the_metrics_of_a_fit_that_failed(store, tmp_path):
    opened = []

    def fail():
        with store.job("job", group="g") as job:
            opened.append(job.run_id)
            fit(MlflowLogger(store, job.run_id), tmp_path, Broken())

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    assert len(values_of(store, opened[0], "train/loss")) == 4
    assert store.client.get_run(opened[0]).info.status == "FAILED"
