import ast
import errno
import json

import numpy as np
import pandas as pd
import pytest
import torch
import wfdb
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torchmetrics.functional.classification import multilabel_auroc

from datamodules import simulated_ecg, synthetic
from datamodules.findings import FINDINGS, apply_finding
from datamodules.ptbxl import LEAD_NAMES, SUPERCLASSES
from datamodules.simulated_ecg import WAVES, draw_heart, record_heart, simulate_sources
from datamodules.synthetic import load_synthetic_ptbxl, write_synthetic_ptbxl
from lightning_modules.nets.cnn1d import Cnn1d
from tests.configs import CONF

N_PATIENTS = 60


@pytest.fixture(scope="module")
def bank():
    return simulate_sources()


@pytest.fixture(autouse=True)
def _one_bank(bank, monkeypatch):
    monkeypatch.setattr(simulated_ecg, "simulate_sources", lambda: bank)


@pytest.fixture(scope="module")
def holder(tmp_path_factory, bank):
    return tmp_path_factory.mktemp("synthetic")


@pytest.fixture
def root(holder):
    return write_synthetic_ptbxl(holder, n_patients=N_PATIENTS, seed=3)


def read_table(root):
    table = pd.read_csv(root / "ptbxl_database.csv")
    return table.assign(scp_codes=table.scp_codes.map(ast.literal_eval))


def superclasses_of(root):
    statements = pd.read_csv(root / "scp_statements.csv", index_col=0)
    classes = statements[statements.diagnostic == 1].diagnostic_class
    return read_table(root).scp_codes.map(lambda codes: {classes[code] for code in codes if code in classes})


