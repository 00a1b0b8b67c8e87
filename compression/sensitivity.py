"""Which layer did it? What each layer loses when it alone is quantized, and which ones must stay in float."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compression.recipe import Evaluate, Evaluation, ExportSpec
from lightning_modules.classifier import Classifier

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerSensitivity:
    """What one layer costs when it alone is quantized.

    Attributes
    ----------
    layer : str
        Module of the net, or node of the file.
    macs : int
        Its multiply-accumulates for one window.
    sqnr_db : float
        Signal-to-quantization-noise ratio of the log odds, in dB; infinite where nothing changes.
    metric, drop : float
        Macro AUROC on validation, and what it lost against float.
    """

    layer: str
    macs: int
    sqnr_db: float
    metric: float
    drop: float


@dataclass(frozen=True)
class SensitivityReport:
    """What was found out about the layers of a model, on validation.

    Attributes
    ----------
    layers : tuple of LayerSensitivity
        The most sensitive one first.
    n_windows : int
        Validation windows behind the figures of the layers.
    float_metric, int8_metric : float
        Macro AUROC on all validation windows: in float, and with every layer quantized that the recipe quantizes.
    kept : tuple of str
        Layers that were put back into float, in that order.
    metric, int8_macs_share : float
        With these in float.
    """

    layers: tuple[LayerSensitivity, ...]
    n_windows: int
    float_metric: float
    int8_metric: float
    kept: tuple[str, ...]
    metric: float
    int8_macs_share: float


def sqnr_db(reference: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Signal-to-quantization-noise ratio in dB; infinite where the two are the same."""
    noise = float(np.mean(np.square(np.asarray(other, np.float64) - reference)))
    signal = float(np.mean(np.square(np.asarray(reference, np.float64))))
    return float(10 * np.log10(signal / noise)) if noise > 0 else float("inf")


def measure_layers(
    module: Classifier, spec: ExportSpec, evaluate: Evaluate, n_windows: int | None
) -> tuple[LayerSensitivity, ...]:
    """Quantize one layer after the other, each alone, and hold the file against the float file.

    Parameters
    ----------
    module : Classifier
    spec : ExportSpec
        An int8 one; layers that it keeps in float are left out.
    evaluate : Evaluate
    n_windows : int or None
        Validation windows; all of them by default.

    Returns
    -------
    tuple of LayerSensitivity
        The lowest SQNR first.
    """
    reference = evaluate(module, ExportSpec(), n_windows=n_windows)
    found = []
    for layer, macs in reference.layer_macs.items():
        if layer in spec.float_nodes:
            continue
        alone = evaluate(module, replace(spec, int8_nodes=(layer,)), n_windows=n_windows)
        drop = reference.metric - alone.metric
        found.append(LayerSensitivity(layer, macs, sqnr_db(reference.scores, alone.scores), alone.metric, drop))
        log.info("%s alone in int8: %.1f dB, %+.4f", layer, found[-1].sqnr_db, -drop)
    return tuple(sorted(found, key=lambda item: item.sqnr_db))


def keep_in_float(
    module: Classifier,
    spec: ExportSpec,
    evaluate: Evaluate,
    layers: Sequence[str],
    float_metric: float,
    max_drop: float,
) -> tuple[ExportSpec, Evaluation]:
    """Put layers back into float, in their order, until the metric on validation holds.

    Raises
    ------
    ValueError
        If it does not hold with all of them in float; the message has the smallest drop reached.
    """
    drops = []
    for count in range(len(layers) + 1):
        attempt = replace(spec, float_nodes=(*spec.float_nodes, *layers[:count]))
        evaluation = evaluate(module, attempt)
        drops.append(float_metric - evaluation.metric)
        log.info("%d layers kept in float: %+.4f, may drop by %g", count, -drops[-1], max_drop)
        if drops[-1] <= max_drop:
            return attempt, evaluation
    raise ValueError(
        f"max_drop={max_drop!r}: the smallest drop on validation is {min(drops):.5f}, even with {list(layers)} in"
        " float; raise max_drop, n_calibration, or try another calibration_method"
    )
