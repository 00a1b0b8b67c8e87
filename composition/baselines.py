"""What every figure on this data must beat, as rows beside the models."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from composition.facts import describe
from composition.measurement import Answers
from lightning_modules.baselines import predict_irregularity, predict_prior
from tracking.store import OpenRun, Store

# Answers to the windows of a split, as `composition.task.Task.conclude` takes them: of classes,
# probabilities.
Predict = Callable[[str], Any]


def class_prior(datamodule: Any) -> Predict:
    """Answer with the shares of the classes in training."""
    targets = datamodule.targets("train")
    return lambda split: predict_prior(targets, len(datamodule.targets(split)))


def rr_irregularity(datamodule: Any, n_intervals: int) -> Predict:
    """Answer from how irregular the RR intervals around a beat, or of a window, are: a logistic regression.

    Parameters
    ----------
    datamodule : EcgDataModule
        Of beats or of RR windows, with two exclusive classes.
    n_intervals : int
        Intervals around each beat; windows of RR intervals have as many as they have.
    """
    train_rr_s, targets = datamodule.rr_s("train", n_intervals), datamodule.targets("train")
    return lambda split: predict_irregularity(train_rr_s, targets, datamodule.rr_s(split, n_intervals))


def answer_baselines(
    config: DictConfig, datamodule: Any, store: Store, stack: ExitStack, job: OpenRun
) -> Iterator[Answers]:
    """Yield the answers of the baselines that the config names."""
    task = instantiate(config.evaluation)
    for name, make in instantiate(config.baselines).items():
        run = stack.enter_context(job.child(f"baseline {name}", tags={"model": name}))
        predict = make(datamodule)
        looks = store.record_test_look(run.run_id, datamodule.split_digest)
        predictions, val_metrics = task.conclude(datamodule, predict("val"), predict("test"))
        yield Answers(
            run=run, predictions=predictions, val_metrics=val_metrics, looks=looks, facts=describe(datamodule)
        )
