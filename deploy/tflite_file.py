"""What a TensorFlow Lite file holds, as plain values: tensors, operators, metadata.

Reading needs numpy and LiteRT only: the process that measures loads this module without a training framework.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_litert.tools import flatbuffer_utils

from deploy.artifact import ArtifactError

METADATA_NAME = "lightheart"
"""Name of the metadata entry whose buffer holds what the exporter was asked to write, as one JSON object of texts."""

_DTYPES = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT8": np.int8, "UINT8": np.uint8, "INT32": np.int32}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph.

    Attributes
    ----------
    name : str
    shape : tuple of int
        As planned for; what is free in a dynamic tensor counts as 1.
    dynamic : bool
        Whether a dimension is free.
    dtype : str
        As the schema calls it, such as "INT8".
    data : bytes
        Stored values; empty for what is computed.
    zero_point : int
        Integer that stands for zero; 0 for what is not quantized.
    """

    name: str
    shape: tuple[int, ...]
    dynamic: bool
    dtype: str
    data: bytes
    zero_point: int = 0

    @property
    def values(self) -> np.ndarray:
        """Stored values in their shape; of int32 or eight bits, float16 or float32."""
        return np.frombuffer(self.data, _DTYPES[self.dtype]).reshape(self.shape)


@dataclass(frozen=True)
class Operator:
    """An operator of the graph.

    Attributes
    ----------
    name : str
        Kind, layer and position, unique in the file, such as "CONV_2D features.0 #1".
    kind : str
        As the schema calls it, such as "CONV_2D"; a custom one by its own name.
    layer : str
        Modules of the net that it stands for, such as "features.0"; the name of its output in files of others.
    inputs, outputs : tuple of int
        Positions among the tensors; an input that is left out is not among them.
    activation : str
        Fused activation function, "NONE" without.
    options : object or None
        Options of its kind, as the schema reads them.
    custom : bool
        Whether it is none of the runtime's own.
    """

    name: str
    kind: str
    layer: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    activation: str
    options: Any
    custom: bool


@dataclass(frozen=True)
class Graph:
    """The one graph of a file.

    Attributes
    ----------
    tensors : tuple of Tensor
    operators : tuple of Operator
        In the order in which they run.
    inputs, outputs : tuple of int
        Positions among the tensors.
    metadata : mapping of str to str or None
        What the exporter wrote; None in files of others.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    metadata: Mapping[str, str] | None


def read_graph(source: Path | bytes, name: str = "") -> Graph:
    """Read a TensorFlow Lite file.

    Parameters
    ----------
    source : Path or bytes
        The file, or its content.
    name : str
        What errors call it; the file's name by default.

    Raises
    ------
    ArtifactError
        If it is missing, damaged, or holds several graphs.
    """
    name = name or (source.name if isinstance(source, Path) else "model")
    content = _read_bytes(source) if isinstance(source, Path) else source
    # Checks every offset; what reads the fields below does not.
    open_interpreter(content, name, threads=1, delegates=False)
    model = flatbuffer_utils.read_model_from_bytearray(content)
    if len(model.subgraphs) != 1:
        raise ArtifactError(f"{name}: {len(model.subgraphs)} graphs, expected one; export it without control flow")
    graph = model.subgraphs[0]
    tensors = tuple(_read_tensor(tensor, model.buffers) for tensor in graph.tensors)
    operators = tuple(
        _read_operator(index, operator, model.operatorCodes[operator.opcodeIndex], tensors)
        for index, operator in enumerate(graph.operators)
    )
    return Graph(tensors, operators, tuple(graph.inputs), tuple(graph.outputs), _read_metadata(model, name))


def open_interpreter(content: bytes, name: str, *, threads: int, delegates: bool = True) -> Interpreter:
    """Load the content of a file into LiteRT.

    Parameters
    ----------
    content : bytes
    name : str
        What errors call the file.
    threads : int
        0 leaves the choice to the runtime.
    delegates : bool, default True
        Whether XNNPACK, the fast kernels, may take over; without, operators that it cannot run do not stop the load.

    Raises
    ------
    ArtifactError
        If the runtime refuses the file.
    """
    resolver = OpResolverType.AUTO if delegates else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        return Interpreter(model_content=content, num_threads=threads or None, experimental_op_resolver_type=resolver)
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(f"{name}: LiteRT cannot load it ({error}); export it again") from error


def write_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """Give the content of a file with these texts as its metadata; what stood there from us before goes."""
    model = flatbuffer_utils.read_model_from_bytearray(content)
    entry, buffer = schema.MetadataT(), schema.BufferT()
    buffer.data = json.dumps(dict(sorted(metadata.items()))).encode()
    entry.name, entry.buffer = METADATA_NAME, len(model.buffers)
    model.buffers.append(buffer)
    kept = [item for item in model.metadata or [] if _text(item.name) != METADATA_NAME]
    model.metadata = [*kept, entry]
    model.description = "lightheart"
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def isolate_operators(content: bytes) -> Iterator[bytes]:
    """Yield for each operator a file that holds it alone, fed with what others would compute, in order."""
    model = flatbuffer_utils.read_model_from_bytearray(content)
    graph, operators = model.subgraphs[0], model.subgraphs[0].operators
    model.signatureDefs, model.metadata = None, None
    stored = {index for index, tensor in enumerate(graph.tensors) if model.buffers[tensor.buffer].data is not None}
    buffers, tensors = model.buffers, graph.tensors
    for operator in operators:
        # Only what it reads and writes: a copy of all weights for each operator would add up.
        used = [position for position in dict.fromkeys([*operator.inputs, *operator.outputs]) if position >= 0]
        place = {position: index for index, position in enumerate(used)} | {-1: -1}
        alone = copy.copy(operator)
        alone.inputs, alone.outputs = (
            [place[at] for at in positions] for positions in (operator.inputs, operator.outputs)
        )
        graph.tensors = [copy.copy(tensors[position]) for position in used]
        model.buffers = [schema.BufferT(), *(buffers[tensor.buffer] for tensor in graph.tensors)]
        for index, tensor in enumerate(graph.tensors):
            tensor.buffer = index + 1
        graph.operators = [alone]
        graph.inputs = [place[position] for position in dict.fromkeys(operator.inputs) if position not in stored | {-1}]
        graph.outputs = list(alone.outputs)
        yield bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def find_layer(tensor: str) -> str:
    """Read the modules of the net out of a tensor's name, as `deploy.tflite_prepare` puts them there."""
    # A fused operator lists the modules that went into it, last first; a number tells equal names apart.
    parts = [part for part in tensor.split(";") if part and not part.isdigit()]
    return " ".join(dict.fromkeys(reversed(parts)))


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such model file; export it first") from error
    if not content:
        raise ArtifactError(f"{path}: the file is empty; export it again")
    return content


