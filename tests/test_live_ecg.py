"""A stream decides what the same functions decide about the whole record, however its samples arrive."""

import numpy as np
import pytest

from composition.live_ecg import LiveOptions, choose_leads, decide_stream, decide_whole, open_model
from datamodules.filters import Filters, apply_filters
from datamodules.live_source import LiveSource, LiveSourceError, open_record
from datamodules.rhythm_signal import LeadNotFoundError, read_leads
from datamodules.rpeaks import detect_sleepecg, locate_rpeaks
from deploy.artifact import ArtifactError
from tests.live_models import BEATS, RR, STRETCHES, write_model
from tests.rhythm_files import FS, ecg, regular_beats, write_record

DURATION_S = 100


def chunked(signal, sizes):
    rng, position = np.random.default_rng(0), 0
    while position < signal.shape[1]:
        size = int(rng.integers(*sizes))
        yield signal[:, position : position + size]
        position += size


def make_source(signal, sizes, fs=FS, limits_mv=None):
    return LiveSource("test", fs, ("ECG1",), chunked(signal, sizes), limits_mv)


def make_signal(n_leads=1, duration_s=DURATION_S, fs=FS, seed=0):
    beats = regular_beats(duration_s, fs=fs, seed=seed)
    return ecg(round(duration_s * fs), beats, fs=fs, seed=seed).T[:n_leads].astype(np.float32), beats


def damage(signal):
    """A short hole, a long one, one at the start, a flat and a saturated stretch."""
    signal = signal.copy()
    for first, stop in ((0, 3), (15 * FS, 15 * FS + 10), (40 * FS, 43 * FS), (43 * FS + 100, 43 * FS + 180)):
        signal[:, first:stop] = np.nan
    signal[:, 60 * FS : 61 * FS] = 0.25
    signal[:, 80 * FS : 80 * FS + 20] = 5.0
    return signal


def collect(updates):
    updates = list(updates)
    counts: dict[str, int] = {}
    for update in updates:
        for name, count in update.counts.items():
            counts[name] = counts.get(name, 0) + count
    decisions = [decision for update in updates for decision in update.decisions]
    peaks = np.concatenate([update.rpeaks_s for update in updates])
    missing = sum(stop - start for start, stop in (u.gap_s for u in updates if u.gap_s))
    return decisions, peaks, counts, missing


@pytest.mark.parametrize("sizes", [(1, 40), (200, 3000), (10**6, 10**6 + 1)])
@pytest.mark.parametrize(
    ("windows", "n_samples", "stride"), [(BEATS, 300, None), (RR, 10, 3), (STRETCHES, 500, None), (STRETCHES, 500, 70)]
)
def test_stream_equals_the_whole_record(tmp_path, windows, n_samples, stride, sizes):
    leads = ("RR",) if windows is RR else ("ECG1",)
    model = open_model(write_model(tmp_path / "m.onnx", windows, n_samples=n_samples, leads=leads))
    signal, limits = damage(make_signal()[0]), (np.float32([-5]), np.float32([5]))
    options = LiveOptions(stride=stride)
    whole = collect(decide_whole(signal, FS, model, options, limits))
    stream = collect(decide_stream(make_source(signal, sizes, limits_mv=limits), model, options))
    assert len(whole[0]) > 5
    assert stream[0] == whole[0]
    np.testing.assert_array_equal(stream[1], whole[1])
    assert stream[2] == whole[2]
    assert stream[3] == pytest.approx(whole[3])
    assert stream[3] == pytest.approx(3 / FS + 3 + 80 / FS)


def test_decisions_change_with_the_signal(tmp_path):
    """The equality above can fail."""
    model = open_model(write_model(tmp_path / "m.onnx", BEATS))
    signal = make_signal()[0]
    changed = signal.copy()
    changed[:, 50 * FS :] *= 1.5
    before, after = (collect(decide_whole(each, FS, model, LiveOptions()))[0] for each in (signal, changed))
    assert before != after
    assert before[:40] == after[:40]


