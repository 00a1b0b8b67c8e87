import numpy as np
import pytest

from datamodules.rhythm_rr import load_rr_windows
from tests.rhythm_files import FS, regular_beats, write_beats, write_header_without_signals, write_rhythms


def load(root, **options):
    defaults = {
        "fs": FS,
        "lead_names": ["RR"],
        "class_names": ["other", "AFIB"],
        "length": 10,
        "stride": 10,
        "beat_annotators": ["qrs"],
    }
    return load_rr_windows(root, **{**defaults, **options})


@pytest.fixture
def root(tmp_path):
    """Annotations alone, as of AFDB's 00735."""
    for seed, record in enumerate(("00735", "03665")):
        write_beats(tmp_path, record, regular_beats(60, seed=seed))
        write_rhythms(tmp_path, record, [(10, "N"), (30 * FS, "AFIB")])
        write_header_without_signals(tmp_path, record)
    return tmp_path


def test_rhythm_rr_needs_annotations_only(root):
    windows = load(root)
    beats_s = regular_beats(60) / FS
    np.testing.assert_allclose(windows.signal_mv[0, 0], np.diff(beats_s)[:10], rtol=1e-6)
    assert windows.signal_mv.shape == (14, 1, 10)
    # An interval has the rhythm of the beat that ends it: of the fourth window five of ten, no majority.
    assert (beats_s[31:41] >= 30).sum() == 5
    assert windows.targets[:7, 1].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert windows.record_ids.tolist() == ["00735"] * 7 + ["03665"] * 7
    assert windows.counts["records"] == 2


def test_rhythm_rr_overlapping_windows_are_for_training_only(root):
    windows = load(root, stride=5)
    apart = load(root)
    np.testing.assert_array_equal(windows.signal_mv[~windows.training_only], apart.signal_mv)
    assert windows.training_only.sum() > 10
    assert not apart.training_only.any()


def test_rhythm_rr_digest_depends_on_the_windows(root):
    assert load(root).data_digest == load(root).data_digest
    assert load(root).data_digest != load(root, stride=5).data_digest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fs": 360}, r"record '00735' has fs 250.0 Hz, expected 360 Hz"),
        ({"lead_names": ["ECG1"]}, r"datamodule\.lead_names is \['ECG1'\]"),
        ({"class_names": ["AFIB"]}, r"datamodule\.class_names is \['AFIB'\]"),
        ({"length": 100, "stride": 100}, "no window is left of 2 records"),
    ],
)
def test_rhythm_rr_refuses_what_does_not_fit(root, options, message):
    with pytest.raises(ValueError, match=message):
        load(root, **options)
