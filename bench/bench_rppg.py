"""The pulse of a face video over the video's length, by stage; latency of TS-CAN int8 over float; memory.

The video is simulated, 640 x 480 at 30 frames per second, in MPEG-4; two cores. The weights are random, as speed does
not depend on them; with ``--weights`` faces are found by the SSD, otherwise by the cascade. CPU time stands beside wall
time, which means little on a busy machine: that of the thread of all stages, and that of the process with decoding.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.bench_video import FPS
from datamodules.simulated_face import FacePlan, render_frames, simulate_pulse
from deploy.artifact import Artifact
from deploy.measure import read_peak_bytes

PROJECT = Path(__file__).resolve().parents[1]
MOST_DECODED, MOST_PLAIN, MOST_GROWTH_MB = 0.08, 0.04, 30.0
MOST_RATIO = {"onnx": 0.85, "tflite": 0.50}
SEGMENT, STREAM_FRAMES = 10, 20
PRECISIONS = ("float32", "int8")
SHORT_S = 10


def export_models(folder: Path) -> dict[str, Path]:
    """Export TS-CAN with random weights for a stream, as `composition.published_nets` does with published ones."""
    import torch

    from deploy.onnx import export_onnx
    from lightning_modules.nets.tscan import TsCan
    from lightning_modules.nets.tscan_forms import OneLookTsCan

    torch.manual_seed(0)
    net = OneLookTsCan(TsCan(STREAM_FRAMES, 36, segment=STREAM_FRAMES, edge="repeat"))
    facts = {
        "task": "heart_rate",
        "output": "bvp_derivative",
        "fs": "30",
        "n_frames": str(STREAM_FRAMES),
        "image_size": "36",
        "input_variant": "standardized_difference",
        "band_hz": "[0.75, 2.5]",
        "data": "synthetic",
        "dataset": "none",
    }
    clips = make_noise(8, STREAM_FRAMES)
    paths = {precision: folder / f"tscan-{precision}.onnx" for precision in PRECISIONS}
    for precision, path in paths.items():
        calibration = clips if precision == "int8" else None
        example = torch.zeros(2, *clips.shape[1:])
        export_onnx(net, path, example=example, precision=precision, calibration=calibration, metadata=facts)
    return paths


def export_pairs(folder: Path) -> dict[str, list[Artifact]]:
    """Export TS-CAN as published, one segment a call, in float32 and int8 for both runtimes."""
    import torch

    from deploy.onnx import export_onnx
    from deploy.tflite import export_tflite
    from lightning_modules.nets.tscan import TsCan
    from lightning_modules.nets.tscan_forms import make_form

    torch.manual_seed(0)
    net, clips = TsCan(SEGMENT, 36).eval(), make_noise(4, SEGMENT)
    exports: dict[str, Callable[..., Artifact]] = {
        "onnx": export_onnx,
        "tflite": partial(export_tflite, clip_form=partial(make_form, form="batched")),
    }
    return {
        runtime: [
            export(
                net,
                folder / f"{precision}.{runtime}",
                example=torch.zeros(2, *clips.shape[1:]),
                precision=precision,
                calibration=clips if precision == "int8" else None,
            )
            for precision in PRECISIONS
        ]
        for runtime, export in exports.items()
    }


def make_noise(n: int, n_frames: int) -> NDArray[np.float32]:
    """Make clips (n, n_frames, 6, 36, 36): speed does not depend on what they show."""
    return np.random.default_rng(0).normal(size=(n, n_frames, 6, 36, 36)).astype(np.float32)


def write_video(path: Path, seconds: int) -> None:
    """Write a simulated face in MPEG-4; the packets of one second come again and again, which saves encoding them."""
    import av

    rng = np.random.default_rng(0)
    times_s = np.arange(FPS) / FPS
    plan = FacePlan(times_s, width=640, height=480)
    frames = render_frames(rng, plan, simulate_pulse(rng, times_s, np.full(FPS, 60.0)))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 640, 480, "yuv420p", 4_000_000
        stream.gop_size = FPS
        packets = []
        for image in frames:
            packets += stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p"))
        packets += stream.encode(None)
        facts = [(bytes(packet), packet.is_keyframe, packet.time_base) for packet in packets]
        for number in range(seconds * FPS):
            content, key, time_base = facts[number % FPS]
            packet: Any = av.Packet(content)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.is_keyframe = time_base, stream, key
            container.mux(packet)


def watch(model: str, video: str, weights: str) -> None:
    """Watch a video in this process and print the summary, with CPU time of the stages and peak memory."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:2]))
    from composition.live_models import open_pulse_model
    from composition.live_pulse import PulseOptions, make_stage
    from composition.live_watch import WatchOptions, watch_video
    from datamodules.live_video import open_video

    start, start_all = time.thread_time(), time.process_time()
    found = watch_video(
        open_video(video, 30.0),
        open_pulse_model(model),
        make_stage("ssd" if weights else "cascade", weights),
        PulseOptions(),
        WatchOptions(),
    )
    cpu_s, cpu_all_s = time.thread_time() - start, time.process_time() - start_all
    print(json.dumps({**found, "cpu_s": cpu_s, "cpu_all_s": cpu_all_s, "memory_mb": read_peak_bytes() / 2**20}))


