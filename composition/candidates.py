"""From a config to the models of a job: the recipe's teacher, the float model, the model after each step."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from composition.fits import Fitter, build_module, plain
from composition.search import Weigh, search_recipes
from composition.weights import load_teacher
from compression.recipe import Evaluate, Stage, Tools, apply_steps, check_order, weights_digest
from compression.sensitivity import SensitivityReport
from compression.teachers import check_same_windows
from lightning_modules.classifier import Classifier
from lightning_modules.fitting import FitReport, save_weights
from lightning_modules.nets.ensemble import Ensemble
from tracking.store import OpenRun


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


def keep_weights(stage: Stage, fitter: Fitter, folder: Path) -> None:
    """Save weights that a step made without a fit, and let the fitter's report be about them."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(stage.module.net, folder / "net.pt")
    fitter.report = FitReport(
        digest=weights_digest(stage.module),
        weights=str(folder / "net.pt"),
        monitor=stage.module.monitor,
        best=float("nan"),
        epochs=0,
        seconds=0.0,
    )
    fitter.fitted = stage.module


def make_candidates(
    config: DictConfig,
    fitter: Fitter,
    open_run: Callable[[str], OpenRun],
    weigh: Weigh,
    evaluate: Evaluate,
    log_report: Callable[[SensitivityReport], None],
) -> Iterator[Candidate]:
    """Yield the teacher if the recipe has one, the float model, and the model after each step.

    A recipe with a search yields in the place of its steps the points that the search chooses.

    Parameters
    ----------
    config : DictConfig
    fitter : Fitter
    open_run : callable
        Opens the tracked run of a candidate, by name.
    weigh : callable
        Exports a candidate for a search and evaluates the file on validation.
    evaluate, log_report : callable
        What steps use to look into a model, see `compression.recipe.Tools`.
    """
    data = fitter.datamodule
    # Before anything is trained: options and order of the steps.
    steps = [instantiate(step) for step in config.compression.steps.values()]
    check_order(steps)
    teacher: Candidate | None = None

    def candidate(role: str, model: DictConfig, stage: Stage, data: Any, reference: Candidate | None) -> Candidate:
        if fitter.report is None:
            raise RuntimeError(f"{role} {model.name}: there is no fit behind these weights")
        if role == "student" and stage.module is not fitter.fitted:
            keep_weights(stage, fitter, Path(config.paths.output) / f"{role}-{model.name}-{stage.recipe}")
        return Candidate(role, model, stage, fitter.run, fitter.report, fitter.training_s, data, reference)

    if "teacher" in config.compression:
        model = config.compression.teacher
        fitter.start(open_run(f"teacher {model.name}"))
        teacher_data = make_teacher_data(config, data)
        stage = Stage("none", make_teacher(config, fitter, teacher_data))
        teacher = candidate("teacher", model, stage, teacher_data, None)
        yield teacher
    name = f"student {config.model.name}"
    fitter.start(open_run(name))
    module = fitter(build_module(config.model, config.seed), {})
    last = candidate("student", config.model, Stage("none", module), data, teacher)
    yield last
    tools = Tools(
        datamodule=data,
        fit=fitter,
        rebuild=lambda: build_module(config.model, config.seed),
        teacher=teacher.stage.module if teacher else None,
        teacher_data=teacher.datamodule if teacher and teacher.datamodule is not data else None,
        evaluate=evaluate,
        log_report=log_report,
    )
    if "search" in config.compression:

        def attempt(steps: DictConfig) -> Candidate:
            fitter.training_s = 0.0
            *_, stage = apply_steps(module, [instantiate(step) for step in steps.values()], tools)
            return candidate("student", config.model, stage, data, last)

        fitter.start(open_run(f"{name} search"))
        for point in search_recipes(config.compression, last, attempt, weigh):
            yield replace(point, run=open_run(f"{name} {point.stage.recipe}"))
        return
    stages = apply_steps(module, steps, tools)
    for count in range(1, len(steps) + 1):
        fitter.start(open_run(f"{name} {'_'.join(step.name for step in steps[:count])}"))
        last = candidate("student", config.model, next(stages), data, last)
        yield last
