"""One row per artifact: what was shipped, how it was measured, and what the gate said."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from tracking.files import replace_file
from tracking.headline import TASKS

ROLES = ("teacher", "student", "baseline", "device")
DATA_KINDS = ("real", "synthetic")


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval.

    Parameters
    ----------
    value : float
        Point estimate; NaN when it is undefined.
    low, high : float
        Ends of the interval; NaN when there is none.
    """

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one artifact is and how it did on the test split.

    Figures that were not measured are None. ``metrics`` and ``delta`` map metric names such as
    ``test/auroc_macro`` to estimates; ``delta`` is this artifact minus ``reference``, on the same records.
    ``task`` is what was asked, and decides by which metric rows are judged (`tracking.headline`).
    ``level`` is what one window of the data is; ``leaky`` rows saw their test persons in training. ``folds`` holds
    number, run and metrics of each fold where the figures are those of a cross-validation.
    ``sparsity`` and ``nonzero_weights`` are those of the file's weights, without biases; ``training_s`` are the seconds
    of training that the last step took when it was first carried out; ``flips`` is the share of decisions that differ
    from those of the reference. ``settings`` are the options of the job by dotted name. ``energy_mj`` is the energy of
    one window at batch 1. Rows of the role ``device`` were measured on ``device``, on the test windows of a bundle:
    their figures stand under ``slice/``; ``delta`` and ``flips`` are against the workstation on the same windows.

    Raises
    ------
    ValueError
        If `role`, `data` or `task` is not one of the known words.
    """

    role: str
    name: str
    model: str
    recipe: str
    runtime: str
    precision: str
    data: str
    dataset: str
    task: str = "classification"
    level: str = "record"
    leaky: bool = False
    device: str | None = None
    seed: int | None = None
    params: int | None = None
    params_keras: int | None = None
    macs: int | None = None
    nonzero_weights: int | None = None
    sparsity: float | None = None
    size_bytes: int | None = None
    compressed_bytes: int | None = None
    sparse_bytes: int | None = None
    int8_macs_share: float | None = None
    latency_ms_p50: float | None = None
    latency_ms_p90: float | None = None
    latency_ms_p99: float | None = None
    latency_ms_p50_b64: float | None = None
    latency_ms_p90_b64: float | None = None
    latency_ms_p99_b64: float | None = None
    latency_ratio: float | None = None
    threads: int | None = None
    peak_memory_bytes: int | None = None
    energy_mj: float | None = None
    training_s: float | None = None
    flips: float | None = None
    metrics: dict[str, Estimate] = field(default_factory=dict)
    delta: dict[str, Estimate] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    folds: list[dict[str, Any]] = field(default_factory=list)
    reference: str | None = None
    verdict: str | None = None
    reasons: list[str] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    run_id: str | None = None
    reference_run_id: str | None = None
    group: str | None = None
    data_digest: str | None = None
    split_digest: str | None = None
    preprocessing_digest: str | None = None
    config_digest: str | None = None
    n_test: int | None = None
    n_subjects: int | None = None
    test_looks: int | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"row {self.name!r}: role {self.role!r} is not one of {ROLES}")
        if self.data not in DATA_KINDS:
            raise ValueError(f"row {self.name!r}: data {self.data!r} is not one of {DATA_KINDS}")
        if self.task not in TASKS:
            raise ValueError(f"row {self.name!r}: task {self.task!r} is not one of {TASKS}")


def own_settings(row: Row) -> dict[str, str]:
    """Give the settings that an artifact depends on: without those of steps that its recipe does not have."""

    def concerns(name: str) -> bool:
        if not name.startswith("compression."):
            return True
        step = name.split(".")[2] if name.startswith("compression.steps.") else ""
        return row.recipe != "none" and step in row.recipe

    return {name: value for name, value in row.settings.items() if concerns(name)}


def row_to_dict(row: Row) -> dict[str, Any]:
    """Row as plain values that strict JSON can hold: NaN and infinities become None."""
    return _plain(asdict(row))


def row_from_dict(values: Mapping[str, Any]) -> Row:
    """Rebuild a row from `row_to_dict`.

    Raises
    ------
    ValueError
        If a needed field is missing or a field is unknown; the message names the fields.
    """
    known = {item.name for item in fields(Row)}
    name = values.get("name")
    if unknown := sorted(set(values) - known):
        raise ValueError(f"row {name!r} has unknown fields {unknown}: written by a newer version of this project?")
    content = dict(values)
    for key in ("metrics", "delta"):
        content[key] = {metric: _estimate(item) for metric, item in (content.get(key) or {}).items()}
    try:
        return Row(**content)
    except TypeError as error:
        raise ValueError(f"row {name!r} is incomplete: {error}") from error


def rows_to_json(rows: Iterable[Row]) -> str:
    """Write rows as strict JSON (a list of objects, indented, ending in a newline)."""
    content = [row_to_dict(row) for row in rows]
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def rows_from_json(text: str) -> list[Row]:
    """Read rows written by `rows_to_json`.

    Raises
    ------
    ValueError
        If the text is not a JSON list of rows.
    """
    content = json.loads(text)
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise ValueError(f"expected a JSON list of rows, got {type(content).__name__}")
    return [row_from_dict(item) for item in content]


def write_rows(path: Path | str, rows: Iterable[Row]) -> Path:
    """Write ``rows.json``; an interrupted write leaves the previous file in place."""
    return replace_file(path, rows_to_json(rows).encode())


def read_rows_file(path: Path | str) -> list[Row]:
    """Read a ``rows.json``; errors as in `rows_from_json`."""
    return rows_from_json(Path(path).read_text(encoding="utf-8"))


def _estimate(item: Mapping[str, Any]) -> Estimate:
    def number(key: str) -> float:
        value = item.get(key)
        return math.nan if value is None else float(value)

    return Estimate(number("value"), number("low"), number("high"))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
