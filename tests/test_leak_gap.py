from tracking.leak_gap import tabulate_figures, tabulate_leak_gap
from tracking.rows import Estimate, Row


def make_row(dataset="afdb_inter", *, f1=0.8, model="resnet15", **options):
    options = {"level": "beat", "data": "synthetic", "data_digest": "d", "n_subjects": 5, "seed": 0, **options}
    metrics = {"test/f1_weighted_beat": Estimate(f1), "test/auroc_macro_beat": Estimate(f1 + 0.1)}
    return Row(
        role="student",
        name=f"student {model}",
        model=model,
        recipe="none",
        runtime="onnxruntime",
        precision="float32",
        dataset=dataset,
        metrics={**metrics, **options.pop("metrics", {})},
        **options,
    )


def test_leak_gap_is_leaky_minus_honest_of_the_same_model():
    rows = [
        make_row(),
        make_row("afdb_intra", f1=0.95, leaky=True),
        make_row(model="resnet21", f1=0.7),
        make_row("afdb_intra", f1=0.8, model="resnet21", leaky=True),
    ]
    table = tabulate_leak_gap(rows)
    column = table.header.index("gap in test/f1_weighted_beat")
    assert [cells[column] for cells in table.cells] == ["+0.1500", "+0.1000"]
    assert "no pairs" in table.caption


def test_leak_gap_needs_the_same_windows_and_the_same_seed():
    honest = make_row()
    assert not tabulate_leak_gap([honest, make_row("afdb_intra", leaky=True, data_digest="other")]).cells
    assert not tabulate_leak_gap([honest, make_row("afdb_intra", leaky=True, seed=1)]).cells


def test_leak_gap_is_not_taken_against_a_cross_validation():
    pooled = make_row("afdb_cv", folds=[{"fold": 0}])
    assert not tabulate_leak_gap([pooled, make_row("afdb_intra", leaky=True)]).cells


def test_figures_show_interval_and_spread_over_folds():
    spread = {"folds/f1_weighted_beat_mean": Estimate(0.81), "folds/f1_weighted_beat_std": Estimate(0.05)}
    own = {"test/f1_weighted_beat": Estimate(0.8, 0.7, 0.9), **spread}
    table = tabulate_figures([make_row("afdb_cv", metrics=own), make_row("afdb_intra", leaky=True)])
    column = table.header.index("test/f1_weighted_beat")
    assert [cells[column] for cells in table.cells] == ["0.800 [0.700, 0.900]; folds 0.810 +- 0.050", "0.800"]
    assert [cells[2] for cells in table.cells] == ["-", "leaky"]


def test_figures_of_several_levels_share_no_column():
    table = tabulate_figures([make_row(), make_row(level="window")])
    assert not any(name.startswith("test/") for name in table.header)
