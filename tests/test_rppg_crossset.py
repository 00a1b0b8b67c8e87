"""``experiment=rppg_crossset`` through train.py, on small valid trees in the published layouts and on damaged ones."""

import shutil

import numpy as np
import pytest

import train
from datamodules.synthetic_video import encode_video, write_synthetic_vipl
from tests.configs import compose_config
from tests.mlflow_template import template_database
from tests.video_trees import draw, write_ubfc_subject, write_vipl_v2_subject
from tracking.store import initialise

RATES_BPM = (58, 66, 72, 84, 96, 104)
SMALL = (
    "experiment=rppg_crossset",
    "callbacks=quiet",
    "compression=none",
    "gate=report",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=1",
    "model.module.net.widths=[4,4]",
    "model.module.net.dense_width=8",
    "bootstrap.n_resamples=100",
    "latency_window_s.real=0.02",
    "evaluation.parity_windows=2",
    "evaluation.window_s=3",
    "datamodule/faces=cascade",
    "datamodule.n_frames=90",
    "datamodule.batch_size=1",
    "datamodule.split.test_share=0.34",
    "datamodule.split.val_share=0.4",
)


def write_vipl(root):
    """A tree as users have it: without the note that it is simulated."""
    tree = write_synthetic_vipl(root, n_subjects=7, duration_s=4, sources=(1, 2), workers=1)
    (tree / "synthetic.json").unlink()
    return tree


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    for number, hr_bpm in enumerate(RATES_BPM, start=1):
        write_ubfc_subject(folder / "ubfc", f"subject{number}", seconds=3.2, hr_bpm=hr_bpm, seed=number)
    write_vipl_v2_subject(folder / "vipl_v2", seconds=3.2)
    return {"ubfc": folder / "ubfc", "vipl": write_vipl(folder), "vipl_v2": folder / "vipl_v2", "cache": folder / "c"}


def run(folder, trees, train_on, test_on, *more):
    (folder / "mlflow.db").write_bytes(template_database())
    options = (f"datamodule={train_on}", f"datamodule.root={trees['ubfc' if train_on == 'vipl_v2' else train_on]}")
    config = compose_config(*SMALL[:1], *options, f"datamodule.test_root={trees[test_on]}", *SMALL[1:], *more)
    folders = {key: str(folder / key) for key in ("data", "synthetic", "floats")}
    config.paths.update(**folders, cache=str(trees["cache"]), output=str(folder / "out"))
    config.tracking.update(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_location=str(folder / "mlruns"))
    return train.run(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("train_on", "test_on", "records"),
    [
        ("ubfc", "vipl", {f"test/p{person}/v1/source{source}" for person in range(1, 8) for source in (1, 2)}),
        ("vipl", "ubfc", {f"test/subject{person}" for person in range(1, 7)}),
        ("vipl_v2", "vipl_v2", {"test/1/video1", "test/1/video2"}),
    ],
)
def test_a_net_of_one_data_set_is_tested_on_another(tmp_path, trees, train_on, test_on, records):
    # One clip of each person, so that few persons suffice for a split with each heart rate group on every side.
    more = ("datamodule.source.sources=[2]",) if train_on == "vipl" else ()
    rows = run(tmp_path, trees, train_on, test_on, *more)
    assert [row.model for row in rows] == ["tscan", "mean_rate", "green", "chrom", "pos"]
    assert {row.data for row in rows} == {"real"}
    assert all(np.isfinite(row.metrics["test/hr_mae_bpm_video"].value) for row in rows)
    rates = initialise(f"sqlite:///{tmp_path / 'mlflow.db'}").read_predictions(rows[0].run_id)
    assert set(rates.video_ids) == records


def cut(tree):
    path = tree / "subject2" / "vid.avi"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_wave(tree):
    path = tree / "subject3" / "ground_truth.txt"
    wave, *others = path.read_text().splitlines()
    path.write_text("\n".join([" ".join(["nan", *wave.split()[1:]]), *others]) + "\n")


def lose_rates(tree):
    (tree / "data" / "p2" / "v1" / "source1" / "gt_HR.csv").unlink()


def shorten_times(tree):
    (tree / "data" / "p1" / "v1" / "source1" / "time.txt").write_bytes(b"0\r\n40\r\n")


def turn_grey(tree):
    encode_video(tree / "data" / "p3" / "v1" / "source2" / "video.avi", draw(4.0, infrared=True)[3], 30.0)


def lose_everything(tree):
    shutil.rmtree(tree)


@pytest.mark.parametrize(
    ("name", "damage", "error", "message"),
    [
        ("ubfc", cut, ValueError, r"record 'subject2': vid.avi .*(cut|damaged).*get it again"),
        ("ubfc", spoil_wave, ValueError, r"'subject3'.*wave 0 of 96 in ground_truth.txt is 'nan'"),
        (
            "ubfc",
            lose_everything,
            FileNotFoundError,
            r"datamodule.root.*UBFC-rPPG is not downloaded.*https://.*<root>/",
        ),
        ("vipl", lose_rates, FileNotFoundError, r"'p2/v1/source1'.*gt_HR.csv"),
        ("vipl", shorten_times, ValueError, r"'p1/v1/source1'.* has 100 frames and time.txt 2 times"),
        ("vipl", turn_grey, ValueError, r"'p3/v1/source2' has no colour"),
        (
            "vipl",
            lose_everything,
            FileNotFoundError,
            r"or test_root\)\. VIPL-HR is not downloaded.*https://.*<root>/",
        ),
    ],
)
def test_damaged_trees_are_named(tmp_path, trees, name, damage, error, message):
    damaged = tmp_path / name
    shutil.copytree(trees[name], damaged)
    damage(damaged)
    with pytest.raises(error, match=message):
        run(tmp_path, {**trees, name: damaged}, "ubfc", "vipl")
