"""A TS-CAN as TensorFlow Lite files: both forms answer as torch does, clip by clip."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from deploy.artifact import ArtifactError, load_artifact, predict
from deploy.edgetpu import check_edgetpu
from deploy.profile import count_macs
from deploy.tflite import export_tflite
from deploy.tflite_file import Graph, Tensor, read_graph
from deploy.tflite_int8 import _check_calibration
from deploy.tflite_layout import CLIP_SHAPE, arrange, count_calls, read_input_shape, takes
from lightning_modules.nets.tscan import EDGES, TsCan
from lightning_modules.nets.tscan_forms import FORMS, make_form
from tests.exporting import make_small
from tests.test_tscan import make_clips, make_net

SHAPES = {"batched": (4, 14, 14, 6), "unrolled": (1, 14, 14, 24)}


def make_graph(shape=(4, 14, 14, 6), output=(1, 4), metadata=None):
    tensors = tuple(Tensor(name, size, False, "FLOAT32", b"") for name, size in (("in", shape), ("out", output)))
    facts = {"precision": "float32", CLIP_SHAPE: "[8, 6, 14, 14]"} if metadata is None else metadata
    return Graph(tensors, (), (0,), (1,), facts)


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("segment", [1, 2, 4, 8])
@pytest.mark.parametrize("form", FORMS)
def test_forms_answer_segment_by_segment_as_the_net_does(form, segment, edge):
    net = make_net(edge=edge, segment=segment)
    clips = make_clips(net, 2)
    call = make_form(net, form)
    calls = torch.from_numpy(arrange(clips.numpy(), tuple(call.input_shape)).copy())
    assert (call.n_frames, calls.shape) == (segment, (16 // segment, *call.input_shape))
    with torch.no_grad():
        found = torch.cat([call(each) for each in calls]).reshape(2, 8)
        torch.testing.assert_close(found, net(clips), rtol=0, atol=1e-5)
    assert net.mask_norm == "divide"


def test_forms_divide_nothing_and_the_unrolled_one_has_a_batch_of_one():
    def trace(form):
        nodes = torch.export.export(form, (torch.zeros(tuple(form.input_shape)),)).graph.nodes
        return [node for node in nodes if node.op == "call_function" and isinstance(node.meta["val"], torch.Tensor)]

    batched, unrolled = (trace(make_form(make_net(), form)) for form in FORMS)
    assert not any("div" in str(node.target) for node in (*batched, *unrolled))
    # All in front of the three innermost dimensions is 1: more does not fit an Edge TPU.
    assert {int(np.prod(node.meta["val"].shape[:-3])) for node in unrolled} == {1}


@pytest.mark.parametrize("form", FORMS)
def test_files_say_what_clips_they_take(form):
    graph = make_graph(SHAPES[form])
    assert read_input_shape(graph, "m.tflite") == (8, 6, 14, 14)
    assert count_calls(graph) == 2
    assert takes(SHAPES[form], (8, 6, 14, 14))
    assert not takes(SHAPES[form], (6, 6, 14, 14))
    assert not takes(SHAPES[form], (8, 6, 36, 36))


@pytest.mark.parametrize(
    "clip", ["[8, 6, 14]", "[6, 6, 14, 14]", "[8, 6, 36, 36]", "[8, 5, 14, 14]", "[0, 6, 14, 14]", "8", "clip", "null"]
)
def test_a_file_whose_clips_do_not_fit_it_is_refused(clip):
    with pytest.raises(ArtifactError, match="expected a file of export_tflite"):
        read_input_shape(make_graph(metadata={"precision": "float32", CLIP_SHAPE: clip}), "m.tflite")


@pytest.mark.parametrize(
    ("export", "message"),
    [
        (lambda path: export(make_net(), path, frames=6), "clips of 6 frames are not a multiple of the 4 frames"),
        (lambda path: export(make_net(), path, form="folded"), r"form 'folded' must be one of \('batched', 'unrolled'"),
        (lambda path: export(make_small(), path), "Cnn1d has no form 'batched': only a TsCan"),
        (lambda path: export_tflite(make_net(), path, example=torch.zeros(1, 8, 6, 14, 14)), "needs clip_form"),
        (lambda path: export_tflite(make_net(), path, example=torch.zeros(8, 6, 14, 14)), r"example of shape \(8, 6,"),
        (lambda path: export(make_net(), path, metadata={CLIP_SHAPE: "[1]"}), "expected text under a key other than"),
    ],
)
def test_what_has_no_such_file_is_refused(export, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def test_calibration_must_be_of_whole_calls():
    with pytest.raises(ValueError, match=r"calibration of shape \(2, 6, 6, 14, 14\)"):
        _check_calibration(make_graph(), np.zeros((2, 6, 6, 14, 14), np.float32))


def export(net, path, *, form="batched", frames=8, **options):
    example = torch.zeros(2, frames, 6, 14, 14)
    return export_tflite(net, path, example=example, clip_form=partial(make_form, form=form), **options)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_files_agree_with_torch_and_hold_integers_alone(form, tmp_path):
    net = make_net()
    clips = make_clips(net, 8)
    expected = net(clips).detach().numpy()
    single = export(net, tmp_path / "float.tflite", form=form, metadata={"fs": "30"})
    assert load_artifact(single.path) == single
    assert (single.input_shape, single.metadata) == ((8, 6, 14, 14), {"fs": "30"})
    np.testing.assert_allclose(predict(single, clips.numpy()), expected, atol=1e-4)
    operators = {operator.kind for operator in read_graph(single.path).operators}
    assert {"CONV_2D", "RSQRT", "MEAN"} <= operators
    assert not {"DIV", "POW", "SUM"} & operators
    small = export(net, tmp_path / "int8.tflite", form=form, precision="int8", calibration=clips.numpy())
    graph = read_graph(small.path)
    assert {tensor.dtype for tensor in graph.tensors} == {"INT8", "INT32"}
    assert {graph.tensors[at].dtype for at in (*graph.inputs, *graph.outputs)} == {"INT8"}
    noise = np.sqrt(np.mean((predict(small, clips.numpy()) - expected) ** 2)) / expected.std()
    assert noise < 0.2
    counts = [count_macs(file.path) for file in (single, small)]
    assert counts[1].int8_macs_share == 1.0
    # A clip takes two calls: convolutions and dense layers of all of its frames.
    assert counts[0].macs == counts[1].macs == 8 * sum(frame_macs(net))
    report = check_edgetpu(small.path)
    if form == "unrolled":
        assert report.macs_share == 1.0, report.summary
    else:
        assert report.macs_share == 0.0


def frame_macs(net: TsCan):
    """Multiply-accumulates of each layer for one frame of 14 pixels."""
    first, second = net.stages
    for stage, side in ((first, 14), (second, 6)):
        for branch in ("motion", "appearance"):
            yield getattr(stage, f"{branch}_same").weight.numel() * side**2
            yield getattr(stage, f"{branch}_valid").weight.numel() * (side - 2) ** 2
        yield stage.attention.weight.numel() * (side - 2) ** 2
    head: Any = net.heads[net.answer]
    yield head.hidden.weight.numel() + head.out.weight.numel()


@pytest.mark.slow
@pytest.mark.parametrize(("form", "limit"), [("batched", 0.30), ("unrolled", 0.38)])
def test_the_papers_net_becomes_a_small_file(form, limit, tmp_path):
    torch.manual_seed(0)
    net = TsCan(10, 36).eval()
    clips = make_clips(net, 2, 10)
    files = [
        export_tflite(
            net,
            tmp_path / f"{bits}.tflite",
            example=clips,
            precision=bits,
            calibration=clips.numpy(),
            clip_form=partial(make_form, form=form),
        )
        for bits in ("float32", "int8")
    ]
    # Its 532,899 values, and the operators that they belong to.
    assert 532_899 * 4 < files[0].size_bytes < 2_450_000
    assert files[1].size_bytes < limit * files[0].size_bytes
