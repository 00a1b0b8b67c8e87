"""Published weights into the net: three layouts written here in miniature, and files that must be refused."""

import os
import pickle
import zipfile

import h5py
import numpy as np
import pytest
import torch

from lightning_modules import import_weights as importing
from lightning_modules.import_weights import import_weights, load_published
from lightning_modules.nets.tscan import TsCan
from lightning_modules.published import MTTS_CAN, OPEN_RPPG, RPPG_TOOLBOX

# How TensorFlow names layers when a process has made nine convolutions and a dense layer before.
TENSORFLOW = {
    **{f"conv2d[{rank}]": f"conv2d_{9 + rank}" for rank in range(10)},
    "dense[0]": "dense_1",
    "dense[1]": "dense_2",
}


def make_net(published, image_size=36) -> TsCan:
    torch.manual_seed(0)
    return TsCan(published.segment, image_size, published.segment, published.edge, tasks=published.tasks).eval()


def keras_arrays(net: TsCan, published) -> dict[str, np.ndarray]:
    """Kernels and biases as Keras keeps them, by the source's layer and kind."""
    arrays = {}
    for ours, theirs in published.layers.items():
        kernel = net.get_parameter(f"{ours}.weight").detach().numpy()
        if kernel.ndim == 4:
            kernel = np.moveaxis(kernel, (0, 1), (3, 2))
        else:
            if ours.endswith("hidden"):
                side = net.last_side
                # Row by row, so that the test does not permute as the importer does.
                rows = kernel.reshape(len(kernel), -1, side, side)
                kernel = np.stack(
                    [np.stack([row[:, y, x] for y in range(side) for x in range(side)]).ravel() for row in rows]
                )
            kernel = kernel.T
        arrays[f"{theirs}/kernel"] = kernel
        arrays[f"{theirs}/bias"] = net.get_parameter(f"{ours}.bias").detach().numpy()
    return arrays


def write_open_rppg(path, net, dtype=np.float16, **changes):
    with h5py.File(path, "w") as file:
        for name, array in {**keras_arrays(net, OPEN_RPPG), **changes}.items():
            if array is not None:
                layer, _, kind = name.rpartition("/")
                file[f"{layer}/vars/{0 if kind == 'kernel' else 1}"] = array.astype(dtype)
        file.create_group("inner/d1/layers/tsm/vars")
    return path


def write_mtts(path, net, top="", **changes):
    with h5py.File(path, "w") as file:
        for name, array in {**keras_arrays(net, MTTS_CAN), **changes}.items():
            layer, _, kind = name.rpartition("/")
            own = TENSORFLOW.get(layer, layer)
            file[f"{top}{own}/{own}/{kind}:0"] = array
        file.create_group(f"{top}tsm_4")
        file["optimizer_weights/iterations:0"] = np.int64(3)
    return path


def write_toolbox(path, net, prefix="module.", **changes):
    state = {
        f"{prefix}{RPPG_TOOLBOX.layers[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value
        for name, value in net.state_dict().items()
    }
    torch.save({**state, **changes}, path)
    return path


def same(net, other, atol=0.0):
    for (name, value), found in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(found, value, rtol=0, atol=atol, msg=name)


def test_import_reads_open_rppg(tmp_path):
    net = make_net(OPEN_RPPG)
    found, published = load_published(write_open_rppg(tmp_path / "w.h5", net), n_frames=160)
    same(net, found, atol=1e-3)
    assert (published.input_variant, found.segment, found.edge) == ("standardized_difference", 20, "repeat")
    assert sum(value.numel() for value in found.parameters()) == 532_899


@pytest.mark.parametrize("top", ["", "model_weights/"])
def test_import_reads_mtts_can(tmp_path, top):
    net = make_net(MTTS_CAN)
    found, published = load_published(write_mtts(tmp_path / "w.hdf5", net, top), n_frames=10)
    same(net, found)
    assert (published.input_variant, found.tasks) == ("normalized_difference", ("bvp", "resp"))


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize("image_size", [36, 72])
def test_import_reads_rppg_toolbox(tmp_path, prefix, image_size):
    net = make_net(RPPG_TOOLBOX, image_size)
    found, published = load_published(write_toolbox(tmp_path / "w.pth", net, prefix), 20, image_size)
    same(net, found)
    assert published is RPPG_TOOLBOX


def test_import_leaves_the_net_as_it_was_when_it_fails(tmp_path):
    net, before = make_net(OPEN_RPPG), make_net(OPEN_RPPG)
    broken = write_open_rppg(tmp_path / "w.h5", net, **{"inner/d/layers/dense_1/bias": np.full(1, np.nan)})
    for value in net.parameters():
        torch.nn.init.zeros_(value)
    with pytest.raises(ValueError, match="not finite"):
        import_weights(net, broken)
    assert all((value == 0).all() for value in net.parameters())
    assert import_weights(net, write_open_rppg(tmp_path / "w.h5", before)) is OPEN_RPPG
    same(before, net, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"inner/d2/layers/conv2d/kernel": None},
            "no 'inner/d2/layers/conv2d/kernel', which becomes 'second.motion_same.weight'",
        ),
        ({"inner/d3/layers/conv2d/kernel": np.zeros((3, 3, 1, 1))}, "'inner/d3/layers/conv2d/kernel' is no layer"),
        (
            {"inner/d1/layers/conv2d/kernel": np.zeros((3, 3, 3, 16))},
            r"\(3, 3, 3, 16\), the net expects \(3, 3, 3, 32\)",
        ),
        ({"inner/d/layers/dense/kernel": np.zeros((16384, 128))}, r"\(16384, 128\).*not for image_size=36"),
        (
            {"inner/g1/layers/conv2d/bias": np.full(32, np.inf)},
            "'inner/g1/layers/conv2d/bias' holds values that are not",
        ),
    ],
)
def test_import_checks_every_parameter_of_an_h5(tmp_path, changes, message):
    path = write_open_rppg(tmp_path / "w.h5", make_net(OPEN_RPPG), **changes)
    with pytest.raises(ValueError, match=message):
        load_published(path, 160)


