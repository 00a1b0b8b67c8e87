"""The data module of face videos, from files to batches, on small valid trees and on refused ones."""

from functools import partial

import numpy as np
import pytest

from datamodules import video_crops
from datamodules.face_detectors import load_cascade
from datamodules.faces import FaceStage
from datamodules.leakage import LeakageError
from datamodules.splits import split_windows
from datamodules.ubfc import list_ubfc
from datamodules.video import VideoDataModule
from datamodules.vipl_v2 import list_vipl_v2
from tests.video_trees import CASCADE, fake_stage, write_ubfc_subject, write_vipl_v2_subject


def split_in_order(subject_ids, targets):
    """The last person is test, the one before validation."""
    *others, val, test = np.unique(subject_ids)
    assert targets.shape[1] > 1
    sides = {"train": others, "val": [val], "test": [test]}
    return {side: np.flatnonzero(np.isin(subject_ids, persons)) for side, persons in sides.items()}


def make_module(root, **changes):
    options = {
        "source": list_ubfc,
        "name": "ubfc",
        "kind": None,
        "root": root,
        "split": split_in_order,
        "faces": CASCADE,
        "fs": 30,
        "n_frames": 40,
        "image_size": 36,
        "batch_size": 2,
        "seed": 0,
    }
    return VideoDataModule(**{**options, **changes})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("ubfc")
    for number, (fps, hr_bpm) in enumerate([(30, 60), (30, 84), (25, 100), (30, 66)], start=1):
        write_ubfc_subject(root, f"subject{number}", seconds=3.5, fps=fps, hr_bpm=hr_bpm, seed=number)
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def module(root, cache):
    module = make_module(root, cache_dir=cache)
    module.setup()
    return module


@pytest.fixture
def one(tmp_path):
    """Write one person who is not as wanted; return the refusal of a test on it."""

    def refuse(stage=CASCADE, n_frames=40, **options):
        write_ubfc_subject(tmp_path, "subject9", **options)
        module = make_module(
            None, source=None, test_source=list_ubfc, test_root=tmp_path, faces=stage, n_frames=n_frames
        )
        with pytest.raises(ValueError, match="'subject9'") as caught:
            module.setup()
        return str(caught.value)

    return refuse


def test_setup_gives_clips_of_every_side_by_person(module):
    assert (module.kind, module.level, module.fs, module.n_frames) == ("real", "clip", 30, 40)
    assert sorted(np.concatenate(list(module.splits.values()))) == list(range(8))
    sides = [set(module.subject_ids(split)) for split in module.splits]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 4
    assert module.counts["records"] == 4
    assert module.counts["clips"] == 8
    for digest in (module.data_digest, module.split_digest, module.preprocessing_digest):
        assert len(digest) == 64


