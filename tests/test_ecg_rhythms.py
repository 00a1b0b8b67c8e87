"""The data module on beats and RR windows: real recordings, and simulated ones through the shipped YAMLs."""

import os
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate

from datamodules.annotations import RHYTHM_CODE, write_annotations
from datamodules.leakage import LeakageError
from tests.configs import compose_config
from tests.rhythm_files import write_record

DATA = Path(os.environ.get("LIGHTHEART_DATA", "data")).absolute()


def make(name, *overrides):
    return instantiate(compose_config(f"datamodule={name}", *overrides).datamodule)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    return (
        f"paths.cache={folder}/cache",
        f"paths.synthetic={folder}",
        "datamodule.source.simulate.n_records=8",
        f"datamodule.source.simulate.hours={1 / 30}",
        "datamodule.source.detector._target_=tests.rhythm_files.find_spikes",
        "+datamodule.source.workers=1",
        "datamodule.batch_size=8",
    )


def test_ecg_rhythms_synthetic_beats_are_split_by_subject(synthetic):
    module = make("synthetic_afdb", *synthetic)
    module.setup()
    sides = {split: set(module.subject_ids(split).tolist()) for split in module.splits}
    assert {split: len(side) for split, side in sides.items()} == {"train": 5, "val": 1, "test": 2}
    signal, target, _ = next(iter(module.train_dataloader()))
    assert signal.shape == (8, 1, 300)
    assert target.shape == (8, 2)
    assert (module.level, module.leaky, module.leakage.leaky, module.exclusive) == ("beat", False, False, True)


def test_ecg_rhythms_leaky_split_is_tagged(synthetic):
    options = ("datamodule/split=windows", "datamodule.leaky=true")
    module = make("synthetic_afdb", *synthetic, *options)
    module.setup()
    assert module.leakage.leaky
    assert set(module.subject_ids("test")) == set(module.subject_ids("train"))
    with pytest.raises(LeakageError):
        make("synthetic_afdb", *synthetic, options[0]).setup()


def test_ecg_rhythms_one_subject_out_may_lack_a_class_where_figures_are_pooled(synthetic):
    # The ninth burden is 1, so that record 90009 has no other rhythm.
    options = ("datamodule.source.simulate.n_records=9", "datamodule/split=leave_one_out", "datamodule.split.fold=8")
    module = make("synthetic_afdb", *synthetic, *options, "datamodule.pooled=true")
    module.setup()
    assert set(module.subject_ids("test")) == {"90009"}
    assert module.targets("test")[:, 1].all()
    with pytest.raises(ValueError, match="class 'other' is absent from the split 'test'"):
        make("synthetic_afdb", *synthetic, *options).setup()


def test_ecg_rhythms_ltafdb_has_two_leads_of_one_name(tmp_path):
    for seed in range(6):
        record = f"{seed:02d}"
        beats = write_record(tmp_path, record, fs=128, seed=seed)
        header = (tmp_path / f"{record}.hea").read_text()
        (tmp_path / f"{record}.hea").write_text(header.replace("ECG1", "ECG").replace("ECG2", "ECG"))
        # Beats and rhythms are in one file there.
        places = np.sort(np.append(beats, [5, 15 * 128]))
        notes = {0: "(N", int(np.searchsorted(places, 15 * 128)): "(AFIB"}
        codes = np.array([RHYTHM_CODE if row in notes else 1 for row in range(len(places))])
        write_annotations(tmp_path / f"{record}.atr", places, codes, notes)
    detector = "datamodule.source.detector._target_=tests.rhythm_files.find_spikes"
    own = (f"datamodule.root={tmp_path}", f"paths.cache={tmp_path}/cache", "datamodule.batch_size=8")
    module = make("ltafdb_inter", *own, detector, "+datamodule.source.workers=1")
    module.setup()
    assert (module.fs, module.lead_names, module.kind) == (128, ("ECG",), "real")
    assert module.counts["used"] > 0.9 * module.counts["annotated"]


@pytest.mark.parametrize("name", ["afdb_intra", "mitdb_intra"])
def test_ecg_rhythms_intra_is_leaky_in_its_yaml(name):
    assert compose_config(f"datamodule={name}").datamodule.leaky


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "leaky"), [("mitdb_inter", False), ("mitdb_intra", True), ("mitdb_cv", False)])
def test_ecg_rhythms_read_real_beats(name, leaky, tmp_path_factory):
    cache = tmp_path_factory.getbasetemp() / "cache"
    module = make(name, f"paths.data={DATA}", f"paths.cache={cache}")
    module.setup()
    assert module.counts["annotated"] == 55_455
    assert module.counts["used"] > 0.98 * module.counts["annotated"]
    assert module.leakage.leaky is leaky
    ids = {split: set(module.subject_ids(split).tolist()) for split in module.splits}
    assert "202" not in set.union(*ids.values())  # 201 and 202 are one patient
    # What stands at sample 100 is a peak: nothing in the 20 ms around it is further from zero on that side.
    beats = module.normalizer.apply(np.asarray(module._loaded().signal_mv)[::50])[:, 0]
    assert (beats[:, 100] >= beats[:, 97:104].max(axis=1) - 1e-3).mean() > 0.7


@pytest.mark.realdata
@pytest.mark.parametrize(("length", "share"), [(25, 0.4255), (50, 0.4256), (100, 0.4255)])
def test_ecg_rhythms_read_real_rr_intervals(length, share):
    tested = []
    for fold in range(5):
        options = (f"datamodule.n_samples={length}", f"datamodule.split.fold={fold}")
        module = make("afdb_rr", f"paths.afdb={DATA / 'afdb'}", *options)
        module.setup()
        tested.append(module.targets("test")[:, 1])
    assert module.counts["intervals"] == 1_221_534
    pooled = np.concatenate(tested)
    assert module.kind == "real"
    assert len(pooled) == module.counts["used"] > 0.99 * 1_221_534 / length - 1
    assert pooled.mean() == pytest.approx(share, abs=1e-4)
