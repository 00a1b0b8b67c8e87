"""From WFDB records to cached beats, over the plain loops; memory, growth with the hours, and the warm start.

The records are simulated, in AFDB's layout. ``--full`` takes AFDB's size: 23 records of 10 h, about 1 M beats. The
plain loops do the same with wfdb, scipy, pywt and one windowed `np.interp` per beat, record after record; one with
neurokit2's detector, one with ours. Starting the reader processes weighs on small sizes: targets hold for the full one.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pywt
import wfdb
from scipy.signal import butter, sosfiltfilt

from datamodules.processes import count_cores
from datamodules.rpeaks import Detector, correct_beats, detect_pan_tompkins, detect_sleepecg, locate_rpeaks
from datamodules.synthetic_afdb import write_synthetic_afdb

PROJECT = Path(__file__).resolve().parents[1]
OPTIONS = "fs=250, lead_names=['ECG1'], class_names=['other', 'AFIB'], beat_annotators=['qrs']"
BUILD = f"""
import json, logging, resource, sys, time
logging.disable(logging.WARNING)
from datamodules.rhythm_beats import load_beats
start = time.perf_counter()
windows = load_beats(sys.argv[1], cache_dir=sys.argv[2], {OPTIONS})
seconds = time.perf_counter() - start
# Not ru_maxrss: it starts with what the process had that started this one.
own = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([seconds, len(windows), own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""
WARM_START = f"""
import json, logging, sys, time
logging.disable(logging.WARNING)
from functools import partial
from datamodules.ecg import EcgDataModule
from datamodules.rhythm_beats import load_beats
from datamodules.splits import split_subjects
options = dict({OPTIONS})
start = time.perf_counter()
module = EcgDataModule(
    source=partial(load_beats, cache_dir=sys.argv[2], beat_annotators=options.pop("beat_annotators")), name="afdb",
    kind=None, root=sys.argv[1], n_leads=1, n_classes=2, n_samples=300, batch_size=128, seed=0, level="beat",
    exclusive=True, split=split_subjects, **options,
)
module.setup()
next(iter(module.train_dataloader()))
print(json.dumps([time.perf_counter() - start, sum(map(len, module.splits.values()))]))
"""


def cut_plainly(path: Path, detect: Detector) -> np.ndarray:
    """Cut the beats of one record as most people write it; filtered, corrected and labelled as ours."""
    signals, fields = wfdb.rdsamp(str(path), channels=[0])
    fs = fields["fs"]
    signal = signals[:, 0] - signals[:, 0].mean()
    signal = sosfiltfilt(butter(2, [0.5, 50], "bandpass", fs=fs, output="sos"), signal)
    coefficients = pywt.wavedec(signal, "db4", level=5)
    threshold = np.median(np.abs(coefficients[-1])) / 0.6745 * np.sqrt(2 * np.log(len(signal)))
    coefficients[1:] = [pywt.threshold(detail, threshold, "soft") for detail in coefficients[1:]]
    signal = pywt.waverec(coefficients, "db4")[: len(signal)]
    annotated = np.unique(wfdb.rdann(str(path), "qrs").sample)
    corrected = correct_beats(annotated, locate_rpeaks(signal, detect(signal, fs), fs), fs)
    rhythms = wfdb.rdann(str(path), "atr")
    rpeaks, beats = corrected.rpeaks, []
    for row in range(1, len(rpeaks) - 1):
        before, peak, after = rpeaks[row - 1 : row + 2]
        rhythm = np.searchsorted(rhythms.sample, peak, side="right") - 1
        if not corrected.confirmed[row] or rhythm < 0 or max(peak - before, after - peak) > 3 * fs:
            continue
        start, stop = peak - (peak - before) / 3, peak + 2 * (after - peak) / 3
        first, last = int(start), int(stop) + 2
        times = np.concatenate([np.linspace(start, peak, 100, False), np.linspace(peak, stop, 200, False)])
        beats.append(np.interp(times, np.arange(first, last), signal[first:last]).astype(np.float32))
    return np.array(beats)


def time_plain(paths: list[Path], detect: Detector, target: Path) -> float:
    """Cut and save the beats of some records; return seconds."""
    start = time.perf_counter()
    for path in paths:
        np.save(target / path.name, cut_plainly(path, detect))
        tell(f"plain loop, {detect.__name__}: record {path.name} after {time.perf_counter() - start:.1f} s")
    return time.perf_counter() - start


def tell(what: str) -> None:
    """Say what is going on, beside the results."""
    print(f"[{time.strftime('%H:%M:%S')}] {what}", file=sys.stderr, flush=True)


def run_apart(script: str, *arguments: object) -> list[float]:
    """Run a script in a process of its own; return the numbers that it prints."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    output = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True).stdout
    numbers: list[float] = json.loads(output.splitlines()[-1])
    return numbers


def write_records(data: Path, n_records: int, hours: float) -> Path:
    """Write the records, unless they are there."""
    tell(f"{n_records} records of {hours:g} h in {data}")
    return write_synthetic_afdb(data, n_records=n_records, hours=hours)


def list_paths(root: Path) -> list[Path]:
    """Return the records with signals, all of them read once: nobody pays for the disk."""
    paths = [path.with_suffix("") for path in sorted(root.glob("*.dat"))]
    for path in paths:
        path.with_suffix(".dat").read_bytes()
    return paths


def compare(root: Path, scratch: Path) -> tuple[float, list[str]]:
    """Return our seconds, and lines with the ratios over both plain loops and the peak memory.

    The plain loops run half before and half after ours.
    """
    loops = {"neurokit2's detector": (detect_pan_tompkins, 4.0), "our detector": (detect_sleepecg, 2.5)}
    paths = list_paths(root)
    for detect, _ in loops.values():  # their imports are nobody's
        detect(np.random.default_rng(0).normal(size=5000), 250)
    middle = (len(paths) + 1) // 2
    plain = {name: time_plain(paths[:middle], detect, scratch) for name, (detect, _) in loops.items()}
    tell("ours")
    seconds, n_beats, own_kb, reader_kb = run_apart(BUILD, root, scratch / "cache")
    tell(f"ours: {seconds:.1f} s")
    lines = []
    for name, (detect, least) in loops.items():
        plain[name] += time_plain(paths[middle:], detect, scratch)
        lines.append(
            f"plain loop, {name} {plain[name]:.1f} s | ours {seconds:.1f} s, {n_beats:.0f} beats |"
            f" {plain[name] / seconds:.2f}x (target {least:g}x)"
        )
    peak_gib = (own_kb + min(count_cores(), len(paths)) * reader_kb) / 2**20
    return seconds, [*lines, f"peak memory of all processes, at most {peak_gib:.2f} GiB (target < 2 GiB)"]


def time_growth(data: Path, scratch: Path, n_records: int, hours: float, seconds: float) -> str:
    """Say how long a quarter and half of the hours take, beside all of them."""
    taken = []
    for part in (4, 2):
        root = write_records(data, n_records, hours / part)
        list_paths(root)
        taken.append(run_apart(BUILD, root, scratch / "growth")[0])
        shutil.rmtree(scratch / "growth")
    return " | ".join(f"{own:.1f} s" for own in (*taken, seconds))


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=4)
    parser.add_argument("--hours", type=float, default=4.0, help="length of each record")
    parser.add_argument("--full", action="store_true", help="23 records of 10 hours")
    parser.add_argument("--scratch", type=Path, help="folder for some GB; a temporary one by default")
    parser.add_argument("--data", type=Path, help="folder that the records stay in; --scratch by default")
    arguments = parser.parse_args()
    n_records, hours = (23, 10.0) if arguments.full else (arguments.records, arguments.hours)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        scratch = Path(folder)
        data = arguments.data or scratch
        print(f"{n_records} records of {hours:g} h, {count_cores()} cores")
        root = write_records(data, n_records, hours)
        seconds, lines = compare(root, scratch)
        print(*lines, sep="\n", flush=True)
        print(f"1x | 2x | 4x the hours: {time_growth(data, scratch, n_records, hours, seconds)}", flush=True)
        seconds, n_beats = run_apart(WARM_START, root, scratch / "cache")
        print(f"warm start of {n_beats:.0f} cached beats to the first batch: {seconds:.2f} s (target 1 s at 1 M beats)")


if __name__ == "__main__":
    main()
