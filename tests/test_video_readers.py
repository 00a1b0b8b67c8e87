"""UBFC-rPPG, VIPL-HR and VIPL-HR-V2 in their published layouts, whole and damaged."""

import numpy as np
import pytest

from datamodules.synthetic_video import encode_video, write_synthetic_ubfc, write_synthetic_vipl
from datamodules.ubfc import list_ubfc, read_ubfc
from datamodules.vipl import list_vipl, read_vipl
from datamodules.vipl_v2 import list_vipl_v2, read_vipl_v2
from tests.video_trees import draw, write_ubfc_subject, write_vipl_v2_subject


@pytest.fixture(scope="module")
def ubfc(tmp_path_factory):
    return write_synthetic_ubfc(tmp_path_factory.mktemp("ubfc"), n_subjects=3, duration_s=3, workers=1)


@pytest.fixture(scope="module")
def vipl(tmp_path_factory):
    root = tmp_path_factory.mktemp("vipl")
    return write_synthetic_vipl(root, n_subjects=1, duration_s=3, sources=(1, 2, 3, 4), workers=1)


def spoil(rows, row, at, value):
    rows = [np.array(values) for values in rows]
    rows[row][at] = value
    return rows


def test_read_ubfc_reads_both_published_layouts(ubfc):
    records = {record.record_id: record for record in read_ubfc(ubfc)}
    assert list(records) == ["subject1", "2-gt", "subject3"]
    assert [round(record.fps, 1) for record in records.values()] == [30, 28.7, 25]
    for record in records.values():
        frames = list(record.frames())
        assert len(frames) == len(record.times_s) == len(record.bvp) == len(record.hr_bpm)
        assert np.isfinite(record.bvp).all()
        assert abs(record.mean_hr_bpm - record.hr_bpm.mean()) < 1e-6
    # Its own clock of 62 Hz, resampled to the frames.
    beats = np.flatnonzero(np.diff(np.sign(records["2-gt"].bvp - records["2-gt"].bvp.mean())) > 0)
    assert 60 * 28.7 / np.diff(beats).mean() == pytest.approx(records["2-gt"].mean_hr_bpm, rel=0.08)


def test_list_ubfc_finds_the_parts_in_their_folders(ubfc, tmp_path):
    (tmp_path / "DATASET_2").symlink_to(ubfc)
    assert [entry.record_id for entry in list_ubfc(tmp_path).entries] == [
        "DATASET_2/subject1", "DATASET_2/2-gt", "DATASET_2/subject3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("list_set", "name"), [(list_ubfc, "UBFC-rPPG"), (list_vipl, "VIPL-HR"), (list_vipl_v2, "VIPL-HR-V2")]
)
def test_a_missing_data_set_says_where_to_ask_and_how_to_lay_it_out(list_set, name, tmp_path):
    for root in (None, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=rf"datamodule.root.*{name} is not downloaded.*https://.*<root>/"):
            list_set(root)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (lambda *rows: spoil(rows, 2, 20, 0.1), r"time 20 in ground_truth.txt is 0.1 s after .*increase"),
        (lambda *rows: spoil(rows, 0, 7, np.nan), r"wave 7 of 30 in ground_truth.txt is 'nan'"),
        (lambda *rows: spoil(rows, 1, 7, 900), r"heart rate in ground_truth.txt is 900"),
        (lambda *rows: [row[:20] for row in rows], r"video lasts 1.0 s and ground_truth.txt 0.6 s"),
        (lambda *rows: [rows[0], rows[1][:9], rows[2]], r"rows of \[30, 9, 30\] numbers"),
        (lambda *rows: rows[:2], r"expected three rows"),
    ],
)
def test_damaged_ground_truth_is_refused(tmp_path, truth, message):
    write_ubfc_subject(tmp_path, seconds=1, truth=truth)
    with pytest.raises(ValueError, match=rf"'subject1'.*{message}"):
        list(read_ubfc(tmp_path))


