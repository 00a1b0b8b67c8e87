"""MLflow's share of the training time: the time spent inside the logger over the time of the fit."""

import argparse
import logging
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_modules.classifier import Classifier
from lightning_modules.nets.cnn1d import Cnn1d
from tracking.logger import MlflowLogger
from tracking.store import initialise

LIMIT = 0.02
CLASS_NAMES = ("NORM", "MI", "STTC", "CD", "HYP")


class TimedLogger(MlflowLogger):
    """The project's logger with a clock around everything that it does."""

    spent_s = 0.0

    def log_metrics(self, *arguments: object, **options: object) -> None:
        """Log, and take the time."""
        start = time.perf_counter()
        super().log_metrics(*arguments, **options)  # type: ignore[arg-type]
        self.spent_s += time.perf_counter() - start

    def finalize(self, status: str) -> None:
        """Finalize, and take the time."""
        start = time.perf_counter()
        super().finalize(status)
        self.spent_s += time.perf_counter() - start


def main() -> None:
    """Print the share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batches", type=int, default=30)
    arguments = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    n = 64 * arguments.batches
    signals = torch.from_numpy(rng.normal(size=(n, 12, 250)).astype(np.float32))
    data = TensorDataset(signals, torch.from_numpy((rng.random((n, 5)) < 0.3).astype(np.float32)), torch.arange(n))
    module = Classifier(Cnn1d(12, 5, 250, (50, 150, 300)), CLASS_NAMES, partial(torch.optim.AdamW, lr=1e-3))
    with tempfile.TemporaryDirectory() as folder:
        store = initialise(f"sqlite:///{folder}/mlflow.db", artifact_location=str(Path(folder) / "mlruns"))
        with store.job("bench", group="bench") as job, job.child("student") as run:
            logger = TimedLogger(store, run.run_id)
            trainer = pl.Trainer(
                max_epochs=arguments.epochs,
                accelerator="cpu",
                logger=logger,
                log_every_n_steps=1,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            start = time.perf_counter()
            trainer.fit(module, DataLoader(data, 64), DataLoader(data, 64))
            seconds = time.perf_counter() - start
    print(f"MLflow's share of the training time {logger.spent_s / seconds:.4f} (target <= {LIMIT:g})")


if __name__ == "__main__":
    main()
