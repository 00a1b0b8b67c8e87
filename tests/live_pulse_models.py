"""Model files that read the pulse without training: the mean green of the motion, frame by frame."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_pulse_model(path: Path, *, n_frames: int = 20, **changes: Any) -> Path:
    """Write a model whose answer is GREEN; a changed fact of None is left out."""
    # Green of the normalised difference; darker with more blood.
    weights = np.zeros((1, 6, 1, 1), np.float32)
    weights[0, 1] = 1
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["signal", "weights"], ["green"]),
            helper.make_node("ReduceMean", ["green", "axes"], ["logits"], keepdims=0),
        ],
        "green",
        [helper.make_tensor_value_info("signal", TensorProto.FLOAT, ["batch", n_frames, 6, 36, 36])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", n_frames])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([2, 3, 4]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    facts: dict[str, Any] = {
        "precision": "float32",
        "task": "heart_rate",
        "output": "bvp_derivative",
        "fs": 30.0,
        "n_frames": n_frames,
        "image_size": 36,
        "input_variant": "normalized_difference",
        "band_hz": [0.75, 2.5],
        "data": "synthetic",
        "dataset": "none",
        **changes,
    }
    helper.set_model_props(
        model,
        {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items() if fact is not None},
    )
    onnx.save(model, path)
    return path
