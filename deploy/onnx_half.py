"""Store an exported ONNX graph in half precision."""

from onnx import ModelProto

from deploy.onnx_graph import sort_nodes


def convert_to_float16(model: ModelProto) -> ModelProto:
    """Turn weights and activations into float16; the input and the logits stay float32.

    Values beyond the range of float16 end at its largest, smaller ones than its smallest at that: neither becomes
    infinite or zero.

    Parameters
    ----------
    model : ModelProto
        Float model; not changed.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted = ModelProto()
    converted.CopyFrom(model)
    converted = convert_float_to_float16(converted, keep_io_types=True)
    # The casts at both ends are appended.
    sort_nodes(converted)
    return converted