def test_import_names_missing_and_extra_parameters_of_a_state_dict(tmp_path):
    net = make_net(RPPG_TOOLBOX)
    extra = write_toolbox(tmp_path / "extra.pth", net, **{"module.motion_conv5.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="'motion_conv5/kernel' is no layer of this net"):
        load_published(extra, 10)
    twice = write_toolbox(tmp_path / "twice.pth", net, **{"motion_conv1.bias": torch.zeros(32)})
    with pytest.raises(ValueError, match=r"twice, with and without 'module\.'"):
        load_published(twice, 10)
    state = torch.load(write_toolbox(tmp_path / "w.pth", net), weights_only=True)
    del state["module.apperance_conv3.bias"]
    torch.save(state, tmp_path / "missing.pth")
    with pytest.raises(ValueError, match=r"no 'apperance_conv3/bias', which becomes 'second\.appearance_same\.bias'"):
        load_published(tmp_path / "missing.pth", 10)
    with pytest.raises(ValueError, match=r"\(128, 3136\), the net expects \(128, 16384\).*not for image_size=72"):
        load_published(tmp_path / "w.pth", 10, image_size=72)


def test_import_wants_a_net_that_is_set_up_for_the_source(tmp_path):
    path = write_toolbox(tmp_path / "w.pth", make_net(RPPG_TOOLBOX))
    with pytest.raises(ValueError, match="rPPG-Toolbox need segment=10, the net has 20"):
        import_weights(make_net(OPEN_RPPG), path)


class Trap:
    """What unpickling would run."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


def test_import_runs_no_code_of_a_pth(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"module.motion_conv1.weight": Trap()}, tmp_path / "new.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Trap()))
    for name in ("new.pth", "old.pth"):
        with pytest.raises(ValueError, match="could run code"):
            load_published(tmp_path / name, 10)
    assert not (tmp_path / "trapped").exists()


def test_import_refuses_links_out_of_an_h5(tmp_path):
    net = make_net(OPEN_RPPG)
    write_open_rppg(tmp_path / "other.h5", net)
    for link in (h5py.ExternalLink("other.h5", "/inner"), h5py.SoftLink("/inner/g1")):
        with h5py.File(write_open_rppg(tmp_path / "w.h5", net), "a") as file:
            file["inner/extra"] = link
        with pytest.raises(ValueError, match="'inner/extra' is a link"):
            load_published(tmp_path / "w.h5", 160)


def test_import_refuses_arrays_that_lie_elsewhere(tmp_path):
    (tmp_path / "secret.bin").write_bytes(b"x" * 128)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("inner/d/vars/0", (32,), "f4", external=[("secret.bin", 0, 128)])
    with pytest.raises(ValueError, match="lies in another file"):
        load_published(tmp_path / "w.h5", 160)
    layout = h5py.VirtualLayout((32,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (32,))
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_virtual_dataset("inner/d/vars/0", layout)
    with pytest.raises(ValueError, match="lies in another file"):
        load_published(tmp_path / "w.h5", 160)


def test_import_refuses_arrays_of_objects_and_claims_beyond_reason(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["inner/d/vars/0"] = ["text"]
    with pytest.raises(ValueError, match="has the type object, expected floats"):
        load_published(tmp_path / "w.h5", 160)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("inner/d/vars/0", (10**6, 10**6), "f4", chunks=(10, 10), compression="gzip")
    with pytest.raises(ValueError, match=r"shape \(1000000, 1000000\)"):
        load_published(tmp_path / "w.h5", 160)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        group = file.create_group("inner")
        group["loop"] = group
    with pytest.raises(ValueError, match="deeper than any layer"):
        load_published(tmp_path / "w.h5", 160)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for number in range(importing.MAX_NODES + 1):
            file.create_group(f"inner{number}")
    with pytest.raises(ValueError, match="hold more than 1000 items"):
        load_published(tmp_path / "w.h5", 160)


def test_import_refuses_files_that_are_too_large(tmp_path, monkeypatch):
    path = write_toolbox(tmp_path / "w.pth", make_net(RPPG_TOOLBOX))
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(3_000_000))
    monkeypatch.setattr(importing, "MAX_BYTES", 1_000_000)
    with pytest.raises(ValueError, match="more than 1000000: no TS-CAN"):
        load_published(path, 10)
    with pytest.raises(ValueError, match="unpack to more than 1000000 bytes"):
        load_published(tmp_path / "bomb.pth", 10)


def test_import_names_a_damaged_or_foreign_file(tmp_path):
    net = make_net(RPPG_TOOLBOX)
    whole = write_open_rppg(tmp_path / "whole.h5", net).read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("no weights")
    whole = write_toolbox(tmp_path / "whole.pth", net).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    for name in ("cut.h5", "text.h5", "cut.pth"):
        with pytest.raises(ValueError, match="damaged"):
            load_published(tmp_path / name, 10)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="no state dict of floats"):
        load_published(tmp_path / "list.pth", 10)
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["lstm/kernel:0"] = np.zeros(3)
    with pytest.raises(ValueError, match="none of the layers of open-rppg or MTTS-CAN"):
        load_published(tmp_path / "foreign.h5", 10)
    (tmp_path / "w.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"ending '\.npz', expected"):
        load_published(tmp_path / "w.npz", 10)
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_published(tmp_path / "none.h5", 10)
