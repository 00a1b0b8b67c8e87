"""Time of `compare.py` from the store to its table: 2,000 rows of one group, each with all of its metrics."""

import argparse
import shutil
import sqlite3
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np

from tracking.fronts import tell_fronts
from tracking.predictions import make_predictions
from tracking.rows import Row, write_rows
from tracking.statistics import bootstrap_metrics, paired_bootstrap
from tracking.store import Store, initialise
from tracking.tables import add_column, tabulate_rows, to_plain

LIMIT_S = 2.0
CLASS_NAMES = ("NORM", "MI", "STTC", "CD", "HYP")
# What MLflow keeps of a run in its database, by the column that names the run.
TABLES = dict.fromkeys(("runs", "tags", "params", "metrics", "latest_metrics"), "run_uuid")


def fill(store: Store, database: Path, n_rows: int) -> None:
    """Log one row as the product does, then copy its run in the database: logging each would take minutes."""
    rng = np.random.default_rng(0)
    targets = (rng.random((200, 5)) < 0.3).astype(float)
    ids, thresholds = np.arange(200), [0.5] * 5
    first, second = (
        make_predictions(ids, ids // 2, targets, rng.random((200, 5)), CLASS_NAMES, thresholds) for _ in range(2)
    )
    row = Row(
        role="student",
        name="row",
        model="cnn1d_student",
        recipe="none",
        runtime="onnxruntime",
        precision="float32",
        data="synthetic",
        dataset="synthetic_ptbxl",
        split_digest="split",
        metrics=bootstrap_metrics(first, 20),
        delta=paired_bootstrap(first, second, 20),
    )
    with store.job("bench", group="bench") as job, job.child("row") as run:
        row = store.log_row(run.run_id, row)
    folder = Path(store.client.get_run(run.run_id).info.artifact_uri.removeprefix("file://"))
    copies = [uuid.uuid4().hex for _ in range(n_rows - 1)]
    with sqlite3.connect(database) as connection:
        for table, key in TABLES.items():
            names = [column[1] for column in connection.execute(f"PRAGMA table_info({table})")]
            chosen = ", ".join(
                "?1" if name == key else f"replace({name}, ?2, ?1)" if name == "artifact_uri" else name
                for name in names
            )
            connection.executemany(
                f"INSERT INTO {table} ({', '.join(names)}) SELECT {chosen} FROM {table} WHERE {key} = ?2",
                [(copy, run.run_id) for copy in copies],
            )
    for number, copy in enumerate(copies):
        target = Path(str(folder).replace(run.run_id, copy))
        target.mkdir(parents=True)
        write_rows(target / "row.json", [replace(row, run_id=copy, name=f"row {number}")])


def main() -> None:
    """Print the seconds against their limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lightheart-"))
    try:
        database = folder / "mlflow.db"
        store = initialise(f"sqlite:///{database}", artifact_location=str(folder / "mlruns"))
        fill(store, database, arguments.rows)
        for name in ("group", "filter"):
            start, start_cpu = time.perf_counter(), time.process_time()
            chosen = {"group": "bench"} if name == "group" else {"filter_string": "params.model = 'cnn1d_student'"}
            rows = store.read_rows(**chosen)
            read, read_cpu = time.perf_counter() - start, time.process_time() - start_cpu
            table = add_column(tabulate_rows(rows, only_differing=True), "Pareto front", tell_fronts(rows))
            to_plain(table)
            seconds, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
            print(
                f"{len(table.cells):,} rows by {name} of {len(rows[0].metrics) + len(rows[0].delta)} figures each: "
                f"{seconds:.2f} s (CPU {cpu_s:.2f} s, target <= {LIMIT_S:g} s), of which reading {read:.2f} s "
                f"(CPU {read_cpu:.2f} s)"
            )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
