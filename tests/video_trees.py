"""Small face videos and data sets in the published layouts, for tests."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from datamodules.face_detectors import load_cascade
from datamodules.faces import FaceStage
from datamodules.simulated_face import FacePlan, render_frames, simulate_pulse, simulate_rate
from datamodules.synthetic_video import encode_video

CASCADE = FaceStage(load_cascade, enlarge=1.0)


def fake_stage(box=(40.0, 20.0, 120.0, 100.0), **options) -> FaceStage:
    """A stage whose detector sees the same face in every frame, or what a function tells it."""
    answers: Callable = box if callable(box) else lambda frame: np.array([box], dtype=np.float64)
    return FaceStage(lambda: answers, enlarge=1.0, **options)


def draw(seconds=3.0, fps=30.0, hr_bpm=72.0, seed=0, **plan):
    """Frame times, pulse, heart rate and frames of a simulated face."""
    rng = np.random.default_rng(seed)
    times_s = np.arange(round(seconds * fps)) / fps
    rate = simulate_rate(rng, times_s, hr_bpm)
    bvp = simulate_pulse(rng, times_s, rate)
    return times_s, bvp, rate, render_frames(rng, FacePlan(times_s, **plan), bvp)


def write_ubfc_subject(root: Path, name="subject1", *, tag_fps=None, truth=None, **options) -> Path:
    """Write ``vid.avi`` and ``ground_truth.txt`` of one person; ``truth`` may change the three rows."""
    folder = root / name
    folder.mkdir(parents=True)
    times_s, bvp, rate, frames = draw(**options)
    encode_video(folder / "vid.avi", frames, tag_fps or options.get("fps", 30.0))
    rows = [bvp, rate, times_s] if truth is None else truth(bvp, rate, times_s)
    (folder / "ground_truth.txt").write_text("".join(" ".join(f"{v:.7e}" for v in row) + "\n" for row in rows))
    return folder


def write_vipl_v2_subject(root: Path, name="1", fps=(26.3, 21.9), rates=(100.4, 103.6), seconds=2.0) -> Path:
    """Write two videos and a table with the published table's irregular blanks."""
    folder = root / name
    folder.mkdir(parents=True)
    for number, (real, hr_bpm) in enumerate(zip(fps, rates, strict=True), start=1):
        encode_video(folder / f"video{number}.mp4.avi", draw(seconds, real, hr_bpm)[3], 30.0)
    (folder / "gt.csv").write_text(
        f",video1 , video2\nHeart rate ,{rates[0]:f} , {rates[1]:f}\nfps_mean ,{fps[0]:f}, {fps[1]:f}\n"
    )
    return folder


def encode_mp4(path: Path, frames, times_s, rotation: int | None = None) -> None:
    """Write frames at any times, with a rotation tag if asked for."""
    frames = list(frames)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        if rotation is not None:
            cos, sin = round(np.cos(np.deg2rad(rotation))), round(np.sin(np.deg2rad(rotation)))
            one = 1 << 16
            stream.set_display_matrix((cos * one, -sin * one, 0, sin * one, cos * one, 0, 0, 0, 1 << 30))
        for time_s, image in zip(times_s, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = round(time_s * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
