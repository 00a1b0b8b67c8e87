"""From a config to the models of a job: the recipe's teacher, the float model, the model after each step."""

import inspect
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from composition.facts import data_digests
from compression.recipe import Stage, Tools, apply_steps
from lightning_modules.classifier import Classifier
from lightning_modules.fitting import FitReport, fit_once, load_weights, pick_precision, save_weights
from tracking import digests
from tracking.logger import MlflowLogger
from tracking.store import OpenRun, Store

log = logging.getLogger(__name__)
# Settings of trainer and callbacks that change what a person sees, not what a net learns; epochs are added per model.
NOT_IN_WEIGHTS = {"max_epochs", "progress_bar", "log_every_n_steps", "enable_model_summary", "enable_progress_bar"}


@dataclass(frozen=True)
class Candidate:
    """A model on its way to a row.

    Attributes
    ----------
    role : {"teacher", "student"}
    model : DictConfig
        Its option of conf/model.
    stage : Stage
        Module, export specification and claims.
    run : OpenRun
        Where its fit was logged and its row goes.
    fit : FitReport
        Of the weights that it holds.
    training_s : float
        Seconds of the fits of its last step, when they were first done.
    reference : Candidate or None
        What its row is compared with.
    """

    role: str
    model: DictConfig
    stage: Stage
    run: OpenRun
    fit: FitReport
    training_s: float
    reference: "Candidate | None" = None

    @property
    def name(self) -> str:
        """Model and recipe in one word, unique within a job."""
        return f"{self.role}-{self.model.name}-{self.stage.recipe}"


@dataclass
class Fitter:
    """Fits the modules of one job: each once per digest, its curves in the run that is open."""

    config: DictConfig
    datamodule: Any
    store: Store
    run: OpenRun
    report: FitReport | None = None
    training_s: float = 0.0

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
    ) -> Classifier:
        """Fit `module` in place; ``about`` is what its weights depend on beside model, data and trainer."""
        model = model or self.config.model
        max_epochs = max_epochs or self.config.trainer.max_epochs or model.max_epochs[self.datamodule.kind]
        depends_on = {**self._depends_on(module, model), "max_epochs": max_epochs, "about": dict(about)}
        self.report = fit_once(
            module,
            self.datamodule,
            partial(self._make_trainer, max_epochs),
            Path(self.config.paths.floats),
            digests.digest(depends_on),
            self.config.seed,
            depends_on,
            self.run.run_id,
        )
        self.training_s += self.report.seconds
        return module.eval()

    def _depends_on(self, module: Classifier, model: DictConfig) -> dict[str, Any]:
        data, criterion = self.datamodule, module.criterion
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


def find_weights(source: str, store: Store, folder: Path) -> tuple[Path, dict[str, str]]:
    """Resolve a file, ``runs:/<run id>`` or ``models:/<name>@<alias>`` to weights on disk.

    Returns
    -------
    Path
    dict of str to str
        What is known of the data that they were trained on, as in `data_digests`; empty for a bare file.

    Raises
    ------
    ValueError
        If the run or the alias does not exist, or holds no weights.
    """
    from mlflow.exceptions import MlflowException

    if not source.startswith(("runs:/", "models:/")):
        about = Path(source).with_name("about.json")
        return Path(source), json.loads(about.read_text()) if about.is_file() else {}
    scheme, _, rest = source.partition(":/")
    try:
        if scheme == "models":
            name, _, alias = rest.partition("@")
            run_id = store.client.get_model_version_by_alias(name, alias).run_id
        else:
            run_id = rest.split("/")[0]
        tags = store.client.get_run(run_id).data.tags
        return Path(store.client.download_artifacts(run_id, "net.pt", str(folder))), tags
    except (MlflowException, OSError) as error:
        raise ValueError(f"no weights found at {source!r} in {store.tracking_uri!r}: {error}") from error


def make_teacher(config: DictConfig, fitter: Fitter) -> Classifier:
    """Fit the recipe's teacher, or load the weights that the config names.

    Raises
    ------
    ValueError
        If the weights do not fit the teacher's architecture on this data, or come from another split of it: patients
        that taught the teacher may be test patients here.
    """
    model = config.compression.teacher
    teacher = build_module(model, config.seed)
    if model.weights is None:
        return fitter(teacher, {}, model)
    try:
        found, origin = find_weights(model.weights, fitter.store, Path(config.paths.output))
        load_weights(teacher.net, found)
        check_origin(origin, fitter.datamodule, model.any_split)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"compression.teacher.weights={model.weights}: {error}. Choose the teacher's architecture with"
            " model@compression.teacher=..., and data with the leads and classes that it was trained on"
        ) from error
    path = Path(config.paths.output) / "teacher" / "net.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(teacher.net, path)
    fitter.report = FitReport(str(model.weights), str(path), teacher.monitor, float("nan"), 0, 0.0, reused=True)
    return teacher.eval()


def check_origin(origin: Mapping[str, str], datamodule: Any, any_split: bool) -> None:
    """Refuse weights from another split or preprocessing, or of unknown origin, unless `any_split` accepts them."""
    here = data_digests(datamodule)
    other = {name: origin.get(name, "unknown") for name, value in here.items() if origin.get(name) != value}
    if not other:
        return
    differing = ", ".join(f"{name} is {value}, here {here[name]}" for name, value in other.items())
    if not any_split:
        raise ValueError(
            f"it was trained on other data ({differing}), perhaps on the test patients of this split;"
            " compression.teacher.any_split=true uses it all the same"
        )
    log.warning("the teacher was trained on other data (%s): its patients may be test patients here", differing)


def make_candidates(config: DictConfig, fitter: Fitter, open_run: Callable[[str], OpenRun]) -> Iterator[Candidate]:
    """Yield the teacher if the recipe has one, the float model, and the model after each step.

    Parameters
    ----------
    config : DictConfig
    fitter : Fitter
    open_run : callable
        Opens the tracked run of a candidate, by name.
    """
    teacher: Candidate | None = None

    def candidate(role: str, model: DictConfig, stage: Stage, reference: Candidate | None) -> Candidate:
        if fitter.report is None:
            raise RuntimeError(f"{role} {model.name}: there is no fit behind these weights")
        return Candidate(role, model, stage, fitter.run, fitter.report, fitter.training_s, reference)

    if "teacher" in config.compression:
        fitter.start(open_run(f"teacher {config.compression.teacher.name}"))
        teacher = candidate("teacher", config.compression.teacher, Stage("none", make_teacher(config, fitter)), None)
        yield teacher
    fitter.start(open_run(f"student {config.model.name}"))
    module = fitter(build_module(config.model, config.seed), {})
    last = candidate("student", config.model, Stage("none", module), teacher)
    yield last
    steps = [instantiate(step) for step in config.compression.steps.values()]
    tools = Tools(
        datamodule=fitter.datamodule,
        fit=fitter,
        rebuild=lambda: build_module(config.model, config.seed),
        teacher=teacher.stage.module if teacher else None,
    )
    stages = apply_steps(module, steps, tools)
    for count in range(1, len(steps) + 1):
        fitter.start(open_run(f"student {config.model.name} {'_'.join(step.name for step in steps[:count])}"))
        last = candidate("student", config.model, next(stages), last)
        yield last