def bytes_of(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_synthetic_records_are_valid_wfdb(root):
    for path in read_table(root).filename_lr[::10]:
        record = wfdb.rdrecord(str(root / path), physical=False)
        assert record.sig_name == list(LEAD_NAMES)
        assert (record.fs, record.sig_len, set(record.fmt)) == (100, 1000, {"16"})
        assert set(record.units) == {"mV"}
        assert set(record.adc_gain) == {1000.0}
        assert record.calc_checksum() == record.checksum
        assert record.init_value == record.d_signal[0].tolist()
        assert "synthetic" in record.comments[0]


def test_synthetic_records_obey_einthoven(root):
    for path in read_table(root).filename_lr[::10]:
        lead = dict(zip(LEAD_NAMES, wfdb.rdsamp(str(root / path))[0].T * 1000, strict=True))
        np.testing.assert_allclose(lead["III"], lead["II"] - lead["I"], atol=1e-6)
        np.testing.assert_allclose(lead["AVR"], -(lead["I"] + lead["II"]) / 2, atol=1.001)
        np.testing.assert_allclose(lead["AVL"], lead["I"] - lead["II"] / 2, atol=1.001)
        np.testing.assert_allclose(lead["AVF"], lead["II"] - lead["I"] / 2, atol=1.001)


def test_synthetic_patients_stay_in_one_fold(root):
    table = read_table(root)
    by_patient = table.groupby("patient_id")
    assert len(by_patient) == N_PATIENTS
    assert by_patient.strat_fold.nunique().max() == 1
    assert set(by_patient.size()) == {1, 2, 3, 4}
    assert set(table.strat_fold) == set(range(1, 11))


def test_synthetic_folds_hold_every_superclass(root):
    folds, classes = read_table(root).strat_fold, superclasses_of(root)
    for fold in range(1, 11):
        found = set().union(*classes[folds == fold])
        assert found == set(SUPERCLASSES), fold


def test_synthetic_statements_follow_ptbxl(root):
    statements = pd.read_csv(root / "scp_statements.csv", index_col=0)
    codes = read_table(root).scp_codes
    assert set().union(*codes) <= set(statements.index)
    diagnostic = set(statements.index[statements.diagnostic == 1])
    for record in codes:
        for code, likelihood in record.items():
            assert likelihood in ((50.0, 80.0, 100.0) if code in diagnostic else (0.0,)), record
    classes = superclasses_of(root)
    assert (classes.map(len) == 0).any()
    assert (classes.map(len) == 2).any()


def test_synthetic_same_seed_gives_same_bytes(root, tmp_path):
    again = write_synthetic_ptbxl(tmp_path, n_patients=N_PATIENTS, seed=3)
    assert bytes_of(again) == bytes_of(root)


def test_synthetic_other_seed_gives_other_signals(tmp_path):
    first, second = (write_synthetic_ptbxl(tmp_path, n_patients=10, seed=seed) for seed in (0, 1))
    assert first != second
    assert bytes_of(first)["records100/00000/00001_lr.dat"] != bytes_of(second)["records100/00000/00001_lr.dat"]


def test_synthetic_is_written_once(root, monkeypatch):
    monkeypatch.setattr(synthetic, "_write_data_set", lambda *_: pytest.fail("written again"))
    assert write_synthetic_ptbxl(root.parent, n_patients=N_PATIENTS, seed=3) == root


def test_synthetic_changed_generator_is_not_mistaken(root, monkeypatch):
    monkeypatch.setattr(synthetic, "_digest_generator", lambda: "another source")
    monkeypatch.setattr(synthetic, "_write_data_set", lambda *_: None)
    assert write_synthetic_ptbxl(root.parent, n_patients=N_PATIENTS, seed=3) != root


def test_synthetic_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(synthetic, "_statements", fail)
    with pytest.raises(OSError, match="nothing was left behind"):
        write_synthetic_ptbxl(tmp_path, n_patients=10)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_synthetic_loads_through_the_real_reader(holder, root, tmp_path):
    windows = load_synthetic_ptbxl(holder, n_patients=N_PATIENTS, synthetic_seed=3, cache_dir=tmp_path)
    table, classes = read_table(root), superclasses_of(root)
    labelled = classes.map(len) > 0
    assert windows.counts["listed"] == len(table)
    assert windows.counts["unlabelled"] == (~labelled).sum() > 0
    assert windows.signal_mv.shape == (labelled.sum(), 12, 1000)
    assert windows.folds.tolist() == table.strat_fold[labelled].tolist()
    expected = [[name in found for name in SUPERCLASSES] for found in classes[labelled]]
    np.testing.assert_array_equal(windows.targets, np.array(expected, dtype=np.float32))
    assert len(set(windows.signal_hashes)) == len(windows)


def test_synthetic_comes_at_500_hz(tmp_path):
    windows = load_synthetic_ptbxl(tmp_path / "data", n_patients=10, fs=500, cache_dir=tmp_path / "cache")
    assert windows.fs == 500
    assert windows.signal_mv.shape[1:] == (12, 5000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fs": 250}, r"datamodule.fs=250: .* \[100, 500\] Hz"),
        ({"n_patients": 9}, r"n_patients=9 cannot fill 10 folds"),
        ({"download": True}, r"datamodule.download=True: .* not downloaded"),
    ],
)
def test_synthetic_refuses_bad_arguments(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        load_synthetic_ptbxl(tmp_path, cache_dir=tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_synthetic_config_says_synthetic(holder, root, tmp_path):
    overrides = [
        "+seed=0",
        f"+paths={{synthetic: '{holder}', cache: '{tmp_path}', ptbxl: nowhere}}",
        "+model={crop_s: 2.5}",
        f"datamodule.source.n_patients={N_PATIENTS}",
        "datamodule.source.synthetic_seed=3",
        "datamodule.batch_size=8",
    ]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose("datamodule/synthetic_ptbxl", overrides=overrides)
    datamodule = instantiate(config.datamodule)
    assert datamodule.kind == "synthetic"
    assert datamodule.name == "synthetic_ptbxl"
    datamodule.setup()
    signal, target, _ = next(iter(datamodule.train_dataloader()))
    assert signal.shape == (8, 12, 250)
    assert target.shape == (8, 5)
    assert json.loads((root / synthetic.ORIGIN_JSON).read_text())["kind"] == "synthetic"


def test_simulated_sources_are_single_waves(bank):
    middle = bank.shape[-1] // 2
    assert bank.shape[1] == len(WAVES)
    np.testing.assert_array_equal(bank.argmax(axis=-1), middle)
    np.testing.assert_allclose(bank.max(axis=-1), 1)
    np.testing.assert_allclose(bank[..., [0, -1]], 0, atol=1e-12)
    assert ((bank > 0.5).sum(axis=-1)[:, WAVES.index("T")] > (bank > 0.5).sum(axis=-1)[:, WAVES.index("R")]).all()


def test_simulated_ecg_is_of_human_size(bank):
    rng = np.random.default_rng(0)
    peaks_mv = [np.abs(record_heart(rng, draw_heart(rng, bank), 100, 10)).max() / 1000 for _ in range(20)]
    assert min(peaks_mv) > 0.5
    assert max(peaks_mv) < 6


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.code)
def test_finding_changes_the_ecg_only_with_severity(bank, finding):
    heart = draw_heart(np.random.default_rng(0), bank)
    healthy, unchanged, ill = (
        record_heart(np.random.default_rng(1), each, 100, 10).astype(float)
        for each in (heart, apply_finding(heart, finding, 0.0), apply_finding(heart, finding, 1.0))
    )
    np.testing.assert_array_equal(unchanged, healthy)
    assert (np.abs(ill - healthy).max() > 30) == (finding.code != "NORM")


@pytest.mark.slow
def test_synthetic_is_neither_easy_nor_hopeless(tmp_path):
    windows = load_synthetic_ptbxl(tmp_path / "data", cache_dir=tmp_path / "cache")
    auroc = train_student(windows)
    assert 0.80 < auroc < 0.97


def train_student(windows, n_epochs=9, batch=64, crop=250):
    torch.manual_seed(0)
    train, test = np.flatnonzero(windows.folds <= 8), np.flatnonzero(windows.folds == 10)
    deviation = windows.signal_mv[train].std(axis=(0, 2), keepdims=True)
    signal, target = torch.tensor(windows.signal_mv / deviation), torch.tensor(windows.targets)
    net = Cnn1d(12, 5, 1000, (50, 150, 300)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=n_epochs * (len(train) // batch))
    for _ in range(n_epochs):
        for rows in torch.tensor(train)[torch.randperm(len(train))].split(batch)[: len(train) // batch]:
            first = int(torch.randint(1000 - crop + 1, ()))
            logits = net(signal[rows, :, first : first + crop])
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(logits, target[rows]).backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.inference_mode():
        return float(multilabel_auroc(net(signal[test]), target[test].int(), 5))
