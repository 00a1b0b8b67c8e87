"""Rows against their references, on the same test records or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tracking.answers import Answered
from tracking.hr_comparison import RateComparison, compare_rates, tabulate_rate_comparisons
from tracking.hr_predictions import HeartRates
from tracking.paired_tests import DelongResult, McnemarResult, delong, mcnemar
from tracking.pairing import align
from tracking.predictions import Predictions
from tracking.rows import Estimate, Row
from tracking.significance import holm
from tracking.statistics import paired_bootstrap
from tracking.tables import MISSING, TableText, format_estimate


class ComparisonRefused(ValueError):  # noqa: N818
    """The runs were not measured on the same test records."""


@dataclass(frozen=True)
class ClassComparison:
    """One class of one artifact against its reference.

    Parameters
    ----------
    name, reference, class_name : str
    delta : Estimate or None
        Difference of the area under the ROC curve, with the interval of the subject-cluster bootstrap.
    delong : DelongResult
    mcnemar : McnemarResult
    """

    name: str
    reference: str
    class_name: str
    delta: Estimate | None
    delong: DelongResult
    mcnemar: McnemarResult


Comparison = ClassComparison | RateComparison


def check_same_split(rows: Sequence[Row]) -> None:
    """Refuse rows of different test splits.

    Raises
    ------
    ComparisonRefused
        If split digests differ or one is missing; the message names runs and digests.
    """
    digests = {row.split_digest for row in rows}
    if len(digests) > 1 or (None in digests and len(rows) > 1):
        listed = "\n".join(f"  {row.name} (run {row.run_id}): split {row.split_digest!r}" for row in rows)
        raise ComparisonRefused(
            "these runs were not evaluated on the same test split, so their figures do not compare:\n"
            f"{listed}\nNarrow the selection down, for example with \"tags.split_digest = '...'\"."
        )


def check_same_level(rows: Sequence[Row]) -> None:
    """Refuse rows of which one counts beats and another windows or records.

    Raises
    ------
    ComparisonRefused
        If so; the message names runs and levels.
    """
    if len({row.level for row in rows}) > 1:
        listed = "\n".join(f"  {row.name} (run {row.run_id}): {row.level}" for row in rows)
        raise ComparisonRefused(
            f"figures of beats, windows and records do not compare:\n{listed}\n"
            "Narrow the selection down, for example with \"tags.level = 'beat'\"."
        )


def check_same_task(rows: Sequence[Row]) -> None:
    """Refuse rows of which one tells classes apart and another measures heart rates.

    Raises
    ------
    ComparisonRefused
        If so; the message names runs and tasks.
    """
    if len({row.task for row in rows}) > 1:
        listed = "\n".join(f"  {row.name} (run {row.run_id}): {row.task}" for row in rows)
        raise ComparisonRefused(
            f"figures of different tasks do not compare:\n{listed}\n"
            "Narrow the selection down, for example with \"tags.task = 'heart_rate'\"."
        )


def compare_with(row: Row, reference: Row, a: Answered, b: Answered) -> list[Comparison]:
    """Compare an artifact with its reference, class by class, or heart rates group by group.

    A class needs two positives and two negatives.

    Parameters
    ----------
    row, reference : Row
    a, b : Predictions or HeartRates
        Of `row` and of `reference`.

    Raises
    ------
    ComparisonRefused
        If the split digests, records, subjects, targets or classes differ.
    """
    b = _paired(row, reference, a, b)
    if isinstance(a, HeartRates) or isinstance(b, HeartRates):
        return [*compare_rates(row, reference)]
    return _compare_classes(row, reference, a, b)


def _compare_classes(row: Row, reference: Row, a: Predictions, b: Predictions) -> list[Comparison]:
    n_positive = (a.targets > 0).sum(axis=0)
    kept = np.flatnonzero((n_positive >= 2) & (len(a.targets) - n_positive >= 2))
    targets = a.targets[:, kept]
    tests = zip(
        (a.class_names[column] for column in kept),
        delong(a.probabilities[:, kept], b.probabilities[:, kept], targets),
        mcnemar(a.decisions[:, kept], b.decisions[:, kept], targets),
        strict=True,
    )
    return [
        ClassComparison(row.name, reference.name, name, row.delta.get(f"test/auroc_{name}{a.suffix}"), areas, decisions)
        for name, areas, decisions in tests
    ]


def refer_to(row: Row, reference: Row, a: Answered, b: Answered, n_resamples: int = 2000, seed: int = 0) -> Row:
    """Row with differences to another reference; the gate's verdict, which was about its own, is left out.

    Parameters and errors as in `compare_with` and `tracking.statistics.paired_bootstrap`.
    """
    b = _paired(row, reference, a, b)
    return replace(
        row,
        delta=paired_bootstrap(a, b, n_resamples, seed),
        reference=reference.name,
        reference_run_id=reference.run_id,
        verdict=None,
        reasons=[],
        checks=[],
    )


def tabulate_comparisons(comparisons: Sequence[Comparison], level: str = "record") -> TableText:
    """Lay comparisons out in columns; the caption says what p values of classes leave out, or how to read bpm."""
    if rates := [item for item in comparisons if isinstance(item, RateComparison)]:
        return tabulate_rate_comparisons(rates)
    header = (
        *(
            "name",
            "reference",
            "class",
            "delta AUROC [bootstrap 95 %]",
            "delta AUROC [DeLong 95 %]",
            "DeLong p",
            "DeLong p (Holm)",
        ),
        *("only this right", "only reference right", "McNemar p", "McNemar p (Holm)"),
    )
    classes = [item for item in comparisons if isinstance(item, ClassComparison)]
    adjusted = zip(holm([item.delong.p for item in classes]), holm([item.mcnemar.p for item in classes]), strict=True)
    cells = [
        (
            *(item.name, item.reference, item.class_name, format_estimate(item.delta, difference=True)),
            format_estimate(Estimate(item.delong.difference, item.delong.low, item.delong.high), difference=True),
            *(f"{item.delong.p:.3g}", f"{of_areas:.3g}"),
            *(str(item.mcnemar.only_a_right), str(item.mcnemar.only_b_right)),
            *(f"{item.mcnemar.p:.3g}", f"{of_decisions:.3g}"),
        )
        for item, (of_areas, of_decisions) in zip(classes, adjusted, strict=True)
    ]
    notes = [f"Holm: p corrected for the {len(classes)} comparisons of this table"]
    if level != "record":
        notes.append(
            f"DeLong and McNemar take every {level} as independent, so p is far too small: trust the bootstrap"
        )
    return TableText(header, cells, "; ".join(notes) if cells else "")


def find_reference(rows: Sequence[Row], wanted: str) -> Row | None:
    """Row whose run id or name is `wanted`.

    Raises
    ------
    ComparisonRefused
        If several rows have that name; the message lists their run ids.
    """
    found = [row for row in rows if row.run_id == wanted] or [row for row in rows if row.name == wanted]
    if len(found) > 1:
        listed = ", ".join(str(row.run_id) for row in found)
        raise ComparisonRefused(f"{len(found)} rows are named {wanted!r}; give one of their run ids: {listed}")
    return found[0] if found else None


def explain_verdicts(rows: Sequence[Row]) -> list[str]:
    """One line per row that did not pass, with the gate's reasons."""
    return [
        f"{row.name}: {row.verdict}: {'; '.join(row.reasons) or MISSING}"
        for row in rows
        if row.verdict not in (None, "PASS")
    ]


def _paired(row: Row, reference: Row, a: Answered, b: Answered) -> Answered:
    check_same_split([row, reference])
    try:
        return align(a, b)
    except ValueError as error:
        raise ComparisonRefused(
            f"{row.name} (run {row.run_id}) against {reference.name} (run {reference.run_id}): {error}"
        ) from error
