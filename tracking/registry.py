"""Models in MLflow's registry: the file of a row that passed its gate, under an alias."""

import hashlib
import re
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tracking.artifacts import FILE, FILE_DIGEST
from tracking.connection import TrackingError, retry
from tracking.rows import Row
from tracking.search import download_file, quoted
from tracking.tables import MISSING, TableText

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from tracking.store import Store

WEIGHTS_FILE = "net.pt"
PASSED, OPEN = "PASS", "INCONCLUSIVE"


class PromotionRefused(ValueError):  # noqa: N818
    """A run that must not be given to others as a model."""


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """A version of a registered model, and the alias that points to it.

    Attributes
    ----------
    name, version, alias : str
    row : Row
        What was promoted.
    replaced : str or None
        Version that had the alias before.
    """

    name: str
    version: str
    alias: str
    row: Row
    replaced: str | None

    @property
    def uri(self) -> str:
        """Address under which the model is loaded."""
        return f"models:/{self.name}@{self.alias}"


def promote(
    store: "Store", run_id: str, alias: str, *, name: str | None = None, allow_inconclusive: bool = False
) -> Promotion:
    """Register the file of a run and point an alias to it; promoting a run again makes no second version.

    Parameters
    ----------
    store : Store
    run_id : str
        Run of a row.
    alias : str
        Letters, digits, dashes and underscores, such as ``champion``; neither ``latest`` nor like ``v1``.
    name : str, optional
        Of the registered model; the row's model by default.
    allow_inconclusive : bool, default False
        Whether a gate that could not decide is enough.

    Raises
    ------
    PromotionRefused
        If alias or name cannot be one, the run failed or is not finished, its row did not pass the gate, or it has
        no model file of its own or no weights.
    TrackingError
        If the store cannot be reached, or has no such run or no row in it.
    """
    _check_alias(alias)
    run = retry(partial(store.client.get_run, run_id), f"find run {run_id!r} in {store.tracking_uri!r}")
    row = store.read_row(run_id)
    _check_run(row, run, allow_inconclusive)
    name = name or row.model
    if not re.fullmatch(r"[\w-]+", name, re.ASCII):
        raise PromotionRefused(f"name={name!r}: expected letters, digits, dashes and underscores")
    _check_files(store, row, run)
    version, replaced = _find_version(store, name, run_id), _find_alias(store, name, alias)
    if version is None:
        version = _register(store, name, row, run)
    point = partial(store.client.set_registered_model_alias, name, alias, version.version)
    retry(point, f"point {alias!r} to version {version.version} of {name!r}")
    return Promotion(
        name=name,
        version=str(version.version),
        alias=alias,
        row=row,
        replaced=replaced if replaced != str(version.version) else None,
    )


def _check_alias(alias: str) -> None:
    if not re.fullmatch(r"[A-Za-z][\w-]*", alias, re.ASCII) or len(alias) > 255:
        raise PromotionRefused(f"alias={alias!r}: expected letters, digits, dashes and underscores, a letter first")
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise PromotionRefused(f"alias={alias!r}: MLflow keeps it for versions, choose another one such as champion")


def _check_run(row: Row, run: "Run", allow_inconclusive: bool) -> None:
    which = f"run {run.info.run_id} ({row.name})"
    if run.info.status != "FINISHED":
        raise PromotionRefused(f"{which} is {run.info.status}, not FINISHED: run its job again")
    if row.role == "device":
        raise PromotionRefused(f"{which} was measured on {row.device}: promote its model, run={row.reference_run_id}")
    if row.folds:
        raise PromotionRefused(
            f"{which} pools {len(row.folds)} folds, each with its own model: there is none to promote"
        )
    if FILE not in run.data.tags:
        raise PromotionRefused(f"{which} holds no measured model file: name the run of a model's row")
    reasons = f": {'; '.join(row.reasons)}" if row.reasons else ""
    if row.verdict == OPEN and not allow_inconclusive:
        raise PromotionRefused(f"{which} is {OPEN}{reasons}. allow_inconclusive=true promotes it all the same")
    if row.verdict not in (PASSED, OPEN):
        raise PromotionRefused(f"{which} did not pass its gate, its verdict is {row.verdict}{reasons}")