def _read_tensor(tensor: Any, buffers: list[Any]) -> Tensor:
    shape = tuple(int(size) for size in (tensor.shape if tensor.shape is not None else ()))
    signature = [] if tensor.shapeSignature is None else list(tensor.shapeSignature)
    data = buffers[tensor.buffer].data
    return Tensor(
        name=_text(tensor.name),
        shape=tuple(max(size, 1) for size in shape),
        dynamic=any(size < 0 for size in (*signature, *shape)),
        dtype=_TYPES[tensor.type],
        data=b"" if data is None else bytes(data),
        zero_point=_read_zero_point(tensor.quantization),
    )


def _read_zero_point(quantization: Any) -> int:
    points = None if quantization is None else quantization.zeroPoint
    return 0 if points is None or len(points) == 0 else int(points[0])


def _read_operator(index: int, operator: Any, code: Any, tensors: tuple[Tensor, ...]) -> Operator:
    builtin = flatbuffer_utils.get_builtin_code_from_operator_code(code)
    custom = builtin == schema.BuiltinOperator.CUSTOM
    kind = _text(code.customCode) if custom else _KINDS[builtin]
    outputs = tuple(int(position) for position in operator.outputs)
    # What the file puts out bears the name of the signature: there, stored values tell the layer.
    inputs = tuple(int(position) for position in operator.inputs if position >= 0)
    named = [*outputs[:1], *(position for position in inputs if tensors[position].data)]
    names = [tensors[position].name for position in named]
    layer = next((find_layer(name) for name in names if not name.startswith("serving_default")), "output")
    options = operator.builtinOptions
    return Operator(
        name=f"{kind} {layer} #{index}",
        kind=kind,
        layer=layer,
        inputs=inputs,
        outputs=outputs,
        activation=_ACTIVATIONS[getattr(options, "fusedActivationFunction", 0)],
        options=options,
        custom=custom,
    )


def _read_metadata(model: Any, name: str) -> dict[str, str] | None:
    for entry in model.metadata or []:
        if _text(entry.name) == METADATA_NAME:
            try:
                texts = json.loads(bytes(model.buffers[entry.buffer].data))
            except (ValueError, TypeError) as error:
                raise ArtifactError(f"{name}: its metadata is damaged ({error}); export it again") from error
            return {str(key): str(value) for key, value in texts.items()}
    return None


def _text(name: bytes | str | None) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name or ""


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


_KINDS = _names(schema.BuiltinOperator)
_TYPES = _names(schema.TensorType)
_ACTIVATIONS = _names(schema.ActivationFunctionType)
