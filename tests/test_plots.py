import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    multilabel_confusion_matrix,
    roc_auc_score,
)

from tests.tracking_examples import CLASS_NAMES, example_beats, example_predictions, example_row
from tracking.plots import (
    confusion_figure,
    draw_predictions,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
    tradeoff_figure,
)
from tracking.rows import Estimate
from tracking.statistics import point_metrics


def legend_of(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def rounded(predictions):
    """Same predictions with many ties."""
    return replace(predictions, probabilities=np.round(predictions.probabilities, 1))


@pytest.mark.parametrize("change", [lambda p: p, rounded])
def test_plots_legends_give_the_areas_of_sklearn(change):
    predictions = change(example_predictions(200))
    for figure, score in ((roc_figure, roc_auc_score), (precision_recall_figure, average_precision_score)):
        areas = [score(t, p) for t, p in zip(predictions.targets.T, predictions.probabilities.T, strict=True)]
        expected = [f"{name} {area:.3f}" for name, area in zip(CLASS_NAMES, areas, strict=True)]
        assert legend_of(figure(predictions, "title")) == expected


def cells_of(axes):
    """Counts in a drawn confusion matrix, by (row, column)."""
    return {
        (round(text.get_position()[1]), round(text.get_position()[0])): int(text.get_text().split()[0].replace(",", ""))
        for text in axes.texts
    }


def test_plots_confusion_of_exclusive_classes_is_that_of_sklearn():
    beats = example_beats(3000)
    (axes,) = confusion_figure(beats, "title").axes
    expected = confusion_matrix(beats.targets.argmax(axis=1), beats.decisions.argmax(axis=1))
    assert cells_of(axes) == dict(np.ndenumerate(expected))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["other", "AFIB"]


def test_plots_confusion_of_other_classes_is_one_each():
    predictions = example_predictions(200)
    drawn = confusion_figure(predictions).axes
    expected = multilabel_confusion_matrix(predictions.targets, predictions.decisions)
    assert [cells_of(axes) for axes in drawn] == [dict(np.ndenumerate(matrix)) for matrix in expected]


def test_plots_reliability_gives_the_calibration_error():
    for predictions in (example_predictions(200), example_beats(300)):
        metrics = point_metrics(predictions)
        errors = [float(text.split()[-1]) for text in legend_of(reliability_figure(predictions))]
        assert np.mean(errors) == pytest.approx(metrics[f"ece_macro{predictions.suffix}"], abs=1e-3)


def test_plots_draw_few_points_of_many_beats():
    beats = example_beats(20_000)
    figure = roc_figure(beats)
    line = figure.axes[0].lines[1]
    x, y = line.get_data()
    assert len(x) <= 2000
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    # The drawn curve encloses the area that the legend gives.
    assert np.trapezoid(y, x) == pytest.approx(float(legend_of(figure)[0].split()[-1]), abs=1e-3)


def test_plots_of_a_run_have_a_file_each():
    drawn = draw_predictions(example_beats(300), "title")
    assert list(drawn) == ["roc.png", "pr.png", "confusion.png", "reliability.png"]


def test_plots_leave_out_a_class_that_is_absent():
    predictions = example_predictions(50)
    targets = predictions.targets.copy()
    targets[:, 4] = 0
    predictions = replace(predictions, targets=targets)
    assert [text.split()[0] for text in legend_of(roc_figure(predictions))] == list(CLASS_NAMES[:4])
    assert [text.split()[0] for text in legend_of(precision_recall_figure(predictions))] == list(CLASS_NAMES[:4])


def test_plots_are_written_as_png(tmp_path):
    rows = [
        example_row(),
        example_row(precision="int8", size_bytes=550_000, latency_ms_p50=0.4),
        example_row(role="teacher", size_bytes=26_000_000, latency_ms_p50=None),
        example_row(size_bytes=5_000_000, metrics={"test/auroc_macro": Estimate(0.9)}),
        example_row(size_bytes=None),
    ]
    for name, figure in (
        ("roc", roc_figure(example_predictions(50))),
        ("pr", precision_recall_figure(example_predictions(50))),
        ("tradeoff", tradeoff_figure(rows)),
    ):
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_plots_tradeoff_says_synthetic():
    assert tradeoff_figure([example_row()]).axes[0].get_title() == "synthetic data"
    assert tradeoff_figure([example_row(data="real")]).axes[0].get_title() == ""


def test_plots_tradeoff_refuses_rows_without_figures():
    with pytest.raises(ValueError, match=r"none of the 1 rows has both size_bytes and 'test/auroc_macro'"):
        tradeoff_figure([example_row(size_bytes=None)])


def test_plots_leave_the_global_state_of_matplotlib_alone():
    code = "import sys, tracking.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
