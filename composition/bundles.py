"""From a tracked run to the folder for a device."""

import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from composition.documents import artifact_facts, find_rule, from_text
from deploy.artifact import Artifact, load_artifact, predict
from deploy.bundle import BundleError, Content, Slice, choose_slice, write_bundle
from deploy.devices import find_device, refuse_artifact
from lightning_modules.metrics import to_probabilities
from tracking.artifacts import FILE, FILE_DIGEST
from tracking.documents import card_facts, write_card
from tracking.predictions import Predictions
from tracking.rows import Row
from tracking.search import download_file
from tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

N_SLICE = 128
# The answers of the file may differ by so much, as probabilities, from those that its run holds: another processor
# rounds int8 elsewhere. Other recordings, or another file, differ by far more.
MAX_DRIFT = 0.05
# What a file must say about its input.
CONTRACT = ("lead_names", "fs", "unit", "mean_mv", "std_mv")


def file_tags(artifact: Artifact) -> dict[str, str]:
    """Tags by which a run knows its file."""
    return {FILE: artifact.path.name, FILE_DIGEST: artifact.digest}


def find_fitting(artifacts: Sequence[Artifact], device: str) -> int:
    """Position of the last file that a device takes.

    Raises
    ------
    BundleError
        If it takes none of them; the message says why for each.
    """
    facts = find_device(device)
    refusals = [refuse_artifact(facts, artifact) for artifact in artifacts]
    if all(refusals):
        listed = "; ".join(f"{item.path.name}: {why}" for item, why in zip(artifacts, refusals, strict=True))
        raise BundleError(f"deploy.bundle={device}: none of this job's files fits: {listed}")
    return max(index for index, why in enumerate(refusals) if not why)


def build_bundle(
    store: Store,
    run_id: str,
    device: str,
    output: Path | str,
    *,
    datamodule: Any = None,
    changes: Sequence[str] = (),
    n_slice: int = N_SLICE,
) -> Path:
    """Write the bundle of a run's file for a device.

    Parameters
    ----------
    store : Store
    run_id : str
        Run of a row.
    device : str
        Name of `deploy.devices`.
    output : Path or str
        Folder that does not exist yet.
    datamodule : EcgDataModule, optional
        Set up with the data of the run; made from the run's config by default.
    changes : sequence of str, optional
        Changes of that config, such as ``datamodule.root=/data/ptb-xl``.
    n_slice : int
        Test windows that travel along.

    Raises
    ------
    BundleError
        If the run has no single file, the device does not take it, the data are not those of the run, or the folder
        exists.
    ArtifactError
        If the file is damaged.
    TrackingError
        If the store cannot be reached or has no such run.
    """
    facts = find_device(device)
    if Path(output).exists():
        raise BundleError(f"{output} exists already: name another folder with output=, or remove it first")
    row = store.read_row(run_id)
    tags = store.client.get_run(run_id).data.tags
    if row.folds:
        raise BundleError(
            f"run {run_id} ({row.name}) pools {len(row.folds)} folds, each with its own model: none to ship"
        )
    if FILE not in tags:
        raise BundleError(f"run {run_id} ({row.name}, {row.role}) holds no model file: name the run of a model's row")
    with tempfile.TemporaryDirectory(prefix="lightheart-") as folder:
        artifact = _fetch_file(store, run_id, tags, folder)
        if reason := refuse_artifact(facts, artifact):
            raise BundleError(f"run {run_id} ({row.name}): {reason}")
        config = OmegaConf.create(Path(download_file(store.client, run_id, "config.yaml", folder)).read_text())
        if not isinstance(config, DictConfig):
            raise BundleError(f"run {run_id}: its config.yaml is no mapping")
        if datamodule is None:
            datamodule = make_datamodule(config, row, changes)
        predictions = read_classes(store, run_id, row.name)
        check_data(row, predictions, datamodule)
        test = take_slice(artifact, predictions, datamodule, n_slice)
        run = store.client.get_run(run_id)
        reading = {
            "class_names": list(predictions.class_names),
            "thresholds": predictions.thresholds.tolist(),
            "exclusive": predictions.exclusive,
            "level": predictions.level,
        }
        card = run_facts(row, run, artifact, reading, config)
        return write_bundle(
            Content(
                run_id=run_id,
                artifact=artifact,
                device=facts,
                test=test,
                preprocessing=describe_preprocessing(artifact, config),
                reading=reading,
                dataset=row.dataset,
                data=row.data,
                card=write_card({**card, "device": facts, "n_slice": len(test.positions)}),
            ),
            output,
        )


