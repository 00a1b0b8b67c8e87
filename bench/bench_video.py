"""Face crops of a video over a plain OpenCV loop that detects in every frame, and memory against video length.

Both sides use the same detector, the same crop size and one thread each; the video is simulated, 640 x 480 at 30
frames per second. With ``--weights`` both use the SSD, otherwise the cascade.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from datamodules.face_detectors import Detector, load_cascade, load_ssd
from datamodules.faces import FaceStage
from datamodules.simulated_face import FacePlan, render_frames, simulate_pulse
from datamodules.synthetic_video import encode_video
from datamodules.video_crops import load_record
from datamodules.video_files import probe_video, read_frames
from datamodules.video_records import VideoEntry, VideoRecord
from deploy.measure import read_peak_bytes

PROJECT = Path(__file__).resolve().parents[1]
LEAST_RATIO, MOST_GROWTH_MB = 3.0, 30.0
FPS, SIZE = 30, 36
SHORT_S, LONG_S = 2, 16


def write_video(path: Path, seconds: int) -> None:
    """Write a simulated face; its frames come in turns of a second, which saves drawing them."""
    rng = np.random.default_rng(0)
    times_s = np.arange(FPS) / FPS
    plan = FacePlan(times_s, width=640, height=480)
    frames = list(render_frames(rng, plan, simulate_pulse(rng, times_s, np.full(FPS, 60.0))))

    def turns() -> Iterator[NDArray[np.uint8]]:
        for number in range(seconds * FPS):
            yield frames[number % FPS]

    encode_video(path, turns(), FPS)


def crop_plainly(path: Path, detect: Detector, n_frames: int) -> NDArray[np.uint8]:
    """Detect in every frame, crop and resize, as scripts do."""
    capture = cv2.VideoCapture(str(path))
    crops = []
    for _ in range(n_frames):
        frame: Any = capture.read()[1]
        frame = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        left, top, right, bottom = detect(frame)[0].clip(0).astype(int)
        crops.append(cv2.resize(frame[top:bottom, left:right], (SIZE, SIZE), interpolation=cv2.INTER_AREA))
    return np.stack(crops)


def make_entry(path: Path, n_frames: int) -> VideoEntry:
    """One record over the first frames of a file."""

    def read() -> VideoRecord:
        times_s = probe_video(path, "bench").times_s[:n_frames]
        return VideoRecord(
            "bench", "bench", FPS, times_s, lambda: islice(read_frames(path, "bench", n_frames), n_frames)
        )

    return VideoEntry("bench", "bench", (path,), read)


def measure_memory(path: Path, n_frames: int, weights: str | None, cache: str) -> float:
    """Peak memory of a new process that fills the cache, in MB."""
    command = [sys.executable, "-m", "bench.bench_video", "--child", str(path), str(n_frames), cache]
    command += ["--weights", weights] if weights else []
    return float(subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    """Print both figures with their limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", help="folder of `make weights`")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    make_detector = partial(load_ssd, weights=arguments.weights) if arguments.weights else load_cascade
    stage = FaceStage(make_detector)
    if arguments.child:
        path, n_frames, cache = arguments.child
        load_record(make_entry(Path(path), int(n_frames)), stage, SIZE, cache)
        print(read_peak_bytes() / 2**20)
        return
    with tempfile.TemporaryDirectory() as scratch:
        path, n_frames = Path(scratch) / "vid.avi", SHORT_S * FPS
        write_video(path, LONG_S)
        detect = make_detector()
        clocks = {"wall": time.perf_counter, "CPU": time.process_time}
        for turn in range(2):
            start = {name: clock() for name, clock in clocks.items()}
            crop_plainly(path, detect, n_frames)
            middle = {name: clock() for name, clock in clocks.items()}
            load_record(make_entry(path, n_frames), stage, SIZE, f"{scratch}/cache{turn}")
            for name, clock in clocks.items():
                plain, ours = middle[name] - start[name], clock() - middle[name]
                print(
                    f"{n_frames} frames, {name} time: plain loop {plain:.2f} s, cold cache {ours:.2f} s,"
                    f" {1000 * ours / n_frames:.1f} ms a frame: {plain / ours:.1f}x (target >= {LEAST_RATIO}x)"
                )
        short, long = (
            measure_memory(path, seconds * FPS, arguments.weights, f"{scratch}/memory{seconds}")
            for seconds in (SHORT_S, LONG_S)
        )
        # The crops are memory-mapped: their pages count, though the system may take them back.
        crops_mb = (LONG_S - SHORT_S) * FPS * SIZE * SIZE * 6 / 1e6
        print(
            f"peak memory: {short:.0f} MB for {SHORT_S} s, {long:.0f} MB for {LONG_S} s, of it {crops_mb:.0f} MB crops"
            f" (target <= {MOST_GROWTH_MB:.0f} MB more)"
        )


if __name__ == "__main__":
    main()
