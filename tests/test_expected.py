import pytest

from tests.table_examples import example_cell, fill, real_row
from tracking.expected import (
    Expected,
    ExpectedError,
    expect,
    find_drift,
    read_expected,
    tabulate_expected,
    tabulate_measured,
    write_expected,
)
from tracking.tables import to_plain

SEEDS = {"steady": (0.93, 0.93, 0.93), "lively": (0.92, 0.94, 0.93)}


def expected(value=93.1, tolerance=0.5, **changes):
    values = {"cell": "student.test", "metric": "test/auroc_macro", "unit": "%", "value": value, "tolerance": tolerance}
    return Expected(**(values | changes))


def test_expect_takes_tolerances_from_the_spread_over_seeds():
    (item,) = expect(fill(real_row(0.92), real_row(0.94, 1), real_row(0.93, 2)))
    assert (item.value, item.tolerance) == pytest.approx((93.0, 5.0))


def test_expect_does_not_believe_a_spread_that_is_tiny_by_chance():
    steady, lively = (tuple(real_row(value, seed) for seed, value in enumerate(values)) for values in SEEDS.values())
    cells = fill(*steady) + 2 * fill(*lively)
    assert [item.tolerance for item in expect(cells)] == pytest.approx([5.0, 5.0, 5.0])
    # The one lively cell among steady ones does not make them lively.
    cells = 2 * fill(*steady) + fill(*lively)
    assert [item.tolerance for item in expect(cells)] == pytest.approx([1.0, 1.0, 5.0])


def test_expect_has_a_floor_below_the_tolerances():
    (item,) = expect(fill(real_row(0.93), real_row(0.93, 1)))
    assert item.tolerance == 1.0
    (item,) = expect(fill(real_row(), cells=(example_cell(metric="params", unit="count", value=None),)))
    assert (item.value, item.tolerance) == (534_005, 0)


def test_expect_is_generous_where_one_seed_was_run():
    (item,) = expect(fill(real_row()))
    assert item.tolerance == 10.0


def test_expect_leaves_out_what_is_not_measured_and_what_is_the_machines():
    assert expect(fill()) == []
    timed = example_cell(metric="latency_ms_p50", unit="ms", value=None)
    assert expect(fill(real_row(), cells=(timed,))) == []


def test_find_drift_accepts_what_lies_within_the_tolerance():
    assert find_drift([expected(92.6), expected(93.6)], fill(real_row())) == []


def test_find_drift_names_the_cell_that_moved():
    (drift,) = find_drift([expected(92.5)], fill(real_row()))
    assert (drift.cell, drift.why) == ("student.test", "is 93.1, expected 92.5 +- 0.5 %")


def test_find_drift_names_what_is_no_longer_measured_or_there():
    (lost,) = find_drift([expected()], fill())
    assert lost.why == "not measured: no finished run"
    (gone,) = find_drift([expected(cell="student.f1")], fill(real_row()))
    assert gone.why == "no such cell in the paper's table"
    (other,) = find_drift([expected(metric="val/auroc_macro")], fill(real_row()))
    assert other.why == "is test/auroc_macro in %, expected val/auroc_macro in %"


def test_expected_figures_survive_a_way_to_disk(tmp_path):
    items = expect(fill(real_row(0.92), real_row(0.94, 1)))
    again = read_expected(write_expected(tmp_path / "ci-x.csv", items))
    assert [(item.cell, item.unit) for item in again] == [("student.test", "%")]
    assert (again[0].value, again[0].tolerance) == pytest.approx((items[0].value, items[0].tolerance), rel=1e-3)


def test_expected_figures_and_measured_ones_can_be_printed():
    assert "93.1" in to_plain(tabulate_expected([expected()]))
    assert "not measured: no finished run" in to_plain(tabulate_measured(fill()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cell,value\nx,1\n", r"columns \['cell', 'value'\], expected"),
        ("cell,metric,unit,value,tolerance\nx,m,%,high,1\n", r"line 2: value 'high'"),
        ("cell,metric,unit,value,tolerance\nx,m,%,1,-1\n", r"line 2: .*not negative"),
        ("cell,metric,unit,value,tolerance\nx,m,%,nan,1\n", r"line 2: .*must be finite"),
    ],
)
def test_read_expected_refuses_damaged_files(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ExpectedError, match=message):
        read_expected(tmp_path / "x.csv")


def test_read_expected_names_the_file_that_is_not_there(tmp_path):
    with pytest.raises(ExpectedError, match=r"there is no .*x\.csv: write it with `python tables\.py expect`"):
        read_expected(tmp_path / "x.csv")
