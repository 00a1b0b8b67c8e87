"""Pruning recipes end to end, on synthetic data that is small enough for a test: one float model for all of them."""

from types import SimpleNamespace

import pytest
import torch

import train
from composition import rows as composition_rows
from deploy.gate import Check
from tests.mlflow_template import template_database
from tests.test_train import job_config, runs_of
from tracking.rows import Estimate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruning")
    (folder / "mlflow.db").write_bytes(template_database())
    return folder


def checks_of(row):
    return {check["name"]: check for check in row.checks}


def test_a_pruned_and_quantized_row_says_what_became_of_the_net(folder):
    options = ("compression=prune_ptq_int8", "compression.steps.prune_structured.max_epochs=1")
    whole, pruned, quantized = train.run(job_config(folder, "pruned", *options))
    assert [row.recipe for row in (whole, pruned, quantized)] == [
        "none",
        "prune_structured",
        "prune_structured_ptq_int8",
    ]
    checks = checks_of(pruned)
    assert {"macs_ratio", "params_ratio", "size_ratio", "latency_ratio"} <= set(checks)
    assert {checks[name]["status"] for name in ("reload", "macs_ratio", "params_ratio", "size_ratio")} == {"PASS"}
    assert checks["macs_ratio"]["value"] == pytest.approx(pruned.macs / whole.macs)
    assert checks["params_ratio"]["value"] == pytest.approx(pruned.params / whole.params)
    assert pruned.macs <= 0.5 * whole.macs
    assert pruned.nonzero_weights < whole.nonzero_weights
    assert pruned.compressed_bytes < whole.compressed_bytes
    assert pruned.training_s > 0
    assert pruned.reference == whole.name
    assert quantized.params == pruned.params
    assert quantized.reference == pruned.name


def test_reloaded_masks_fail_the_gate(folder):
    whole, reloaded = train.run(job_config(folder, "masks", "compression=prune_masks_reloaded"))
    assert reloaded.verdict == "FAIL"
    assert checks_of(reloaded)["sparsity"]["status"] == "FAIL"
    # Nothing became smaller, and the row's weights are not those of the float model.
    assert (reloaded.macs, reloaded.params) == (whole.macs, whole.params)
    runs = {run.info.run_id: run.data.params for run in runs_of(folder)}
    assert runs[whole.run_id]["fit.digest"] != runs[reloaded.run_id]["fit.digest"]


def test_a_loss_that_is_not_finite_fails_the_run_and_keeps_the_float_model(folder):
    options = ("compression=prune_structured", "compression.steps.prune_structured.soft_weight=0")
    config = job_config(folder, "diverged", *options, "compression.steps.prune_structured.max_epochs=3")
    config.compression.steps.prune_structured.learning_rate = 1e30
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train.run(config)
    statuses = {run.info.status for run in runs_of(folder) if run.data.tags["group"] == "diverged"}
    assert "FAILED" in statuses
    assert "RUNNING" not in statuses
    assert list((folder / "floats").glob("*/net.pt"))


def test_an_impossible_order_is_refused_before_the_float_model_is_trained(folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("trained")

    monkeypatch.setattr("composition.fits.fit_once", refuse)
    config = job_config(folder, "order", "compression=prune_ptq_int8")
    steps = config.compression.steps
    config.compression.steps = {"ptq_int8": steps.ptq_int8, "prune_structured": steps.prune_structured}
    with pytest.raises(ValueError, match="'prune_structured' comes after 'ptq_int8'"):
        train.run(config)


def judge_with(claims, *, timed, **artifact):
    """Judge a file of no loss, a third of the bytes and all that is asked of it but its latency."""
    profile = SimpleNamespace(
        size_bytes=30, compressed_bytes=30, macs=10, int8_macs_share=1.0, weights=SimpleNamespace(sparsity=0.8)
    )
    reference = SimpleNamespace(size_bytes=100, compressed_bytes=100, macs=10)
    module = SimpleNamespace(net=torch.nn.Linear(2, 2))
    measured = SimpleNamespace(
        checks=[Check("reload", "PASS", 0.0, 1e-6, "")],
        artifact=SimpleNamespace(**artifact),
        candidate=SimpleNamespace(stage=SimpleNamespace(recipe="any", claims=claims, module=module)),
        predictions=SimpleNamespace(task="classification", level="record", subject_ids=list(range(100))),
    )
    delta = {"test/auroc_macro": Estimate(0.0, -0.001, 0.001)}
    return composition_rows.judge(measured, profile, measured, reference, delta, 0.01, timed)


@pytest.mark.parametrize(("timed", "words"), [(True, "latency is 1.02 of the reference"), (False, "not measured here")])
def test_zeros_claim_no_speed(monkeypatch, timed, words):
    monkeypatch.setattr(composition_rows, "latency_ratio", lambda *_: 1.02)
    verdict, checks = judge_with({"sparsity": 0.79, "compressed_ratio": 0.4}, timed=timed)
    assert verdict.status == "PASS"
    (reason,) = verdict.reasons
    assert "a dense runtime multiplies by zeros too" in reason
    assert words in reason
    assert {check.name: check.status for check in checks}["dense_runtime"] == "INFO"


@pytest.mark.parametrize(
    ("has_products", "precision", "runtime", "status", "words"),
    [
        (False, "int8", "onnxruntime", "PASS", "latency is 0.70 of the reference; the limit 0.3 is for CPUs with"),
        (True, "int8", "onnxruntime", "FAIL", "latency_ratio is 0.700 of the reference, limit 0.3"),
        (False, "float32", "onnxruntime", "FAIL", "latency_ratio is 0.700 of the reference, limit 0.3"),
        (False, "int8", "tensorrt", "FAIL", "latency_ratio is 0.700 of the reference, limit 0.3"),
    ],
)
def test_int8_is_held_to_a_latency_only_on_a_cpu_that_multiplies_it(
    monkeypatch, has_products, precision, runtime, status, words
):
    monkeypatch.setattr(composition_rows, "latency_ratio", lambda *_: 0.70)
    monkeypatch.setattr(composition_rows, "multiplies_int8", lambda: has_products)
    claims = {"size_ratio": 0.4, "latency_ratio": 0.3}
    verdict, checks = judge_with(claims, timed=True, precision=precision, runtime=runtime)
    assert verdict.status == status
    (reason,) = verdict.reasons
    assert words in reason
    (check,) = [check for check in checks if check.name == "latency_ratio"]
    assert (check.value, check.limit) == (pytest.approx(0.70), 0.3)
