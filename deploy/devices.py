"""The devices that a bundle can be made for: which files they take, and which runtime runs them there."""

from collections.abc import Mapping
from dataclasses import dataclass

from deploy.artifact import Artifact


@dataclass(frozen=True)
class Device:
    """Facts about a kind of device.

    Attributes
    ----------
    name : str
        As in ``deploy.bundle`` and ``bundle.py``.
    title : str
        In words.
    endings : tuple of str
        Files that it takes, the preferred ones first.
    precisions : tuple of str
        Those that its accelerator takes; empty for any.
    runtimes : mapping of str to mapping of str to str
        Ending to the runtimes that are accepted there, in order, each with its oldest version.
    command : str
        How the measurement is started there.
    note : str
        What a user of this device must know.
    compiler : str
        Program that compiles the file for the accelerator, where it is on the PATH.
    """

    name: str
    title: str
    endings: tuple[str, ...]
    precisions: tuple[str, ...]
    runtimes: Mapping[str, Mapping[str, str]]
    command: str = "python3 run_on_device.py"
    note: str = ""
    compiler: str = ""


# Per-channel int8 is in TensorFlow Lite since 2.5; opset 20 in ONNX Runtime since 1.17, its IR version 10 since 1.18.
LITERT = {"ai-edge-litert": "1.0.1", "tflite-runtime": "2.5.0"}
ONNX_RUNTIME = {"onnxruntime": "1.18.0"}
ON_CPU = {".tflite": LITERT, ".onnx": ONNX_RUNTIME}

DEVICES = {
    device.name: device
    for device in (
        Device(
            name="cpu",
            title="a computer's processor",
            endings=(".onnx", ".tflite"),
            precisions=(),
            runtimes=ON_CPU,
        ),
        Device(
            name="raspberry_pi",
            title="Raspberry Pi (64-bit system), on its processor",
            endings=(".tflite", ".onnx"),
            precisions=(),
            runtimes=ON_CPU,
            note="A Raspberry Pi exposes its temperature, and no power: measure that at the plug.",
        ),
        Device(
            name="coral",
            title="Google Coral Dev Board, Edge TPU",
            endings=(".tflite",),
            precisions=("int8",),
            runtimes={".tflite": dict(reversed(LITERT.items()))},
            command="python3 run_on_device.py --delegate libedgetpu.so.1",
            compiler="edgetpu_compiler",
            note=(
                "model_edgetpu.tflite is there only where edgetpu_compiler was on the PATH when this folder was made;"
                " it runs with the delegate. model.tflite runs on the board's processor. device.json says which of"
                " them was measured. libedgetpu comes from Coral's package list, not from pip."
            ),
        ),
        Device(
            name="jetson_orin_nano",
            title="NVIDIA Jetson Orin Nano, GPU by TensorRT",
            endings=(".onnx",),
            precisions=(),
            runtimes={".onnx": {"tensorrt": "8.6.0"}},
            note=(
                "The engine is built from model.onnx on the device itself: an engine runs only on the GPU and TensorRT"
                " that it was built with. TensorRT comes with JetPack, not from pip. Fix the clocks with"
                " 'sudo nvpmodel -m 0 && sudo jetson_clocks' before measuring."
            ),
        ),
        Device(
            name="watch",
            title="a watch or another small board with Linux and Python, on its processor",
            endings=(".tflite",),
            precisions=(),
            runtimes={".tflite": LITERT},
            note=(
                "run_on_device.py needs Python on the device; a watch without it needs an app around model.tflite,"
                " which this bundle does not hold."
            ),
        ),
    )
}


def find_device(name: str) -> Device:
    """Give the facts of a device.

    Raises
    ------
    ValueError
        If there is no such device; the message names all.
    """
    if name not in DEVICES:
        raise ValueError(f"device {name!r} is unknown, expected one of {sorted(DEVICES)!r} (deploy.bundle, device=)")
    return DEVICES[name]


def refuse_artifact(device: Device, artifact: Artifact) -> str:
    """Say why a device cannot take a file; an empty text where it can."""
    if artifact.path.suffix not in device.endings:
        return f"{device.name} takes {' or '.join(device.endings)}, not {artifact.path.suffix!r}"
    if device.precisions and artifact.precision not in device.precisions:
        return f"{device.name} takes {' or '.join(device.precisions)}, not {artifact.precision}"
    if "tensorrt" in device.runtimes[artifact.path.suffix] and artifact.precision.startswith("int8"):
        from deploy.engine import find_asymmetric

        if nodes := find_asymmetric(artifact.path):
            return (
                f"TensorRT takes symmetric int8 only, and {nodes[0]!r} has a zero point: export with deploy=onnx_s8 or"
                " deploy=tensorrt"
            )
    return ""
