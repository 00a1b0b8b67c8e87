"""Compose the project's configuration in a test."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"


def names_of(group: str) -> list[str]:
    """Options of a config group; what is only included by options lies in its folder ``base``."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


# Models for clips of a face, and those for ECG windows. The facts stand in for a data module of videos.
RPPG_MODELS = [name for name in names_of("model") if "base/rppg@" in (CONF / "model" / f"{name}.yaml").read_text()]
CLASSIFIERS = [name for name in names_of("model") if name not in RPPG_MODELS]
RPPG_FACTS = ("++datamodule.n_frames=10", "++datamodule.image_size=36", "++datamodule.fs=30")


def compose_config(*overrides: str) -> DictConfig:
    """Compose conf/config.yaml as `train.py` does, without Hydra's own node."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose("config", overrides=["paths.output=outputs/test", "group=test", *overrides])
    OmegaConf.set_struct(config, False)
    return config
