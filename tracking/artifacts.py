"""What a row leaves in its run: files, metrics and the ONNX model."""

import math
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tracking.answers import Answered, save_answers
from tracking.rows import Row

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from onnx import ModelProto

ROW_FILE, PREDICTIONS_FILE = "row.json", "predictions.npz"
# Tags of a row's run: its file, and the digest of that file.
FILE, FILE_DIGEST = "artifact_file", "artifact_digest"
DEPLOY_FIELDS = (
    *("params", "params_keras", "nonzero_weights", "sparsity", "macs", "int8_macs_share"),
    *("size_bytes", "compressed_bytes", "sparse_bytes", "peak_memory_bytes", "energy_mj", "training_s", "flips"),
    *("latency_ms_p50", "latency_ms_p90", "latency_ms_p99", "latency_ratio"),
    *("latency_ms_p50_b64", "latency_ms_p90_b64", "latency_ms_p99_b64"),
)


def write_artifacts(
    folder: Path,
    predictions: Answered | None,
    images: Mapping[str, bytes],
    texts: Mapping[str, str],
    files: Sequence[Path | str],
) -> None:
    """Put everything but the row that a run keeps as a file into `folder`; empty texts are left out."""
    if predictions is not None:
        save_answers(folder / PREDICTIONS_FILE, predictions)
    write_files(folder, texts, images)
    for path in files:
        shutil.copy2(path, folder)


def write_files(folder: Path, texts: Mapping[str, str], images: Mapping[str, bytes]) -> None:
    """Write texts and images into `folder` by their file names; empty texts are left out."""
    for name, image in images.items():
        (folder / name).write_bytes(image)
    for name, text in texts.items():
        if text:
            (folder / name).write_text(text, encoding="utf-8")


def row_metrics(row: Row, model_id: str | None = None) -> "list[Metric]":
    """Figures of a row as MLflow metrics, linked to the logged model when there is one.

    ``test/auroc_macro`` comes with ``test/auroc_macro_low`` and ``_high``, differences stand under
    ``delta/``, the profile under ``deploy/``. What is undefined or was not measured is left out.
    """
    from mlflow.entities import Metric

    values: dict[str, float | None] = {f"deploy/{name}": getattr(row, name) for name in DEPLOY_FIELDS}
    for prefix, estimates in (("", row.metrics), ("delta/", row.delta)):
        for name, estimate in estimates.items():
            values[f"{prefix}{name}"] = estimate.value
            values[f"{prefix}{name}_low"] = estimate.low
            values[f"{prefix}{name}_high"] = estimate.high
    values["test/looks"] = row.test_looks
    now = int(time.time() * 1000)
    return [
        Metric(name, float(value), now, 0, model_id=model_id)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    ]


def log_onnx_model(path: Path | str, run_id: str, experiment_id: str) -> str:
    """Log an ONNX file as the model of a run.

    Parameters
    ----------
    path : Path or str
    run_id, experiment_id : str

    Returns
    -------
    str
        Id of the logged model.
    """
    import mlflow
    import onnx

    # Without it the model lands in the default experiment, away from its run.
    mlflow.set_experiment(experiment_id=experiment_id)
    model = onnx.load(str(path))
    # Given, because finding them out would start another Python.
    requirements = [f"{name}=={metadata.version(name)}" for name in ("onnxruntime", "onnx", "numpy")]
    with warnings.catch_warnings():
        # Raised by a type hint of MLflow's own, on first import.
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType")
        info = mlflow.onnx.log_model(
            model,
            name="model",
            run_id=run_id,
            signature=_signature(model),
            pip_requirements=requirements,
            save_as_external_data=False,
        )
    return str(info.model_id)


def _signature(model: "ModelProto") -> object:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec
    from onnx.helper import tensor_dtype_to_np_dtype

    weights = {tensor.name for tensor in model.graph.initializer}

    def schema(values: object) -> Schema:
        specs = []
        for value in values:  # type: ignore[attr-defined]
            if value.name not in weights:
                kind = value.type.tensor_type
                # A dimension without a number is a free one.
                shape = tuple(dim.dim_value or -1 for dim in kind.shape.dim)
                specs.append(TensorSpec(tensor_dtype_to_np_dtype(kind.elem_type), shape, value.name))
        return Schema(specs)

    return ModelSignature(inputs=schema(model.graph.input), outputs=schema(model.graph.output))
