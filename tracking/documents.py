"""What a run says about itself in words: a model card and a report, each sentence only where the row backs it."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracking.rendering import escape_markdown, to_data_uri
from tracking.rows import Row
from tracking.tables import MISSING, default_metric, format_estimate

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
CARD_FILE, REPORT_FILE = "model_card.md", "report.html"
# What the card takes from the row as it is.
CARD_FIELDS = (
    *("role", "task", "model", "recipe", "precision", "runtime", "data", "dataset", "level", "leaky", "seed"),
    *("threads", "params", "macs", "size_bytes", "latency_ms_p50", "latency_ms_p99", "verdict", "reasons", "n_test"),
    *("n_subjects", "test_looks", "data_digest", "split_digest", "preprocessing_digest", "run_id", "reference"),
    "reference_run_id",
)
# What the card states where somebody knows it.
KNOWN = (
    *("date", "commit", "uncommitted", "lead_names", "n_leads", "n_samples", "input_shape", "fs", "unit"),
    *("class_names", "exclusive", "thresholds", "threshold_rule", "device", "n_slice"),
)
# Of the row, as the report lists it.
ABOUT = (
    *("role", "model", "recipe", "runtime", "precision", "device", "data", "dataset", "level", "seed", "threads"),
    *("params", "macs", "int8_macs_share", "sparsity", "size_bytes", "compressed_bytes", "latency_ms_p50"),
    *("latency_ms_p99", "latency_ratio", "peak_memory_bytes", "energy_mj", "flips", "training_s", "n_test"),
    *("n_subjects", "test_looks", "reference_run_id", "data_digest", "split_digest", "preprocessing_digest"),
    "config_digest",
)
COLOURS = {"PASS": "reproduced", "FAIL": "worse", "INCONCLUSIVE": "different"}


def tell_stage(row: Row) -> str:
    """Where a row stands in its job: ``teacher``, ``before`` any step of the recipe, or ``after`` some."""
    if row.role != "student":
        return row.role
    return "before" if row.recipe == "none" else "after"


def summarise(row: Row) -> str:
    """Give what a row is and found in one line of markdown, for lists of runs."""
    name = default_metric([row])
    if row.role == "device":
        name = name.replace("test/", "slice/", 1)
    after = f", after {row.recipe}" if tell_stage(row) == "after" else ""
    told = [f"{row.role} {row.model}, {row.precision}{after}"]
    if row.data == "synthetic":
        told.append("simulated data")
    if (figure := format_estimate(row.metrics.get(name))) != MISSING:
        told.append(f"{name} {figure}")
    if (change := format_estimate(row.delta.get(name), difference=True)) != MISSING:
        told.append(f"{change} against {row.reference}")
    if row.size_bytes is not None:
        told.append(f"{row.size_bytes:,} bytes")
    if row.verdict:
        told.append(f"gate {row.verdict}")
    return escape_markdown("; ".join(told))


def card_facts(row: Row, **known: Any) -> dict[str, Any]:
    """Everything that the model card states.

    Parameters
    ----------
    row : Row
    **known
        Of `KNOWN`; what is left out is not stated.

    Raises
    ------
    TypeError
        If something else is given.
    """
    if unknown := sorted(set(known) - set(KNOWN)):
        raise TypeError(f"a model card does not state {unknown}, expected some of {KNOWN}")
    split = "slice/" if row.role == "device" else "test/"
    shown = {name: item for name, item in row.metrics.items() if name.startswith(split) and math.isfinite(item.value)}
    headline = default_metric([row]).replace("test/", split, 1)
    change = row.delta.get(headline)
    return {
        **{name: getattr(row, name) for name in CARD_FIELDS},
        **dict.fromkeys(KNOWN),
        **known,
        "project": "lightheart",
        "on_device": row.device,
        "n_folds": len(row.folds),
        "metrics": [(name.removeprefix(split), format_estimate(item)) for name, item in shown.items()],
        "intervals": any(math.isfinite(item.low) for item in shown.values()),
        "delta": None if change is None or math.isnan(change.value) else (
            headline.removeprefix(split),
            format_estimate(change, difference=True),
        ),
    }  # fmt: skip


def write_card(facts: Mapping[str, Any]) -> str:
    """Write the model card in markdown; texts in it are escaped.

    Raises
    ------
    jinja2.UndefinedError
        If a fact that the card states is missing.
    """
    return _markdown().get_template("model_card.md.j2").render(**facts).rstrip("\n") + "\n"


def write_report(
    row: Row,
    *,
    images: Mapping[str, bytes] | None = None,
    files: Sequence[str] = (),
    config: str = "",
    facts: Mapping[str, Any] | None = None,
) -> str:
    """Write the report of a run: one page of html that needs nothing beside it.

    Parameters
    ----------
    row : Row
    images : mapping of file name to bytes, optional
        PNG pictures that the page shows.
    files : sequence of str
        Names of the run's other files.
    config : str
        As yaml.
    facts : mapping, optional
        ``date``, ``commit`` and ``uncommitted``.
    """
    about = [(name, _format(getattr(row, name))) for name in ABOUT if getattr(row, name) not in (None, "")]
    figures = [
        (name, format_estimate(item), format_estimate(row.delta.get(name), difference=True))
        for name, item in row.metrics.items()
        if math.isfinite(item.value)
    ]
    checks = [
        {name: _format(value) for name, value in check.items()} | {"colour": COLOURS.get(check["status"], "")}
        for check in row.checks
    ]
    facts = facts or {}
    return _html().get_template("run_report.html.j2").render(
        row=row,
        about=about,
        figures=figures,
        checks=checks,
        colour=COLOURS.get(row.verdict or "", ""),
        images={name: to_data_uri("image/png", content) for name, content in (images or {}).items()},
        files=files,
        config=config,
        **{name: facts.get(name) for name in ("date", "commit", "uncommitted")},
    )  # fmt: skip


def write_documents(
    row: Row,
    *,
    images: Mapping[str, bytes] | None = None,
    files: Sequence[str] = (),
    config: str = "",
    **known: Any,
) -> dict[str, str]:
    """Model card and report of a row, by file name; parameters as in `card_facts` and `write_report`."""
    facts = card_facts(row, **known)
    report = write_report(row, images=images, files=files, config=config, facts=facts)
    return {CARD_FILE: write_card(facts), REPORT_FILE: report}


def _format(value: object) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _escape(value: object) -> object:
    # A bar would end a cell of a table.
    return escape_markdown(value).replace("|", "\\|").replace("\n", " ") if isinstance(value, str) else value


@cache
def _markdown() -> "Environment":
    return _environment(autoescape=False, finalize=_escape)


@cache
def _html() -> "Environment":
    return _environment(autoescape=True)


def _environment(**options: Any) -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(TEMPLATES)
    return Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options)
