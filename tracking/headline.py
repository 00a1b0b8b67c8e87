"""The one metric that rows of a task are judged, searched and compared by."""

import re
from dataclasses import dataclass

TASKS = ("classification", "heart_rate")
# Errors among the metrics, by a word of their name; of the others more is better.
ERRORS = {"ece", "mae", "rmse", "mape"}


def is_larger_better(metric: str) -> bool:
    """Whether more of a metric is better: of everything but errors."""
    return not ERRORS & set(re.split("[/_]", metric))


@dataclass(frozen=True)
class Headline:
    """The metric that a task is judged by.

    Attributes
    ----------
    metric : str
        Its name without the split, with the level where it has one.
    larger_is_better : bool
    shown : tuple of str
        Names, in the same form, of the figures that an overview of several splits shows.
    """

    metric: str
    larger_is_better: bool
    shown: tuple[str, ...]

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is: the metric times this is better when larger."""
        return 1 if self.larger_is_better else -1

    def named(self, split: str) -> str:
        """Full name of the metric on a split, such as ``test/auroc_macro``."""
        return f"{split}/{self.metric}"


def find_headline(task: str, level: str = "record") -> Headline:
    """Headline of a task at a level of its rows.

    Parameters
    ----------
    task : {"classification", "heart_rate"}
    level : str, default "record"
        What one row of predictions is: last part of a classifier's metrics, but for records. Heart rates name theirs.

    Raises
    ------
    ValueError
        If the task is unknown.
    """
    if task not in TASKS:
        raise ValueError(f"task is {task!r}, expected one of {TASKS}")
    if task == "heart_rate":
        shown = (
            "hr_mae_bpm_window",
            "hr_rmse_bpm_window",
            "hr_mae_bpm_video",
            "hr_rmse_bpm_video",
            "hr_pearson_r_video",
        )
        return Headline("hr_mae_bpm_video", False, shown)
    suffix = "" if level == "record" else f"_{level}"
    names = ("precision_weighted", "recall_weighted", "f1_weighted", "accuracy", "auroc_macro")
    return Headline(f"auroc_macro{suffix}", True, tuple(f"{name}{suffix}" for name in names))
