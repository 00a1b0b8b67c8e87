"""Rows that differ in nothing but their seed, as one: mean, interval over seeds and subjects, test over seeds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tracking.answers import Answered
from tracking.comparison import ComparisonRefused
from tracking.headline import is_larger_better
from tracking.intervals import accelerate, measure_acceleration, tail_share, take_percentiles
from tracking.pairing import align
from tracking.predictions import encode_ids
from tracking.rows import Estimate, Row
from tracking.significance import Answer, judge_noninferiority, wilcoxon_seeds
from tracking.statistics import draw_resamples, explain_no_interval, leave_out, point_metrics, resample_metrics
from tracking.tables import MISSING, TableText, default_metric, explain_intervals, format_estimate

Floats = NDArray[np.float64]

# What rows with the same settings may still differ in, besides the seed.
FIELDS = ("role", "name", "model", "recipe", "runtime", "precision", "data", "dataset", "level", "leaky", "reference")


@dataclass(frozen=True)
class SeedSummary:
    """One training, repeated with several seeds.

    Parameters
    ----------
    rows : tuple of Row
        One for each seed, by seed.
    mean : Estimate
        Mean of a metric over the seeds, with the interval over seeds and subjects.
    spread : float
        Standard deviation over the seeds; NaN of one seed.
    reference : str or None
        Name of the rows that these were compared with, seed by seed.
    n_pairs : int
        Seeds that both sides have.
    delta : Estimate or None
        Mean difference to the reference, with its interval.
    p : float or None
        Of Wilcoxon's test over the seeds.
    noninferior : {"yes", "no", "open"} or None
        None where no margin was given.
    """

    rows: tuple[Row, ...]
    mean: Estimate
    spread: float
    reference: str | None = None
    n_pairs: int = 0
    delta: Estimate | None = None
    p: float | None = None
    noninferior: Answer | None = None


def group_seeds(rows: Sequence[Row]) -> list[tuple[Row, ...]]:
    """Put rows together that differ in nothing but their seed, each group by seed; of one seed's rows the last counts.

    Raises
    ------
    ComparisonRefused
        If a row has no seed.
    """
    groups: dict[tuple[object, ...], dict[int, Row]] = {}
    for row in rows:
        if row.seed is None:
            raise ComparisonRefused(f"{row.name} (run {row.run_id}) has no seed: it cannot be pooled with others")
        key = (*(getattr(row, name) for name in FIELDS), *sorted(row.settings.items()))
        groups.setdefault(key, {})[row.seed] = row
    return [tuple(group[seed] for seed in sorted(group)) for group in groups.values()]


def pool_seeds(
    values: Floats, draws: Floats, n_subjects: int, seed: int = 0, left_out: Floats | None = None
) -> Estimate:
    """Mean over seeds with its 95 % interval for other seeds and other subjects (hierarchical bootstrap).

    Seeds and subjects are drawn independently of each other, as every seed was tested on the same subjects. Of S
    seeds S - 1 are drawn, which makes the mean of the draws spread as much as the mean of S seeds does. Percentiles
    are those of Student's t at Satterthwaite's degrees of freedom: of a few seeds where seeds differ more than
    subjects do, of many subjects where they do not.

    Parameters
    ----------
    values : ndarray of float64, shape (n_seeds,)
        The metric, or a difference, of each seed.
    draws : ndarray of float64, shape (n_seeds, n_resamples)
        The same in resamples of the subjects, the same resamples for every seed.
    n_subjects : int
    seed : int, default 0
        Of drawing the seeds.
    left_out : ndarray of float64, shape (n_seeds, n_groups), optional
        The metric without each subject, see `tracking.intervals.subject_interval`.

    Raises
    ------
    ValueError
        If there is no seed, or shapes disagree.

    References
    ----------
    Owen: The pigeonhole bootstrap. Annals of Applied Statistics 1 (2007). doi:10.1214/07-AOAS122
    McCarthy, Snowden: The bootstrap and finite population sampling. Vital and Health Statistics 2, No. 95 (1985).
    Satterthwaite: An Approximate Distribution of Estimates of Variance Components. Biometrics Bulletin 2 (1946).
    doi:10.2307/3002019
    """
    n_seeds = len(values)
    if not n_seeds or draws.ndim != 2 or len(draws) != n_seeds:
        raise ValueError(f"expected draws of shape ({n_seeds}, n_resamples) for one seed or more, got {draws.shape}")
    n_resamples = draws.shape[1]
    chosen = np.random.default_rng((seed, n_seeds)).integers(n_seeds, size=(max(1, n_seeds - 1), n_resamples))
    drawn = np.take_along_axis(draws, chosen, axis=0).mean(axis=0)
    of_seeds = float(values.var(ddof=1)) / n_seeds if n_seeds > 1 else 0.0
    of_subjects = float(np.nanvar(draws.mean(axis=0)))
    weights = of_seeds**2 / max(1, n_seeds - 1) + of_subjects**2 / (n_subjects - 1)
    degrees = (of_seeds + of_subjects) ** 2 / weights if weights > 0 else n_subjects - 1
    tail = tail_share(degrees, float(np.sqrt(n_subjects / (n_subjects - 1))))
    acceleration = 0.0 if left_out is None else measure_acceleration(left_out.mean(axis=0))
    if of_subjects > 0:
        # Of a sum of which only the subjects' part is skewed.
        acceleration *= (of_subjects / (of_subjects + of_seeds)) ** 1.5
    return Estimate(float(values.mean()), *take_percentiles(drawn, *accelerate(tail, acceleration)))


def summarise_seeds(
    rows: Sequence[Row],
    read: Callable[[str], Answered],
    *,
    metric: str | None = None,
    reference: str | None = None,
    margin: float | None = None,
    n_resamples: int = 2000,
) -> list[SeedSummary]:
    """Pool rows that differ only in their seed and compare each pool with its reference's, seed by seed.

    Parameters
    ----------
    rows : sequence of Row
        Of the same test records.
    read : callable
        Gives the predictions of a run by its id.
    metric : str, optional
        Full name; the headline of the rows by default.
    reference : str, optional
        Run id or name of a row of the pool that all are compared with; by default each row's own reference.
    margin : float, optional
        Drop that would matter, for non-inferiority.
    n_resamples : int, default 2000

    Raises
    ------
    ComparisonRefused
        If a row has no seed, the reference is not one pool, or rows were not measured on the same test records.
    ValueError
        If the metric is not one of the test predictions', or as in `judge_noninferiority`.
    """
    metric = metric or default_metric(rows)
    groups = group_seeds(rows)
    references = [_find_reference(groups, group, reference) for group in groups]
    figures = _measure([row for group in groups for row in group], read, metric, n_resamples)
    return [_summarise(group, other, figures, metric, margin) for group, other in zip(groups, references, strict=True)]


def tabulate_seeds(summaries: Sequence[SeedSummary], metric: str | None = None) -> TableText:
    """Lay pools of seeds out in columns; the caption says what the intervals and the test are about."""
    rows = [row for item in summaries for row in item.rows]
    metric = metric or default_metric(rows)
    with_margin = any(item.noninferior for item in summaries)
    header = (
        *("name", "model", "recipe", "precision", "data", "seeds", f"{metric} [95 %]", "s.d. of seeds"),
        *("reference", "pairs", "delta [95 %]", "Wilcoxon p", *(["non-inferior"] if with_margin else [])),
    )
    cells = [
        (
            *(item.rows[0].name, item.rows[0].model, item.rows[0].recipe, item.rows[0].precision, item.rows[0].data),
            *(" ".join(str(row.seed) for row in item.rows), format_estimate(item.mean)),
            MISSING if np.isnan(item.spread) else f"{item.spread:.4f}",
            *(item.reference or MISSING, str(item.n_pairs or MISSING), format_estimate(item.delta, difference=True)),
            MISSING if item.p is None else f"{item.p:.3g}",
            *([item.noninferior or MISSING] if with_margin else []),
        )
        for item in summaries
    ]
    notes = ["intervals are for other seeds and other subjects, p for other seeds and these subjects"]
    return TableText(header, cells, "; ".join(notes + explain_intervals(rows)))


@dataclass(frozen=True)
class _Figures:
    """A metric of every run, and in every resample of the subjects; no resamples of too few subjects."""

    values: Mapping[str, float]
    draws: Mapping[str, Floats]
    left_out: Mapping[str, Floats]
    n_subjects: int

    def pool(self, rows: Sequence[Row], others: Sequence[Row] = ()) -> tuple[Floats, Estimate]:
        """Metric of each row, or its difference to the other row, and the pool of them."""
        ids, other_ids = ([str(row.run_id) for row in side] for side in (rows, others))
        values = np.array([self.values[run] for run in ids])
        if other_ids:
            values = values - [self.values[run] for run in other_ids]
        if not self.draws:
            return values, Estimate(float(values.mean()))
        draws = np.array([self.draws[run] for run in ids])
        if other_ids:
            draws = draws - [self.draws[run] for run in other_ids]
            return values, pool_seeds(values, draws, self.n_subjects)
        left_out = np.array([self.left_out[run] for run in ids])
        return values, pool_seeds(values, draws, self.n_subjects, left_out=left_out)


def _measure(rows: Sequence[Row], read: Callable[[str], Answered], metric: str, n_resamples: int) -> _Figures:
    first = read(str(rows[0].run_id))
    n_subjects = len(encode_ids(first.subject_ids)[0])
    resamples = None if explain_no_interval(n_subjects) else draw_resamples(first, n_resamples)
    name = metric.removeprefix("test/")
    values, draws, left_out = {}, {}, {}
    for row in rows:
        run_id = str(row.run_id)
        try:
            predictions = align(first, read(run_id))
        except ValueError as error:
            raise ComparisonRefused(f"{row.name} (run {run_id}) against {rows[0].name}: {error}") from error
        metrics = point_metrics(predictions)
        if name not in metrics:
            raise ValueError(f"metric {metric!r} does not follow from test predictions: choose from {sorted(metrics)}")
        values[run_id] = metrics[name]
        if resamples is not None:
            draws[run_id] = resample_metrics(predictions, resamples)[name]
            left_out[run_id] = resample_metrics(predictions, leave_out(resamples))[name]
    return _Figures(values, draws, left_out, n_subjects)


def _find_reference(
    groups: Sequence[tuple[Row, ...]], group: tuple[Row, ...], wanted: str | None
) -> tuple[Row, ...] | None:
    """Pool that a pool is compared with: the one asked for, or the one that holds its rows' own references."""
    names = {wanted} if wanted is not None else {row.reference_run_id for row in group} - {None}
    found = [other for other in groups if any(row.run_id in names for row in other)]
    if wanted is not None:
        found = found or [other for other in groups if other[0].name == wanted]
        if len(found) != 1:
            raise ComparisonRefused(
                f"{len(found)} pools of seeds have a row with the run id or name {wanted!r}, expected one of "
                f"{[other[0].name for other in groups]}"
            )
    return found[0] if found and found[0] != group else None


def _summarise(
    group: tuple[Row, ...], other: tuple[Row, ...] | None, figures: _Figures, metric: str, margin: float | None
) -> SeedSummary:
    values, mean = figures.pool(group)
    summary = SeedSummary(group, mean, float(values.std(ddof=1)) if len(values) > 1 else math.nan)
    twins = {row.seed: row for row in other or ()}
    paired = [row for row in group if row.seed in twins]
    if other is None or not paired:
        return summary
    differences, delta = figures.pool(paired, [twins[row.seed] for row in paired])
    better = is_larger_better(metric)
    answer = None if margin is None else judge_noninferiority(delta, margin, larger_is_better=better)
    p = wilcoxon_seeds(differences.tolist()) if np.isfinite(differences).all() else None
    return replace(summary, reference=other[0].name, n_pairs=len(paired), delta=delta, p=p, noninferior=answer)
