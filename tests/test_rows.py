import json
import math
from dataclasses import replace

import numpy as np
import pytest

from lightning_modules.metrics import decide
from tests.tracking_examples import example_beats, example_predictions, example_row
from tracking.predictions import load_predictions, make_predictions, save_predictions
from tracking.rows import Estimate, Row, read_rows_file, row_to_dict, rows_from_json, rows_to_json, write_rows

PROMISED_FIELDS = {
    *("role", "model", "recipe", "runtime", "precision", "data", "seed", "params", "macs", "size_bytes"),
    *("int8_macs_share", "latency_ms_p50", "latency_ms_p99", "peak_memory_bytes", "metrics", "delta"),
    *("reference", "verdict", "reasons", "run_id", "data_digest", "split_digest"),
}


def refuse_constant(name):
    raise AssertionError(f"{name} is not JSON")


def test_rows_survive_json():
    row = example_row(
        delta={"test/auroc_macro": Estimate(-0.001, -0.002, 0.0005)},
        verdict="PASS",
        reasons=["bytes 0.26 <= 0.27"],
        checks=[{"name": "parity", "status": "PASS", "value": 1e-7}],
    )
    assert rows_from_json(rows_to_json([row, replace(row, role="teacher")])) == [
        row,
        replace(row, role="teacher"),
    ]


def test_rows_have_the_promised_fields():
    (content,) = json.loads(rows_to_json([example_row()]))
    assert set(content) >= PROMISED_FIELDS
    assert content["metrics"]["test/auroc_macro"] == {"value": 0.931, "low": 0.925, "high": 0.937}


def test_rows_write_nan_as_null():
    row = example_row(
        latency_ms_p50=math.nan,
        metrics={"test/f1_macro": Estimate(math.nan, -math.inf, math.inf)},
        checks=[{"value": np.float64("nan"), "share": np.array([1.0, np.nan]), "n": np.int64(3)}],
    )
    text = rows_to_json([row])
    (content,) = json.loads(text, parse_constant=refuse_constant)
    assert content["latency_ms_p50"] is None
    assert content["metrics"]["test/f1_macro"] == {"value": None, "low": None, "high": None}
    assert content["checks"] == [{"value": None, "share": [1.0, None], "n": 3}]
    (back,) = rows_from_json(text)
    assert back.latency_ms_p50 is None
    assert math.isnan(back.metrics["test/f1_macro"].value)


def test_rows_take_numpy_numbers():
    row = example_row(params=np.int64(5), metrics={"test/auroc_macro": Estimate(np.float64(0.5), 0.4, 0.6)})
    assert rows_from_json(rows_to_json([row]))[0].params == 5


@pytest.mark.parametrize(("field", "value"), [("role", "pupil"), ("data", "fake")])
def test_rows_refuse_unknown_words(field, value):
    with pytest.raises(ValueError, match=rf"'student-alone'.*{value!r}"):
        example_row(**{field: value})


def test_rows_refuse_unknown_and_missing_fields():
    content = row_to_dict(example_row())
    with pytest.raises(ValueError, match=r"unknown fields \['colour'\]"):
        rows_from_json(json.dumps([content | {"colour": "red"}]))
    del content["recipe"]
    with pytest.raises(ValueError, match="recipe"):
        rows_from_json(json.dumps([content]))
    with pytest.raises(ValueError, match="list of rows"):
        rows_from_json('{"role": "student"}')


def test_rows_read_files_without_later_fields():
    names = ("role", "name", "model", "recipe", "runtime", "precision", "data", "dataset")
    content = {name: getattr(example_row(), name) for name in names}
    assert rows_from_json(json.dumps([content])) == [Row(**content)]


def test_rows_file_is_replaced_as_a_whole(tmp_path):
    path = write_rows(tmp_path / "out" / "rows.json", [example_row()])
    with pytest.raises(TypeError):
        write_rows(path, [example_row(checks=[{"value": object()}])])
    assert read_rows_file(path) == [example_row()]
    assert [item.name for item in path.parent.iterdir()] == ["rows.json"]


