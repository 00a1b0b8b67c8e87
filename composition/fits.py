"""Fits of one job: from a config node to a module, and to its weights, each once per digest."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from composition.facts import data_digests
from lightning_modules.classifier import Classifier
from lightning_modules.fitting import FitReport, fit_once, pick_precision
from tracking import digests
from tracking.logger import MlflowLogger
from tracking.store import OpenRun, Store

# Settings of trainer and callbacks that change what a person sees, not what a net learns; epochs are added per model.
NOT_IN_WEIGHTS = {"max_epochs", "progress_bar", "log_every_n_steps", "enable_model_summary", "enable_progress_bar"}


@dataclass
class Fitter:
    """Fits the modules of one job: each once per digest, its curves in the run that is open."""

    config: DictConfig
    datamodule: Any
    store: Store
    run: OpenRun
    report: FitReport | None = None
    training_s: float = 0.0
    # Whose weights the report is about.
    fitted: Classifier | None = None

    def start(self, run: OpenRun) -> None:
        """Log the fits that follow to `run`, and count their time anew."""
        self.run, self.training_s = run, 0.0

    def __call__(
        self,
        module: Classifier,
        about: Mapping[str, Any],
        model: DictConfig | None = None,
        *,
        max_epochs: int | None = None,
        datamodule: Any = None,
    ) -> Classifier:
        """Fit `module` in place; ``about`` is what its weights depend on beside model, data and trainer."""
        model = model or self.config.model
        data = datamodule or self.datamodule
        max_epochs = max_epochs or self.config.trainer.max_epochs or model.max_epochs[data.kind]
        depends_on = {**self._depends_on(module, model, data), "max_epochs": max_epochs, "about": dict(about)}
        self.report = fit_once(
            module,
            data,
            partial(self._make_trainer, max_epochs),
            Path(self.config.paths.floats),
            digests.digest(depends_on),
            self.config.seed,
            depends_on,
            self.run.run_id,
        )
        self.training_s += self.report.seconds
        self.fitted = module
        return module.eval()

    def _depends_on(self, module: Classifier, model: DictConfig, data: Any) -> dict[str, Any]:
        criterion = module.criterion
        loss = criterion if inspect.isfunction(criterion) else type(criterion)
        trainer, callbacks = (
            {key: value for key, value in plain(self.config[group]).items() if key not in NOT_IN_WEIGHTS}
            for group in ("trainer", "callbacks")
        )
        return {
            **data_digests(data),
            "batches": data.training_settings,
            "model": plain(model.module),
            "trainer": {**trainer, "precision": self._precision},
            "callbacks": callbacks,
            "seed": self.config.seed,
            "source": digests.digest_source(type(module.net), type(module), type(data), loss, fit_once),
        }

    @property
    def _precision(self) -> str:
        return pick_precision(self.config.trainer.precision, self.config.trainer.accelerator)

    def _make_trainer(self, max_epochs: int, folder: Path) -> pl.Trainer:
        callbacks = instantiate(self.config.callbacks, model_checkpoint={"dirpath": str(folder / "checkpoints")})
        make = instantiate(self.config.trainer)
        return make(
            max_epochs=max_epochs,
            precision=self._precision,
            callbacks=list(callbacks.values()),
            logger=MlflowLogger(self.store, self.run.run_id),
            default_root_dir=str(folder),
        )


def plain(config: Any) -> Any:
    """Resolve a config node to plain values."""
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config


def build_module(model: DictConfig, seed: int) -> Classifier:
    """Instantiate a model with weights that depend on the seed alone."""
    pl.seed_everything(seed, workers=True, verbose=False)
    return instantiate(model.module)
