"""Pareto search over the options of a recipe, on validation."""

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from deploy.artifact import Artifact
from deploy.profile import latency_ratio, profile_artifacts
from tracking.figures import draw_png
from tracking.fronts import find_unbeaten
from tracking.headline import Headline
from tracking.plots import front_figure
from tracking.tables import TableText, to_markdown

if TYPE_CHECKING:
    from composition.candidates import Candidate

log = logging.getLogger(__name__)
COSTS = ("size_ratio", "macs_ratio", "latency_ratio")


@dataclass(frozen=True)
class Weighed:
    """An exported file with what a search wants to know of it.

    Attributes
    ----------
    artifact : Artifact
    metric : float
        The headline on validation.
    macs : int
        Multiply-accumulates of one window.
    headline : Headline
        What `metric` is, and whether more of it is better.
    """

    artifact: Artifact
    metric: float
    macs: int
    headline: Headline


Weigh = Callable[["Candidate", str], Weighed]


@dataclass(frozen=True)
class Trial:
    """What a recipe with certain options costs, and how it does on validation.

    Attributes
    ----------
    options : dict of str to Any
        By name.
    metric : float
        Headline on validation, of the exported file; larger is better, so an error stands with a minus.
    costs : dict of str to float
        Of the exported file over those of the float file: ``size_ratio``, ``macs_ratio``, ``latency_ratio``.
    """

    options: dict[str, Any]
    metric: float
    costs: dict[str, float]


def make_grid(search: DictConfig, steps: DictConfig) -> Iterator[tuple[dict[str, Any], DictConfig]]:
    """Yield every combination of the options to try, with the steps that have them.

    Parameters
    ----------
    search : DictConfig
        ``grid`` maps the names of steps to options, and those to lists of values; null leaves an option out.
    steps : DictConfig
        The recipe's own.

    Raises
    ------
    ValueError
        If the grid is empty, or names a step or an option that the recipe does not have.
    """
    grid: dict[tuple[str, str], list[Any]] = {}
    for step, options in search.grid.items():
        for option, values in (options or {}).items():
            if step not in steps or option not in steps[step]:
                known = [f"{name}.{own}" for name in map(str, steps) for own in steps[name] if own[0] != "_"]
                raise ValueError(
                    f"compression.search.grid has {step}.{option}, which no step has; expected some of {known}"
                )
            if values is not None:
                grid[str(step), option] = list(values)
    if not grid or not all(grid.values()):
        raise ValueError(f"compression.search.grid={search.grid}: expected at least one option with values to try")
    for values in itertools.product(*grid.values()):
        # Interpolations of the recipe still find the config around it.
        own = steps.copy()
        for (step, option), value in zip(grid, values, strict=True):
            own[step][option] = value
        yield {option: value for (_, option), value in zip(grid, values, strict=True)}, own


def find_front(trials: Sequence[Trial], costs: Sequence[str]) -> list[int]:
    """Positions of the trials that no other one beats: in the metric and in every cost at least as good, in one better.

    Of trials that are the same in all of them the first one counts. Sorted by metric, the best first.
    """
    # (trials, 1 + costs), smaller is better.
    values = np.array([[-trial.metric, *(trial.costs[cost] for cost in costs)] for trial in trials])
    return sorted(sorted(find_unbeaten(values)), key=lambda index: values[index, 0])


def choose(trials: Sequence[Trial], budget: Mapping[str, float | None], n_points: int) -> list[int]:
    """Positions of the best trials of the front within a budget, at most `n_points`.

    Parameters
    ----------
    trials : sequence of Trial
    budget : mapping of cost to float or None
        Largest ratio to the float file; None sets no limit but lets the cost count.
    n_points : int

    Raises
    ------
    ValueError
        If the budget names no cost or an unknown one, or no trial keeps to it: with the smallest ratio reached.
    """
    _check_budget(budget, n_points)
    limits = {cost: np.inf if limit is None else limit for cost, limit in budget.items()}
    front = find_front(trials, list(limits))
    within = [index for index in front if all(trials[index].costs[cost] <= limits[cost] for cost in limits)]
    if not within:
        smallest = {cost: round(min(trial.costs[cost] for trial in trials), 4) for cost in limits}
        raise ValueError(
            f"compression.search.budget={dict(budget)!r}: none of {len(trials)} trials keeps to it; the smallest ratios"
            f" reached are {smallest}. Raise the budget, or try stronger options in compression.search.grid"
        )
    return within[:n_points]