def test_every_rpeak_is_decided_or_counted(tmp_path):
    model = open_model(write_model(tmp_path / "m.onnx", BEATS))
    limits = (np.float32([-5]), np.float32([5]))
    decisions, peaks, counts, _ = collect(decide_whole(damage(make_signal()[0]), FS, model, LiveOptions(), limits))
    assert len(decisions) + sum(counts.values()) == len(peaks)
    assert counts["edge"] >= 4  # two whole segments at least
    assert counts["bad_signal"] >= 3  # the bridged hole, the flat and the saturated stretch
    times_s = np.array([decision.time_s for decision in decisions])
    assert not ((times_s > 40) & (times_s < 43)).any()
    assert not ((times_s > 60) & (times_s < 61)).any()


def test_a_pause_rejects_both_its_beats(tmp_path):
    model = open_model(write_model(tmp_path / "m.onnx", BEATS))
    beats = regular_beats(DURATION_S)
    beats = beats[(beats < 50 * FS) | (beats > 60 * FS)]
    signal = ecg(DURATION_S * FS, beats).T[:1].astype(np.float32)
    signal += 0.002 * np.sin(np.arange(signal.shape[1]) / 50, dtype=np.float32)
    decisions, peaks, counts, _ = collect(decide_stream(make_source(signal, (100, 900)), model, LiveOptions()))
    assert len(decisions) + sum(counts.values()) == len(peaks)
    assert counts["gap"] >= 2


def test_stream_finds_the_beats_of_the_training_path(tmp_path):
    """Filters over the whole record and block by block: the same R peaks, the same signal to a microvolt or two."""
    model = open_model(write_model(tmp_path / "m.onnx", BEATS))
    signal, beats = make_signal(duration_s=180)
    _, peaks, _, _ = collect(decide_stream(make_source(signal, (50, 5000)), model, LiveOptions()))
    filtered = apply_filters(signal, FS, Filters())
    offline = locate_rpeaks(filtered[0], detect_sleepecg(filtered[0], FS), FS) / FS
    assert len(offline) > 0.98 * len(beats)
    distance = np.abs(offline[:, None] - peaks).min(axis=1)
    assert (distance <= 0.05).mean() > 0.99
    assert (distance == 0).mean() > 0.95


def test_delay_is_bounded_and_told(tmp_path):
    model = open_model(write_model(tmp_path / "m.onnx", BEATS))
    decisions = collect(decide_stream(make_source(make_signal()[0], (1, 500)), model, LiveOptions(block_s=2)))[0]
    delays = [decision.delay_s for decision in decisions]
    assert min(delays) > 0
    assert max(delays) < 2 + 4.5 + 3  # block, look-ahead, the next beat
    assert max(delays) > min(delays)


def test_windows_of_a_record_are_those_of_the_signal(tmp_path):
    model = open_model(write_model(tmp_path / "m.onnx", STRETCHES, n_samples=1000, level="record"))
    signal = make_signal(duration_s=45)[0]
    decisions, _, counts, _ = collect(decide_stream(make_source(signal, (1, 700)), model, LiveOptions()))
    assert [decision.time_s for decision in decisions] == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40]
    assert counts == {"left_over": 1}
    assert decisions[0].delay_s == 0


def test_another_sampling_frequency_is_refused_or_resampled(tmp_path):
    model = open_model(write_model(tmp_path / "m.onnx", BEATS))
    signal, beats = make_signal(fs=360)
    with pytest.raises(LiveSourceError, match=r"360.* Hz.*resample=true"):
        decide_stream(make_source(signal, (1, 500), fs=360), model, LiveOptions())
    with pytest.raises(LiveSourceError, match="resample the record first"):
        decide_whole(signal, 360, model, LiveOptions(resample=True))
    signal[:, 360 * 50 : 360 * 52] = np.nan
    runs = [
        collect(decide_stream(make_source(signal, sizes, fs=360), model, LiveOptions(resample=True)))
        for sizes in ((1, 500), (4000, 9000))
    ]
    assert runs[0][0] == runs[1][0]
    _, peaks, _, missing = runs[0]
    assert missing == pytest.approx(2, abs=0.01)
    away = beats[(beats < 49 * 360) | (beats > 53 * 360)] / 360
    assert (np.abs(away[:, None] - peaks).min(axis=1) < 0.012).mean() > 0.97


