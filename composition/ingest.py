"""What a device measured, as a row below the run that its model came from."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from composition.bundles import FILE_DIGEST, read_classes
from deploy.bundle import BundleError
from deploy.device_report import DeviceReport, read_report
from lightning_modules.metrics import to_probabilities
from tracking.documents import write_documents
from tracking.pairing import count_flips
from tracking.predictions import Predictions
from tracking.rows import Estimate, Row
from tracking.search import quoted, search_runs
from tracking.statistics import bootstrap_metrics, paired_bootstrap, point_metrics
from tracking.store import OpenRun, Store

log = logging.getLogger(__name__)
REPORT_DIGEST = "device_report"
# Columns of a row that a device does not measure.
NOT_THERE = ("latency_ms_p50_b64", "latency_ms_p90_b64", "latency_ms_p99_b64", "latency_ratio", "training_s")


def ingest_report(store: Store, path: Path | str) -> Row:
    """Add what a device measured as a row below the run that the model came from.

    Parameters
    ----------
    store : Store
    path : Path or str
        device.json, or a folder or zip file with it.

    Returns
    -------
    Row
        Its figures are of the test windows that travelled along, under ``slice/``; ``delta`` is the device minus the
        workstation on the same windows.

    Raises
    ------
    BundleError
        If it is from another model, was ingested before, or holds figures that cannot be.
    TrackingError
        If the store cannot be reached or has no such run.
    """
    report = read_report(path)
    model = store.read_row(report.run_id)
    run = store.client.get_run(report.run_id)
    if (known := run.data.tags.get(FILE_DIGEST)) != report.artifact_digest:
        raise BundleError(
            f"{path}: measured a file of SHA-256 {report.artifact_digest}, but that of run {report.run_id} is {known}:"
            " it is from another model"
        )
    read_report(path, model.macs)
    if found := search_runs(store.client, f"tags.{REPORT_DIGEST} = {quoted(report.source_digest)}"):
        raise BundleError(f"{path}: was ingested before, as run {found[0].info.run_id}")
    there, here = pair_slice(report, read_classes(store, report.run_id, model.name))
    row = make_device_row(report, model, there, here)
    # Beside the model's run, whatever experiment is configured now.
    own = replace(store, experiment_id=run.info.experiment_id)
    parent = OpenRun(own, report.run_id, model.name, str(run.data.tags.get("group")))
    tags = {"role": "device", "device": report.device, REPORT_DIGEST: report.source_digest}
    with parent.child(row.name, tags=tags) as child:
        named = replace(row, run_id=child.run_id, group=parent.group)
        texts = {"device.json": report.text, **write_documents(named, files=["device.json"])}
        return own.log_row(child.run_id, row, predictions=there, texts=texts, tags=tags)


def pair_slice(report: DeviceReport, predictions: Predictions) -> tuple[Predictions, Predictions]:
    """Predictions of the device and of the workstation on the windows that travelled along.

    Raises
    ------
    BundleError
        If windows or classes are not those of the run.
    """
    n, n_classes = predictions.targets.shape
    if report.positions.max() >= n or report.logits.shape[1] != n_classes:
        raise BundleError(
            f"device.json: window {report.positions.max()} with {report.logits.shape[1]} classes, but run"
            f" {report.run_id} has {n} test windows with {n_classes} classes"
        )
    here = _take(predictions, report.positions, predictions.probabilities[report.positions])
    return _take(predictions, report.positions, to_probabilities(report.logits, predictions.exclusive)), here


def _take(predictions: Predictions, positions: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Predictions:
    return replace(
        predictions,
        record_ids=predictions.record_ids[positions],
        subject_ids=predictions.subject_ids[positions],
        targets=predictions.targets[positions],
        probabilities=probabilities,
        times_s=None if predictions.times_s is None else predictions.times_s[positions],
    )


def make_device_row(report: DeviceReport, model: Row, there: Predictions, here: Predictions) -> Row:
    """Row of a model on a device; what was not measured there is None, whatever the model's own row says."""
    metrics, delta = _slice_figures(there, here)
    missing: dict[str, Any] = dict.fromkeys(NOT_THERE)
    return replace(
        model,
        role="device",
        device=report.device,
        name=f"{model.name} on {report.device}",
        runtime=report.runtime,
        threads=report.threads,
        latency_ms_p50=report.p50_ms,
        latency_ms_p90=report.p90_ms,
        latency_ms_p99=report.p99_ms,
        peak_memory_bytes=report.peak_memory_bytes,
        energy_mj=report.energy_mj,
        flips=count_flips(there, here),
        metrics=metrics,
        delta=delta,
        reference=model.name,
        reference_run_id=model.run_id,
        verdict=None,
        reasons=[],
        checks=[],
        run_id=None,
        n_test=len(there.record_ids),
        n_subjects=len(np.unique(there.subject_ids)),
        test_looks=None,
        **missing,
    )


def _slice_figures(there: Predictions, here: Predictions) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    try:
        return bootstrap_metrics(there, split="slice"), paired_bootstrap(there, here, split="slice")
    except ValueError as error:
        # So few windows may lack a class in most resamples.
        log.warning("no intervals on these %d windows: %s", len(there.record_ids), error)
    ours, theirs = point_metrics(there), point_metrics(here)
    metrics = {f"slice/{name}": Estimate(value) for name, value in ours.items()}
    return metrics, {f"slice/{name}": Estimate(value - theirs[name]) for name, value in ours.items()}