def read_classes(store: Store, run_id: str, name: str) -> Predictions:
    """Read the predictions of a classifier's run.

    Raises
    ------
    BundleError
        If the run answers with heart rates: the device script checks classes.
    """
    predictions = store.read_predictions(run_id)
    if not isinstance(predictions, Predictions):
        raise BundleError(f"run {run_id} ({name}) answers with heart rates: bundles carry classifiers, use stream.py")
    return predictions


def _fetch_file(store: Store, run_id: str, tags: Mapping[str, str], folder: str) -> Artifact:
    path = Path(download_file(store.client, run_id, tags[FILE], folder))
    artifact = load_artifact(path)
    if artifact.digest != tags[FILE_DIGEST]:
        raise BundleError(
            f"run {run_id}: {tags[FILE]} has SHA-256 {artifact.digest}, its run says {tags[FILE_DIGEST]}: the stored"
            " file was altered; train again"
        )
    return artifact


def make_datamodule(config: DictConfig, row: Row, changes: Sequence[str]) -> Any:
    """Set up the data that a row was measured on, from the config of its run."""
    if row.role == "teacher" and (own := config.compression.teacher.get("data")):
        config.datamodule.merge_with(own)
    config.merge_with_dotlist(list(changes))
    datamodule = instantiate(config.datamodule)
    datamodule.setup()
    return datamodule


def check_data(row: Row, predictions: Predictions, datamodule: Any) -> None:
    """Refuse data that are not those of the row.

    Raises
    ------
    BundleError
        If a digest or the test records differ.
    """
    for name in ("data_digest", "split_digest", "preprocessing_digest"):
        if getattr(row, name) != getattr(datamodule, name):
            raise BundleError(
                f"{row.name}: {name} of the data here is {getattr(datamodule, name)}, of the run {getattr(row, name)}:"
                " name the folder with the same recordings, datamodule.root=..."
            )
    if not np.array_equal(predictions.record_ids, datamodule.record_ids("test").astype(np.str_)):
        raise BundleError(f"{row.name}: the test records here are not those of the run's predictions")


def take_slice(artifact: Artifact, predictions: Predictions, datamodule: Any, n: int) -> Slice:
    """Take test windows and hold the file's answers to them against those that its run holds.

    Raises
    ------
    BundleError
        If the file answers otherwise.
    """
    positions = choose_slice(predictions.targets, n)
    windows = datamodule.windows("test", datamodule.splits["test"][positions])
    answers = to_probabilities(predict(artifact, windows, threads=1), predictions.exclusive)
    drift = float(np.abs(answers - predictions.probabilities[positions]).max())
    if not drift <= MAX_DRIFT:
        raise BundleError(
            f"{artifact.path.name}: answers up to {drift:.3g} away from the predictions of its run, at most {MAX_DRIFT}"
            " is rounding: this is not what the run measured"
        )
    return Slice(positions, windows, predictions.targets[positions], predictions.decisions[positions])


def describe_preprocessing(artifact: Artifact, config: DictConfig) -> dict[str, Any]:
    """Tell how a signal becomes a window, from the contract in the file and the run's config."""
    contract = {name: from_text(value) for name, value in artifact.metadata.items()}
    if missing := [name for name in CONTRACT if name not in contract]:
        raise BundleError(f"{artifact.path.name}: the file does not say its {missing}, so nobody could feed it")
    source = OmegaConf.to_container(config.datamodule.get("source", {}))
    filters = source.get("filters") if isinstance(source, dict) else None
    return {
        "input_shape": list(artifact.input_shape),
        "input_axes": ["lead", "time"],
        **{name: contract[name] for name in CONTRACT},
        "normalize": "(signal - mean_mv) / std_mv for each lead, in float32",
        "filters": None
        if filters is None
        else {name: value for name, value in filters.items() if not name.startswith("_")},
        "filters_applied": None if filters is None else "to the whole recording, before windows are cut",
    }


def run_facts(
    row: Row, run: "Run", artifact: Artifact, reading: Mapping[str, Any], config: DictConfig
) -> dict[str, Any]:
    """Everything that the model card states of a run and its file."""
    started = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    return card_facts(
        row,
        **artifact_facts(artifact),
        **{name: reading[name] for name in ("class_names", "exclusive", "thresholds")},
        date=started.date().isoformat(),
        commit=run.data.tags.get("mlflow.source.git.commit"),
        uncommitted=run.data.tags.get("uncommitted") == "true",
        threshold_rule=find_rule(config, reading["exclusive"]),
    )
