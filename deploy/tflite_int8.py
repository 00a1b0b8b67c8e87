"""Quantize the content of a float TensorFlow Lite file with Google's AI Edge Quantizer."""

import contextlib
import io
import re
import warnings
from collections.abc import Sequence

import numpy as np

from deploy.tflite_file import Graph, read_graph
from deploy.tflite_layout import arrange, takes


def quantize_static_int8(
    content: bytes, calibration: np.ndarray, *, per_channel: bool = True, float_nodes: Sequence[str] = ()
) -> bytes:
    """Quantize weights, activations, input and output to int8, with the smallest and largest values of calibration.

    An operator that has no integer kernel stays in float, between a DEQUANTIZE and a QUANTIZE.

    Parameters
    ----------
    content : bytes
        Float file with one input of shape (1, 1, time, leads), or of frames, see `deploy.tflite_layout.arrange`.
    calibration : ndarray of shape (n, leads, time) or (n, frames, channels, height, width)
        Windows of the training split.
    per_channel : bool, default True
        One weight scale for each output channel.
    float_nodes : sequence of str
        Modules by name, or operators by kind, that stay in float.

    Raises
    ------
    ValueError
        If the calibration does not fit the file, or `float_nodes` names what is not there.
    """
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.recipe_manager import RecipeManager

    graph = read_graph(content)
    _check_calibration(graph, calibration)
    recipe = RecipeManager()
    every = qtyping.TFLOperationName.ALL_SUPPORTED
    recipe.add_static_config(".*", every, 8, 8, _granularity(per_channel))
    for name in _find_outputs(graph, float_nodes):
        # The quantizer knows an operator by what it puts out.
        recipe.add_quantization_config(f"^{re.escape(name)};?$", every, algorithm_key=AlgorithmName.NO_QUANTIZE)
    return _quantize(content, recipe, _calibrate(content, calibration, recipe))


def quantize_dynamic_int8(content: bytes, *, per_channel: bool = True) -> bytes:
    """Quantize weights to int8; the runtime quantizes activations on the way, window by window."""
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.recipe_manager import RecipeManager

    recipe = RecipeManager()
    recipe.add_dynamic_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, 8, _granularity(per_channel))
    return _quantize(content, recipe)


def cast_float16(content: bytes) -> bytes:
    """Store weights in float16; a runtime without float16 arithmetic computes in float32."""
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.recipe_manager import RecipeManager

    recipe = RecipeManager()
    recipe.add_weight_only_config(
        ".*", qtyping.TFLOperationName.ALL_SUPPORTED, 16, algorithm_key=AlgorithmName.FLOAT_CASTING
    )
    return _quantize(content, recipe)


def _calibrate(content: bytes, calibration: np.ndarray, recipe: object) -> dict[str, dict[str, np.ndarray]]:
    from ai_edge_quantizer.calibrator import CalibrationMode, Calibrator
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    # The quantizer's own calibration takes a moving average, which cuts off peaks: measured, five times the error.
    calibrator = Calibrator(
        content, num_threads=1, mode=CalibrationMode.CALIBRATION_PROFILER_BASED, qsv_update_func=min_max_update
    )
    ((signature, names),) = calibrator.get_signature_list().items()
    calls = arrange(calibration, _input_shape(read_graph(content)))
    samples = [{names["inputs"][0]: np.ascontiguousarray(call, np.float32)} for call in calls]
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        calibrator.calibrate({signature: samples}, recipe)
    return calibrator.get_model_qsvs()


def _quantize(content: bytes, recipe: object, ranges: dict[str, dict[str, np.ndarray]] | None = None) -> bytes:
    from ai_edge_quantizer.quantizer import Quantizer

    quantizer = Quantizer(content, recipe.get_quantization_recipe())  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        # The quantizer looks at every tensor on purpose.
        warnings.filterwarnings("ignore", ".*experimental_preserve_all_tensors", UserWarning)
        result = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    if result.quantized_model is None:
        raise RuntimeError("the quantizer returned no model")
    return bytes(result.quantized_model)


def _granularity(per_channel: bool) -> object:
    from ai_edge_quantizer.qtyping import QuantGranularity

    return QuantGranularity.CHANNELWISE if per_channel else QuantGranularity.TENSORWISE


def _check_calibration(graph: Graph, calibration: np.ndarray) -> None:
    shape = _input_shape(graph)
    if not takes(shape, calibration.shape[1:]) or len(calibration) == 0:
        raise ValueError(
            f"calibration of shape {calibration.shape!r}, expected n >= 1 windows (leads, time), or clips, for a file"
            f" whose input is {shape!r}"
        )
    low, high = float(calibration.min()), float(calibration.max())
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"calibration runs from {low!r} to {high!r}: expected finite windows that are not constant")


def _input_shape(graph: Graph) -> tuple[int, ...]:
    return graph.tensors[graph.inputs[0]].shape


def _find_outputs(graph: Graph, wanted: Sequence[str]) -> list[str]:
    """Names of what the operators put out that are meant by module names or kinds."""
    owners = {operator.outputs[0]: {operator.kind, *operator.layer.split()} for operator in graph.operators}
    known = set().union(*owners.values())
    unknown = sorted(name for name in wanted if not _matches(name, known))
    if unknown:
        raise ValueError(f"float_nodes: no module or operator {unknown!r}, expected some of {sorted(known)!r}")
    return [
        graph.tensors[output].name for output, names in owners.items() if any(_matches(name, names) for name in wanted)
    ]


def _matches(name: str, names: set[str]) -> bool:
    return any(other == name or other.startswith(f"{name}.") for other in names)