def test_rows_file_is_readable_by_others(tmp_path):
    path = write_rows(tmp_path / "rows.json", [])
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_predictions_survive_the_file(tmp_path):
    predictions = example_predictions(20)
    path = save_predictions(tmp_path / "predictions.npz", predictions)
    back = load_predictions(path)
    for name in ("record_ids", "subject_ids", "targets", "probabilities", "thresholds"):
        np.testing.assert_array_equal(getattr(back, name), getattr(predictions, name))
    assert back.class_names == predictions.class_names
    with np.load(path, allow_pickle=False) as arrays:
        assert all(not arrays[name].dtype.hasobject for name in arrays.files)


def test_predictions_of_beats_survive_the_file(tmp_path):
    beats = replace(example_beats(30), thresholds=np.tile([0.6, 0.4], (30, 1)))
    back = load_predictions(save_predictions(tmp_path / "predictions.npz", beats))
    for name in ("record_ids", "thresholds", "times_s", "decisions"):
        np.testing.assert_array_equal(getattr(back, name), getattr(beats, name))
    assert (back.exclusive, back.level, back.suffix) == (True, "beat", "_beat")


def test_predictions_of_earlier_files_are_of_records(tmp_path):
    new = example_predictions(20)
    names = ("record_ids", "subject_ids", "targets", "probabilities", "class_names", "thresholds")
    np.savez(tmp_path / "old.npz", **{name: np.asarray(getattr(new, name)) for name in names})
    old = load_predictions(tmp_path / "old.npz")
    assert (old.exclusive, old.level, old.suffix, old.times_s) == (False, "record", "", None)
    np.testing.assert_array_equal(old.decisions, new.probabilities >= 0.5)


def test_predictions_decide_as_the_thresholds_were_chosen():
    for predictions in (example_predictions(50), example_beats(50)):
        expected = decide(predictions.probabilities, predictions.thresholds, predictions.exclusive)
        np.testing.assert_array_equal(predictions.decisions, expected)
    three = make_predictions(
        *([1, 2], [1, 2], np.eye(3)[:2], [[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]], "abc", np.full(3, 1 / 3), True)
    )
    np.testing.assert_array_equal(three.decisions, decide(three.probabilities, three.thresholds, True))
    assert three.decisions.argmax(axis=1).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"times_s": np.zeros(30)}, "record id 'r0' stands 3 times at 0 s; ids must be unique, or each with its own"),
        ({"times_s": None}, "record id 'r0' stands 3 times; ids must be unique"),
        ({"times_s": np.full(30, np.nan)}, "record 'r0': time nan s, expected a finite number"),
        ({"times_s": np.zeros(29)}, r"times_s has shape \(29,\)"),
        ({"targets": np.ones((30, 2), np.float32)}, "record 'r0': 2 of the exclusive classes"),
        ({"level": "person"}, "level is 'person'"),
        ({"thresholds": np.zeros((29, 2))}, "thresholds has shape"),
    ],
)
def test_predictions_refuse_beats_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(example_beats(30), **changes)


def test_predictions_refuse_damaged_files(tmp_path):
    path = save_predictions(tmp_path / "predictions.npz", example_predictions(20))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"predictions\.npz: not a readable predictions file"):
        load_predictions(path)
    np.savez(tmp_path / "other.npz", record_ids=np.array(["1"]))
    with pytest.raises(ValueError, match="subject_ids"):
        load_predictions(tmp_path / "other.npz")
    np.savez(tmp_path / "pickled.npz", record_ids=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match="not a readable predictions file"):
        load_predictions(tmp_path / "pickled.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"record_ids": [7, 7]}, "'7' stands 2 times"),
        ({"subject_ids": [1]}, r"subject_ids has shape \(1,\), expected \(2,\)"),
        ({"thresholds": [0.5, 0.5]}, "thresholds has shape"),
        ({"targets": [[0], [2]]}, "record '8', class 'A': target 2.0, expected 0 or 1"),
        ({"targets": [[0], [math.nan]]}, "record '8', class 'A': target nan"),
        ({"probabilities": [[math.nan], [0.5]]}, "record '7', class 'A': probability nan"),
        ({"probabilities": [[0.5], [1.5]]}, r"probability 1.5, expected a number in \[0, 1\]"),
    ],
)
def test_predictions_refuse_bad_values(changes, message):
    values = {
        "record_ids": [7, 8],
        "subject_ids": [1, 2],
        "targets": [[0], [1]],
        "probabilities": [[0.1], [0.9]],
        "class_names": ["A"],
        "thresholds": [0.5],
    }
    with pytest.raises(ValueError, match=message):
        make_predictions(**(values | changes))