def test_rr_models_take_any_sampling_frequency(tmp_path):
    model = open_model(write_model(tmp_path / "m.onnx", RR, leads=("RR",), n_samples=10))
    signal, beats = make_signal(fs=360)
    decisions = collect(decide_stream(make_source(signal, (1, 900), fs=360), model, LiveOptions()))[0]
    assert abs(len(decisions) - (len(beats) - 1) // 10) <= 1
    assert choose_leads(model.contract, ["II"]) == ("II",)
    with pytest.raises(LiveSourceError, match="in which lead"):
        choose_leads(model.contract, None)


def test_bad_options_are_refused(tmp_path):
    beats = open_model(write_model(tmp_path / "b.onnx", BEATS))
    stretches = open_model(write_model(tmp_path / "s.onnx", STRETCHES))
    signal = make_signal(duration_s=5)[0]

    def decide(model, **options):
        return list(decide_stream(make_source(signal, (1, 500)), model, LiveOptions(**options)))

    for model, options, message in (
        (beats, {"stride": 3}, "every beat"),
        (beats, {"block_s": 0.1}, "block_s is 0.1"),
        (beats, {"thresholds": (0.5, 0.5)}, "do not exclude"),
        (stretches, {"stride": 301}, "expected 1 to 300"),
    ):
        with pytest.raises(ValueError, match=message):
            decide(model, **options)
    with pytest.raises(LiveSourceError, match="names 2 leads"):
        choose_leads(beats.contract, ["I", "II"])


def test_classes_beside_others_get_their_thresholds(tmp_path):
    model = open_model(write_model(tmp_path / "m.onnx", STRETCHES, exclusive=False))
    signal = make_signal(duration_s=30)[0]

    def labels(thresholds):
        updates = decide_stream(make_source(signal, (1, 500)), model, LiveOptions(thresholds=thresholds))
        return {decision.label for decision in collect(updates)[0]}

    assert labels((0.0, 0.0)) == {"other+AFIB"}
    assert labels((1.1, 1.1)) == {"none"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"windows": None}, "does not say 'windows'"),
        ({"windows": {"cut": "spirals"}}, "spirals"),
        ({"windows": {**BEATS, "detector": "mine"}}, "detector 'mine' is unknown"),
        ({"windows": {**BEATS, "filters": {"unheard_of": 1}}}, "unheard_of"),
        ({"mean_mv": "[broken"}, "cannot be read"),
        ({"std_mv": [0.0]}, "positive deviations"),
    ],
)
def test_a_contract_that_cannot_be_kept_is_refused(tmp_path, changes, message):
    path = write_model(tmp_path / "m.onnx", **{"windows": BEATS, **changes})
    with pytest.raises(ArtifactError, match=message):
        open_model(path)


def test_record_source_reads_what_the_training_path_reads(tmp_path):
    write_record(tmp_path, "r1", duration_s=25)
    source = open_record(tmp_path / "r1.hea", ["ECG2"])
    leads = read_leads(tmp_path / "r1", record_id="r1", fs=FS, lead_names=["ECG2"])
    np.testing.assert_array_equal(np.concatenate(list(source.chunks), axis=1), leads.signal_mv)
    assert (source.problems, source.duration_s) == ([], 25)


def test_record_source_tells_what_is_wrong(tmp_path):
    write_record(tmp_path, "r1", duration_s=25)
    with pytest.raises(LeadNotFoundError, match=r"'V9'.*lead_names="):
        open_record(tmp_path / "r1.hea", ["V9"])
    with pytest.raises(FileNotFoundError, match="no such record"):
        open_record(tmp_path / "r2.hea", ["ECG1"])
    raw = (tmp_path / "r1.dat").read_bytes()
    (tmp_path / "r1.dat").write_bytes(raw[: 3 * 12 * FS + 1])
    source = open_record(tmp_path / "r1.hea", ["ECG1"])
    assert np.concatenate(list(source.chunks), axis=1).shape == (1, 12 * FS)
    assert "ends after 12.0 s" in source.problems[0]
    (tmp_path / "r1.dat").write_bytes(raw[:100] + bytes([raw[100] ^ 1]) + raw[101:])
    source = open_record(tmp_path / "r1.hea", ["ECG1", "ECG2"])
    list(source.chunks)
    assert "checksum" in source.problems[0]
    (tmp_path / "r1.dat").unlink()
    with pytest.raises(FileNotFoundError, match=r"r1\.dat"):
        open_record(tmp_path / "r1.hea", ["ECG1"])
