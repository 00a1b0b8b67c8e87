"""What a recipe step may ask for about a model: its export, evaluated on validation, and a place for what it found."""

import csv
import inspect
import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from composition.fits import Fitter
from composition.task import ALL, Rows, Task
from compression.recipe import Evaluation, ExportSpec, weights_digest
from compression.sensitivity import LayerSensitivity, SensitivityReport
from deploy.artifact import Artifact, predict
from deploy.profile import count_macs
from lightning_modules.classifier import Classifier
from tracking.digests import digest
from tracking.figures import draw_png
from tracking.plots import sensitivity_figure
from tracking.tables import TableText, to_markdown

Export = Callable[..., Artifact]


def export_net(
    net: nn.Module,
    spec: ExportSpec,
    datamodule: Any,
    export: Export,
    path: Path,
    *,
    example: torch.Tensor,
    metadata: Mapping[str, str] | None = None,
    cache_dir: Path | None = None,
) -> Artifact:
    """Write a net as one file of a target's format, as its specification says.

    Parameters
    ----------
    net : nn.Module
    spec : ExportSpec
    datamodule : LightningDataModule
        Gives the calibration windows out of the training split.
    export : callable
        A target's exporter.
    path : Path
    example : Tensor
        Two windows; gives their shape.
    metadata : mapping of str to str, optional
        Written into the file.
    cache_dir : Path, optional
        Where the exporter may keep what other exports of this net share, see `deploy.onnx.export_onnx`.

    Raises
    ------
    ValueError
        If a calibration window is not in the training split, or the target lacks an option of the specification.
    """
    positions = np.asarray(spec.calibration_positions, dtype=np.int64)
    taken = inspect.signature(export).parameters
    if unknown := sorted(set(spec.export_options) - set(taken)):
        raise ValueError(f"{path.name}: this target's exporter has no {unknown}; leave them out of the recipe's step")
    return export(
        net,
        path,
        example=example,
        calibration=datamodule.windows("train", positions) if len(positions) else None,
        metadata=metadata or {},
        **spec.export_options,
        **({"cache_dir": cache_dir} if cache_dir and "cache_dir" in taken else {}),
    )


def predict_split(artifact: Artifact, datamodule: Any, split: str, task: Task, rows: Rows = ALL) -> NDArray[np.float32]:
    """Give a file's raw outputs to the windows of a split; no more of them than the task says are made at once."""
    positions = datamodule.splits[split][rows]
    size = task.chunk_size or max(len(positions), 1)
    chunks = [positions[start : start + size] for start in range(0, len(positions), size)]
    windows = (datamodule.windows(split, chunk) for chunk in chunks)
    return np.concatenate([predict(artifact, chunk, batch_size=task.batch_size) for chunk in windows])


@dataclass(frozen=True)
class Evaluator:
    """Exports a model to one target and evaluates the file on validation, see `compression.recipe.Evaluate`.

    A net is converted once, and its ranges are measured once for each calibration: a loop over its layers takes
    seconds.

    Attributes
    ----------
    datamodule : LightningDataModule
    task : Task
    export : callable
        The target's exporter.
    path : Path
        Its ending is that of the files; without it, it is their folder.
    seed : int
        Draws validation windows where not all are wanted.
    """

    datamodule: Any
    task: Task
    export: Export
    path: Path
    seed: int

    def __call__(self, module: Classifier, spec: ExportSpec, *, n_windows: int | None = None) -> Evaluation:
        """Return what the file answers."""
        ranges = {"calibration": spec.calibration_positions, "method": (spec.calibration_method, spec.percentile)}
        folder = self.path.with_suffix("") / digest({"weights": weights_digest(module), **ranges})
        artifact = export_net(
            module.net,
            spec,
            self.datamodule,
            self.export,
            folder / f"model{self.path.suffix}",
            example=self.task.make_example(self.datamodule),
            cache_dir=folder,
        )
        rows = np.arange(len(self.datamodule.splits["val"]))
        if n_windows is not None and n_windows < len(rows):
            rows = np.sort(np.random.default_rng(self.seed).choice(rows, n_windows, replace=False))
        outputs = predict_split(artifact, self.datamodule, "val", self.task, rows)
        count = count_macs(artifact.path)
        try:
            metric = self.task.weigh(self.datamodule, outputs, rows)
        except ValueError as error:
            raise ValueError(f"{len(rows)} validation windows (sensitivity_windows): {error}") from error
        scores = self.task.to_scores(self.datamodule, outputs)
        return Evaluation(self.task.headline.sign * metric, scores, count.layer_macs, count.int8_macs_share)


def log_sensitivity(fitter: Fitter, report: SensitivityReport) -> None:
    """Add a report on layers to the run that is open, as markdown, csv and plot."""
    cells = [
        (
            item.layer,
            str(item.macs),
            f"{item.sqnr_db:.2f}",
            f"{item.metric:.5f}",
            f"{item.drop:+.5f}",
            "float" if item.layer in report.kept else "int8",
        )
        for item in report.layers
    ]
    caption = (
        f"Each layer alone in int8, the most sensitive first; {report.n_windows} validation windows. Macro AUROC on all"
        f" of them: float {report.float_metric:.5f}, int8 {report.int8_metric:.5f}, with {len(report.kept)} layers kept"
        f" in float {report.metric:.5f}, {report.int8_macs_share:.1%} of the MACs in int8."
    )
    table = TableText(("layer", "MACs", "SQNR dB", "val/auroc_macro", "drop", "in the file"), cells, caption)
    figure = sensitivity_figure(
        [item.layer for item in report.layers],
        [item.sqnr_db for item in report.layers],
        [item.drop for item in report.layers],
        report.kept,
    )
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [item.name for item in fields(LayerSensitivity)])
    writer.writeheader()
    writer.writerows(asdict(item) for item in report.layers)
    texts = {"sensitivity.md": to_markdown(table), "sensitivity.csv": buffer.getvalue()}
    fitter.store.log_files(fitter.run.run_id, texts, {"sensitivity.png": draw_png(figure)})
