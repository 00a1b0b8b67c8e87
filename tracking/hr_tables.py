"""Rows about heart rates laid out as paper P1 does: size, error overall and by group, time."""

from collections.abc import Sequence

from tracking.rows import Row
from tracking.tables import MISSING, TableText, format_estimate

# Columns of P1 with the metric that fills them; its errors are over all samples, which are windows here.
ERRORS = {
    "all": "test/hr_mae_bpm_window",
    "low < 77": "test/hr_mae_bpm_low_window",
    "middle": "test/hr_mae_bpm_middle_window",
    "high >= 90": "test/hr_mae_bpm_high_window",
    "without low": "test/hr_mae_bpm_not_low_window",
    "per video": "test/hr_mae_bpm_video",
    "r per video": "test/hr_pearson_r_video",
    "SNR dB": "test/hr_snr_db_window",
}
STAGES = ("faces", "pulse", "rate")


def tabulate_heart_rates(rows: Sequence[Row]) -> TableText:
    """Lay rows of heart rates out as P1's table: bytes and their ratio to the reference's, errors, shares of time."""
    by_run: dict[str | None, Row] = {row.run_id: row for row in rows if row.run_id is not None}
    header = ("model", "recipe", "runtime", "precision", "bytes", "of reference", *ERRORS, "stages %", "time/video")
    cells = [
        (
            *(row.model, row.recipe, row.runtime, row.precision),
            MISSING if row.size_bytes is None else f"{row.size_bytes:,}",
            _size_ratio(row, by_run.get(row.reference_run_id)),
            *(format_estimate(row.metrics.get(metric)) for metric in ERRORS.values()),
            _shares(row),
            _share(row, "stages/time_over_video"),
        )
        for row in rows
    ]
    return TableText(header, cells, "mean absolute errors in bpm; stages: faces / pulse / rate" if cells else "")


def _size_ratio(row: Row, reference: Row | None) -> str:
    if reference is None or not row.size_bytes or not reference.size_bytes:
        return MISSING
    return f"{row.size_bytes / reference.size_bytes:.2%}"


def _shares(row: Row) -> str:
    shares = [row.metrics.get(f"stages/{stage}_share") for stage in STAGES]
    return " / ".join(f"{100 * share.value:.1f}" for share in shares if share) or MISSING


def _share(row: Row, name: str) -> str:
    return f"{row.metrics[name].value:.2%}" if name in row.metrics else MISSING
