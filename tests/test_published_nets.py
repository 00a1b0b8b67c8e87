"""Published weights become files for streams: once, with their contract, in both precisions; then a heart rate."""

import hashlib

import h5py
import numpy as np
import pytest

from composition import published_nets
from composition.live_models import PRECISIONS, find_published, open_pulse_model, published_path
from composition.published_nets import export_published, simulate_clips
from datamodules.pretrained import Weights, find_weights
from lightning_modules.nets.tscan import TsCan
from lightning_modules.published import OPEN_RPPG


def write_weights(folder, name):
    """Random weights in open-rppg's layout, with a digest of their own."""
    state = TsCan(20, 36, segment=20, edge="repeat").state_dict()
    path = folder / f"tscan_{name}.h5"
    with h5py.File(path, "w") as file:
        for ours, theirs in OPEN_RPPG.layers.items():
            for ending, place in (("weight", "0"), ("bias", "1")):
                array = state[f"{ours}.{ending}"].numpy()
                array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
                file[f"{theirs}/vars/{place}"] = array
    return Weights(path.name, "", hashlib.sha256(path.read_bytes()).hexdigest())


def test_missing_weights_name_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="make weights"):
        find_published(tmp_path, "pure", "int8")
    with pytest.raises(FileNotFoundError, match="make weights"):
        export_published(tmp_path)


def test_calibration_clips_are_finite_faces_in_motion():
    clips = simulate_clips(20, "standardized_difference")
    assert clips.shape[1:] == (20, 6, 36, 36)
    assert np.isfinite(clips).all()
    # Motion is standardised in each frame, appearance is a picture.
    np.testing.assert_allclose(clips[:, :, :3].std(axis=(3, 4)), 1, atol=0.01)
    assert 0.2 < clips[:, :, 3:].mean() < 0.9


@pytest.mark.slow
def test_weights_are_exported_once_with_their_contract(tmp_path, monkeypatch):
    weights = write_weights(tmp_path, "pure")
    monkeypatch.setattr(published_nets, "PUBLISHED", {"pure": weights})
    assert find_weights(tmp_path, weights).is_file()
    paths = [published_path(tmp_path, "pure", precision) for precision in PRECISIONS]
    assert export_published(tmp_path) == paths
    assert export_published(tmp_path) == []
    outputs = []
    for path, precision in zip(paths, PRECISIONS, strict=True):
        model = open_pulse_model(path)
        contract = model.contract
        assert model.precision == precision
        assert (contract.fs, contract.n_frames, contract.image_size) == (30.0, 20, 36)
        assert (contract.input_variant, contract.band_hz) == (OPEN_RPPG.input_variant, (0.75, 2.5))
        outputs.append(model.session(simulate_clips(20, "standardized_difference")[:2]))
    assert np.corrcoef(outputs[0].ravel(), outputs[1].ravel())[0, 1] > 0.95
    paths[1].write_bytes(b"damaged")
    assert export_published(tmp_path) == [paths[1]]
