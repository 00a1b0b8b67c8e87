"""What a row says about its data: the same facts for one split and for all folds of a cross-validation together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tracking.digests import digest

DIGESTS = ("data_digest", "split_digest", "preprocessing_digest")


@dataclass(frozen=True)
class DataFacts:
    """Facts of the data behind a figure.

    Attributes
    ----------
    dataset : str
    data : {"real", "synthetic"}
    level : {"record", "beat", "window"}
        What one window is.
    leaky : bool
        Whether persons may be on several sides.
    data_digest, split_digest, preprocessing_digest : str
    """

    dataset: str
    data: str
    level: str
    leaky: bool
    data_digest: str
    split_digest: str
    preprocessing_digest: str


def describe(datamodule: Any) -> DataFacts:
    """Facts of a data module that is set up."""
    return DataFacts(datamodule.name, datamodule.kind, datamodule.level, datamodule.leaky, **data_digests(datamodule))


def pool_facts(folds: Sequence[DataFacts]) -> DataFacts:
    """Facts of all folds together; every digest stands for those of all folds."""
    first = folds[0]
    pooled = {name: digest([getattr(fold, name) for fold in folds]) for name in DIGESTS if name != "data_digest"}
    return DataFacts(first.dataset, first.data, first.level, first.leaky, first.data_digest, **pooled)


def data_digests(datamodule: Any) -> dict[str, str]:
    """Digests of data, split and preprocessing, by name."""
    return {name: getattr(datamodule, name) for name in DIGESTS}
