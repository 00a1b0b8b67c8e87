import pytest

from tests.configs import ROOT, names_of
from tracking.papers import PaperError, find_stem, read_paper, read_papers

PAPER = """
title: A paper
tables:
  t1:
    title: A table
    source: table 1
    protocol: as printed
    columns:
      auroc: {label: AUC, metric: METRIC, unit: "%"}
    rows:
      small: {label: small net, values: {auroc: 93.4}}
"""


def write(folder, text=PAPER, metric="test/auroc_macro", **changes):
    text = text.replace("METRIC", metric)
    for old, new in changes.items():
        text = text.replace(old, new)
    path = folder / "px.yaml"
    path.write_text(text)
    return path


def test_papers_has_a_configuration_for_each_table():
    papers = read_papers(ROOT / "papers")
    assert list(papers) == ["p1", "p2", "p3", "p4"]
    tables = [name for paper in papers.values() for name in paper.tables]
    assert sorted(tables) == names_of("table")
    assert all(name.startswith(f"{paper.id}_") for paper in papers.values() for name in paper.tables)


def test_papers_hold_the_figures_that_the_project_was_asked_for():
    papers = read_papers(ROOT / "papers")
    cells = {
        f"{name}.{cell.id}": cell
        for paper in papers.values()
        for name, table in paper.tables.items()
        for cell in table.cells
    }
    assert cells["p3_distillation.distilled.test"].value == 93.8
    assert cells["p3_quantization.uncalibrated.auroc"].value == 58.2
    assert cells["p2_paradigms.inter_resnet25.f1"].averaging == "weighted"
    assert cells["p1_size_mae.float.mae_low"].printed == "about 26"
    assert cells["p4_models.cnn_vit.specificity"].value is None
    assert len(cells) > 140


def test_papers_name_file_and_cell_of_an_unknown_metric(tmp_path):
    path = write(tmp_path, metric="test/auroc_makro")
    with pytest.raises(
        PaperError, match=r"px\.yaml: table 't1', cell 'small\.auroc': unknown metric 'test/auroc_makro'"
    ):
        read_paper(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"%"', "percent", r"cell 'small\.auroc': unknown unit 'percent'"),
        ("93.4", "about 93", r"cell 'small\.auroc': value is 'about 93', expected a number or null"),
        ("93.4", "{value: 93.4, tolerance: wide}", r"cell 'small\.auroc': tolerance is 'wide'"),
        ("93.4", "{value: 93.4, comment: x}", r"cell 'small\.auroc': unknown keys \['comment'\]"),
        ("{auroc: 93.4}", "{f1: 93.4}", r"cell 'small\.f1': there is no column 'f1'"),
        ("source: table 1", "plots: [pie]\n    source: x", r"unknown plots \['pie'\]"),
        ("    source: table 1\n", "", r"table 't1': lacks \['source'\]"),
        ("  t1:", "  t1: 5\n  t2:", r"table 't1': expected a mapping, got int"),
        ("title: A paper", "title: [", r"px\.yaml: not readable as YAML"),
    ],
)
def test_papers_refuse_what_says_something_wrong(tmp_path, old, new, message):
    with pytest.raises(PaperError, match=message):
        read_paper(write(tmp_path, **{old: new}))


@pytest.mark.parametrize(
    ("metric", "stem"),
    [
        ("test/auroc_macro", "auroc"),
        ("val/f1_weighted_beat", "f1"),
        ("test/auroc_STTC", "auroc"),
        ("test/accuracy_beat", "accuracy"),
        ("test/average_precision_macro", "average_precision"),
        ("test/hr_mae_bpm_not_low_window", "hr_mae_bpm"),
        ("stages/pulse_share", "pulse_share"),
        ("params_keras", "params_keras"),
        ("train/auroc_macro", None),
        ("test/auroc_median", None),
        ("auroc_macro", None),
        ("test/hr_mae_bpm", None),
        ("stages/nap_share", None),
    ],
)
def test_find_stem_knows_the_names_of_metrics(metric, stem):
    assert find_stem(metric) == stem


def test_a_cell_knows_which_way_is_better(tmp_path):
    def direction(metric):
        return read_paper(write(tmp_path, metric=metric)).tables["t1"].cells[0].direction

    assert [direction(name) for name in ("test/f1_macro", "test/hr_mae_bpm_video", "size_bytes")] == [1, -1, -1]
    assert direction("stages/rate_share") == direction("params") == 0
