"""The splits of conf/datamodule/split on PTB-XL's layout, through the shipped YAMLs."""

import pytest
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate

from datamodules.leakage import LeakageError
from tests.configs import compose_config, names_of
from tests.ptbxl_files import TABLE, edit_text, write_ptbxl

# One record of each class per fold, so a patient of two folds has two records of one class.
FOLDS = range(1, 11)
OTHER_FOLDS = "datamodule.folds={train:[1],val:[2],test:[8]}"
SHARES = ("datamodule.split.test_share=0.3", "datamodule.split.val_share=0.4")
BY_PATIENT = {
    "iterative": SHARES,
    "subjects": SHARES,
    "iterative_kfold": ("datamodule.split.n_folds=3",),
    "stratified_kfold": ("datamodule.split.n_folds=3",),
    "unstratified_kfold": ("datamodule.split.n_folds=3",),
    "kfold": ("datamodule.split.n_folds=3", "datamodule.split.val_share=0.4"),
}


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    root = write_ptbxl(tmp_path_factory.mktemp("ptbxl"), folds=FOLDS, unlabelled=False)
    for record in range(1, 26):
        edit_text(root / TABLE, f"{1000 + record + 25}.0", f"{1000 + record}.0")
    classes = ("datamodule.class_names=[MI,HYP]", "datamodule.n_classes=2")
    return f"paths.ptbxl={root}", f"paths.cache={root}/cache", "datamodule.batch_size=4", *classes


def make(*overrides):
    return instantiate(compose_config(*overrides).datamodule)


@pytest.mark.parametrize("split", BY_PATIENT)
def test_ecg_splits_by_patient_run(options, split):
    module = make("datamodule=ptbxl", f"datamodule/split={split}", *BY_PATIENT[split], *options)
    module.setup()
    assert not module.leakage.leaky
    assert sum(module.leakage.n_subjects.values()) == 25
    assert sum(module.leakage.n_records.values()) == 50


def test_ecg_splits_of_records_must_be_called_leaky(options):
    split = ("datamodule=ptbxl", "datamodule/split=iterative_records", *SHARES, *options)
    with pytest.raises(LeakageError, match="subject on both sides"):
        make(*split).setup()
    module = make(*split, "datamodule.leaky=true")
    module.setup()
    assert module.leakage.leaky
    assert sum(module.leakage.n_subjects.values()) > 25


@pytest.mark.parametrize("name", ["ptbxl_cv", "synthetic_ptbxl_cv"])
def test_ecg_splits_cv_is_by_patient_and_pooled(name):
    data = compose_config(f"datamodule={name}").datamodule
    assert (data.pooled, data.leaky, data.split.grouped, data.name) == (True, False, True, name)
    assert "folds" not in data


def test_ecg_splits_cv_loads_the_records_of_the_folds_asked_for(options):
    module = make(
        "datamodule=ptbxl_cv", *options, "datamodule.source.folds=[1,2,3,4,5,6]", "datamodule.split.n_folds=3"
    )
    module.setup()
    assert sum(module.leakage.n_records.values()) == 30


def test_ecg_splits_by_folds_are_the_default_and_can_be_others():
    assert compose_config("datamodule=ptbxl").datamodule.folds.test == [10]
    other = compose_config("datamodule=ptbxl", OTHER_FOLDS).datamodule
    assert (other.folds, other.get("split")) == ({"train": [1], "val": [2], "test": [8]}, None)


def test_ecg_splits_by_folds_and_otherwise_exclude_each_other():
    with pytest.raises(ConfigCompositionException, match=r"Could not override 'datamodule\.folds'"):
        compose_config(
            "datamodule=ptbxl", "datamodule/split=iterative", "datamodule.folds={train:[1],val:[2],test:[8]}"
        )


@pytest.mark.parametrize("name", sorted({*names_of("datamodule/split")} - {*BY_PATIENT}))
def test_ecg_splits_every_other_option_composes(name):
    data = compose_config("datamodule=ptbxl", f"datamodule/split={name}").datamodule
    assert ("folds" in data) is (name == "strat_fold")
    assert data.get("split") is None or data.split._partial_
