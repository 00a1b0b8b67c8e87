import dataclasses
import shutil
from functools import partial

import numpy as np
import pytest
import torch
import wfdb
from hydra.utils import instantiate

from datamodules.augment import EcgAugment
from datamodules.ecg import EcgDataModule
from datamodules.leakage import LeakageError
from datamodules.normalize import fit_normalizer
from datamodules.ptbxl import load_ptbxl
from tests.configs import compose_config
from tests.ptbxl_files import (
    CLASSES,
    LEADS,
    TABLE,
    edit_text,
    record_path,
    samples,
    write_ptbxl,
    write_record,
)

FOLDS = {"train": [1, 2], "val": [3], "test": [4]}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Folds 1-4 with five labelled records each: 1-5, 7-11, 12-16, 17-21."""
    return write_ptbxl(tmp_path_factory.mktemp("ptbxl"), folds=(1, 2, 3, 4))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / "ptbxl")


def make(root, cache, **options):
    defaults = {
        "source": partial(load_ptbxl, cache_dir=cache),
        "name": "ptbxl",
        "kind": "real",
        "root": root,
        "n_leads": 12,
        "n_classes": 5,
        "class_names": CLASSES,
        "lead_names": LEADS,
        "fs": 100,
        "n_samples": 1000,
        "folds": FOLDS,
        "batch_size": 4,
        "seed": 0,
    }
    return EcgDataModule(**{**defaults, **options})


@pytest.fixture
def module(original, cache):
    module = make(original, cache)
    module.setup()
    return module


def raw(root, records):
    return np.stack([wfdb.rdsamp(str(record_path(root, int(record))))[0].T for record in records])


def test_ecg_splits_follow_the_folds(module):
    assert module.record_ids("train").tolist() == ["1", "2", "3", "4", "5", "7", "8", "9", "10", "11"]
    assert module.record_ids("val").tolist() == ["12", "13", "14", "15", "16"]
    assert module.subject_ids("test").tolist() == ["1017", "1018", "1019", "1020", "1021"]
    assert module.targets("test").shape == (5, 5)
    assert module.leakage.n_records == {"train": 10, "val": 5, "test": 5}


def test_ecg_statistics_come_from_train_only(module, original, root, tmp_path):
    train = raw(original, module.record_ids("train"))
    np.testing.assert_allclose(module.normalizer.mean_mv, train.mean(axis=(0, 2)), atol=1e-6)
    np.testing.assert_allclose(module.normalizer.std_mv, train.std(axis=(0, 2)), rtol=1e-6)
    assert module.normalizer.indices.tolist() == module.splits["train"].tolist()
    for record in (12, 17):
        write_record(record_path(root, record), samples(record) * 5 + 3000)
    other = make(root, tmp_path / "cache")
    other.setup()
    np.testing.assert_array_equal(other.normalizer.mean_mv, module.normalizer.mean_mv)
    np.testing.assert_array_equal(other.normalizer.std_mv, module.normalizer.std_mv)
    assert other.data_digest != module.data_digest
    assert other.preprocessing_digest == module.preprocessing_digest


def test_ecg_windows_are_normalised_signals(module, original):
    normalizer = module.normalizer
    expected = (raw(original, module.record_ids("test")) - normalizer.mean_mv[:, None]) / normalizer.std_mv[:, None]
    windows = module.windows("test")
    assert windows.dtype == np.float32
    np.testing.assert_allclose(windows, expected, atol=1e-5)
    positions = module.splits["test"][[3, 1]]
    np.testing.assert_array_equal(module.windows("test", positions), windows[[3, 1]])


def test_ecg_test_batches_are_the_windows_in_order(module):
    batches = list(module.test_dataloader())
    assert [batch[0].shape for batch in batches] == [(4, 12, 1000), (1, 12, 1000)]
    signal, target, index = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert (signal.dtype, target.dtype, index.dtype) == (torch.float32, torch.float32, torch.int64)
    np.testing.assert_array_equal(index, module.splits["test"])
    np.testing.assert_array_equal(target, module.targets("test"))
    np.testing.assert_allclose(signal, module.windows("test"), atol=1e-6)


def test_ecg_training_batches_are_shuffled_full_and_repeatable(module):
    def order(loader):
        return [batch[2].tolist() for batch in loader]

    loader = module.train_dataloader()
    first, second = order(loader), order(loader)
    assert [len(batch) for batch in first] == [4, 4]
    assert first != second
    assert len({index for batch in first for index in batch}) == 8
    assert {index for batch in first for index in batch} <= set(module.splits["train"].tolist())
    again = module.train_dataloader()
    assert [order(again), order(again)] == [first, second]


def test_ecg_batches_are_fetched_at_once(module, monkeypatch):
    from datamodules.batches import EcgBatches

    sizes = []
    fetch = EcgBatches.__getitems__
    monkeypatch.setattr(EcgBatches, "__getitems__", lambda self, items: sizes.append(len(items)) or fetch(self, items))
    list(module.train_dataloader())
    list(module.val_dataloader())
    assert sizes == [4, 4, 4, 1]
    signal, target, index = module.val_dataloader().dataset[2]
    assert (signal.shape, target.shape, index.tolist()) == ((1, 12, 1000), (1, 5), [12])


def test_ecg_augmentation_is_for_training_only(original, cache):
    module = make(original, cache, augment=EcgAugment(100, crop_s=5, lead_drop=0.5))
    module.setup()
    signal, _, index = next(iter(module.train_dataloader()))
    assert signal.shape == (4, 12, 500)
    # In mV, before normalisation: a dropped lead is 0 mV.
    zero = torch.from_numpy(-module.normalizer.mean_mv / module.normalizer.std_mv)
    assert (signal == zero[:, None]).all(dim=2).float().mean() > 0.2
    assert next(iter(module.val_dataloader()))[0].shape == (4, 12, 1000)
    plain = make(original, cache)
    plain.setup()
    assert next(iter(plain.train_dataloader()))[2].tolist() == index.tolist()


def test_ecg_calibration_is_drawn_from_train(module):
    positions, windows = module.calibration(6, seed=3)
    assert len(set(positions.tolist())) == 6
    assert set(positions.tolist()) <= set(module.splits["train"].tolist())
    np.testing.assert_array_equal(windows, module.windows("train", positions))
    assert module.calibration(6, seed=3)[0].tolist() == positions.tolist()
    assert module.calibration(6, seed=4)[0].tolist() != positions.tolist()
    assert len(module.calibration(1000, seed=0)[0]) == 10
    with pytest.raises(ValueError, match="calibration with 0 windows"):
        module.calibration(0, seed=0)


def test_ecg_calibration_from_outside_train_fails(module, monkeypatch):
    class Draw:
        def choice(self, *args, **options):
            return module.splits["test"][:3]

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Draw())
    with pytest.raises(LeakageError, match="calibration uses 3 of 3 windows from outside"):
        module.calibration(3, seed=0)


def test_ecg_setup_loads_once(original, cache):
    calls = []

    def source(root, **options):
        calls.append(options)
        return load_ptbxl(root, cache_dir=cache, **options)

    module = make(original, cache, source=source)
    module.setup("fit")
    batches = module.train_dataloader()
    module.setup("test")
    assert len(calls) == 1
    assert calls[0]["folds"] == [1, 2, 3, 4]
    assert len(batches) == 2


def test_ecg_digests_tell_what_changed(original, cache, module):
    swapped = make(original, cache, folds={"train": [1, 2], "val": [4], "test": [3]})
    swapped.setup()
    assert swapped.data_digest == module.data_digest
    assert swapped.preprocessing_digest == module.preprocessing_digest
    assert swapped.split_digest != module.split_digest
    fewer = make(original, cache, folds={**FOLDS, "train": [1]})
    fewer.setup()
    assert fewer.preprocessing_digest != module.preprocessing_digest


def test_ecg_one_lead(original, cache):
    module = make(original, cache, lead_names=["V1"], n_leads=1)
    module.setup()
    assert next(iter(module.test_dataloader()))[0].shape == (4, 1, 1000)


def test_ecg_is_needed_set_up_first(original, cache):
    with pytest.raises(RuntimeError, match=r"call setup\(\) first"):
        make(original, cache).windows("test")


def test_ecg_other_splits_and_positions_are_refused(module):
    with pytest.raises(ValueError, match=r"split 'predict' does not exist, expected one of \['train', 'val', 'test'\]"):
        module.windows("predict")
    with pytest.raises(ValueError, match=r"positions \[0\] are not in the split 'test'"):
        module.windows("test", np.array([0, 16]))


# Bad input.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_leads": 11}, r"datamodule\.n_leads is 11, but the data have 12"),
        ({"n_classes": 4}, r"datamodule\.n_classes is 4, but the data have 5"),
        ({"n_samples": 500}, r"datamodule\.n_samples is 500, but the data have 1000"),
        ({"fs": 500}, r"listed records have no header or signal file"),
        ({"fs": 128}, r"datamodule\.fs is 128"),
        ({"lead_names": ["I", "XX"], "n_leads": 2}, r"datamodule\.lead_names.*missing: \['XX'\]"),
        ({"class_names": ["NORM", "XX"], "n_classes": 2}, r"datamodule\.class_names has \['XX'\]"),
        ({"folds": {**FOLDS, "test": [5]}}, r"datamodule\.folds\.test has fold 5, which holds no record"),
        ({"folds": {**FOLDS, "test": []}}, r"datamodule\.folds\.test is \[\]"),
        (
            {"folds": {**FOLDS, "test": [1]}},
            r"datamodule\.folds\.test has fold 1, which datamodule\.folds\.train",
        ),
        ({"batch_size": 11}, r"datamodule\.batch_size is 11, but the split 'train' has only 10"),
    ],
)
def test_ecg_configuration_that_does_not_fit_the_data_is_refused(original, cache, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make(original, cache, **options).setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "other"}, r"datamodule\.kind is 'other', expected 'real' or 'synthetic'"),
        (
            {"folds": {"train": [1]}},
            r"datamodule\.folds has \['train'\], expected \['test', 'train', 'val'\]",
        ),
        ({"batch_size": 0}, r"datamodule\.batch_size is 0"),
    ],
)
def test_ecg_values_without_a_meaning_are_refused(original, cache, options, message):
    with pytest.raises(ValueError, match=message):
        make(original, cache, **options)


@pytest.mark.parametrize(("key", "value"), [("fs", 250.0), ("lead_names", LEADS[::-1]), ("class_names", CLASSES[::-1])])
def test_ecg_source_that_gives_something_else_is_refused(original, cache, key, value):
    def source(root, **options):
        return dataclasses.replace(load_ptbxl(root, cache_dir=cache, **options), **{key: value})

    with pytest.raises(ValueError, match=rf"datamodule\.{key} is "):
        make(original, cache, source=source).setup()


def test_ecg_window_without_exactly_one_of_exclusive_classes_is_named(original, cache):
    windows = load_ptbxl(original, cache_dir=cache, folds=[1, 2, 3, 4])
    counts = windows.targets.sum(axis=1)
    first = int(np.flatnonzero(counts != 1)[0])
    name = str(windows.record_ids[first])
    with pytest.raises(ValueError, match=rf"record '{name}' has a window with {counts[first]:g} of the classes"):
        make(original, cache, exclusive=True).setup()


def test_ecg_class_absent_from_test_is_named(root, tmp_path):
    table = (root / TABLE).read_text().splitlines()
    lines = [line.replace("'LVH'", "'SR'") if ",4,records" in line else line for line in table]
    (root / TABLE).write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"class 'HYP' is absent from the split 'test' \(0 of 5 windows\)"):
        make(root, tmp_path / "cache").setup()


def test_ecg_class_without_a_negative_is_named(root, tmp_path):
    table = (root / TABLE).read_text().splitlines()
    lines = [line.replace("{'", "{'IMI': 1.0, '") if ",3,records" in line else line for line in table]
    (root / TABLE).write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"class 'MI' is in every window of the split 'val' \(5 of 5 windows\)"):
        make(root, tmp_path / "cache").setup()


def test_ecg_subject_on_two_sides_fails_every_time(root, tmp_path):
    edit_text(root / TABLE, "1017.0", "1002.0")
    module = make(root, tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(LeakageError, match="1 subject on both sides of 'train' and 'test', first '1002'"):
            module.setup()


def test_ecg_same_signal_on_two_sides_fails(root, tmp_path):
    write_record(record_path(root, 18), samples(3))
    with pytest.raises(LeakageError, match=r"'train' and 'test'.*\['3'\].*\['18'\]"):
        make(root, tmp_path / "cache").setup()


def test_ecg_lead_that_never_changes_in_train_is_refused(root, tmp_path):
    for record in (1, 2, 3, 4, 5, 7, 8, 9, 10, 11):
        digital = samples(record)
        digital[:, 4] = 3
        write_record(record_path(root, record), digital)
    with pytest.raises(ValueError, match=r"leads \['AVL'\] never change in any training window"):
        make(root, tmp_path / "cache").setup()


def test_normalizer_without_stored_moments_computes_the_same(original, cache):
    windows = load_ptbxl(original, cache_dir=cache, folds=[1, 2, 3, 4])
    bare = dataclasses.replace(windows, lead_means_mv=None, lead_variances_mv2=None)
    train = np.array([0, 2, 5])
    one, other = fit_normalizer(windows, train), fit_normalizer(bare, train)
    np.testing.assert_allclose(one.mean_mv, other.mean_mv, rtol=1e-6)
    np.testing.assert_allclose(one.std_mv, other.std_mv, rtol=1e-6)
    with pytest.raises(ValueError, match="no training window"):
        fit_normalizer(windows, train[:0])


# The configuration file.


@pytest.fixture
def config(original, cache):
    return compose_config("datamodule=ptbxl", "seed=7", f"paths.ptbxl={original}", f"paths.cache={cache}")


def test_ecg_yaml_defaults_are_those_of_the_data_set(config):
    module = instantiate(config.datamodule)
    assert module.folds == {"train": [1, 2, 3, 4, 5, 6, 7, 8], "val": [9], "test": [10]}
    assert (module.name, module.kind, module.fs, module.n_samples) == ("ptbxl", "real", 100, 1000)
    assert (module.lead_names, module.n_leads) == (LEADS, len(LEADS))
    assert (module.class_names, module.n_classes) == (CLASSES, len(CLASSES))
    assert (module.seed, module.batch_size, module.max_drop) == (7, 64, 0.002)
    assert module.augment.fs == 100


@pytest.mark.parametrize("key", ["root", "missing", "flat_leads", "download", "fs", "folds", "batch_size", "seed"])
def test_ecg_yaml_has_the_keys_of_the_command_line(config, key):
    assert key in config.datamodule


def test_ecg_yaml_runs(config, root):
    record_path(root, 2).with_suffix(".dat").unlink()
    config.datamodule.update({"folds": FOLDS, "batch_size": 4, "root": str(root), "missing": "skip"})
    module = instantiate(config.datamodule)
    module.setup()
    assert module.counts["missing"] == 1
    assert next(iter(module.train_dataloader()))[0].shape[:2] == (4, 12)
    assert module.windows("test").shape == (5, 12, 1000)
    config.datamodule.missing = "error"
    with pytest.raises(FileNotFoundError, match="1 of 20 listed records"):
        instantiate(config.datamodule).setup()
