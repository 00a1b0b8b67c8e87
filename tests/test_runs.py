"""Models given to others under an alias: only what passed its gate, and only what was measured."""

import hashlib

import pytest

import runs
from composition import weights
from tests.test_store import write_model
from tests.tracking_examples import example_row
from tracking.registry import PromotionRefused, promote


def log_model(store, folder, *, with_weights=True, ending=".onnx", logged=True, tags=None, **changes):
    """A finished run with a model file, as a job leaves it."""
    model = write_model(folder / "model.onnx")
    file = model.rename(folder / f"student{ending}")
    (folder / "net.pt").write_bytes(b"weights")
    about = {"artifact_file": file.name, "artifact_digest": hashlib.sha256(file.read_bytes()).hexdigest()}
    with store.job("job", group="g") as job, job.child("student") as run:
        row = example_row(**({"verdict": "PASS"} | changes))
        return store.log_row(
            run.run_id,
            row,
            model_path=file if logged else None,
            files=[file, *([folder / "net.pt"] if with_weights else [])],
            tags={**about, "split_digest": "split-a", **(tags or {})},
        )


def test_promote_gives_a_model_that_loads_under_its_alias(store, tmp_path, capsys):
    import mlflow

    row = log_model(store, tmp_path)
    assert runs.main(["promote", f"run={row.run_id}", "alias=champion"]) == 0
    told = capsys.readouterr().out
    assert f"models:/cnn1d_student@champion is version 1: run {row.run_id} (student-alone)\n" in told
    loaded = mlflow.onnx.load_model("models:/cnn1d_student@champion")
    assert loaded.SerializeToString() == (tmp_path / "student.onnx").read_bytes()
    # As a teacher's weights, the way compression.teacher.weights is resolved.
    path, origin = weights.find_weights("models:/cnn1d_student@champion", store, tmp_path / "found")
    assert (path.name, path.read_bytes()) == ("net.pt", b"weights")
    assert origin["split_digest"] == "split-a"
    # Again: the same version.
    assert promote(store, row.run_id, "champion").version == "1"
    newer = log_model(store, tmp_path)
    done = promote(store, newer.run_id, "champion")
    assert (done.version, done.replaced) == ("2", "1")
    assert runs.main(["list"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "champion" in line]
    assert line.split() == ["cnn1d_student", "2", "champion", "none", "float32", "synthetic", "PASS", newer.run_id]


def test_promote_registers_files_that_are_no_onnx(store, tmp_path):
    row = log_model(store, tmp_path, ending=".tflite", logged=False)
    done = promote(store, row.run_id, "champion", name="watch")
    assert done.uri == "models:/watch@champion"
    version = store.client.get_model_version_by_alias("watch", "champion")
    assert version.source.endswith(f"{row.run_id}/artifacts/student.tflite")
    assert version.tags["artifact_file"] == "student.tflite"


def test_promote_refuses_what_did_not_pass(store, tmp_path, capsys):
    failed = log_model(store, tmp_path, verdict="FAIL", reasons=["size_ratio .9 > .5"])
    assert runs.main(["promote", f"run={failed.run_id}", "alias=champion", "allow_inconclusive=true"]) == 2
    assert "did not pass its gate, its verdict is FAIL: size_ratio .9 > .5" in capsys.readouterr().err
    unjudged = log_model(store, tmp_path, verdict=None)
    with pytest.raises(PromotionRefused, match="did not pass its gate, its verdict is None"):
        promote(store, unjudged.run_id, "champion")
    unclear = log_model(store, tmp_path, verdict="INCONCLUSIVE", reasons=["too few subjects"])
    assert runs.main(["promote", f"run={unclear.run_id}", "alias=champion"]) == 2
    assert "allow_inconclusive=true promotes it all the same" in capsys.readouterr().err
    assert store.client.search_registered_models() == []
    assert runs.main(["promote", f"run={unclear.run_id}", "alias=champion", "allow_inconclusive=true"]) == 0
    assert "its gate could not decide: too few subjects" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"role": "device", "device": "pixel", "reference_run_id": "abc"}, "was measured on pixel: promote its model"),
        ({"folds": [{"fold": 0}, {"fold": 1}]}, "pools 2 folds, each with its own model"),
        ({"role": "baseline", "tags": {"artifact_file": None}}, "holds no measured model file"),
        ({"with_weights": False}, r"has no net\.pt"),
        ({"tags": {"artifact_digest": "0" * 64}}, "measured was 0000"),
    ],
)
def test_promote_refuses_what_is_no_model(store, tmp_path, changes, reason):
    row = log_model(store, tmp_path, **changes)
    with pytest.raises(PromotionRefused, match=reason):
        promote(store, row.run_id, "champion")
    assert store.client.search_registered_models() == []


def test_promote_refuses_runs_that_are_unknown_or_did_not_finish(store, tmp_path, capsys):
    assert runs.main(["promote", f"run={'0' * 32}", "alias=champion"]) == 2
    assert f"could not find run '{'0' * 32}' in 'sqlite:///" in capsys.readouterr().err
    row = log_model(store, tmp_path)
    store.client.set_terminated(row.run_id, "FAILED")
    with pytest.raises(PromotionRefused, match="is FAILED, not FINISHED"):
        promote(store, row.run_id, "champion")
    with store.job("job", group="g") as job, job.child("half") as run:
        pass
    assert runs.main(["promote", f"run={run.run_id}", "alias=champion"]) == 2
    assert "row.json" in capsys.readouterr().err


@pytest.mark.parametrize("alias", ["latest", "v1", "V22", "cham pion", "a/b", "../x", "<b>", "1st", "é"])
def test_promote_refuses_an_alias_that_cannot_be_one(store, alias):
    with pytest.raises(PromotionRefused, match="alias="):
        promote(store, "unused", alias)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["promote", "alias=champion"], "missing run="),
        (["promote", "run=1", "alias="], "'alias=': expected run="),
        (["promote", "run=1", "force=true"], "'force=true': expected run="),
        (["promote", "run=1", "alias=a", "allow_inconclusive=maybe"], "expected true or false"),
        (["list", "all"], "list takes no arguments"),
    ],
)
def test_runs_explains_bad_arguments(store, capsys, arguments, reason):
    assert runs.main(arguments) == 2
    assert reason in capsys.readouterr().err


def test_promote_refuses_a_name_that_cannot_be_one(store, tmp_path):
    row = log_model(store, tmp_path)
    with pytest.raises(PromotionRefused, match="name='a/b'"):
        promote(store, row.run_id, "champion", name="a/b")


def test_runs_shows_its_commands(capsys):
    assert runs.main([]) == 2
    assert "runs.py push" in capsys.readouterr().err
