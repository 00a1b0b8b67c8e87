"""stream.py from the command line: records, standard input, bad arguments; fast start and fixed memory."""

import json
import subprocess
import sys

import numpy as np
import pytest

import stream
from composition.live_ecg import LiveOptions, decide_whole, open_model
from datamodules.rhythm_signal import read_leads
from datamodules.synthetic_afdb import write_synthetic_afdb
from tests.configs import ROOT
from tests.live_models import BEATS, RR, write_model
from tests.rhythm_files import FS, write_record

PYTHON = sys.executable


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model.onnx", BEATS)


def run_stream(*arguments, **options):
    command = [PYTHON, "stream.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, **options)


def test_record_and_stdin_decide_as_the_record_in_memory(tmp_path, model):
    write_record(tmp_path, "r1", duration_s=60)
    leads = read_leads(tmp_path / "r1", record_id="r1", fs=FS, lead_names=["ECG1"])
    updates = decide_whole(leads.signal_mv, FS, open_model(model), LiveOptions())
    expected = [(each.time_s, each.label, each.probability) for update in updates for each in update.decisions]
    arguments = [f"artifact={model}", f"source={tmp_path}/r1.hea", f"record={tmp_path}/out/r.json", "view=summary"]
    assert stream.main(arguments) == 0
    written = json.loads((tmp_path / "out" / "r.json").read_text())
    assert [(each["time_s"], each["class"], each["probability"]) for each in written["decisions"]] == expected
    summary = written["summary"]
    assert summary["n_decisions"] == len(expected) == sum(summary["decisions_by_class"].values())
    assert summary["n_decisions"] + sum(summary["not_decided"].values()) == summary["n_rpeaks"]
    assert summary["duration_s"] == pytest.approx(60)
    assert 0 < summary["delay_s"]["p50"] <= summary["delay_s"]["max"]
    assert (summary["problems"], written["trained_on"], written["level"]) == ([], "synthetic", "beat")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["r.json"]

    raw = leads.signal_mv.T.astype("<f4").tobytes()
    done = run_stream(
        f"artifact={model}", "source=stdin", "fs=250", "format=f32", f"record={tmp_path}/pipe.json", input=raw
    )
    assert done.returncode == 0, done.stderr
    assert b"decisions" in done.stdout
    piped = json.loads((tmp_path / "pipe.json").read_text())
    assert piped["decisions"] == written["decisions"]


def test_gaps_and_problems_stand_in_the_summary(tmp_path, model):
    write_record(tmp_path, "r1", duration_s=40)
    data = tmp_path / "r1.dat"
    data.write_bytes(data.read_bytes()[: 3 * FS * 25])
    arguments = [f"artifact={model}", f"source={tmp_path}/r1.hea", f"record={tmp_path}/r.json", "view=none"]
    assert stream.main(arguments) == 1
    summary = json.loads((tmp_path / "r.json").read_text())["summary"]
    assert "ends after 25.0 s" in summary["problems"][0]
    assert summary["n_decisions"] > 20

    signal = np.full(40 * FS, 0.0)
    signal[::200], signal[2000:3000] = 1, np.nan
    lines = "\n".join("nan" if np.isnan(value) else f"{value:.3f}" for value in signal)
    done = run_stream(f"artifact={model}", "source=stdin", "fs=250", f"record={tmp_path}/p.json", input=lines.encode())
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "p.json").read_text())["summary"]
    assert summary["gaps_s"] == [[8.0, 12.0]]
    assert (summary["n_gaps"], summary["missing_s"]) == (1, 4.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["source=r1.hea"], "artifact"),
        (["artifact={model}", "source=film.xyz"], "expected record.hea, stdin"),
        (["artifact={model}", "source=stdin"], "say fs="),
        (["artifact={model}", "source=r1.hea", "colour=red"], "colour"),
        (["artifact={model}", "source=r1.hea", "block_s=long"], "block_s"),
        (["artifact={model}", "source=r1.hea", "view=cinema"], "cinema"),
        (["artifact={model}", "source=no.hea"], "no such record"),
        (["artifact=no.onnx", "source=r1.hea"], "no such model file"),
        (["artifact={model}", "source=r1.hea", "lead_names=[V1]"], "'V1'"),
        (["artifact={model}", "source=r1.hea", "speed=0"], "speed is 0"),
        (["artifact={rr}", "source=r1.hea"], "in which lead"),
    ],
)
def test_bad_arguments_end_with_a_message(tmp_path, model, monkeypatch, capsys, arguments, message):
    rr = write_model(tmp_path / "rr.onnx", RR, leads=("RR",), n_samples=10)
    write_record(tmp_path, "r1", duration_s=12)
    monkeypatch.chdir(tmp_path)
    assert stream.main([argument.format(model=model, rr=rr) for argument in arguments]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_a_stream_of_another_frequency_needs_a_word(tmp_path, model, capsys):
    write_record(tmp_path, "r1", duration_s=30, fs=360)
    arguments = [f"artifact={model}", f"source={tmp_path}/r1.hea", "view=none"]
    assert stream.main(arguments) == 2
    assert "resample=true" in capsys.readouterr().err
    assert stream.main([*arguments, "resample=true", f"record={tmp_path}/r.json"]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["resampled_to"] == 250


def test_live_view_and_pace_run(tmp_path, model, capsys):
    write_record(tmp_path, "r1", duration_s=20)
    arguments = [f"artifact={model}", f"source={tmp_path}/r1.hea", "view=live", "speed=100"]
    assert stream.main(arguments) == 0
    assert "real time" in capsys.readouterr().out


def test_an_interrupted_stream_keeps_its_summary(tmp_path, model, monkeypatch):
    write_record(tmp_path, "r1", duration_s=60)

    def interrupt(source, speed):
        yield next(source.chunks)
        yield next(source.chunks)
        raise KeyboardInterrupt

    monkeypatch.setattr(stream, "pace", interrupt)
    options = stream.StreamOptions(
        artifact=str(model), source=f"{tmp_path}/r1.hea", record=f"{tmp_path}/r.json", speed=1.0
    )
    assert stream.run(options)["interrupted"]
    assert json.loads((tmp_path / "r.json").read_text())["summary"]["n_decisions"] > 5


def test_starting_imports_no_training_code():
    script = "import sys, stream; print(sorted({'torch', 'pytorch_lightning', 'mlflow', 'hydra'} & set(sys.modules)))"
    done = subprocess.run([PYTHON, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


MEMORY = """
import sys, stream
def peak_kb():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
peaks = []
for source in sys.argv[2:]:
    stream.run(stream.StreamOptions(artifact=sys.argv[1], source=source, record=source + ".json"))
    peaks.append(peak_kb())
print(*peaks)
"""


def check_memory(root, model, hours, limit_kb):
    """Memory may not grow from a short record to a long one."""
    paths = [
        next(write_synthetic_afdb(root, n_records=1, hours=each, n_without_signals=0, workers=1).glob("*.hea"))
        for each in hours
    ]
    command = [PYTHON, "-c", MEMORY, str(model), *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    short, long = map(int, done.stdout.split())
    assert long - short < limit_kb


def test_memory_does_not_grow_with_the_record(tmp_path, model):
    check_memory(tmp_path, model, (0.2, 1.5), 3500)  # as float32 the longer signal alone has 5,300


@pytest.mark.slow
def test_memory_does_not_grow_over_a_day(tmp_path, model):
    check_memory(tmp_path, model, (0.5, 24), 6000)  # as float32 the longer signal alone has 86,000
