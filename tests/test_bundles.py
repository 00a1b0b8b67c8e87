"""From a tracked run to a bundle, and from device.json to a row below it."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import bundle
import compare
from composition.bundles import build_bundle, file_tags, find_fitting, make_datamodule
from composition.ingest import ingest_report
from deploy.artifact import ArtifactError, predict
from deploy.bundle import BundleError
from lightning_modules.metrics import to_probabilities
from tests.bundles import CLASS_NAMES, example_report, export_small
from tests.exporting import make_small_windows
from tests.tracking_examples import example_row
from tracking.connection import TrackingError
from tracking.predictions import make_predictions

DIGESTS = {"data_digest": "d1", "split_digest": "s1", "preprocessing_digest": "p1"}
CONFIG = "datamodule:\n  source:\n    filters: {_target_: x.Filters, low_hz: 0.5}\nevaluation: {threshold_rule: null}\n"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return export_small(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def truth(artifact):
    logits = predict(artifact, make_small_windows(), threads=1)
    targets = (np.random.default_rng(3).random(logits.shape) < 0.5).astype(np.float32)
    probabilities = to_probabilities(logits, False)
    ids = [f"r{number}" for number in range(16)]
    return logits, make_predictions(ids, ids, targets, probabilities, CLASS_NAMES, [0.5] * 4)


@pytest.fixture(scope="module")
def datamodule(truth):
    return SimpleNamespace(
        **DIGESTS,
        splits={"test": np.arange(100, 116)},
        record_ids=lambda split: truth[1].record_ids,
        windows=lambda split, positions: make_small_windows()[positions - 100],
    )


def log_model(store, artifact, predictions, tags=None, **changes):
    row = example_row(name="student small", macs=9000, n_test=16, n_subjects=16, **{**DIGESTS, **changes})
    with store.job("job", group="g1") as job, job.child(row.name) as run:
        return store.log_row(
            run.run_id,
            row,
            predictions=predictions,
            texts={"config.yaml": CONFIG},
            files=[artifact.path],
            tags=file_tags(artifact) if tags is None else tags,
        )


@pytest.fixture
def row(store, artifact, truth):
    return log_model(store, artifact, truth[1])


def save_report(folder, artifact, row, logits, **changes):
    own = {"bundle.run_id": row.run_id, "bundle.device": "cpu", "artifact_digest": artifact.digest}
    path = folder / "device.json"
    path.write_text(json.dumps(example_report(logits, range(len(logits)), **{**own, **changes})))
    return path


def test_same_run_gives_the_same_bytes(store, row, datamodule, tmp_path):
    first, again = (
        build_bundle(store, row.run_id, "cpu", tmp_path / name, datamodule=datamodule) for name in ("first", "again")
    )
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (first, again)]
    assert contents[0] == contents[1]
    assert json.loads(contents[0]["preprocessing.json"])["filters"] == {"low_hz": 0.5}
    assert row.run_id in contents[0]["MODEL_CARD.md"].decode()


def test_bundle_of_an_existing_path_is_refused(store, row, datamodule, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(BundleError, match="exists already"):
        build_bundle(store, row.run_id, "cpu", tmp_path / "there", datamodule=datamodule)


@pytest.mark.parametrize("name", DIGESTS)
def test_bundle_of_other_data_is_refused(store, row, datamodule, tmp_path, name):
    other = SimpleNamespace(**{**vars(datamodule), name: "other"})
    with pytest.raises(BundleError, match=f"{name} of the data here is other"):
        build_bundle(store, row.run_id, "cpu", tmp_path / "x", datamodule=other)


def test_bundle_of_other_answers_is_refused(store, artifact, truth, datamodule, tmp_path):
    logits, predictions = truth
    shifted = make_predictions(
        *(predictions.record_ids, predictions.subject_ids, predictions.targets),
        *(to_probabilities(logits + 1, False), CLASS_NAMES, [0.5] * 4),
    )
    row = log_model(store, artifact, shifted)
    with pytest.raises(BundleError, match="this is not what the run measured"):
        build_bundle(store, row.run_id, "cpu", tmp_path / "x", datamodule=datamodule)


def test_bundle_of_an_altered_file_is_refused(store, artifact, truth, datamodule, tmp_path):
    row = log_model(store, artifact, truth[1], tags={**file_tags(artifact), "artifact_digest": "0" * 64})
    with pytest.raises(BundleError, match="the stored file was altered"):
        build_bundle(store, row.run_id, "cpu", tmp_path / "x", datamodule=datamodule)


def test_bundle_of_a_corrupt_file_is_refused(store, artifact, truth, datamodule, tmp_path):
    broken = tmp_path / "small.onnx"
    broken.write_bytes(artifact.path.read_bytes()[:400])
    row = log_model(store, SimpleNamespace(path=broken, digest="0"), truth[1])
    with pytest.raises(ArtifactError, match="cannot load it"):
        build_bundle(store, row.run_id, "cpu", tmp_path / "x", datamodule=datamodule)


def test_bundle_needs_a_run_with_one_file(store, artifact, truth, datamodule, tmp_path):
    without = log_model(store, artifact, truth[1], tags={})
    with pytest.raises(BundleError, match="holds no model file"):
        build_bundle(store, without.run_id, "cpu", tmp_path / "x", datamodule=datamodule)
    folds = log_model(store, artifact, truth[1], folds=[{"fold": 0}, {"fold": 1}])
    with pytest.raises(BundleError, match="pools 2 folds"):
        build_bundle(store, folds.run_id, "cpu", tmp_path / "x", datamodule=datamodule)
    with pytest.raises(TrackingError):
        build_bundle(store, "0" * 32, "cpu", tmp_path / "x", datamodule=datamodule)


def test_bundle_of_a_device_that_does_not_take_the_file_is_refused(store, row, datamodule, artifact, tmp_path):
    with pytest.raises(BundleError, match="coral takes"):
        build_bundle(store, row.run_id, "coral", tmp_path / "x", datamodule=datamodule)
    with pytest.raises(BundleError, match=r"none of this job's files fits: small.onnx: coral takes"):
        find_fitting([artifact], "coral")
    assert find_fitting([artifact, artifact], "cpu") == 1


def test_bundle_of_a_file_without_a_contract_is_refused(artifact):
    from dataclasses import replace

    from omegaconf import OmegaConf

    from composition.bundles import describe_preprocessing

    silent = replace(artifact, metadata={"fs": "100"})
    with pytest.raises(BundleError, match=r"does not say its .*'mean_mv'"):
        describe_preprocessing(silent, OmegaConf.create({"datamodule": {}}))


def test_data_are_made_from_the_config_of_the_run():
    from omegaconf import OmegaConf

    config = OmegaConf.create({"datamodule": {"_target_": "tests.test_bundles.Data", "root": "a", "n_leads": 2}})
    config.compression = {"teacher": {"data": {"n_leads": 12}}}
    made = make_datamodule(config, example_row(role="teacher"), ["datamodule.root=b"])
    assert (made.root, made.n_leads, made.ready) == ("b", 12, True)


class Data:
    def __init__(self, root, n_leads):
        self.root, self.n_leads, self.ready = root, n_leads, False

    def setup(self):
        self.ready = True


def test_measurements_come_home_as_a_row_below_the_model(store, row, artifact, truth, tmp_path, capsys):
    path = save_report(tmp_path, artifact, row, truth[0])
    assert bundle.main(["ingest", str(path)]) == 0
    assert "student small" in capsys.readouterr().out
    rows = store.read_rows(group="g1")
    assert [item.role for item in rows] == ["student", "device"]
    device = rows[1]
    assert (device.device, device.runtime, device.latency_ms_p50) == ("cpu", "ai-edge-litert 2.3.0", 1.9)
    assert device.latency_ms_p50_b64 is None
    assert device.flips == 0
    assert device.delta["slice/auroc_macro"].value == 0
    assert "test/auroc_macro" not in device.metrics
    run = store.client.get_run(device.run_id)
    assert run.data.tags["mlflow.parentRunId"] == row.run_id
    assert (run.data.tags["role"], run.data.tags["device"]) == ("device", "cpu")
    assert {item.path for item in store.client.list_artifacts(device.run_id)} >= {"device.json", "row.json"}
    assert run.data.metrics["deploy/energy_mj"] == pytest.approx(8.08)
    assert compare.main(["--group", "g1", "--resamples", "20"]) == 0
    shown = capsys.readouterr().out
    assert "slice/auroc_macro" in shown
    assert "cpu" in shown
    assert compare.main(["--group", "g1", "--reference", "student small", "--resamples", "20"]) == 0


def test_measurements_of_wrong_answers_show(store, row, artifact, truth, tmp_path):
    device = ingest_report(store, save_report(tmp_path, artifact, row, -truth[0]))
    assert device.flips > 0.9


def test_measurements_come_home_once(store, row, artifact, truth, tmp_path):
    path = save_report(tmp_path, artifact, row, truth[0])
    ingest_report(store, path)
    with pytest.raises(BundleError, match="was ingested before"):
        ingest_report(store, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"artifact_digest": "0" * 64}, "it is from another model"),
        ({"slice.positions": list(range(10, 26))}, "has 16 test windows"),
        ({"slice.logits": [[0.0]] * 16}, "with 4 classes"),
        ({"latency_ms.p50": 9.0}, "expected them to rise"),
    ],
)
def test_measurements_that_do_not_belong_are_refused(store, row, artifact, truth, tmp_path, capsys, changes, message):
    path = save_report(tmp_path, artifact, row, truth[0], **changes)
    assert bundle.main(["ingest", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert len(store.read_rows(group="g1")) == 1


def test_measurements_of_an_unknown_run_are_refused(store, row, artifact, truth, tmp_path, capsys):
    path = save_report(tmp_path, artifact, row, truth[0], **{"bundle.run_id": "0" * 32})
    assert bundle.main(["ingest", str(path)]) == 2
    assert "bundle.py ingest:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build"], "missing run=, device="),
        (["build", "run=1", "device=cpu", "colour=red"], "'colour=red': expected run="),
        (["build", "run=1", "device=cpu", "n_slice=-1"], "n_slice='-1'"),
        (["build", "run=1", "device=toaster"], "'toaster' is unknown"),
        (["ingest"], "name at least one device.json"),
        ([], "python bundle.py build"),
        (["fly"], "python bundle.py build"),
    ],
)
def test_command_line_refuses_what_it_does_not_know(store, arguments, message, capsys):
    assert bundle.main(arguments) == 2
    assert message in capsys.readouterr().err


VENVS = {
    "onnx": ["numpy", "onnxruntime"],
    "tflite": ["numpy", "ai-edge-litert==2.3.0"],
    "old_tflite": ["numpy<2", "tflite-runtime==2.14.0"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VENVS)
def test_model_goes_to_a_bare_venv_and_its_measurements_come_home(store, tmp_path, name):
    """Train, build, run with numpy and the runtime alone, ingest: children of the model's run in MLflow."""
    target = "onnx" if name == "onnx" else "tflite"
    pytest.importorskip(f"deploy.{target}", reason=f"there is no deploy target {target}")
    import train
    from tests.test_train import job_config

    python = make_venv(tmp_path / "venv", VENVS[name])
    config = job_config(tmp_path, "way", "compression=ptq_int8", f"deploy={target}")
    config.deploy.bundle = "cpu"
    rows = train.run(config)
    folder = tmp_path / "way" / "bundle_cpu"
    done = subprocess.run(
        [python, "run_on_device.py", "--warmup-seconds", "0.2"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    own = type(store)(store.client, store.tracking_uri, store.experiment_id)
    device = ingest_report(own, folder / "device.json")
    assert device.runtime.startswith(VENVS[name][1].partition("==")[0])
    assert device.reference_run_id == rows[-1].run_id
    assert device.flips <= 0.05
    children = store.client.search_runs(
        [store.client.get_run(device.run_id).info.experiment_id], f"tags.mlflow.parentRunId = '{rows[-1].run_id}'"
    )
    assert [run.info.run_id for run in children] == [device.run_id]


def make_venv(folder, needs):
    """Make a virtual environment with nothing but `needs`; skip where no registry answers."""
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    done = subprocess.run([python, "-m", "pip", "install", "-q", *needs], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"pip reaches no registry with {needs}: {done.stderr.strip()[-300:]}")
    return python
