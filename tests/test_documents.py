"""Model cards and reports: no sentence that the row does not back, no text that is a command."""

import re
import time

import jinja2
import pytest

from deploy.devices import DEVICES
from tests.tracking_examples import example_row
from tracking.documents import card_facts, write_card, write_documents, write_report
from tracking.rows import Estimate

HOSTILE = "<script>alert(1)</script> [x](javascript:alert(1)) a|b"
KNOWN = {
    **{"date": "2026-11-27", "commit": "abc", "uncommitted": False, "lead_names": ["I", "II", "V1"], "n_leads": 3},
    **{"n_samples": 64, "fs": 100, "unit": "mV", "class_names": ["a", "b"], "exclusive": False, "threshold_rule": "f1"},
}


def full_row(**changes):
    values = {
        **{"data": "real", "dataset": "ptbxl", "run_id": "run1", "group": "g", "seed": 0, "threads": 1},
        **{"latency_ms_p50": 0.5, "latency_ms_p99": None, "verdict": "PASS", "n_test": 400, "n_subjects": 90},
        **{"test_looks": 3, "data_digest": "d1", "split_digest": "s1", "preprocessing_digest": "p1"},
        "checks": [{"name": "size_ratio", "status": "PASS", "value": 0.27, "limit": 0.3, "reason": "0.27 <= 0.3"}],
    }
    return example_row(**(values | changes))


def test_card_says_what_the_run_says_and_nothing_else():
    card = write_card(card_facts(full_row(), **KNOWN))
    for present in (
        "0.931 [0.925, 0.937]",
        "Not a medical device",
        "split digest | `s1`",
        "p50 0.5 ms |",
        "It takes 3 leads (I, II, V1) of 64 samples at 100 Hz, in mV",
        "run `run1`",
        "as the file's metadata say",
        "The thresholds were chosen on the validation side of ptbxl, for f1",
    ):
        assert present in card
    for absent in (
        "simulated",
        "seen in training",
        "too few",
        "uncommitted",
        "p99",
        "on the device",
        "slice.npz",
        "None",
    ):
        assert absent not in card


@pytest.mark.parametrize(
    ("changes", "known", "sentence"),
    [
        ({"data": "synthetic"}, {}, "**Trained and evaluated on simulated signals.**"),
        ({"leaky": True}, {}, "Persons of the test side were seen in training"),
        ({"metrics": {"test/auroc_macro": Estimate(0.9)}}, {}, "There are too few test subjects for an interval"),
        ({}, {"uncommitted": True}, "with uncommitted changes"),
        ({"folds": [{}, {}]}, {}, "Pooled over 2 folds, each with a model of its own"),
        ({"role": "baseline", "size_bytes": None}, {}, "It is no model, and there is no file of it"),
        ({"metrics": {}, "verdict": "not measured", "reasons": ["no board"]}, {}, "None: no board."),
        ({"latency_ms_p99": 2.0}, {}, "p99 2 ms"),
        ({"verdict": "FAIL", "reasons": ["too large"]}, {}, "| verdict of the gate | FAIL: too large |"),
        ({}, {"threshold_rule": "half"}, "no threshold was chosen"),
        ({}, {"exclusive": True}, "answers with one of the classes a, b"),
        ({}, {"device": DEVICES["watch"], "n_slice": 128}, "128 of the 400 test windows"),
        (
            {
                "reference": "teacher",
                "reference_run_id": "r0",
                "delta": {"test/auroc_macro": Estimate(-0.01, -0.02, 0.0)},
            },
            {},
            "Against teacher (run `r0`), on the same windows: auroc_macro changes by -0.0100 [-0.0200, +0.0000].",
        ),
    ],
)
def test_card_has_a_sentence_only_where_the_row_backs_it(changes, known, sentence):
    assert sentence in write_card(card_facts(full_row(**changes), **{**KNOWN, **known}))
    assert sentence not in write_card(card_facts(full_row(), **KNOWN))


def test_card_of_a_device_states_its_own_windows():
    row = full_row(role="device", device="pixel", metrics={"slice/auroc_macro": Estimate(0.8)}, reference_run_id="r0")
    card = write_card(card_facts(row))
    assert "Measured on pixel: the model itself is described in run `r0`." in card
    assert "| windows of the bundle | 400 windows of 90 subjects |" in card
    assert "| latency on pixel, 1 thread | p50 0.5 ms |" in card
    assert "workstation" not in card


def test_card_does_not_pass_over_a_missing_fact():
    facts = card_facts(full_row(), **KNOWN)
    del facts["split_digest"]
    with pytest.raises(jinja2.UndefinedError, match="split_digest"):
        write_card(facts)
    with pytest.raises(TypeError, match=r"does not state \['colour'\]"):
        card_facts(full_row(), colour="red")


def test_documents_escape_hostile_names():
    row = full_row(name=HOSTILE, model=HOSTILE, recipe=HOSTILE, verdict="FAIL", reasons=[HOSTILE], reference=HOSTILE)
    documents = write_documents(
        row, images={HOSTILE: b"\x89PNG"}, files=[HOSTILE], config=f"name: {HOSTILE}", class_names=[HOSTILE]
    )
    card, report = documents["model_card.md"], documents["report.html"]
    for text in documents.values():
        assert "<script>" not in text
    assert "](javascript" not in card
    # A bar in a reason does not open a further cell.
    (line,) = [line for line in card.splitlines() if line.startswith("| verdict of the gate")]
    assert len(re.findall(r"(?<!\\)\|", line)) == 3
    assert report.count("&lt;script&gt;") >= 6


def test_report_holds_figures_checks_files_and_config():
    row = full_row(reference="teacher", delta={"test/auroc_macro": Estimate(-0.01, -0.02, 0.0)})
    report = write_report(
        row,
        images={"roc.png": b"\x89PNG"},
        files=["predictions.npz"],
        config="seed: 0\n",
        facts={"commit": "abc"},
    )
    for present in (
        "<h1>student-alone</h1>",
        "0.931 [0.925, 0.937]",
        "-0.0100 [-0.0200, +0.0000]",
        "difference to teacher",
        "size_ratio",
        "0.27 &lt;= 0.3",
        '<img alt="roc.png" src="data:image/png;base64,iVBORw==">',
        "<code>predictions.npz</code>",
        "<pre>seed: 0",
        "s1",
        "commit <code>abc</code>",
    ):
        assert present in report
    # In a frame of MLflow's page no link to another file of the run opens.
    assert "href=" not in report
    assert "Simulated" not in report
    bare = write_report(example_row(data="synthetic", metrics={}, run_id="r"))
    assert "Simulated signals" in bare
    for absent in ("Checks of the gate", "Beside this report", "Configuration", "difference to", "None"):
        assert absent not in bare


def test_documents_cost_next_to_nothing():
    row = full_row(metrics={f"test/auroc_{index}": Estimate(0.9, 0.8, 1.0) for index in range(80)})
    write_documents(row, **KNOWN)
    start = time.process_time()
    for _ in range(5):
        write_documents(row, config="x: 1\n" * 500, **KNOWN)
    assert (time.process_time() - start) / 5 < 0.2
