"""Everything that is known about one artifact, sent to its run: at once, or later by ``runs.py push``."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from tracking.artifacts import ROW_FILE, log_onnx_model, row_metrics
from tracking.connection import retry, write_batch
from tracking.documents import summarise, tell_stage
from tracking.outbox import FILES, Outbox, is_local
from tracking.rows import Row, read_rows_file, rows_from_json, rows_to_json, write_rows
from tracking.search import IS_ROW, PARENT, quoted, search_runs

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# Tags of our own, besides the ones named after fields of the row.
LOOK, UNSENT_ID = "test_look", "unsent_id"
KEPT = "Nothing is lost: rows.json in the job's output folder keeps the results."
# What MLflow's UI shows as a run's description.
NOTE = "mlflow.note.content"
PARAM_FIELDS = ("role", "model", "recipe", "runtime", "precision", "data", "dataset", "seed", "threads")
TAG_FIELDS = (
    *("role", "device", "model", "recipe", "runtime", "precision", "data", "level", "leaky", "reference", "verdict"),
    *("group", "task", "data_digest", "split_digest", "preprocessing_digest", "config_digest"),
)
# Texts in which a run may be named.
TEXTS = (".json", ".md", ".html", ".txt", ".yaml", ".csv")


@dataclass(frozen=True, kw_only=True)
class RowContent:
    """A row and what belongs to it.

    Attributes
    ----------
    row : Row
    folder : Path
        Files of the run, ``row.json`` not among them.
    model : Path or None
        ONNX file that is logged as a model named ``model``.
    params, tags : mapping
        Besides those that the row gives.
    """

    row: Row
    folder: Path
    model: Path | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)


def send_row(client: "MlflowClient", uri: str, run_id: str, content: RowContent) -> Row:
    """Write a row with everything that belongs to it to its run; safe to repeat.

    Returns
    -------
    Row
        With `run_id`, `group` and `test_looks` filled in: the row that ``row.json`` holds.

    Raises
    ------
    TrackingError
        If the store cannot be reached after several attempts. The message says where the results remain.
    """
    row = content.row
    what = f"log row {row.name!r} to {uri!r}"
    run = retry(partial(client.get_run, run_id), what, hint=KEPT)
    looks = row.test_looks
    if looks is None and row.split_digest is not None:
        looks = record_test_look(client, run_id, row.split_digest)
    row = replace(row, run_id=run_id, group=row.group or run.data.tags.get("group"), test_looks=looks)
    write = partial(write_batch, client, run_id, what=what, hint=KEPT)
    # Before the model, which takes over the params that its run has.
    stage = {"stage": tell_stage(row)}
    write(params=stage | {name: getattr(row, name) for name in PARAM_FIELDS} | dict(content.params))
    (content.folder / ROW_FILE).write_text(rows_to_json([row]), encoding="utf-8")
    retry(partial(client.log_artifacts, run_id, str(content.folder)), what, hint=KEPT)
    model_id = None
    if content.model is not None:
        logged = run.outputs.model_outputs if run.outputs else []
        call = partial(log_onnx_model, content.model, run_id, run.info.experiment_id)
        model_id = logged[-1].model_id if logged else retry(call, what, hint=KEPT)
    own = {name: getattr(row, name) for name in TAG_FIELDS} | {"reference_run": row.reference_run_id, **stage}
    # Last, because a run counts as a row from here on.
    tags = own | dict(content.tags) | {NOTE: summarise(row), IS_ROW: "true"}
    write(metrics=row_metrics(row, model_id), tags=tags)
    return row


def keep_row(run_id: str, content: RowContent, outbox: Outbox) -> Row:
    """Keep a row that could not be sent; the row as it is known without the store."""
    row = replace(content.row, run_id=run_id)
    (content.folder / ROW_FILE).write_text(rows_to_json([row]), encoding="utf-8")
    files = outbox.keep_files(run_id, content.folder)
    name = content.model.name if content.model else None
    if content.model and not (files / content.model.name).is_file():
        shutil.copy2(content.model, files.parent)
    outbox.keep(run_id, row_params=content.params, row_tags=content.tags, model=name)
    return row


def record_test_look(client: "MlflowClient", run_id: str, split_digest: str) -> int:
    """Note that a run evaluated a test split; how often that split was evaluated so far, a run counted once."""
    what = f"count the evaluations of test split {split_digest!r}"
    write_batch(client, run_id, tags={LOOK: split_digest}, what=what, hint=KEPT)
    return count_test_looks(client, split_digest)


def count_test_looks(client: "MlflowClient", split_digest: str) -> int:
    """Count evaluations of a test split in every experiment of the store, deleted runs included."""
    return len(search_runs(client, f"tags.{LOOK} = {quoted(split_digest)}", deleted=True))


def push(client: "MlflowClient", uri: str, outbox: Outbox) -> list[Row]:
    """Send what is kept; what was sent before is not sent again, also where an earlier push was interrupted.

    ``rows.json`` beside the outbox is brought up to date with the ids that the runs have now.

    Parameters
    ----------
    client : MlflowClient
    uri : str
        Of the store, for messages.
    outbox : Outbox

    Returns
    -------
    list of Row
        Those that were sent now.

    Raises
    ------
    TrackingError
        If the store cannot be reached, or is not the one in which the job was opened.
    """
    if not outbox.folder.is_dir():
        return []
    with FileLock(outbox.folder / ".lock"):
        entries = outbox.entries()
        ids: dict[str, str] = {}
        for entry in entries:
            ids[entry["run_id"]] = entry.get("sent") or _find_run(client, uri, _translate(entry, ids))
        rows = []
        for entry in entries:
            if not entry.get("sent"):
                rows += _send_entry(client, uri, outbox, entry, ids)
        _update_rows(outbox.folder.parent / "rows.json", ids, rows)
    return rows


def _find_run(client: "MlflowClient", uri: str, entry: Mapping[str, Any]) -> str:
    """Id of an entry's run in the store: its own, that of an earlier push, or a new one."""
    run_id = str(entry["run_id"])
    known = run_id if not is_local(run_id) else entry["tags"].get(PARENT)
    if known is not None:
        hint = "Set MLFLOW_TRACKING_URI to the store that the job was tracked in, and push again."
        retry(partial(client.get_run, known), f"find run {known!r} of this job in {uri!r}", hint=hint)
    if not is_local(run_id):
        return run_id
    if found := search_runs(client, f"tags.{UNSENT_ID} = {quoted(run_id)}"):
        return str(found[0].info.run_id)
    create = partial(
        client.create_run,
        entry["experiment_id"],
        start_time=entry["started_ms"],
        tags={**entry["tags"], UNSENT_ID: run_id},
        run_name=entry["name"],
    )
    return str(retry(create, f"open run {entry['name']!r}").info.run_id)


