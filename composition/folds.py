"""Cross-validation: the same job on every fold, then the answers of all folds as one."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig

from composition.facts import pool_facts
from composition.measurement import Answers, Measured, Unmeasured
from deploy.gate import Check
from tracking.answers import Answered
from tracking.hr_predictions import HeartRates, make_heart_rates
from tracking.predictions import Predictions
from tracking.statistics import point_metrics
from tracking.store import OpenRun

log = logging.getLogger(__name__)
# A check of all folds together is as good as its worst fold.
SEVERITY = ("INFO", "PASS", "INCONCLUSIVE", "FAIL")
Own = TypeVar("Own", bound=Answers | Unmeasured)


def count_folds(datamodule: Any) -> int:
    """Count the folds of a data module's split: as configured, or one for each subject."""
    configured = datamodule.split.keywords.get("n_folds")
    if configured is not None:
        return int(configured)
    return len(np.unique(np.concatenate([datamodule.subject_ids(side) for side in datamodule.splits])))


def make_folds(
    config: DictConfig, datamodule: Any, stack: ExitStack, job: OpenRun
) -> Iterator[tuple[DictConfig, Any, OpenRun]]:
    """Yield config, data module and run of every fold; each has a folder of its own for its files."""
    n_folds = count_folds(datamodule)
    for number in range(n_folds):
        log.info("fold %d of %d", number + 1, n_folds)
        own = deepcopy(config)
        own.datamodule.split.fold = number
        own.paths.output = f"{config.paths.output}/fold_{number}"
        fold = instantiate(own.datamodule)
        fold.setup()
        yield own, fold, stack.enter_context(job.child(f"fold {number}", tags={"fold": number}))


def pool_folds(folds: Sequence[Sequence[Own]], open_run: Callable[[str], OpenRun]) -> list[Own]:
    """Join what was measured on each fold, position by position.

    Parameters
    ----------
    folds : sequence of sequence of Answers
        The same candidates in the same order, on every fold.
    open_run : callable
        Opens the run of a row, by name.
    """
    return [_pool(items, open_run(items[0].run.name)) for items in zip(*folds, strict=True)]


def _pool(items: Sequence[Any], run: OpenRun) -> Any:
    if isinstance(items[0], Unmeasured):
        return replace(items[0], run=run, facts=pool_facts([item.facts for item in items]))
    figures = tuple(
        {
            "fold": number,
            "run_id": item.run.run_id,
            "n_test": len(item.predictions.record_ids),
            "n_subjects": len(np.unique(item.predictions.subject_ids)),
            # What a fold leaves undefined, such as the precision of a class that nothing was decided for, is left out.
            "metrics": {name: value for name, value in point_metrics(item.predictions).items() if np.isfinite(value)},
        }
        for number, item in enumerate(items)
    )
    pooled = replace(
        items[0],
        run=run,
        predictions=pool_predictions([item.predictions for item in items]),
        val_metrics=_mean([item.val_metrics for item in items]),
        looks=None if any(item.looks is None for item in items) else max(item.looks for item in items),
        facts=pool_facts([item.facts for item in items]),
        folds=figures,
    )
    if isinstance(pooled, Measured):
        checks = [item.checks for item in items if isinstance(item, Measured)]
        return replace(pooled, checks=pool_checks(checks))
    return pooled


def pool_predictions(folds: Sequence[Answered]) -> Answered:
    """Join out-of-fold answers; every window of a classifier keeps the thresholds of its own fold.

    Raises
    ------
    ValueError
        If a window is in the test side of several folds.
    """
    if isinstance(folds[0], HeartRates):
        joined = {item.name: np.concatenate([getattr(fold, item.name) for fold in folds]) for item in fields(folds[0])}
        order = np.argsort(joined["video_ids"], kind="stable")
        by_video = {name: values[order] for name, values in joined.items() if name.startswith("video_")}
        return make_heart_rates(**joined | by_video)
    return _pool_classes([fold for fold in folds if isinstance(fold, Predictions)])


def _pool_classes(folds: Sequence[Predictions]) -> Predictions:
    def joined(name: str) -> Any:
        return np.concatenate([getattr(fold, name) for fold in folds])

    first = folds[0]
    return replace(
        first,
        record_ids=joined("record_ids"),
        subject_ids=joined("subject_ids"),
        targets=joined("targets"),
        probabilities=joined("probabilities"),
        thresholds=np.concatenate([np.broadcast_to(fold.thresholds, fold.probabilities.shape) for fold in folds]),
        times_s=None if first.times_s is None else joined("times_s"),
    )


def pool_checks(folds: Sequence[Sequence[Check]]) -> list[Check]:
    """Give each check's worst fold."""
    worst: dict[str, Check] = {}
    for checks in folds:
        for check in checks:
            known = worst.get(check.name)
            if known is None or SEVERITY.index(check.status) > SEVERITY.index(known.status):
                worst[check.name] = check
    return list(worst.values())


def summarise_folds(folds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean and standard deviation (n - 1) over folds: ``folds/<metric>_mean`` and ``folds/<metric>_std``.

    A metric that some fold lacks, because a class is absent there, is left out.
    """
    summary = {}
    for name in _shared(folds):
        values = np.array([fold[name] for fold in folds])
        metric = name.removeprefix("test/")
        summary[f"folds/{metric}_mean"] = float(values.mean())
        summary[f"folds/{metric}_std"] = float(values.std(ddof=1))
    return summary


def _mean(folds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([fold[name] for fold in folds])) for name in _shared(folds)}


def _shared(folds: Sequence[Mapping[str, float]]) -> list[str]:
    return [name for name in folds[0] if all(np.isfinite(fold.get(name, np.nan)) for fold in folds)]