def search_recipes(
    compression: DictConfig,
    reference: "Candidate",
    attempt: "Callable[[DictConfig], Candidate]",
    weigh: "Weigh",
) -> "list[Candidate]":
    """Try every combination of the grid on validation, log table and plot, and give the chosen points.

    Parameters
    ----------
    compression : DictConfig
        With ``steps``, and ``search``: its ``grid``, ``budget``, ``n_points`` and ``latency_window_s``.
    reference : Candidate
        The float model: costs are ratios to its file.
    attempt : callable
        Gives the candidate of a recipe's steps.
    weigh : callable
        Exports a candidate under a name and evaluates the file on validation.

    Returns
    -------
    list of Candidate
        Named after the options that tell them apart; the best on validation first.

    Raises
    ------
    ValueError
        As `make_grid` and `choose`.
    """
    search = compression.search
    grid = list(make_grid(search, compression.steps))
    _check_budget(search.budget, search.n_points)
    candidates, weighed = [], [weigh(reference, "float")]
    for number, (options, steps) in enumerate(grid, start=1):
        candidate = attempt(steps)
        stage = replace(candidate.stage, recipe=f"{candidate.stage.recipe}({_short(options)})")
        candidates.append(replace(candidate, stage=stage))
        weighed.append(weigh(candidates[-1], f"trial-{number}"))
        log.info("trial %d of %d: %s -> %.4f", number, len(grid), stage.recipe, weighed[-1].metric)
    costs = _compare_costs(weighed, search.latency_window_s if "latency_ratio" in search.budget else None)
    headline = weighed[0].headline
    trials = [
        Trial(options, headline.sign * point.metric, cost)
        for (options, _), point, cost in zip(grid, weighed[1:], costs, strict=True)
    ]
    front = find_front(trials, list(search.budget))
    # Before the choice, which may fail: what was tried is kept.
    run = candidates[0].run
    names = [candidate.stage.recipe for candidate in candidates]
    texts = {"search.md": to_markdown(_tabulate(trials, names, front, headline))}
    first = next(iter(search.budget))
    points = [(trial.costs[first], headline.sign * trial.metric) for trial in trials]
    figure = front_figure(points, names, front, (first, headline.named("val")))
    run.store.log_files(run.run_id, texts, {"search.png": draw_png(figure)})
    return [candidates[index] for index in choose(trials, search.budget, search.n_points)]


def _check_budget(budget: Mapping[str, float | None], n_points: int) -> None:
    if not budget or set(budget) - set(COSTS):
        raise ValueError(f"compression.search.budget={dict(budget)!r}: expected some of {COSTS}")
    if n_points < 1:
        raise ValueError(f"compression.search.n_points={n_points!r}: expected at least 1")


def _compare_costs(weighed: "Sequence[Weighed]", latency_window_s: float | None) -> list[dict[str, float]]:
    """Ratios of every file to the first one; latency only where a window is given."""
    first, *others = weighed
    costs = [
        {
            "size_ratio": other.artifact.size_bytes / first.artifact.size_bytes,
            "macs_ratio": other.macs / first.macs,
        }
        for other in others
    ]
    if latency_window_s is not None:
        artifacts = [point.artifact for point in weighed]
        profiles = profile_artifacts(artifacts, batch_sizes=[1], window_s=latency_window_s)
        for cost, profile in zip(costs, profiles[1:], strict=True):
            cost["latency_ratio"] = latency_ratio(profile, profiles[0], 1)
    return costs


def _tabulate(trials: Sequence[Trial], names: Sequence[str], front: Sequence[int], headline: Headline) -> TableText:
    costs = list(trials[0].costs)
    cells = [
        (
            name,
            f"{headline.sign * trial.metric:.4f}",
            *(f"{trial.costs[cost]:.4f}" for cost in costs),
            "yes" if index in front else "",
        )
        for index, (name, trial) in enumerate(zip(names, trials, strict=True))
    ]
    return TableText(("recipe", headline.named("val"), *costs, "front"), cells)


def _short(options: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in options.items())