def test_a_missing_ground_truth_is_refused(tmp_path):
    (write_ubfc_subject(tmp_path, seconds=1) / "ground_truth.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"'subject1' has a vid.avi and neither"):
        list(read_ubfc(tmp_path))


def test_a_plausible_but_wrong_fps_tag_does_not_fit_the_ground_truth(tmp_path):
    write_ubfc_subject(tmp_path, seconds=1, tag_fps=15.0)
    with pytest.raises(ValueError, match=r"'subject1': the video lasts 1.9 s and .* 1.0 s.*fps tag is wrong"):
        list(read_ubfc(tmp_path))
    assert next(read_ubfc(tmp_path, fps=30)).fps == 30


def test_slightly_short_ground_truth_leaves_the_last_frames_without(tmp_path):
    write_ubfc_subject(tmp_path, seconds=2, truth=lambda *rows: [row[:56] for row in rows])
    record = next(read_ubfc(tmp_path))
    assert np.isfinite(record.bvp[:56]).all()
    assert np.isnan(record.bvp[-2:]).all()
    assert np.isnan(record.hr_bpm[-2:]).all()


def test_zero_heart_rates_are_gaps(tmp_path):
    write_ubfc_subject(tmp_path, seconds=1, truth=lambda *rows: spoil(rows, 1, slice(5, 9), 0))
    assert next(read_ubfc(tmp_path)).hr_bpm.min() > 60


def test_read_vipl_reads_uneven_missing_and_infrared(vipl):
    records = {record.record_id: record for record in read_vipl(vipl, sources=(1, 2, 3, 4))}
    assert list(records) == [f"p1/v1/source{source}" for source in (1, 2, 3, 4)]
    assert {record.subject_id for record in records.values()} == {"p1"}
    one, two, _, four = records.values()
    assert one.fps == pytest.approx(25, rel=0.02)
    assert one.notes == ("variable_frame_rate",)
    assert two.notes == ("no_times",)
    np.testing.assert_allclose(two.times_s, np.arange(90) / 30)
    assert four.infrared
    assert not one.infrared
    assert np.isfinite(one.bvp).all()
    assert b"\r\n" in (vipl / "data/p1/v1/source1/gt_HR.csv").read_bytes()


def test_list_vipl_leaves_infrared_out_unless_asked_for(vipl):
    listing = list_vipl(vipl)
    assert listing.counts == {"listed": 4, "other_cameras": 1}
    assert [entry.record_id[-1] for entry in listing.entries] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gt_HR.csv", "Rate\r\n70\r\n", "begins with"),
        ("gt_HR.csv", "HR\r\n", "has no HR"),
        ("gt_HR.csv", "HR\r\n70\r\n", "the video lasts"),
        ("wave.csv", "Wave\r\n1\r\nx\r\n", "is no number"),
        ("time.txt", "0\r\n33\r\n", "has 75 frames and time.txt 2 times"),
    ],
)
def test_damaged_vipl_files_are_refused(vipl, tmp_path, name, text, message):
    source = vipl / "data/p1/v1/source1"
    place = tmp_path / "data/p1/v1/source1"
    place.mkdir(parents=True)
    for path in source.iterdir():
        (place / path.name).write_bytes(text.encode() if path.name == name else path.read_bytes())
    with pytest.raises(ValueError, match=rf"'p1/v1/source1'.*{message}"):
        list(read_vipl(tmp_path))


def test_vipl_without_a_wave_has_rates_only(vipl, tmp_path):
    place = tmp_path / "data/p1/v1/source2"
    place.mkdir(parents=True)
    for path in (vipl / "data/p1/v1/source2").iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    (place / "wave.csv").unlink()
    record = next(read_vipl(tmp_path))
    assert record.bvp is None
    assert record.notes == ("no_times", "no_wave")
    (place / "gt_HR.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"gt_HR.csv"):
        list(read_vipl(tmp_path))


def test_read_vipl_v2_takes_the_fps_of_the_table(tmp_path):
    write_vipl_v2_subject(tmp_path)
    records = list(read_vipl_v2(tmp_path))
    assert [record.record_id for record in records] == ["1/video1", "1/video2"]
    assert [record.fps for record in records] == [26.3, 21.9]
    assert [record.mean_hr_bpm for record in records] == [100.4, 103.6]
    assert records[1].times_s[-1] == pytest.approx((len(records[1].times_s) - 1) / 21.9)
    assert records[0].bvp is None
    assert records[0].hr_bpm is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",video1\nHeart rate,90\nfps_mean,25\n", "expected one named 'video2'"),
        (",video1,video2\nHeart rate,90,x\nfps_mean,25,25\n", "is no number"),
        (",video1,video2\nHeart rate,90,90\n", "has no 'fps_mean'"),
        (",video1,video2\nHeart rate,90,90\nfps_mean,25,0\n", "0 frames per second"),
        (",video1,video2\nHeart rate,90,9\nfps_mean,25,25\n", "is 9, expected"),
    ],
)
def test_damaged_vipl_v2_tables_are_refused(tmp_path, text, message):
    folder = tmp_path / "7"
    folder.mkdir()
    encode_video(folder / "video2.mp4.avi", draw(0.5)[3], 30.0)
    (folder / "gt.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"'7/video2'.*{message}"):
        list(read_vipl_v2(tmp_path))
