"""Outputs of files to whole splits are kept by content."""

from types import SimpleNamespace

import numpy as np
import pytest

from composition import kept_answers
from composition.kept_answers import answer_split
from deploy.artifact import Artifact


@pytest.fixture
def asked(monkeypatch):
    """Splits that were evaluated, in order."""
    calls = []

    def predict(artifact, datamodule, split, task):
        calls.append(split)
        return np.full((3, 2), len(calls), np.float32)

    monkeypatch.setattr(kept_answers, "predict_split", predict)
    return calls


def write_artifact(folder, content=b"weights", name="model.onnx"):
    (folder / name).write_bytes(content)
    return Artifact(folder / name, "onnxruntime", "float32", (12, 1000))


def data(**digests):
    return SimpleNamespace(**{"data_digest": "d", "split_digest": "s", "preprocessing_digest": "p", **digests})


def test_the_same_file_is_not_evaluated_twice(tmp_path, asked):
    first = write_artifact(tmp_path)
    answers = answer_split(first, data(), "test", None, tmp_path / "kept")
    # Its content counts, not its name.
    again = answer_split(write_artifact(tmp_path, name="other.onnx"), data(), "test", None, tmp_path / "kept")
    assert asked == ["test"]
    np.testing.assert_array_equal(answers, again)
    assert again.dtype == np.float32


@pytest.mark.parametrize(
    "changed", ["content", "split", "data_digest", "split_digest", "preprocessing_digest", "runtime"]
)
def test_whatever_answers_depend_on_makes_them_new(tmp_path, asked, monkeypatch, changed):
    artifact, split, digests = write_artifact(tmp_path), "test", {}
    answer_split(artifact, data(), split, None, tmp_path / "kept")
    if changed == "content":
        artifact = write_artifact(tmp_path, b"other weights")
    elif changed == "split":
        split = "val"
    elif changed == "runtime":
        monkeypatch.setattr(kept_answers, "package_versions", lambda names: dict.fromkeys(names, "99"))
    else:
        digests = {changed: "other"}
    answer_split(artifact, data(**digests), split, None, tmp_path / "kept")
    assert len(asked) == 2
