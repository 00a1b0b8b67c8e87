"""The stages of P1, timed on a video of known length."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from composition.stages import find_test_entry, time_stages
from datamodules.faces import FaceStage
from datamodules.pulse import PulseFilter
from datamodules.video_records import VideoEntry, VideoListing, VideoRecord
from datamodules.whole_frame import load_whole_frame
from deploy.onnx import export_onnx
from lightning_modules.nets.tscan import TsCan

N_FRAMES = 90


def video(record_id, fps, n):
    def stream():
        rng = np.random.default_rng(0)
        frame = rng.integers(1, 255, (48, 64, 3), dtype=np.uint8)
        return itertools.repeat(frame, n)

    times_s = np.arange(n) / fps
    return VideoEntry(record_id, "p", (), lambda: VideoRecord(record_id, "p", fps, times_s, stream))


def data(*entries, ids=("b",), other=False):
    listing = VideoListing("tiny", entries, "synthetic")
    asked = []
    source = lambda root: asked.append(root) or listing  # noqa: E731
    return SimpleNamespace(
        faces=FaceStage(load_whole_frame, max_gap=0, enlarge=1.0),
        image_size=36,
        n_frames=N_FRAMES,
        fs=30.0,
        input_variant="normalized_difference",
        source=None if other else source,
        root="here",
        test_source=source if other else None,
        test_root="there",
        record_ids=lambda split: np.array(ids),
        asked=asked,
    )


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    torch.manual_seed(0)
    net = TsCan(N_FRAMES, 36, widths=(3, 3), dense_width=4)
    path = tmp_path_factory.mktemp("stages") / "net.onnx"
    return export_onnx(net, path, example=torch.zeros(2, N_FRAMES, 6, 36, 36))


@pytest.mark.parametrize("fps", [30.0, 20.0])
def test_shares_and_times_belong_together(artifact, fps):
    figures = time_stages(data(video("b", fps, 130)), artifact, PulseFilter(), "fft")
    shares = [figures[f"stages/{stage}_share"] for stage in ("faces", "pulse", "rate")]
    assert min(shares) > 0
    assert sum(shares) == pytest.approx(1)
    total_ms = sum(figures[f"stages/{stage}_ms"] for stage in ("faces", "pulse", "rate"))
    # A frame takes 1 / fps of the video.
    assert figures["stages/time_over_video"] == pytest.approx(total_ms * 130 / 129 * fps / 1e3)
    with_decoding = total_ms + figures["stages/decoding_ms"]
    assert figures["stages/time_over_video_decoded"] == pytest.approx(with_decoding * 130 / 129 * fps / 1e3)


def test_a_long_video_is_timed_at_its_beginning(artifact):
    read = []

    def stream():
        for _ in range(10_000):
            read.append(1)
            yield np.full((40, 40, 3), 99, np.uint8)

    record = VideoRecord("b", "p", 30.0, np.arange(10_000) / 30, stream)
    figures = time_stages(data(VideoEntry("b", "p", (), lambda: record)), artifact, PulseFilter(), "fft")
    assert len(read) == 360
    assert sum(figures[f"stages/{stage}_share"] for stage in ("faces", "pulse", "rate")) == pytest.approx(1)


def test_a_video_shorter_than_a_clip_is_named(artifact):
    with pytest.raises(ValueError, match=r"record 'b': 60 frames are no clip of datamodule\.n_frames=90"):
        time_stages(data(video("b", 30.0, 60)), artifact, PulseFilter(), "fft")


def test_the_video_is_of_the_test_side():
    entries = [video(name, 30.0, 10) for name in "abc"]
    assert find_test_entry(data(*entries)).record_id == "b"
    crossed = data(*entries, ids=("test/c",), other=True)
    assert find_test_entry(crossed).record_id == "c"
    assert crossed.asked == ["there"]
