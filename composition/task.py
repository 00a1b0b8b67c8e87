"""What depends on the question that a net answers: which classes a window has, or how fast a heart beats in a video."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deploy import gate
from deploy.artifact import Artifact
from tracking.answers import Answered
from tracking.headline import Headline

Floats = NDArray[np.floating]
# Rows of a split.
Rows = NDArray[np.integer] | slice
ALL = slice(None)


class Task(Protocol):
    """How the outputs of a file become answers, and how these are judged; an option of conf/evaluation.

    Attributes
    ----------
    name : str
        One of `tracking.headline.TASKS`.
    headline : Headline
        What a search weighs by, on validation.
    parity_windows : int
        Test windows on which the exported file is held against torch.
    batch_size : int
        Windows of one call of a file; bounds the memory.
    chunk_size : int or None
        Windows that are made at once; None makes all windows of a split.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def headline(self) -> Headline: ...  # noqa: D102

    @property
    def parity_windows(self) -> int: ...  # noqa: D102

    @property
    def batch_size(self) -> int: ...  # noqa: D102

    @property
    def chunk_size(self) -> int | None: ...  # noqa: D102

    def make_example(self, datamodule: Any) -> Tensor:
        """Two windows of the shape that the data have; their values do not matter."""
        ...

    def describe_input(self, datamodule: Any) -> dict[str, Any]:
        """Tell what a user must know to feed the file and to read it, beside where it comes from."""
        ...

    def read(self, datamodule: Any, split: str, outputs: Floats) -> Any:
        """Answers to the windows of a split from a file's raw outputs, in their order."""
        ...

    def conclude(self, datamodule: Any, val: Any, test: Any) -> tuple[Answered, dict[str, float]]:
        """Join answers to the test windows with what pairing needs; give metrics of validation beside.

        Whatever is chosen, such as thresholds, is chosen on validation.
        """
        ...

    def weigh(self, datamodule: Any, outputs: Floats, rows: Rows = ALL) -> float:
        """Headline metric of a file's raw outputs to validation windows, all or some; nothing is chosen for it."""
        ...

    def to_scores(self, datamodule: Any, outputs: Floats) -> Floats:
        """Give raw outputs the form in which those of two files are compared, number by number."""
        ...

    def time_stages(self, datamodule: Any, artifact: Artifact) -> dict[str, float]:
        """Figures of what happens before and behind the net, by full name; empty where there is nothing to time."""
        ...

    def check_parity(
        self, datamodule: Any, answers: Answered, net: Floats, file: Floats, precision: str
    ) -> list[gate.Check]:
        """Hold a file's raw outputs to the first test windows against those of the net that it was exported from."""
        ...
