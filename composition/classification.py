"""Windows with classes: probabilities, thresholds of validation, and parity in log odds and flipped decisions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from composition.task import ALL, Rows
from composition.window_rules import describe_windows
from deploy import gate
from deploy.artifact import Artifact
from lightning_modules.metrics import choose_thresholds, classification_metrics, to_log_odds, to_probabilities
from tracking.headline import Headline, find_headline
from tracking.predictions import Predictions, make_predictions

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Classification:
    """Evaluate classifiers, multi-label or with exclusive classes: a `composition.task.Task`.

    Parameters
    ----------
    threshold_rule : {"f1", "accuracy", "half"} or None
        What the thresholds serve; by default "half" where classes are exclusive and "f1" where they are not.
    parity_windows : int
        Test windows on which the exported file is held against torch.
    batch_size : int, default 256
        Windows of one call of a file.
    chunk_size : int, optional
        Windows that are made at once.
    """

    name: ClassVar[str] = "classification"

    threshold_rule: str | None
    parity_windows: int
    batch_size: int = 256
    chunk_size: int | None = None

    @property
    def headline(self) -> Headline:
        """Macro AUROC, whatever the level: a search compares trials on the same windows."""
        return find_headline(self.name)

    def make_example(self, datamodule: Any) -> Tensor:
        """Zeros (2, leads, time)."""
        return torch.zeros(2, datamodule.n_leads, datamodule.n_samples)

    def describe_input(self, datamodule: Any) -> dict[str, Any]:
        """Rate, unit, leads, classes, normaliser, and how windows are made."""
        normalizer = datamodule.normalizer
        return {
            "fs": datamodule.fs,
            "unit": datamodule.unit,
            "lead_names": datamodule.lead_names,
            "class_names": datamodule.class_names,
            "level": datamodule.level,
            "exclusive": datamodule.exclusive,
            "windows": describe_windows(datamodule),
            "mean_mv": [float(value) for value in normalizer.mean_mv],
            "std_mv": [float(value) for value in normalizer.std_mv],
        }

    def read(self, datamodule: Any, split: str, outputs: Floats) -> NDArray[np.float64]:
        """Probabilities (n, classes) of logits."""
        return to_probabilities(outputs, datamodule.exclusive)

    def conclude(self, datamodule: Any, val: Floats, test: Floats) -> tuple[Predictions, dict[str, float]]:
        """Choose thresholds on validation and apply them to test; probabilities (n, classes) of either."""
        targets, names, exclusive = datamodule.targets("val"), datamodule.class_names, datamodule.exclusive
        thresholds = choose_thresholds(val, targets, exclusive, self.threshold_rule or ("half" if exclusive else "f1"))
        predictions = make_predictions(
            datamodule.record_ids("test"),
            datamodule.subject_ids("test"),
            datamodule.targets("test"),
            test,
            names,
            thresholds,
            exclusive=exclusive,
            level=datamodule.level,
            times_s=datamodule.times_s("test"),
        )
        return predictions, classification_metrics(val, targets, names, thresholds, "val", exclusive, datamodule.level)

    def weigh(self, datamodule: Any, outputs: Floats, rows: Rows = ALL) -> float:
        """Macro AUROC of logits (n, classes) on validation, or on some of its rows."""
        names, exclusive = datamodule.class_names, datamodule.exclusive
        half = np.full(len(names), 0.5)
        val = self.read(datamodule, "val", outputs)
        metrics = classification_metrics(val, datamodule.targets("val")[rows], names, half, "val", exclusive)
        return metrics[self.headline.named("val")]

    def to_scores(self, datamodule: Any, outputs: Floats) -> Floats:
        """Log odds of each class."""
        return to_log_odds(outputs, datamodule.exclusive)

    def time_stages(self, datamodule: Any, artifact: Artifact) -> dict[str, float]:
        """Nothing: the net is all there is."""
        return {}

    def check_parity(
        self, datamodule: Any, answers: Predictions, net: Floats, file: Floats, precision: str
    ) -> list[gate.Check]:
        """Compare log odds, decisions and macro AUROC; logits (n, classes) of the first test windows."""
        exclusive = datamodule.exclusive
        return gate.check_parity(
            to_log_odds(net, exclusive),
            to_log_odds(file, exclusive),
            answers.thresholds,
            precision,
            delta_auroc=auroc_difference(file, net, answers.targets[: len(net)], answers.class_names, exclusive),
        )


def auroc_difference(
    logits: Floats,
    reference: Floats,
    targets: NDArray[np.float32],
    names: Sequence[str],
    exclusive: bool = False,
) -> float | None:
    """Macro AUROC of logits minus that of the reference's; None where these few windows lack a class."""
    half = np.full(len(names), 0.5)
    try:
        ours, theirs = (
            classification_metrics(to_probabilities(scores, exclusive), targets, names, half, "parity", exclusive)
            for scores in (logits, reference)
        )
    except ValueError:
        return None
    return ours["parity/auroc_macro"] - theirs["parity/auroc_macro"]
