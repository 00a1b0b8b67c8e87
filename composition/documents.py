"""Model card and report of a row: what the row, its file and its job say about it."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from omegaconf import DictConfig

from composition.measurement import Answers, Measured, Unmeasured
from deploy.artifact import Artifact
from tracking.documents import write_documents
from tracking.predictions import Predictions
from tracking.rows import Row

# Of a run's files, those that its report does not point to: texts of its origin, which it names or shows itself.
ORIGIN = ("config.yaml", "diff.patch", "packages.txt", "python.txt")


def describe_row(
    config: DictConfig,
    item: Answers | Unmeasured,
    row: Row,
    images: Mapping[str, bytes],
    files: Iterable[str],
    origin: Mapping[str, str],
    config_text: str,
) -> dict[str, str]:
    """Model card and report of a row, by file name.

    Parameters
    ----------
    config : DictConfig
    item : Answers or Unmeasured
        What the row was made from.
    row : Row
    images : mapping of file name to bytes
        Pictures of its plots.
    files : iterable of str
        Names of the run's other files.
    origin : mapping of str to str
        Tags of the job: commit, and whether there are changes.
    config_text : str
        As yaml.
    """
    known: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": origin.get("mlflow.source.git.commit") or None,
        "uncommitted": origin.get("uncommitted") == "true",
    }
    if isinstance(item, Measured) and not item.folds:
        known |= artifact_facts(item.artifact)
    if isinstance(item, Answers) and isinstance(item.predictions, Predictions):
        known |= {"class_names": list(item.predictions.class_names), "exclusive": item.predictions.exclusive}
        known["threshold_rule"] = find_rule(config, item.predictions.exclusive)
    files = sorted(set(files) - set(ORIGIN))
    return write_documents(row, images=images, files=files, config=config_text, **known)


def artifact_facts(artifact: Artifact) -> dict[str, Any]:
    """Give what a file says about its input; None where it does not say it."""
    contract = {name: from_text(value) for name, value in artifact.metadata.items()}
    facts = {name: contract.get(name) for name in ("fs", "unit", "lead_names")}
    leads = facts["lead_names"] is not None and len(artifact.input_shape) == 2
    sizes = dict(zip(("n_leads", "n_samples"), artifact.input_shape, strict=True)) if leads else {}
    return {**facts, **sizes, "input_shape": list(artifact.input_shape)}


def find_rule(config: DictConfig, exclusive: bool) -> str:
    """Give the rule by which the thresholds of a classifier were chosen."""
    return str(config.evaluation.get("threshold_rule") or ("half" if exclusive else "f1"))


def from_text(value: str) -> Any:
    """Read a value of a file's metadata: json, or else the text itself."""
    try:
        return json.loads(value)
    except ValueError:
        return value
