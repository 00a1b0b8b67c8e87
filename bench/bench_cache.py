"""Cold cache of two PTB-XL folds over a plain `wfdb.rdsamp` loop, and the time of a warm start.

Without ``--root`` the records are made up: as many and as long as those of two folds.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import wfdb

from datamodules.ptbxl import LEAD_NAMES, SUPERCLASSES, load_ptbxl
from datamodules.ptbxl_index import read_index

PROJECT = Path(__file__).resolve().parents[1]

N_RECORDS = 4358
LEAST_RATIO, MOST_WARM_S = 1.6, 0.5
WARM_START = """
import sys, time
from functools import partial
from datamodules.augment import EcgAugment
from datamodules.ecg import EcgDataModule
from datamodules.ptbxl import LEAD_NAMES, SUPERCLASSES, load_ptbxl
start = time.perf_counter()
module = EcgDataModule(
    source=partial(load_ptbxl, cache_dir=sys.argv[2]), name="ptbxl", kind="real", root=sys.argv[1],
    n_leads=12, n_classes=5, class_names=SUPERCLASSES, lead_names=LEAD_NAMES, fs=100, n_samples=1000,
    batch_size=64, seed=0,
    folds={"train": [int(sys.argv[3])], "val": [int(sys.argv[4])], "test": [int(sys.argv[5])]},
    augment=EcgAugment(100, shift_s=1),
)
module.setup()
next(iter(module.train_dataloader()))
print(time.perf_counter() - start)
"""


def write_records(root: Path) -> None:
    """Write made-up records: rotations of a few random signals, which keep their checksums."""
    folder = root / "records100" / "00000"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for record in range(N_RECORDS):
        name, turn = f"{record:05d}_lr", record % 1000
        if turn == 0:
            base = rng.integers(-1500, 1500, (1000, 12), dtype=np.int16)
            wfdb.wrsamp(
                "base", 100, ["mV"] * 12, list(LEAD_NAMES), d_signal=base, fmt=["16"] * 12,
                adc_gain=[1000.0] * 12, baseline=[0] * 12, write_dir=str(folder),
            )  # fmt: skip
            header = (folder / "base.hea").read_text()
        (folder / f"{name}.hea").write_text(header.replace("base", name))
        np.roll(base, turn, axis=0).astype("<i2").tofile(folder / f"{name}.dat")
        superclass = SUPERCLASSES[record % 5]
        codes = f"{{'{superclass}': 100.0}}"
        rows.append([record, record, codes, 1 + record % 3, f"records100/00000/{name}", ""])
    with (root / "ptbxl_database.csv").open("w", newline="") as file:
        columns = ["ecg_id", "patient_id", "scp_codes", "strat_fold", "filename_lr", "filename_hr"]
        csv.writer(file).writerows([columns, *rows])
    with (root / "scp_statements.csv").open("w", newline="") as file:
        statements = [[name, 1.0, name] for name in SUPERCLASSES]
        csv.writer(file).writerows([["", "diagnostic", "diagnostic_class"], *statements])


def time_plain(paths: list[str]) -> float:
    """Read records the plain way; return seconds."""
    start = time.perf_counter()
    np.stack([wfdb.rdsamp(path)[0] for path in paths])
    return time.perf_counter() - start


def time_warm_start(root: Path, cache: str, folds: list[int]) -> float:
    """Return the seconds from the end of the imports to the first batch, in a new process."""
    command = [sys.executable, "-c", WARM_START, str(root), cache, *map(str, folds)]
    output = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    return float(output.split()[-1])


def main() -> None:
    """Print both figures with their limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="folder of PTB-XL; made-up records by default")
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folds = arguments.folds if arguments.root else [1, 2, 3]
        root = arguments.root.absolute() if arguments.root else Path(scratch) / "ptbxl"
        if not arguments.root:
            write_records(root)
        index = read_index(root, fs=100, class_names=SUPERCLASSES, folds=folds)
        for name in index.file_names():  # all from memory: neither side pays for the disk
            (root / name).read_bytes()
        paths = [str(root / path) for path in index.paths]
        middle = len(paths) // 2
        plain = time_plain(paths[:middle])
        start = time.perf_counter()
        load_ptbxl(root, cache_dir=f"{scratch}/cache", folds=folds)
        ours = time.perf_counter() - start
        plain += time_plain(paths[middle:])
        print(f"records {len(paths)}; wfdb.rdsamp loop {plain:.1f} s, cold cache {ours:.1f} s")
        print(f"cold cache over wfdb.rdsamp loop: {plain / ours:.2f}x (target >= {LEAST_RATIO}x)")
        three = [folds[0], folds[1 % len(folds)], folds[-1]]
        if len(set(three)) == 3:
            warm = time_warm_start(root, f"{scratch}/cache", three)
            print(f"warm start to first batch: {warm:.2f} s (target <= {MOST_WARM_S} s)")


if __name__ == "__main__":
    main()
