from pathlib import Path

import pytest
from omegaconf import OmegaConf

import train
from composition.search import Trial, choose, find_front, make_grid
from tests.mlflow_template import template_database
from tests.test_train import job_config, open_store

CONFIG = """
limits: {size_ratio: 0.3}
compression:
  steps:
    prune: {_target_: x, ratio: 0.5, scope: global}
    ptq: {_target_: y, per_channel: true, claims: "${limits}"}
  search:
    grid: {prune: {ratio: [0.25, 0.5], scope: null}, ptq: {per_channel: [true, false]}}
"""


def trial(metric, size, macs=1.0):
    return Trial({}, metric, {"size_ratio": size, "macs_ratio": macs})


def test_grid_holds_every_combination_and_leaves_the_recipe_as_it_is():
    config = OmegaConf.create(CONFIG)
    grid = list(make_grid(config.compression.search, config.compression.steps))
    assert [options for options, _ in grid] == [
        {"ratio": ratio, "per_channel": channel} for ratio in (0.25, 0.5) for channel in (True, False)
    ]
    assert grid[1][1].prune.ratio == 0.25
    assert grid[1][1].ptq.per_channel is False
    assert grid[1][1].ptq.claims.size_ratio == 0.3
    assert config.compression.steps.prune.ratio == 0.5


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({}, "expected at least one option"),
        ({"prune": {"ratio": []}}, "expected at least one option"),
        (
            {"distill": {"alpha": [0.1]}},
            r"has distill.alpha.*some of \['prune.ratio', 'prune.scope', 'ptq.per_channel'",
        ),
        ({"prune": {"amount": [0.1]}}, "has prune.amount"),
    ],
)
def test_grid_refuses_what_no_step_has(grid, message):
    config = OmegaConf.create(CONFIG)
    config.compression.search.grid = grid
    with pytest.raises(ValueError, match=message):
        list(make_grid(config.compression.search, config.compression.steps))


def test_front_holds_what_no_other_trial_beats():
    trials = [trial(0.90, 0.5), trial(0.93, 0.5), trial(0.92, 0.3), trial(0.91, 0.4), trial(0.80, 0.1)]
    assert find_front(trials, ["size_ratio"]) == [1, 2, 4]


def test_front_counts_every_cost():
    trials = [trial(0.90, 0.5, macs=0.2), trial(0.93, 0.4, macs=0.5), trial(0.89, 0.6, macs=0.3)]
    assert find_front(trials, ["size_ratio"]) == [1]
    assert find_front(trials, ["size_ratio", "macs_ratio"]) == [1, 0]


def test_front_holds_the_first_of_equal_trials():
    assert find_front([trial(0.9, 0.5), trial(0.9, 0.5)], ["size_ratio"]) == [0]


def test_choice_keeps_to_the_budget_and_takes_the_best():
    trials = [trial(0.93, 0.5), trial(0.92, 0.3), trial(0.91, 0.2), trial(0.80, 0.1)]
    assert choose(trials, {"size_ratio": 0.35}, 2) == [1, 2]
    assert choose(trials, {"size_ratio": None}, 10) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("budget", "n_points", "message"),
    [
        ({"size_ratio": 0.05}, 3, r"none of 2 trials keeps to it.*\{'size_ratio': 0.3\}"),
        ({}, 3, "expected some of"),
        ({"bytes": 100}, 3, "expected some of"),
        ({"size_ratio": 0.5}, 0, "n_points=0"),
    ],
)
def test_choice_refuses_a_budget_that_cannot_be_kept(budget, n_points, message):
    with pytest.raises(ValueError, match=message):
        choose([trial(0.9, 0.5), trial(0.8, 0.3)], budget, n_points)


def test_search_looks_at_the_test_split_for_the_chosen_points_alone(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(template_database())
    options = ("compression=search", "compression.search.grid.ptq_int8.n_calibration=null")
    rows = train.run(job_config(tmp_path, "searched", *options, "compression.search.n_points=1"))
    assert [row.recipe.partition("(")[0] for row in rows] == ["none", "ptq_int8"]
    assert [row.test_looks for row in rows] == [1, 2]
    assert rows[1].reference == rows[0].name
    store = open_store(tmp_path)
    (run,) = store.client.search_runs([store.experiment_id], "tags.mlflow.runName LIKE 'student%search'")
    assert {item.path for item in store.client.list_artifacts(run.info.run_id)} >= {"search.md", "search.png"}
    table = Path(store.client.download_artifacts(run.info.run_id, "search.md", str(tmp_path))).read_text()
    assert "ptq_int8(per_channel=True)" in table
    assert "ptq_int8(per_channel=False)" in table


def test_search_says_what_can_be_reached(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(template_database())
    options = ("compression=search", "compression.search.grid.ptq_int8={per_channel:[true],n_calibration:null}")
    with pytest.raises(ValueError, match="none of 1 trials keeps to it; the smallest ratios reached are"):
        train.run(job_config(tmp_path, "x", *options, "compression.search.budget.size_ratio=0.01"))