def _send_entry(
    client: "MlflowClient", uri: str, outbox: Outbox, entry: dict[str, Any], ids: Mapping[str, str]
) -> list[Row]:
    from mlflow.entities import Metric

    run_id, folder = ids[entry["run_id"]], outbox.folder / entry["run_id"]
    known, files = _translate(entry, ids), folder / FILES
    what = f"send what is kept in {folder}"
    metrics = [Metric(key, value, timestamp, step) for key, value, timestamp, step in entry["metrics"]]
    write_batch(client, run_id, metrics=metrics, params=known.get("params"), tags=known.get("tags"), what=what)
    rows = []
    if (files / ROW_FILE).is_file():
        for path in files.iterdir():
            if path.suffix in TEXTS:
                path.write_text(_replace_ids(path.read_text(encoding="utf-8"), ids), encoding="utf-8")
        model = next((place / known["model"] for place in (files, folder) if _has(place, known["model"])), None)
        (row,) = read_rows_file(files / ROW_FILE)
        content = RowContent(row=row, folder=files, model=model, params=known["row_params"], tags=known["row_tags"])
        rows.append(send_row(client, uri, run_id, content))
    elif files.is_dir():
        retry(partial(client.log_artifacts, run_id, str(files)), what)
    if status := known.get("status"):
        retry(partial(client.set_terminated, run_id, status, known["ended_ms"]), what)
    outbox.keep(entry["run_id"], sent=run_id)
    return rows


def _has(folder: Path, name: str | None) -> bool:
    return name is not None and (folder / name).is_file()


def _update_rows(path: Path, ids: Mapping[str, str], sent: Sequence[Row]) -> None:
    if not sent or not path.is_file():
        return
    by_id = {row.run_id: row for row in sent}
    rows = rows_from_json(_replace_ids(path.read_text(encoding="utf-8"), ids))
    write_rows(path, [by_id.get(row.run_id, row) for row in rows])


def _translate(value: Any, ids: Mapping[str, str]) -> Any:
    """Put the ids that runs have in the store where a kept entry has those of the outbox."""
    if isinstance(value, dict):
        return {key: item if key == "run_id" else _translate(item, ids) for key, item in value.items()}
    return _replace_ids(value, ids) if isinstance(value, str) else value


def _replace_ids(text: str, ids: Mapping[str, str]) -> str:
    """Replace ids of the outbox, each of them a word that nothing else has."""
    for local, known in ids.items():
        if is_local(local):
            text = text.replace(local, known)
    return text
