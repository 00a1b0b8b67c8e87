"""Compose the project's configuration in a test."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"


def names_of(group: str) -> list[str]:
    """Options of a config group; what is only included by options lies in its folder ``base``."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def compose_config(*overrides: str) -> DictConfig:
    """Compose conf/config.yaml as `train.py` does, without Hydra's own node."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose("config", overrides=["paths.output=outputs/test", "group=test", *overrides])
    OmegaConf.set_struct(config, False)
    return config