def _check_files(store: "Store", row: Row, run: "Run") -> None:
    """Refuse a run whose file is not what was measured, or whose weights are gone."""
    run_id, file = run.info.run_id, run.data.tags[FILE]
    with tempfile.TemporaryDirectory(prefix="lightheart-") as folder:
        content = Path(download_file(store.client, run_id, file, folder)).read_bytes()
    found, wanted = hashlib.sha256(content).hexdigest(), run.data.tags[FILE_DIGEST]
    if found != wanted:
        raise PromotionRefused(
            f"run {run_id} ({row.name}): {file} has SHA-256 {found}, measured was {wanted}: train again"
        )
    if WEIGHTS_FILE not in store.list_files(run_id):
        raise PromotionRefused(
            f"run {run_id} ({row.name}) has no {WEIGHTS_FILE}: nothing could learn from it or start from it"
        )


def _find_version(store: "Store", name: str, run_id: str) -> "ModelVersion | None":
    """Version of a registered model that a run was registered as before."""
    search = partial(store.client.search_model_versions, f"name = {quoted(name)} and run_id = {quoted(run_id)}")
    found = retry(search, f"look for versions of {name!r}")
    return found[0] if found else None


def _find_alias(store: "Store", name: str, alias: str) -> str | None:
    search = partial(store.client.search_registered_models, f"name = {quoted(name)}")
    found = retry(search, f"look for model {name!r}")
    version = found[0].aliases.get(alias) if found else None
    return None if version is None else str(version)


def _register(store: "Store", name: str, row: Row, run: "Run") -> "ModelVersion":
    client, run_id = store.client, run.info.run_id
    if not retry(partial(client.search_registered_models, f"name = {quoted(name)}"), f"look for model {name!r}"):
        try:
            retry(partial(client.create_registered_model, name), f"register model {name!r}")
        except TrackingError as error:
            # Another process may have been faster.
            if "already exists" not in str(error):
                raise
    logged = run.outputs.model_outputs if run.outputs else []
    # An ONNX file was logged as a model; of other formats the registry holds the run's file.
    model_id = logged[-1].model_id if logged else None
    artifacts = run.info.artifact_uri.rstrip("/")
    source = f"{artifacts}/{run.data.tags[FILE]}"
    if model_id is not None:
        look = partial(client.get_logged_model, model_id)
        source = retry(look, f"find the logged model of run {run_id!r}").artifact_location
    fields = ("recipe", "runtime", "precision", "verdict", "data", "dataset", "data_digest", "split_digest")
    tags = {field: str(value) for field in fields if (value := getattr(row, field)) is not None}
    create = partial(
        client.create_model_version,
        name,
        source,
        run_id,
        tags={**tags, FILE: run.data.tags[FILE], FILE_DIGEST: run.data.tags[FILE_DIGEST]},
        description=f"{row.name}: {row.model}, {row.recipe}, {row.precision}, {row.data} data, gate {row.verdict}",
        model_id=model_id,
    )
    return retry(create, f"register run {run_id!r} as a version of {name!r}")


def list_models(store: "Store") -> TableText:
    """Table of the registered models of a store: each version that an alias points to, or the newest."""
    search = partial(store.client.search_registered_models, max_results=1000)
    cells = []
    for model in retry(search, f"list the models of {store.tracking_uri!r}"):
        aliases: dict[str, list[str]] = {}
        for alias, version in model.aliases.items():
            aliases.setdefault(str(version), []).append(alias)
        for number in sorted(aliases, key=int) or [str(item.version) for item in model.latest_versions[-1:]]:
            version = retry(partial(store.client.get_model_version, model.name, number), f"read {model.name!r}")
            tags = (version.tags.get(field, MISSING) for field in ("recipe", "precision", "data", "verdict"))
            cells.append(
                (model.name, number, ", ".join(sorted(aliases.get(number, []))) or MISSING, *tags, version.run_id)
            )
    return TableText(("model", "version", "alias", "recipe", "precision", "data", "verdict", "run"), cells)
