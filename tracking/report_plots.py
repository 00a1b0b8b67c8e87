"""What the papers draw from their tables' own figures: over parameters, and by group; published beside ours."""

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tracking.cells import Filled

PUBLISHED, OURS = "0.45", "tab:blue"


def draw_parameters(cells: Sequence[Filled]) -> bytes | None:
    """Draw the first figure of answers over the number of parameters, as SVG; None where neither side has both."""
    by_row: dict[str, list[Filled]] = {}
    for cell in cells:
        by_row.setdefault(cell.cell.row, []).append(cell)
    figure, axes = _figure("parameters", "")
    axes.set_xscale("log")
    drawn: set[str] = set()
    for own in by_row.values():
        size = next((cell for cell in own if cell.cell.metric in ("params", "params_keras")), None)
        answer = next((cell for cell in own if not cell.cell.structural), None)
        if size is None or answer is None:
            continue
        axes.set_ylabel(f"{answer.cell.column} ({answer.cell.unit})")
        if size.cell.value is not None and answer.cell.value is not None:
            _point(axes, drawn, size.cell.value, answer.cell.value, "published", PUBLISHED, "s")
        if size.estimate is not None and answer.estimate is not None:
            label = "ours, synthetic data" if answer.synthetic else "ours"
            _point(axes, drawn, size.estimate.value, answer.estimate.value, label, OURS, "o")
            if not math.isnan(answer.estimate.low):
                axes.vlines(size.estimate.value, answer.estimate.low, answer.estimate.high, color=OURS, linewidth=1)
            at = (size.estimate.value, answer.estimate.value)
            axes.annotate(answer.cell.label, at, (5, 4), textcoords="offset points", fontsize=8)
    return _finish(figure, axes) if drawn else None


def draw_groups(cells: Sequence[Filled]) -> bytes | None:
    """Draw errors of heart rates as bars, published beside ours, as SVG; None where there are none."""
    shown = [cell for cell in cells if "hr_mae_bpm" in cell.cell.metric]
    shown = [cell for cell in shown if cell.cell.value is not None or cell.estimate is not None]
    if not shown:
        return None
    figure, axes = _figure("mean absolute error (bpm)", "", height=1.2 + 0.5 * len(shown))
    at = np.arange(len(shown))
    published = [math.nan if cell.cell.value is None else cell.cell.value for cell in shown]
    axes.barh(at - 0.2, published, 0.38, color=PUBLISHED, label="published")
    if any(cell.estimate is not None for cell in shown):
        ours = [math.nan if cell.estimate is None else cell.estimate.value for cell in shown]
        label = "ours, synthetic data" if any(cell.synthetic for cell in shown) else "ours"
        axes.barh(at + 0.2, ours, 0.38, color=OURS, label=label)
    axes.set_yticks(at, [f"{cell.cell.label}\n{cell.cell.column}" for cell in shown], fontsize=8)
    axes.invert_yaxis()
    return _finish(figure, axes)


def _figure(x: str, y: str, height: float = 4.5) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel=y)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    return figure, axes


def _point(axes: Axes, drawn: set[str], x: float, y: float, label: str, colour: str, marker: str) -> None:
    """Draw a point; each label stands in the legend once."""
    shown = None if label in drawn else label
    drawn.add(label)
    axes.scatter([x], [y], color=colour, marker=marker, s=30, label=shown, zorder=2)


def _finish(figure: Figure, axes: Axes) -> bytes:
    axes.legend(fontsize=8)
    buffer = io.BytesIO()
    # Text stays text, and the same figures give the same bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tables"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