def test_windows_targets_and_ids_belong_together(module):
    for split in module.splits:
        n = len(module.splits[split])
        assert module.windows(split).shape == (n, 40, 6, 36, 36)
        assert module.windows(split).dtype == np.float32
        assert module.targets(split).shape == (n, 40)
        assert len(module.record_ids(split)) == len(module.times_s(split)) == len(module.hr(split)) == n
        assert set(module.record_ids(split)) == set(module.traces(split)) == set(module.video_hr(split))
        by_video = module.video_hr(split)
        rates = [by_video[record] for record in module.record_ids(split)]
        np.testing.assert_allclose(module.hr(split), rates, atol=4)
    assert sorted(module.times_s("train").round(2).tolist()) == [0.0, 0.0, 1.33, 1.33]
    np.testing.assert_allclose(module.targets("test").mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(module.targets("test").std(axis=1), 1, atol=1e-5)


def test_the_pulse_survives_from_file_to_target(module):
    """The mean green of the skin over the frames goes with the pulse that the target is the derivative of."""
    for split in module.splits:
        for trace in module.traces(split).values():
            assert trace["rgb"].shape == (len(trace["times_s"]), 3)
        first = module.windows(split)[0]
        motion = first[:, 1, 10:26, 10:26].mean(axis=(1, 2))
        # Without the noise of single frames.
        smooth = [np.convolve(wave, np.ones(5) / 5, "valid") for wave in (motion, module.targets(split)[0])]
        assert np.corrcoef(smooth)[0, 1] > 0.7, split


def test_crops_are_those_of_one_video(module):
    record = module.record_ids("test")[0]
    crops = module.crops("test", record)
    assert crops.shape == (105, 36, 36, 3) or crops.shape == (88, 36, 36, 3)
    assert 0 < crops.min() < crops.max() <= 1
    with pytest.raises(ValueError, match="'nobody' is not in the split 'test'"):
        module.crops("test", "nobody")


def test_batches_hold_input_target_and_position(module):
    clips, targets, positions = next(iter(module.train_dataloader()))
    assert clips.shape == (2, 40, 6, 36, 36)
    where = {position: row for row, position in enumerate(module.splits["train"])}
    rows = [where[int(position)] for position in positions]
    np.testing.assert_array_equal(targets.numpy(), module.targets("train")[rows])
    np.testing.assert_array_equal(clips.numpy(), module.windows("train", positions.numpy()))
    assert sum(len(batch[2]) for batch in module.test_dataloader()) == len(module.splits["test"])


def test_windows_of_another_split_are_refused(module):
    with pytest.raises(ValueError, match="are not in the split 'test'"):
        module.windows("test", module.splits["train"])
    with pytest.raises(ValueError, match="'other' does not exist"):
        module.windows("other")
    with pytest.raises(RuntimeError, match="call setup"):
        make_module(None).windows("test")


def test_calibration_comes_from_training_only(module):
    positions, clips = module.calibration(3, seed=0)
    assert set(positions) <= set(module.splits["train"])
    assert clips.shape == (3, 40, 6, 36, 36)
    with pytest.raises(ValueError, match="at least 1"):
        module.calibration(0, seed=0)


def test_the_cache_is_used_holds_crops_only_and_says_so(root, cache, module, monkeypatch):
    monkeypatch.setattr(video_crops, "track_faces", None)
    again = make_module(root, cache_dir=cache)
    again.setup()
    assert again.data_digest == module.data_digest
    folders = [path for path in (cache / "faces").iterdir() if path.is_dir()]
    assert len(folders) == 4
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {"crops.npy", "arrays.npz", "meta.json", "README.txt"}
        assert np.load(folder / "crops.npy").shape[1:] == (36, 36, 3)
        assert "personal data" in (folder / "README.txt").read_text()


def test_without_a_cache_nothing_is_written_and_all_is_equal(root, module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = make_module(root)
    plain.setup()
    assert not list(tmp_path.iterdir())
    assert plain.data_digest == module.data_digest
    np.testing.assert_array_equal(plain.windows("test"), module.windows("test"))


def test_other_settings_give_other_digests(root, cache, module):
    other = make_module(root, cache_dir=cache, input_variant="standardized_difference")
    other.setup()
    assert other.data_digest == module.data_digest
    assert other.preprocessing_digest != module.preprocessing_digest


def test_another_data_set_is_tested_on(root, cache, tmp_path):
    write_vipl_v2_subject(tmp_path)
    module = make_module(root, cache_dir=cache, test_source=list_vipl_v2, test_root=tmp_path)
    module.setup()
    assert set(module.record_ids("test")) == {"test/1/video1", "test/1/video2"}
    assert len(set(module.subject_ids("train")) | set(module.subject_ids("val"))) == 4
    np.testing.assert_allclose(sorted(set(module.hr("test"))), [100.4, 103.6])
    assert np.isnan(module.targets("test")).all()


def test_a_data_set_may_be_tested_on_alone(root, cache):
    module = make_module(None, source=None, test_source=list_ubfc, test_root=root, cache_dir=cache)
    module.setup()
    assert len(module.splits["test"]) == 8
    assert "subject1" in module.record_ids("test")
    with pytest.raises(ValueError, match=r"no training windows.*datamodule\.source"):
        module.calibration(1, seed=0)


def test_videos_without_a_wave_are_not_trained_on(tmp_path):
    for name in "123":
        write_vipl_v2_subject(tmp_path, name)
    with pytest.raises(ValueError, match=r"has no wave to train on.*datamodule\.test_source"):
        make_module(tmp_path, source=list_vipl_v2, faces=fake_stage()).setup()


def test_an_empty_side_is_refused(root, cache):
    def split(subject_ids, targets):
        sides = split_in_order(subject_ids, targets)
        return {**sides, "val": sides["val"][:0], "train": np.union1d(sides["train"], sides["val"])}

    with pytest.raises(ValueError, match=r"'val' of 4 persons is empty.*datamodule\.split\.val_share"):
        make_module(root, cache_dir=cache, split=split).setup()


def test_a_person_on_two_sides_is_refused(root, cache):
    with pytest.raises(LeakageError, match="record on both sides"):
        make_module(root, cache_dir=cache, split=partial(split_windows, test_share=0.4, val_share=0.4)).setup()


def test_the_same_videos_to_train_and_to_test_are_refused(root, cache):
    with pytest.raises(LeakageError, match="signal with hash"):
        make_module(root, cache_dir=cache, test_source=list_ubfc, test_root=root).setup()


def test_a_video_without_a_face_is_refused(one):
    assert "shows no face, at most 20%" in one(faces=0, seconds=2)


def test_a_video_whose_face_leaves_is_refused(one):
    assert "shows no face in" in one(leaves_s=1.0, seconds=3)


def test_two_faces_are_counted_and_logged(tmp_path, caplog):
    write_ubfc_subject(tmp_path, "subject9", faces=2, seconds=2)
    module = make_module(None, source=None, test_source=list_ubfc, test_root=tmp_path)
    with caplog.at_level("INFO"):
        module.setup()
    assert module.counts["several_faces"] == 1
    assert "subject9" in caplog.text
    assert "2 faces" in caplog.text


def test_a_grey_video_is_refused(one):
    assert "has no colour" in one(fake_stage(), infrared=True, seconds=2)


def test_a_video_shorter_than_a_clip_is_refused(one):
    message = one(fake_stage(), seconds=1.2)
    assert "36 frames at 30 per second: a clip takes 41 (datamodule.n_frames=40)" in message


def test_a_flat_wave_gives_no_clip(one):
    message = one(fake_stage(), seconds=2, truth=lambda wave, rate, times_s: (0 * wave, rate, times_s))
    assert "has no clip of 40 frames" in message


def test_bad_records_may_be_skipped_and_are_counted(root, cache, tmp_path):
    for path in root.iterdir():
        (tmp_path / path.name).symlink_to(path)
    write_ubfc_subject(tmp_path, "subject5", faces=0, seconds=2)
    (write_ubfc_subject(tmp_path, "subject6", seconds=1) / "vid.avi").write_bytes(b"cut")
    module = make_module(tmp_path, cache_dir=cache, bad_records="skip")
    module.setup()
    assert module.counts["skipped"] == 2
    assert module.counts["records"] == 4


def test_clips_of_a_short_gap_are_dropped_and_counted(tmp_path):
    calls = iter(range(999))

    def detect(frame):
        # Missing for 25 frames from the second on: longer than what is bridged.
        gone = 30 <= next(calls) < 55
        return np.empty((0, 4)) if gone else np.array([[40.0, 20.0, 120.0, 100.0]])

    write_ubfc_subject(tmp_path, seconds=6)
    stage = fake_stage(detect, detect_every=1, max_gap=5)
    module = make_module(None, source=None, test_source=list_ubfc, test_root=tmp_path, faces=stage)
    module.setup()
    assert module.counts["clips_without_face_or_truth"] == 2
    np.testing.assert_allclose(module.times_s("test"), [80 / 30, 120 / 30])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_frames": 0}, r"n_frames is 0"),
        ({"image_size": 64}, r"image_size is 64"),
        ({"input_variant": "raw"}, r"input_variant is 'raw'"),
        ({"source": None}, r"are both null"),
        ({"leaky": True}, r"leaky is True"),
        ({"level": "beat"}, r"level is 'beat'"),
    ],
)
def test_impossible_options_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        make_module(None, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "synthetic"}, r"kind is 'synthetic', but the videos of datamodule\.root are 'real'"),
        ({"batch_size": 99}, r"batch_size is 99.*only 4 windows"),
        ({"bad_records": "hide"}, r"bad_records is 'hide'"),
    ],
)
def test_options_that_do_not_fit_the_data_are_refused(root, cache, change, message):
    with pytest.raises(ValueError, match=message):
        make_module(root, cache_dir=cache, **change).setup()


def test_a_damaged_cache_says_what_to_delete(root, tmp_path):
    stage = FaceStage(load_cascade, enlarge=1.0)
    entry = list_ubfc(root).entries[0]
    video_crops.load_record(entry, stage, 36, tmp_path)
    (folder,) = (path for path in (tmp_path / "faces").iterdir() if path.is_dir())
    (folder / "meta.json").write_text("{")
    with pytest.raises(RuntimeError, match=r"is damaged.*delete it"):
        video_crops.load_record(entry, stage, 36, tmp_path)