def measure(model: Path, video: Path, weights: str) -> dict[str, Any]:
    """Watch a video in a new process."""
    command = [sys.executable, "-m", "bench.bench_rppg", "--child", str(model), str(video), weights]
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the figures with their limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="", help="folder of `make weights`")
    parser.add_argument("--seconds", type=int, default=600, help="length of the longer video")
    parser.add_argument("--latency-s", type=float, default=3.0, help="seconds of measurement for each file")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        watch(*arguments.child)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = export_models(folder)
        lengths = (min(SHORT_S, arguments.seconds), arguments.seconds)
        videos = [folder / f"{seconds}.mp4" for seconds in lengths]
        for video, seconds in zip(videos, lengths, strict=True):
            write_video(video, seconds)
        short, long = (measure(paths["int8"], video, arguments.weights) for video in videos)
        stages = ", ".join(
            f"{name} {ms:.2f} ms ({long['stage_share'][name]:.0%})" for name, ms in long["stage_ms"].items()
        )
        print(f"{long['n_frames']} frames at {FPS} a second, a frame takes: {stages}")
        print(
            f"time over video: {long['time_over_video']:.1%} without decoding (target <= {MOST_PLAIN:.0%}),"
            f" {long['time_over_video_decoded']:.1%} with (target <= {MOST_DECODED:.0%});"
            f" CPU time over video: {long['cpu_s'] / long['duration_s']:.1%} for the stages,"
            f" {long['cpu_all_s'] / long['duration_s']:.1%} with decoding"
        )
        growth_mb = long["memory_mb"] - short["memory_mb"]
        print(
            f"peak memory: {short['memory_mb']:.0f} MB for {lengths[0]} s, {growth_mb:+.1f} MB for {lengths[1]} s"
            f" (target <= {MOST_GROWTH_MB:.0f} MB more)"
        )
        for runtime, artifacts in export_pairs(folder).items():
            for threads in (1, 2):
                print_latency(runtime, artifacts, arguments.latency_s, threads)


def print_latency(runtime: str, artifacts: list[Artifact], window_s: float, threads: int) -> None:
    """Time two files in turns and print frames a second and the ratio; CPU time is free of other work."""
    from deploy.profile import latency_ratio, profile_artifacts

    single, quantized = profile_artifacts(artifacts, batch_sizes=(1,), window_s=window_s, threads=threads)
    speeds = ", ".join(
        f"{name} {SEGMENT * 1000 / profile.latency[1].p50_ms:,.0f} frames/s"
        f" ({SEGMENT * 1000 / float(np.median(profile.latency[1].block_cpu_p50_ms)):,.0f} per second of CPU)"
        for name, profile in zip(PRECISIONS, (single, quantized), strict=True)
    )
    limit = f" (target <= {MOST_RATIO[runtime]:g})" if threads == 1 else ""
    print(
        f"TS-CAN, {runtime}, {threads} threads: {speeds}; int8 / float {latency_ratio(quantized, single, 1):.3f}{limit}"
    )


if __name__ == "__main__":
    main()
