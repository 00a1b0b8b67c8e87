"""From a config to the models of a job: the recipe's teacher, the float model, the model after each step."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from composition.facts import data_digests
from composition.weights import load_teacher
from compression.recipe import Stage, Tools, apply_steps, weights_digest
from compression.teachers import check_same_windows
from lightning_modules.classifier import Classifier
from lightning_modules.fitting import FitReport, fit_once, pick_precision, save_weights
from lightning_modules.nets.ensemble import Ensemble
from tracking import digests
from tracking.logger import MlflowLogger
from tracking.store import OpenRun, Store

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
    datamodule : LightningDataModule
        What it sees: a teacher may have other leads than the student, of the same windows.
    reference : Candidate or None
        What its row is compared with.
    """

    role: str
    model: DictConfig
    stage: Stage
    run: OpenRun
    fit: FitReport
    training_s: float
    datamodule: Any
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


def make_teacher_data(config: DictConfig, datamodule: Any) -> Any:
    """Set up what the teacher sees: the job's data, with the changes of ``compression.teacher.data``.

    Raises
    ------
    ValueError
        If it does not hold the same windows in the same order.
    """
    changes = config.compression.teacher.data
    if not changes or all(plain(config.datamodule[key]) == plain(value) for key, value in changes.items()):
        return datamodule
    own = deepcopy(config)
    own.datamodule.merge_with(changes)
    teacher_data = instantiate(own.datamodule)
    teacher_data.setup()
    check_same_windows(datamodule, teacher_data)
    return teacher_data


def make_teacher(config: DictConfig, fitter: Fitter, datamodule: Any) -> Classifier:
    """Fit the recipe's teacher, or load the weights that the config names; several of them answer as one.

    Parameters
    ----------
    config : DictConfig
    fitter : Fitter
        Its report is the teacher's afterwards.
    datamodule : LightningDataModule
        What the teacher sees.

    Raises
    ------
    ValueError
        If there are other weights than members, or `load_teacher` refuses them.
    """
    model, folder = config.compression.teacher, Path(config.paths.output)
    given = plain(model.weights)
    sources = [given] if isinstance(given, str) else given
    if model.members < 1 or (sources is not None and len(sources) != model.members):
        raise ValueError(
            f"compression.teacher.members={model.members!r} and compression.teacher.weights={given!r}: expected at"
            " least one member, and weights for each of them or null"
        )
    members, reports = [], []
    for number in range(model.members):
        member = build_module(model, config.seed + number)
        if sources is None:
            # The first is the teacher that stands alone.
            fitter(member, {"member": number} if number else {}, model, datamodule=datamodule)
            reports.append(fitter.report)
        else:
            load_teacher(member.net, str(sources[number]), fitter.store, folder, datamodule, model.any_split)
        members.append(member.eval())
    if len(members) == len(reports) == 1:
        return members[0]
    teacher = members[0]
    if len(members) > 1:
        teacher.net = Ensemble([member.net for member in members]).eval()
    path = folder / "teacher" / "net.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(teacher.net, path)
    fits = [report for report in reports if report is not None]
    fitter.report = FitReport(
        digest=weights_digest(teacher) if fits else str(given),
        weights=str(path),
        monitor=teacher.monitor,
        best=float("nan"),
        epochs=sum(report.epochs for report in fits),
        seconds=sum(report.seconds for report in fits),
        reused=all(report.reused for report in fits),
    )
    return teacher


def make_candidates(config: DictConfig, fitter: Fitter, open_run: Callable[[str], OpenRun]) -> Iterator[Candidate]:
    """Yield the teacher if the recipe has one, the float model, and the model after each step.

    Parameters
    ----------
    config : DictConfig
    fitter : Fitter
    open_run : callable
        Opens the tracked run of a candidate, by name.
    """
    data = fitter.datamodule
    teacher: Candidate | None = None

    def candidate(role: str, model: DictConfig, stage: Stage, data: Any, reference: Candidate | None) -> Candidate:
        if fitter.report is None:
            raise RuntimeError(f"{role} {model.name}: there is no fit behind these weights")
        return Candidate(role, model, stage, fitter.run, fitter.report, fitter.training_s, data, reference)

    if "teacher" in config.compression:
        model = config.compression.teacher
        fitter.start(open_run(f"teacher {model.name}"))
        teacher_data = make_teacher_data(config, data)
        stage = Stage("none", make_teacher(config, fitter, teacher_data))
        teacher = candidate("teacher", model, stage, teacher_data, None)
        yield teacher
    fitter.start(open_run(f"student {config.model.name}"))
    module = fitter(build_module(config.model, config.seed), {})
    last = candidate("student", config.model, Stage("none", module), data, teacher)
    yield last
    steps = [instantiate(step) for step in config.compression.steps.values()]
    tools = Tools(
        datamodule=data,
        fit=fitter,
        rebuild=lambda: build_module(config.model, config.seed),
        teacher=teacher.stage.module if teacher else None,
        teacher_data=teacher.datamodule if teacher and teacher.datamodule is not data else None,
    )
    stages = apply_steps(module, steps, tools)
    for count in range(1, len(steps) + 1):
        fitter.start(open_run(f"student {config.model.name} {'_'.join(step.name for step in steps[:count])}"))
        last = candidate("student", config.model, next(stages), data, last)
        yield last
