"""Published figures beside rows of ours."""

from composition.published import find_published, published_column, tabulate_published
from tests.tracking_examples import example_row
from tracking.rows import Estimate


def ptbxl_row(**changes):
    return example_row(
        **{
            "run_id": changes.get("name", "x"),
            "data": "real",
            "dataset": "ptbxl",
            "metrics": {"test/auroc_macro": Estimate(0.93, 0.92, 0.94)},
            "settings": {"datamodule.level": "record"},
        }
        | changes
    )


def test_published_figures_stand_beside_rows_of_the_same_model_and_recipe():
    rows = [
        ptbxl_row(name="teacher", role="teacher", model="cnn1d_teacher", params=6_522_555),
        ptbxl_row(name="student", params=534_005),
        ptbxl_row(name="distilled", recipe="distill"),
        ptbxl_row(name="own", model="small1d", recipe="ptq_int8"),
        ptbxl_row(name="one lead", settings={"datamodule.lead_names": "['I']"}),
        ptbxl_row(name="elsewhere", dataset="other"),
    ]
    published = find_published(rows)
    found = {(item.row.name, item.table.id, item.cell.id): item for item in published}
    params = found["student", "p3_distillation", "student.params"]
    assert (params.verdict, params.why) == ("reproduced", "")
    area = found["distilled", "p3_distillation", "distilled.test"]
    # No digest of the table's setting: shown, and not held against the paper.
    assert (area.verdict, area.why) == ("not comparable", "made with other settings than the table's (profile=full)")
    assert area.estimate.value == 93.0
    assert {name for name, *_ in found} == {"teacher", "student", "distilled"}
    column = published_column(rows, published, "test/auroc_macro")
    assert column[2] == f"{area.cell.value:.2f} % (p3_distillation)"
    assert column[3:] == ["-", "-", "-"]
    table = tabulate_published(published)
    line = next(
        cells
        for cells in table.cells
        if cells[:4] == ("distilled", "p3_distillation", "student distilled", "mean AUC, test")
    )
    assert line[4:7] == (f"{area.cell.value:.2f} %", "93.00 % [92.00 %, 94.00 %]", f"{93.0 - area.cell.value:+.2f} %")


def test_synthetic_rows_are_never_held_against_a_paper():
    row = ptbxl_row(data="synthetic", dataset="synthetic_ptbxl", model="cnn1d_plain")
    published = find_published([row])
    assert {item.table.id for item in published} == {"p3_models"}
    measured = [item for item in published if item.estimate is not None]
    assert measured
    assert {item.verdict for item in measured} == {"not comparable"}
    assert {item.why for item in measured} == {"synthetic data"}
