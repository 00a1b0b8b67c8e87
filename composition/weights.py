"""Weights that somebody trained before: where they lie, what data they are of, and whether a teacher may have them."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from composition.facts import data_digests
from lightning_modules.fitting import load_weights
from tracking.store import Store

log = logging.getLogger(__name__)


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


def load_teacher(net: nn.Module, source: str, store: Store, folder: Path, datamodule: Any, any_split: bool) -> None:
    """Load a teacher's weights into its net.

    Raises
    ------
    ValueError
        If they do not exist, do not fit the net, or come from another split or preprocessing than `datamodule`:
        patients that taught the teacher may be test patients here.
    """
    try:
        found, origin = find_weights(source, store, folder)
        load_weights(net, found)
        check_origin(origin, datamodule, any_split)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"compression.teacher.weights={source}: {error}. Choose the teacher's architecture with"
            " model@compression.teacher=..., and data with the leads and classes that it was trained on (datamodule, or"
            " compression.teacher.data where it sees other leads than the student)"
        ) from error
