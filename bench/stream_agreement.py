"""How often a stream decides as the training path does: ``python -m bench.stream_agreement MODEL DATAMODULE ROOT``.

On the test records of the model's data module. The training path filters whole records and takes the annotated beats,
corrected by the detector; the stream filters block by block and has its detector alone. Beats that lie 50 ms apart at
most are the same.
"""

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import OmegaConf

from datamodules.rpeaks import find_nearest
from deploy.artifact import load_artifact, predict
from stream import StreamOptions, run

CONF = Path(__file__).resolve().parents[1] / "conf"
TOLERANCE_S = 0.05


@dataclass(frozen=True)
class Agreement:
    """Counts over beats of the training path.

    Attributes
    ----------
    n_beats, n_found, n_equal : int
        All of them; those that the stream decides, too; those of these with the same class.
    """

    n_beats: int
    n_found: int
    n_equal: int


def count_agreement(
    times_s: NDArray[np.float64], classes: NDArray[np.int64], stream_s: NDArray[np.float64], found: NDArray[np.int64]
) -> Agreement:
    """Pair each beat with the nearest one of the stream (seconds, in order) and count equal classes."""
    if not len(stream_s):
        return Agreement(len(times_s), 0, 0)
    nearest = find_nearest(stream_s, times_s)
    near = abs(stream_s[nearest] - times_s) <= TOLERANCE_S
    return Agreement(len(times_s), int(near.sum()), int((found[nearest] == classes)[near].sum()))


def main(model: str, datamodule: str, root: str) -> None:
    """Print the counts of each test record and of all together."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose("config", overrides=[f"datamodule={datamodule}", f"datamodule.root={root}"])
    OmegaConf.set_struct(config, False)
    module = instantiate(config.datamodule)
    module.setup()
    records, times = module.record_ids("test"), module.times_s("test")
    names = list(config.datamodule.class_names)
    classes = predict(load_artifact(Path(model)), module.windows("test")).argmax(axis=1)
    total = np.zeros(3, dtype=np.int64)
    for record in np.unique(records):
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "decisions.json"
            run(StreamOptions(artifact=model, source=str(Path(root) / f"{record}.hea"), record=str(written)))
            decisions = json.loads(written.read_text())["decisions"]
        stream_s, found = (
            np.array([(item["time_s"], names.index(item["class"])) for item in decisions]).reshape(-1, 2).T
        )
        mine = records == record
        counts = count_agreement(times[mine], classes[mine], stream_s, found.astype(np.int64))
        total += [counts.n_beats, counts.n_found, counts.n_equal]
        print(f"{record}: {counts.n_found} of {counts.n_beats} beats found, {counts.n_equal} with the same class")
    beats, n_found, n_equal = total
    print(f"all: {n_found / beats:.2%} of {beats} beats found within 50 ms, {n_equal / n_found:.2%} decided alike")


if __name__ == "__main__":
    main(*sys.argv[1:])
