"""stream.py on videos: heart rates, problems, refusals, the terminal; what starts, and what it holds in memory."""

import json
import os
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from rich.console import Console

import stream
from composition import live_watch
from composition.live_contract import read_pulse_contract
from composition.live_models import open_pulse_model, published_path
from composition.live_pulse import PulseOptions, make_stage
from composition.live_pulse_view import draw_result
from composition.live_watch import WatchOptions, watch_video
from datamodules.face_detectors import load_cascade, load_ssd
from datamodules.live_source import LiveSourceError
from datamodules.live_video import LiveVideo, TimedFrame
from datamodules.synthetic_video import encode_video
from deploy.artifact import ArtifactError, load_artifact
from tests.configs import ROOT, compose_config
from tests.live_models import BEATS, write_model
from tests.live_pulse_models import write_pulse_model
from tests.rhythm_files import write_record
from tests.video_trees import draw, fake_stage

KEYS = {"hr_bpm", "quality", "stage_ms", "stage_share", "time_over_video", "dropped_frames", "problems", "windows"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_pulse_model(tmp_path_factory.mktemp("model") / "green.onnx")


@pytest.fixture(scope="module")
def face(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "face.avi"
    encode_video(path, draw(12.0, hr_bpm=72)[3], 30.0)
    return path


def run(path, model, *more):
    return stream.main([f"source={path}", f"artifact={model}", "detector=cascade", *more])


def watch(frames, model, *, n_dropped=0, live=False, error=None, stage=None, **pulse):
    def read():
        for number, image in enumerate(frames):
            yield TimedFrame(number / 30, image)
        if error:
            raise error

    video = LiveVideo("test", live, read)
    options = PulseOptions(**pulse), WatchOptions(queue=400)
    return watch_video(video, open_pulse_model(model), stage or fake_stage(), *options)


def test_a_video_has_its_heart_rate_in_terminal_and_file(tmp_path, face, model, capsys):
    assert run(face, model, f"record={tmp_path}/out/r.json", "view=live") == 0
    text = capsys.readouterr().out
    assert "bpm, median of 2 windows" in text
    assert "without decoding" in text
    found = json.loads((tmp_path / "out" / "r.json").read_text())
    assert set(found) >= KEYS
    assert found["hr_bpm"] == pytest.approx(np.mean([window["hr_bpm"] for window in found["windows"]]))
    # The simulated rate wanders by 2.5 bpm.
    assert found["hr_bpm"] == pytest.approx(72, abs=2.6)
    assert found["quality"] > 0
    assert (found["n_frames"], found["dropped_frames"], found["miss_rate"]) == (360, 0, 0.0)
    assert [(window["start_s"], window["end_s"]) for window in found["windows"]] == [(0.033, 10.0), (1.033, 11.0)]
    assert sum(found["stage_share"].values()) == pytest.approx(1)
    assert found["time_over_video_decoded"] > found["time_over_video"] > 0
    total_ms = found["n_frames"] * sum(found["stage_ms"].values())
    assert found["time_over_video"] == pytest.approx(total_ms / 1000 / found["duration_s"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["r.json"]


def test_frames_that_repeat_the_one_before_are_told_and_bridged_on_request(model, face, capsys):
    pictures = list(draw(12.0, hr_bpm=72)[3])[::3]
    frames = [picture for picture in pictures for _ in range(3)]
    found = {repeats: watch(frames, model, repeats=repeats) for repeats in ("keep", "bridge")}
    for one in found.values():
        assert one["repeat_rate"] == pytest.approx(2 / 3, abs=0.05)
        assert one["hr_bpm"] == pytest.approx(72, abs=3)
    # Steps become slopes: less of the power lies beyond the pulse.
    assert found["bridge"]["quality"] > found["keep"]["quality"]
    assert watch(pictures, model)["repeat_rate"] == 0
    with pytest.raises(ValueError, match="repeats is 'drop', expected one of"):
        watch(frames, model, repeats="drop")
    assert run(face, model) == 0
    assert "repeat the one before" not in capsys.readouterr().out
    Console().print(draw_result("repeated", found["keep"]))
    assert "of the frames repeat the one before" in capsys.readouterr().out


def test_no_face_is_a_problem_and_no_rate(tmp_path, model, capsys):
    path = tmp_path / "empty.avi"
    encode_video(path, draw(1.5, faces=0)[3], 30.0)
    assert run(path, model, f"record={tmp_path}/r.json") == 1
    assert "shows no face in 45 frames" in capsys.readouterr().err.replace("\n", " ")
    found = json.loads((tmp_path / "r.json").read_text())
    assert (found["hr_bpm"], found["quality"], found["windows"], found["miss_rate"]) == (None, None, [], 1.0)


def test_a_face_that_leaves_refuses_the_whole_but_keeps_its_windows(model):
    frames = list(draw(6.0)[3])
    seen = [0]

    def look(image):
        seen[0] += 1
        return np.array([(40.0, 20.0, 120.0, 100.0)] if seen[0] < 9 else np.empty((0, 4)))

    found = watch(frames, model, stage=fake_stage(look))
    assert found["hr_bpm"] is None
    assert found["n_windows"] == 1
    assert "of its frames, at most 20%" in found["problems"][0]


def test_an_unplugged_camera_keeps_what_it_saw(model):
    frames = draw(6.0)[3]
    found = watch(frames, model, live=True, error=LiveSourceError("camera 0 gives no more frames after 180"))
    assert found["problems"] == ["camera 0 gives no more frames after 180"]
    assert found["hr_bpm"] == pytest.approx(72, abs=4)
    # Reading waits for a camera: how long it took says nothing.
    assert found["decoding_ms"] is found["time_over_video_decoded"] is None


def test_too_short_a_video_is_told_what_is_needed(model):
    found = watch(draw(0.5)[3], model)
    assert found["hr_bpm"] is None
    assert "a face for 0.5 s at a time, a heart rate needs 2.7 s" in found["problems"][0]


def test_an_interrupt_keeps_what_was_read(model, monkeypatch):
    whole = live_watch.PulseWatcher.watch

    def interrupt(watcher, frames):
        for number, update in enumerate(whole(watcher, frames)):
            if number == 150:
                raise KeyboardInterrupt
            yield update

    monkeypatch.setattr(live_watch.PulseWatcher, "watch", interrupt)
    found = watch(draw(6.0)[3], model)
    assert found["interrupted"]
    assert (found["n_frames"], found["n_windows"], found["problems"]) == (150, 1, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["source={face}", "artifact={ecg}"], 'classifies ["other", "AFIB"], it reads no pulse from a video'),
        (["source=r1.hea", "artifact={green}"], "reads the pulse from a video: give it a video"),
        (["source={face}"], "run `make weights`"),
        (["source={face}", "weights=ubfc"], "weights is 'ubfc', expected one of ('pure', 'rlap')"),
        (["source={face}", "precision=int4"], "precision is 'int4'"),
        (["source={face}", "artifact={green}", "detector=hog"], "detector is 'hog'"),
        (["source={face}", "artifact={green}", "lead_names=[II]"], "is for an ECG"),
        (["source=r1.hea", "artifact={ecg}", "page=true"], "is for a video"),
        (["source=none.mp4", "artifact={green}"], "no file"),
        (["source=text.mp4", "artifact={green}"], "cannot be opened as a video"),
        (["source={face}", "artifact={green}", "window_s=1"], "expected windows of at least 2.7 s"),
        (["source={face}", "artifact={green}", "method=guess"], "method 'guess'"),
        (["source={face}", "artifact={green}", "queue=0"], "queue is 0"),
        (["source=r1.hea"], "needs artifact="),
    ],
)
def test_bad_input_ends_with_a_message(tmp_path, face, model, monkeypatch, capsys, arguments, message):
    ecg = write_model(tmp_path / "ecg.onnx", BEATS)
    write_record(tmp_path, "r1", duration_s=12)
    (tmp_path / "text.mp4").write_text("a letter")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stream, "WEIGHTS", tmp_path / "weights")
    assert stream.main([argument.format(face=face, ecg=ecg, green=model) for argument in arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fs": None}, "does not say 'fs'"),
        ({"n_frames": "many"}, "cannot be read"),
        ({"image_size": 72}, "its contract says"),
        ({"input_variant": "raw"}, "'raw'"),
        ({"output": "bpm"}, "is of another kind"),
    ],
)
def test_a_contract_that_cannot_be_kept_is_refused(tmp_path, changes, message):
    path = tmp_path / "m.onnx"
    write_pulse_model(path, **{key: value for key, value in changes.items() if key != "n_frames"})
    artifact = load_artifact(path)
    if "n_frames" in changes:
        artifact.metadata["n_frames"] = changes["n_frames"]
    with pytest.raises(ArtifactError, match=message):
        read_pulse_contract(artifact)


def test_faces_are_cut_as_in_the_data_sets(tmp_path):
    assert make_stage("auto", tmp_path).make_detector is load_cascade
    (tmp_path / "ssd_resnet10.caffemodel").touch()
    assert make_stage("auto", tmp_path).make_detector.func is load_ssd
    for name in ("ssd", "cascade"):
        faces = compose_config("datamodule=synthetic_ubfc", f"datamodule/faces={name}").datamodule.faces
        stage = make_stage(name, tmp_path)
        assert (stage.enlarge, stage.max_miss_rate) == (faces.enlarge, faces.max_miss_rate)


def test_the_view_shows_the_moment(model, monkeypatch):
    monkeypatch.setattr("composition.live_pulse_view.REFRESH_S", 0)
    console = Console(record=True, file=open(os.devnull, "w"), force_terminal=True, width=100)  # noqa: PTH123, SIM115
    with console.file:
        video = LiveVideo("test", False, lambda: (TimedFrame(i / 30, f) for i, f in enumerate(draw(5.0)[3])))
        options = WatchOptions(console=console)
        watch_video(video, open_pulse_model(model), fake_stage(), PulseOptions(), options)
    text = console.export_text()
    for word in ("frames/s", "dropped", "found", "heart rate", "quality"):
        assert word in text


MEMORY = """
import json, sys, stream
from datamodules.live_video import TimedFrame, LiveVideo
from tests.video_trees import draw, fake_stage
from composition.live_models import open_pulse_model
from composition.live_pulse import PulseOptions
from composition.live_watch import WatchOptions, watch_video
frames = list(draw(1.0)[3])
video = LiveVideo("test", False, lambda: (TimedFrame(i / 30, frames[i % 30]) for i in range(int(sys.argv[2]))))
watch_video(video, open_pulse_model(sys.argv[1]), fake_stage(), PulseOptions(), WatchOptions())
print(sorted({"torch", "pytorch_lightning", "mlflow", "hydra"} & set(sys.modules)))
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_constant_and_no_training_code_is_imported(model):
    peaks = []
    for n_frames in (450, 1800):
        command = [sys.executable, "-c", MEMORY, str(model), str(n_frames)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        imported, peak = done.stdout.split("\n")[:2]
        assert imported == "[]"
        peaks.append(int(peak))
    assert peaks[1] - peaks[0] < 2500  # kB; as crops the longer video alone has 21,000


def test_one_command_serves_a_page_while_the_video_plays(face, model):
    command = [sys.executable, "stream.py", f"source={face}", f"artifact={model}", "detector=cascade", "view=none"]
    options = ["page=true", "port=0", "speed=3"]
    with subprocess.Popen([*command, *options], cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("page: http://127.0.0.1:"), line
        with urllib.request.urlopen(f"{line.split()[1]}events", timeout=60) as answer:
            events = answer.read().decode().split("\n\n")
        assert process.wait(60) == 0
    states = [json.loads(event.removeprefix("data: ")) for event in events if event]
    assert states[-1]["ended"]
    assert states[-1]["hr_bpm"] == pytest.approx(72, abs=3)
    assert max(len(state["wave"]) for state in states) > 100
    assert any(state["box"] for state in states)


def test_published_files_have_a_name_each(tmp_path):
    names = {published_path(tmp_path, weights, precision) for weights in ("pure", "rlap") for precision in ("a", "b")}
    assert len(names) == 4
