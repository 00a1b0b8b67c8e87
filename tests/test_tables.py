import csv
import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from tests.tracking_examples import example_row
from tracking.rows import Estimate, rows_from_json
from tracking.tables import (
    default_metric,
    format_estimate,
    tabulate_rows,
    to_csv,
    to_html,
    to_json,
    to_markdown,
    to_plain,
    to_rich,
)


def example_rows():
    student = example_row(verdict="PASS", test_looks=1)
    int8 = replace(
        student,
        name="student-int8",
        recipe="ptq_int8",
        precision="int8",
        size_bytes=556_000,
        compressed_bytes=430_000,
        sparsity=0.02,
        flips=0.0031,
        latency_ms_p50=0.36,
        latency_ms_p99=None,
        metrics={"test/auroc_macro": Estimate(0.93, 0.924, 0.936)},
        delta={"test/auroc_macro": Estimate(-0.0008, -0.0015, 0.0001)},
        reference="student-alone",
        verdict="INCONCLUSIVE",
        test_looks=2,
    )
    return [student, int8]


def test_tables_have_the_promised_columns():
    table = tabulate_rows(example_rows())
    assert table.header == (
        *(
            "role",
            "model",
            "recipe",
            "runtime",
            "precision",
            "data",
            "params",
            "MACs",
            "zeros",
            "bytes",
            "zipped",
            "p50 ms",
            "p99 ms",
        ),
        *("test/auroc_macro [95 %]", "delta [95 %]", "flips", "verdict", "looks"),
    )
    assert table.cells[1] == (
        *("student", "cnn1d_student", "ptq_int8", "onnxruntime", "int8", "synthetic", "534,005", "147.7 M"),
        *("2%", "556,000", "430,000", "0.36", "-", "0.930 [0.924, 0.936]", "-0.0008 [-0.0015, +0.0001]", "0.31%"),
        *("INCONCLUSIVE", "2"),
    )
    assert table.caption == ""


def test_tables_show_only_what_differs():
    table = tabulate_rows(example_rows(), only_differing=True)
    assert "runtime" not in table.header
    assert "params" not in table.header
    assert {"recipe", "precision", "bytes"} <= set(table.header)
    assert "runtime onnxruntime" in table.caption
    assert "dataset synthetic_ptbxl" in table.caption
    assert "seed 0" in table.caption
    seeds = tabulate_rows([example_row(seed=0), example_row(seed=1)], only_differing=True)
    assert "seed" in seeds.header


def test_tables_keep_synthetic_in_every_row():
    table = tabulate_rows(example_rows(), only_differing=True)
    assert [cells[table.header.index("data")] for cells in table.cells] == ["synthetic"] * 2
    real = [replace(row, data="real") for row in example_rows()]
    assert "data" not in tabulate_rows(real, only_differing=True).header
    for text in (to_plain(table), to_markdown(table), to_html(table)):
        assert text.count("synthetic") >= 2


def test_tables_of_one_row_or_none_keep_their_columns():
    assert len(tabulate_rows(example_rows()[:1], only_differing=True).header) > 10
    assert tabulate_rows([]).cells == []
    assert "role" in to_plain(tabulate_rows([]))


@pytest.mark.parametrize(
    ("estimate", "difference", "text"),
    [
        (Estimate(0.93149, 0.925, 0.9375), False, "0.931 [0.925, 0.938]"),
        (Estimate(-0.00042, -0.001, 0.002), True, "-0.0004 [-0.0010, +0.0020]"),
        (Estimate(0.5), False, "0.500"),
        (Estimate(math.nan, 0.1, 0.2), False, "-"),
        (None, False, "-"),
    ],
)
def test_tables_format_estimates(estimate, difference, text):
    assert format_estimate(estimate, difference=difference) == text


def test_tables_plain_text_is_never_cut():
    text = to_plain(tabulate_rows(example_rows(), only_differing=True), "a title")
    lines = text.splitlines()
    assert lines[0].strip() == "a title"
    assert any("ptq_int8" in line and "-0.0008 [-0.0015, +0.0001]" in line for line in lines)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "the same in every row: " in text


def test_tables_read_no_markup():
    rows = [example_row(model="[red]x[/red]", name="[/]")]
    console = Console(file=io.StringIO(), width=300, color_system=None)
    with console.capture() as capture:
        console.print(to_rich(tabulate_rows(rows), "[bold]"))
    assert "[red]x[/red]" in capture.get()
    assert "[bold]" in capture.get()


def test_tables_escape_html():
    text = to_html(tabulate_rows([example_row(model="<script>alert(1)</script>")]), "a & b")
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<caption>a &amp; b</caption>" in text


def test_tables_escape_markdown():
    lines = to_markdown(tabulate_rows([example_row(model="a|b\nc")])).splitlines()
    assert "a\\|b c" in lines[2]
    assert len(lines) == 3
    assert lines[1].count("---") == lines[0].count("|") - 1


def test_tables_csv_has_full_precision():
    rows = example_rows()
    records = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert float(records[1]["delta/test/auroc_macro_low"]) == -0.0015
    assert records[0]["delta/test/auroc_macro"] == ""
    assert float(records[0]["test/auroc_macro"]) == 0.931
    assert records[1]["latency_ms_p99"] == ""
    assert to_csv([]) == "\r\n"


def test_tables_json_is_that_of_the_rows_file():
    rows = example_rows()
    assert rows_from_json(to_json(rows)) == rows
    assert [item["name"] for item in json.loads(to_json(rows))] == ["student-alone", "student-int8"]


def test_tables_show_settings_that_differ():
    rows = [
        example_row(settings={"optim.lr": "0.003", "trainer.max_epochs": "8", "steps.alpha": "0.7"}),
        example_row(settings={"optim.lr": "0.001", "trainer.max_epochs": "8"}),
    ]
    table = tabulate_rows(rows, only_differing=True)
    assert [cells[table.header.index("optim.lr")] for cells in table.cells] == ["0.003", "0.001"]
    assert "trainer.max_epochs" not in table.header
    assert "steps.alpha" not in table.header


def example_beat_row(**changes):
    metrics = {"test/auroc_macro_beat": Estimate(0.97, 0.95, 0.98)}
    return example_row(**({"level": "beat", "metrics": metrics, "n_subjects": 23} | changes))


def test_tables_show_the_macro_auroc_of_the_rows_level():
    table = tabulate_rows([example_beat_row()])
    assert "0.970 [0.950, 0.980]" in table.cells[0]
    assert "test/auroc_macro_beat [95 %]" in table.header
    assert default_metric([example_row()]) == default_metric([]) == "test/auroc_macro"


def test_tables_name_no_metric_for_several_levels():
    rows = [example_beat_row(), example_row(level="window")]
    with pytest.raises(ValueError, match=r"rows of the levels \['beat', 'window'\] have no metric in common"):
        tabulate_rows(rows)
    assert tabulate_rows(rows, metric="test/auroc_macro_beat").cells[1][-5] == "-"


def test_tables_say_once_why_there_is_no_interval():
    few = example_beat_row(n_subjects=5, metrics={"test/auroc_macro_beat": Estimate(0.97)})
    table = tabulate_rows([few, few])
    assert table.cells[0][-5] == "0.970"
    assert table.caption == "no interval: 5 test subjects, fewer than 10 (every row)"
    some = tabulate_rows([few, example_beat_row(name="many")], only_differing=True).caption
    assert some.endswith("; no interval: 5 test subjects, fewer than 10 (student-alone)")
    assert tabulate_rows([example_beat_row()]).caption == ""
