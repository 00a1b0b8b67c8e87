"""Pareto search over the options of a recipe, on validation."""

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)
COSTS = ("size_ratio", "macs_ratio", "latency_ratio")


@dataclass(frozen=True)
class Trial:
    """What a recipe with certain options costs, and how it does on validation.

    Attributes
    ----------
    options : dict of str to Any
        By dotted name: step, then option.
    metric : float
        On validation, of the exported file; larger is better.
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
        ``grid`` maps dotted names, such as ``ptq_int8.per_channel``, to lists of values.
    steps : DictConfig
        The recipe's own.

    Raises
    ------
    ValueError
        If the grid is empty, or names a step or an option that the recipe does not have.
    """
    grid: dict[str, list[Any]] = OmegaConf.to_container(search.grid, resolve=True)  # type: ignore[assignment]
    if not grid or not all(grid.values()):
        raise ValueError(f"compression.search.grid={grid!r}: expected at least one option with values to try")
    for name in grid:
        step, _, option = name.partition(".")
        if step not in steps or option not in steps[step]:
            known = [f"{step}.{option}" for step in steps for option in steps[step] if not option.startswith("_")]
            raise ValueError(f"compression.search.grid has {name!r}, which no step has; expected some of {known}")
    for values in itertools.product(*grid.values()):
        options = dict(zip(grid, values, strict=True))
        # Interpolations of the recipe still find the config around it.
        own = steps.copy()
        for name, value in options.items():
            OmegaConf.update(own, name, value)
        yield options, own


def find_front(trials: Sequence[Trial], costs: Sequence[str]) -> list[int]:
    """Positions of the trials that no other one beats: in the metric and in every cost at least as good, in one better.

    Of trials that are the same in all of them the first one counts. Sorted by metric, the best first.
    """
    # (trials, 1 + costs), smaller is better.
    values = np.array([[-trial.metric, *(trial.costs[cost] for cost in costs)] for trial in trials])
    front = [
        index
        for index, own in enumerate(values)
        if not any(
            (other <= own).all() and ((other < own).any() or position < index)
            for position, other in enumerate(values)
            if position != index
        )
    ]
    return sorted(front, key=lambda index: values[index, 0])


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
    if not budget or set(budget) - set(COSTS):
        raise ValueError(f"compression.search.budget={dict(budget)!r}: expected some of {COSTS}")
    if n_points < 1:
        raise ValueError(f"compression.search.n_points={n_points!r}: expected at least 1")
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


def run_trials(
    grid: Sequence[tuple[dict[str, Any], DictConfig]], attempt: Callable[[DictConfig], tuple[float, dict[str, float]]]
) -> list[Trial]:
    """Carry all trials out; `attempt` gives metric and costs of a recipe."""
    trials = []
    for number, (options, steps) in enumerate(grid, start=1):
        trial = Trial(options, *attempt(steps))
        log.info("trial %d of %d: %s -> %.4f, %s", number, len(grid), options, trial.metric, trial.costs)
        trials.append(trial)
    return trials
