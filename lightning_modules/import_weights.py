"""Published weights of TS-CAN -> the net: Keras h5 files and PyTorch state dicts, read as data and never as code."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.nets.tscan import TsCan
from lightning_modules.published import MTTS_CAN, OPEN_RPPG, RPPG_TOOLBOX, Published

# A net for 96 pixels and two tasks takes 33 MB in float32, 66 in float64; optimizer states may come on top.
MAX_BYTES = 256 * 2**20
MAX_NODES = 1000
MAX_DEPTH = 12

Array = NDArray[np.float32]
Arrays = Mapping[str, Array]


def load_published(path: str | Path, n_frames: int, image_size: int = 36) -> tuple[TsCan, Published]:
    """Build the net that published weights ask for, and fill it.

    Parameters
    ----------
    path : str or Path
        ``.h5`` or ``.hdf5`` of Keras, ``.pth`` or ``.pt`` of rPPG-Toolbox.
    n_frames : int
        Frames of the clips that it will see.
    image_size : int, default 36
        Side of a frame in pixels that the weights were trained for.

    Returns
    -------
    net : TsCan
        In evaluation mode.
    published : Published
        What the clips must hold, among others.

    Raises
    ------
    FileNotFoundError, ValueError
        As `import_weights`.
    """
    published, arrays = _read(Path(path))
    net = TsCan(n_frames, image_size, published.segment, published.edge, tasks=published.tasks)
    _fill(net, arrays, published, Path(path))
    return net.eval(), published


def import_weights(net: TsCan, path: str | Path) -> Published:
    """Fill a net with published weights, each parameter checked by name and shape.

    Parameters
    ----------
    net : TsCan
        Of the source's segment, edge rule and tasks.
    path : str or Path

    Returns
    -------
    Published
        The source that the file comes from.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not of a known layout, damaged, too large, holds code or links; if a parameter is missing, is
        one too many, is not finite or has another shape; if the net is set up differently. The net is left as it was.
    """
    path = Path(path)
    published, arrays = _read(path)
    for key in ("segment", "edge", "tasks"):
        ours, theirs = getattr(net, key), getattr(published, key)
        if ours != theirs:
            raise ValueError(f"weights {str(path)!r} of {published.name} need {key}={theirs!r}, the net has {ours!r}")
    _fill(net, arrays, published, path)
    return published


def _read(path: Path) -> tuple[Published, Arrays]:
    """Give the source of a file and its parameters, by layer and "kernel" or "bias"."""
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {str(path)!r}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"weights {str(path)!r} take {path.stat().st_size} bytes, more than {MAX_BYTES}: no TS-CAN")
    if path.suffix in (".h5", ".hdf5"):
        return _name_keras(_read_h5(path), path)
    if path.suffix in (".pth", ".pt"):
        return RPPG_TOOLBOX, _name_torch(_read_state(path), path)
    raise ValueError(f"weights {str(path)!r}: ending {path.suffix!r}, expected .h5, .hdf5, .pth or .pt")


def _read_h5(path: Path) -> dict[str, Array]:
    try:
        import h5py
    except ImportError:
        raise ImportError(f"reading {str(path)!r} needs h5py: pip install h5py") from None
    try:
        with h5py.File(path, "r") as file:
            return {name: _read_dataset(item, name, path) for name, item in _walk(file, h5py, "", path, [0])}
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"weights {str(path)!r} are damaged or no HDF5 file: {error}") from None


def _walk(group: Any, h5py: Any, prefix: str, path: Path, seen: list[int]) -> Iterator[tuple[str, Any]]:
    """Yield the data sets below a group, without leaving the file."""
    if prefix.count("/") > MAX_DEPTH:
        raise ValueError(f"weights {str(path)!r}: {prefix!r} lies deeper than any layer")
    for name in group:
        seen[0] += 1
        if seen[0] > MAX_NODES:
            raise ValueError(f"weights {str(path)!r} hold more than {MAX_NODES} items: no TS-CAN")
        own = f"{prefix}{name}"
        if own == "optimizer_weights":
            continue
        # An external link would open another file, a soft one may point anywhere.
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"weights {str(path)!r}: {own!r} is a link, expected plain arrays")
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _walk(item, h5py, f"{own}/", path, seen)
        elif isinstance(item, h5py.Dataset):
            yield own, item
        else:
            raise ValueError(f"weights {str(path)!r}: {own!r} is no array")


def _read_dataset(item: Any, name: str, path: Path) -> Array:
    if item.dtype.kind != "f":
        raise ValueError(f"weights {str(path)!r}: {name!r} has the type {item.dtype}, expected floats")
    if item.external or item.is_virtual:
        raise ValueError(f"weights {str(path)!r}: {name!r} lies in another file, expected plain arrays")
    # The shape is only a claim: a few bytes can announce, or unpack to, more than the memory.
    if item.ndim > 4 or item.size * item.dtype.itemsize > MAX_BYTES:
        raise ValueError(f"weights {str(path)!r}: {name!r} has the shape {item.shape}: no layer of TS-CAN")
    return np.asarray(item[()], dtype=np.float32)


def _name_keras(arrays: Arrays, path: Path) -> tuple[Published, Arrays]:
    if any(name.startswith("inner/") for name in arrays):
        kinds = {"vars/0": "kernel", "vars/1": "bias"}
        return OPEN_RPPG, {_name(*_cut(name, 2), kinds): value for name, value in arrays.items()}
    kinds = {"kernel:0": "kernel", "bias:0": "bias"}
    # Each layer has a group, and within it one of the same name.
    parts = {name: name.removeprefix("model_weights/").split("/") for name in arrays}
    ranks = _rank_layers({first for first, *_ in parts.values()})
    if not ranks:
        raise ValueError(f"weights {str(path)!r} hold none of the layers of open-rppg or MTTS-CAN: no TS-CAN")
    found = {
        _name(ranks.get(first, first), rest[-1], kinds): arrays[name] for name, (first, *rest) in parts.items() if rest
    }
    if len(found) != len(arrays):
        raise ValueError(f"weights {str(path)!r}: {len(arrays)} arrays, but {len(found)} names of layers")
    return MTTS_CAN, found


def _cut(name: str, n_last: int) -> tuple[str, str]:
    parts = name.split("/")
    return "/".join(parts[:-n_last]), "/".join(parts[-n_last:])


def _name(layer: str, ending: str, kinds: Mapping[str, str]) -> str:
    return f"{layer}/{kinds.get(ending, ending)}"


def _rank_layers(layers: set[str]) -> dict[str, str]:
    """Name conv2d_7 by its rank among its kind, such as ``conv2d[0]``; dense layers alike."""
    ranks = {}
    for kind in ("conv2d", "dense"):
        numbers = {
            layer: int(found[1] or 0) for layer in layers if (found := re.fullmatch(rf"{kind}(?:_(\d+))?", layer))
        }
        ranks.update({layer: f"{kind}[{rank}]" for rank, layer in enumerate(sorted(numbers, key=numbers.__getitem__))})
    return ranks


def _read_state(path: Path) -> dict[str, Tensor]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > MAX_BYTES:
                raise ValueError(f"weights {str(path)!r} unpack to more than {MAX_BYTES} bytes: no TS-CAN")
    try:
        with warnings.catch_warnings():
            # What torch thinks of odd pickles; they are refused all the same.
            warnings.simplefilter("ignore", UserWarning)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"weights {str(path)!r} are damaged, or hold Python objects, which could run code: expected a state dict"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError) as error:
        raise ValueError(f"weights {str(path)!r} are damaged: {error}") from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) and value.is_floating_point()
        for name, value in state.items()
    ):
        raise ValueError(f"weights {str(path)!r} are no state dict of floats")
    return state


def _name_torch(state: Mapping[str, Tensor], path: Path) -> Arrays:
    kinds = {"weight": "kernel", "bias": "bias"}
    plain = {name.removeprefix("module."): value.float().numpy() for name, value in state.items()}
    if len(plain) != len(state):
        raise ValueError(f"weights {str(path)!r} hold a parameter twice, with and without 'module.'")
    return {_name(*name.rpartition(".")[::2], kinds): value for name, value in plain.items()}


def _fill(net: TsCan, arrays: Arrays, published: Published, path: Path) -> None:
    label = f"weights {str(path)!r} of {published.name}"
    expected, state, used = net.state_dict(), {}, set()
    for layer, source in published.layers.items():
        for ending, kind in (("weight", "kernel"), ("bias", "bias")):
            ours, theirs = f"{layer}.{ending}", f"{source}/{kind}"
            if theirs not in arrays:
                raise ValueError(f"{label}: no {theirs!r}, which becomes {ours!r}")
            used.add(theirs)
            array = _check(arrays[theirs], expected[ours], published.keras, f"{label}: {theirs!r}", net)
            state[ours] = _to_torch(array, net, ours) if published.keras else torch.from_numpy(array)
    if extra := sorted(set(arrays) - used):
        raise ValueError(f"{label}: {extra[0]!r} is no layer of this net ({len(extra)} such arrays)")
    net.load_state_dict(state)


def _check(array: Array, like: Tensor, keras: bool, label: str, net: TsCan) -> Array:
    shape = tuple(like.shape)
    if keras:
        shape = (*shape[2:], *shape[1::-1])
    if array.shape != shape:
        why = f"other widths, or not for image_size={net.image_size}" if like.ndim == 2 else "other widths"
        raise ValueError(f"{label} has the shape {array.shape}, the net expects {shape}: {why}")
    if not np.isfinite(array).all():
        raise ValueError(f"{label} holds values that are not finite")
    return array


def _to_torch(array: Array, net: TsCan, name: str) -> Tensor:
    if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif name.endswith("hidden.weight"):
        # Keras flattens (height, width, channels), torch (channels, height, width).
        side = net.last_side
        maps = array.T.reshape(-1, side, side, array.shape[0] // side**2)
        array = maps.transpose(0, 3, 1, 2).reshape(len(maps), -1)
    else:
        array = array.T
    return torch.from_numpy(np.ascontiguousarray(array))
