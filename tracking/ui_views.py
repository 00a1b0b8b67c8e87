"""Views of the MLflow UI for a set of rows: a saved runs table, and the runs compared."""

import json
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from tracking.connection import retry
from tracking.digests import digest
from tracking.rows import Row
from tracking.tables import default_metric

if TYPE_CHECKING:
    from tracking.store import Store

LOCAL_UI = "http://127.0.0.1:5000"
# Where the UI of MLflow 3 looks for the views of an experiment.
VIEW_TAG = "mlflow.sharedViewState."
PARAMS = ("stage", "model", "recipe", "precision")
FIGURES = ("deploy/size_bytes", "deploy/latency_ms_p50")
TAGS = ("verdict", "reference")
# The UI's own names: of the box to select a run, of its name, of its date with the jobs' arrows.
OWN = ("1", "attributes.`Run Name`", "runDateAndNestInfo")
NAME_PX, RECIPE_PX, FIGURE_PX, REFERENCE_PX = 250, 150, 155, 260
# The UI draws no more side by side.
MAX_COMPARED = 50


def save_view(
    store: "Store", rows: Sequence[Row], filter_string: str, *, metric: str | None = None, ui: str = ""
) -> str:
    """Save a runs table in the experiment of the rows; the address that opens it.

    Its columns are what a row is, its metric with the difference to its reference, its size and speed, and the verdict
    of the gate. The same view is saved once.

    Parameters
    ----------
    store : Store
    rows : sequence of Row
    filter_string : str
    metric : str, optional
        The headline of the rows by default.
    ui : str, optional
        Address of the MLflow UI; that of the tracking server, or else of ``make ui``, by default.

    Raises
    ------
    TrackingError
        If the store cannot be reached.
    """
    metric = metric or default_metric(rows)
    params, tags = [f"params.`{name}`" for name in PARAMS], [f"tags.`{name}`" for name in TAGS]
    figures = [f"metrics.`{name}`" for name in (metric, f"delta/{metric}", *FIGURES)]
    state = {
        "searchFilter": filter_string,
        # By date the UI folds rows away below their jobs; by name a model's rows follow one another, before and after.
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": [*params, *figures, *tags],
        "columnOrder": [*OWN[:2], *params, *figures, *tags, OWN[2]],
        "columnWidths": {
            OWN[1]: NAME_PX,
            params[2]: RECIPE_PX,
            **dict.fromkeys(figures, FIGURE_PX),
            tags[-1]: REFERENCE_PX,
        },
    }
    experiment_id = _find_experiment(store, rows)
    key, now_ms = digest(state), int(time.time() * 1000)
    name = f"{rows[0].group or 'rows'}: {metric.removeprefix('test/')}"
    view = {"name": name, "createdAt": now_ms, "updatedAt": now_ms, "state": json.dumps(state)}
    save = partial(store.client.set_experiment_tag, experiment_id, f"{VIEW_TAG}{key}", json.dumps(view))
    retry(save, f"save a view of experiment {experiment_id}")
    return f"{_base(store, ui)}/#/experiments/{experiment_id}/runs?viewStateShareKey={key}"


def compare_url(store: "Store", rows: Sequence[Row], *, ui: str = "") -> str:
    """Address of the UI's comparison of the rows, the first 50 of them."""
    run_ids = [row.run_id for row in rows][:MAX_COMPARED]
    runs, experiments = (quote(json.dumps(ids)) for ids in (run_ids, [_find_experiment(store, rows)]))
    return f"{_base(store, ui)}/#/compare-runs?runs={runs}&experiments={experiments}"


def _find_experiment(store: "Store", rows: Sequence[Row]) -> str:
    run_id = str(rows[0].run_id)
    return str(retry(partial(store.client.get_run, run_id), f"find run {run_id!r}").info.experiment_id)


def _base(store: "Store", ui: str) -> str:
    own = store.tracking_uri if store.tracking_uri.startswith(("http://", "https://")) else LOCAL_UI
    return (ui or own).rstrip("/")
