"""How published weights of TS-CAN name their layers, and what they expect of the net and of its clips."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """How one source writes a TS-CAN down, and how the net must be set up for it.

    Attributes
    ----------
    name : str
    layers : mapping of str to str
        Our layer to the source's; each has a kernel and a bias.
    keras : bool
        Kernels as Keras keeps them, (height, width, inputs, outputs), and features flattened channels last.
    segment, edge
        As in `TsCan`.
    tasks : tuple of str
        As in `TsCan`.
    input_variant : str
        What the clips must hold: "normalized_difference" or "standardized_difference".
    """

    name: str
    layers: Mapping[str, str]
    keras: bool
    segment: int
    edge: str
    tasks: tuple[str, ...]
    input_variant: str


# PyPI's open-rppg 0.1.1: Keras 3, one set trained on PURE and one on RLAP.
OPEN_RPPG = Published(
    name="open-rppg",
    layers={
        "first.motion_same": "inner/d1/layers/conv2d",
        "first.motion_valid": "inner/d1/layers/conv2d_1",
        "first.appearance_same": "inner/g1/layers/conv2d",
        "first.appearance_valid": "inner/g1/layers/conv2d_1",
        "first.attention": "inner/attn1/layers/conv2d",
        "second.motion_same": "inner/d2/layers/conv2d",
        "second.motion_valid": "inner/d2/layers/conv2d_1",
        "second.appearance_same": "inner/g2/layers/conv2d",
        "second.appearance_valid": "inner/g2/layers/conv2d_1",
        "second.attention": "inner/attn2/layers/conv2d",
        "heads.bvp.hidden": "inner/d/layers/dense",
        "heads.bvp.out": "inner/d/layers/dense_1",
    },
    keras=True,
    segment=20,
    edge="repeat",
    tasks=("bvp",),
    input_variant="standardized_difference",
)
# The authors' mtts_can.hdf5 (github.com/xliucs/MTTS-CAN): TensorFlow's older layout. Numbers of layers count on within
# a process, so it is their order that names them: here the n-th convolution, and the n-th unnamed dense layer.
MTTS_CAN = Published(
    name="MTTS-CAN",
    layers={
        "first.motion_same": "conv2d[0]",
        "first.motion_valid": "conv2d[1]",
        "first.appearance_same": "conv2d[2]",
        "first.appearance_valid": "conv2d[3]",
        "first.attention": "conv2d[4]",
        "second.motion_same": "conv2d[5]",
        "second.motion_valid": "conv2d[6]",
        "second.appearance_same": "conv2d[7]",
        "second.appearance_valid": "conv2d[8]",
        "second.attention": "conv2d[9]",
        "heads.bvp.hidden": "dense[0]",
        "heads.bvp.out": "output_1",
        "heads.resp.hidden": "dense[1]",
        "heads.resp.out": "output_2",
    },
    keras=True,
    segment=10,
    edge="zero",
    tasks=("bvp", "resp"),
    input_variant="normalized_difference",
)
# github.com/ubicomplab/rPPG-Toolbox; `apperance` is its spelling.
RPPG_TOOLBOX = Published(
    name="rPPG-Toolbox",
    layers={
        "first.motion_same": "motion_conv1",
        "first.motion_valid": "motion_conv2",
        "first.appearance_same": "apperance_conv1",
        "first.appearance_valid": "apperance_conv2",
        "first.attention": "apperance_att_conv1",
        "second.motion_same": "motion_conv3",
        "second.motion_valid": "motion_conv4",
        "second.appearance_same": "apperance_conv3",
        "second.appearance_valid": "apperance_conv4",
        "second.attention": "apperance_att_conv2",
        "heads.bvp.hidden": "final_dense_1",
        "heads.bvp.out": "final_dense_2",
    },
    keras=False,
    segment=10,
    edge="zero",
    tasks=("bvp",),
    input_variant="normalized_difference",
)
