"""Model files for streams: one linear layer, no training, and a contract."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from datamodules.filters import Filters

BEATS = {
    "cut": "beats",
    "filters": asdict(Filters()),
    "detector": "sleepecg",
    "min_rr_s": 0.2,
    "max_rr_s": 3.0,
    "record_s": 60.0,
}
RR = {"cut": "rr", "max_rr_s": 3.0}
STRETCHES = {"cut": "stretches"}


def write_model(
    path: Path, windows: dict[str, Any], *, leads: tuple[str, ...] = ("ECG1",), n_samples: int = 300, **changes: Any
) -> Path:
    """Write a model of two classes; a changed fact of None is left out."""
    weights = np.random.default_rng(0).normal(size=(len(leads) * n_samples, 2)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["signal"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("signal", TensorProto.FLOAT, ["batch", len(leads), n_samples])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    facts: dict[str, Any] = {
        "precision": "float32",
        "fs": 250,
        "unit": "mV",
        "lead_names": leads,
        "class_names": ["other", "AFIB"],
        "level": "beat",
        "exclusive": True,
        "windows": windows,
        "mean_mv": [0.1] * len(leads),
        "std_mv": [0.5] * len(leads),
        "data": "synthetic",
        **changes,
    }
    helper.set_model_props(
        model,
        {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items() if fact is not None},
    )
    onnx.save(model, path)
    return path
