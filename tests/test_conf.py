"""Every YAML of every group composes, and every target in it can be called with what the YAML gives it."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import ConfigCompositionException
from hydra.utils import get_object
from omegaconf import OmegaConf

from tests.configs import ROOT, RPPG_MODELS, compose_config, names_of

GROUPS = ("datamodule", "model", "optim", "compression", "deploy", "trainer", "callbacks", "tracking", "experiment")
MORE = ("evaluation", "baselines", "profile", "table")
VIDEOS = {"ubfc", "vipl", "vipl_v2", "synthetic_ubfc", "synthetic_vipl"}
OF_VIDEOS = {*RPPG_MODELS, "distill_wave"}  # options that need clips
CLASSES = [name for name in names_of("datamodule") if name not in VIDEOS]
OPTIONS = [(group, name) for group in (*GROUPS, *MORE) for name in names_of(group)]


def targets_of(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping with a `_target_`, at any depth."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets_of(value)


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_option_composes_and_binds_its_targets(group, name):
    data = ["datamodule=synthetic_ubfc"] if name in OF_VIDEOS else []
    config = OmegaConf.to_container(compose_config(*data, f"{group}={name}"), resolve=True)
    assert any(targets_of(config))
    for node in targets_of(config):
        keywords = {key: value for key, value in node.items() if key not in ("_target_", "_partial_", "_convert_")}
        signature = inspect.signature(get_object(node["_target_"]))
        bind = signature.bind_partial if node.get("_partial_") else signature.bind
        bind(**keywords)


def test_an_unknown_option_is_answered_with_the_choices():
    with pytest.raises(ConfigCompositionException, match="cnn1d_student"):
        compose_config("model=resnet99")


def test_an_unknown_key_is_refused():
    with pytest.raises(ConfigCompositionException, match="max_epoch"):
        compose_config("trainer.max_epoch=3")


def test_the_default_job_is_the_main_job_on_synthetic_data():
    config = compose_config()
    assert (config.datamodule.kind, config.model.name) == ("synthetic", "cnn1d_student")
    assert config.compression.teacher.name == "cnn1d_teacher"
    assert list(config.compression.steps) == ["distill", "ptq_int8"]


def test_models_follow_the_data_modules_facts():
    config = compose_config("datamodule.n_classes=3", "datamodule.n_leads=2")
    assert (config.model.module.net.n_classes, config.compression.teacher.module.net.n_leads) == (3, 2)


@pytest.mark.parametrize("name", CLASSES)
def test_models_take_the_loss_that_the_data_ask_for(name):
    config = compose_config(f"datamodule={name}", "compression=distill")
    exclusive = "ptbxl" not in name
    assert config.datamodule.exclusive is exclusive
    assert config.model.module.exclusive is config.compression.teacher.module.exclusive is exclusive


@pytest.mark.parametrize("name", sorted(VIDEOS))
@pytest.mark.parametrize("faces", names_of("datamodule/faces"))
def test_videos_take_every_face_detector(name, faces):
    config = compose_config(f"datamodule={name}", f"datamodule/faces={faces}")
    assert config.datamodule.faces.make_detector._target_.endswith(faces)


def test_no_folder_hides_a_module_of_the_standard_library():
    """Python 3.14 has a `compression` of its own, which is why requires-python ends before it."""
    folders = {path.parent.name for path in Path(ROOT).glob("*/__init__.py")}
    assert {"compression", "datamodules", "deploy", "tracking"} <= folders
    assert not folders & set(sys.stdlib_module_names)


@pytest.mark.parametrize("recipe", ["none", "ptq_int8", "qat_int8", "distill"])
def test_the_recipe_of_the_command_line_wins_over_the_experiment_of_recipes(recipe):
    config = compose_config("experiment=ptbxl_recipes", f"compression={recipe}")
    assert config.compression.name == recipe
    assert (config.datamodule.name, config.model.name) == ("ptbxl", "cnn1d_student")
