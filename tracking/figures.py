"""Every figure of what an artifact answered, whatever it was asked, and figures as pictures."""

from io import BytesIO

from matplotlib.figure import Figure

from tracking.answers import Answered
from tracking.hr_plots import draw_rates
from tracking.hr_predictions import HeartRates
from tracking.plots import draw_predictions


def draw_answers(answers: Answered, title: str = "") -> dict[str, Figure]:
    """Every figure of an artifact's answers, by file name."""
    return draw_rates(answers, title) if isinstance(answers, HeartRates) else draw_predictions(answers, title)


def draw_png(figure: Figure) -> bytes:
    """Draw a figure as a PNG picture."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
