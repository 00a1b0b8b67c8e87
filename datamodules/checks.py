"""Checks of loaded windows against what the configuration says about them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.records import EcgWindows


def check_windows(windows: EcgWindows, expected: Mapping[str, Any]) -> None:
    """Refuse data that differ from the configuration.

    Parameters
    ----------
    windows : EcgWindows
        Loaded windows.
    expected : mapping of str to value
        Configured ``fs``, ``n_samples``, ``n_leads``, ``lead_names``, ``n_classes``, ``class_names``,
        ``exclusive``, ``kind``.

    Raises
    ------
    ValueError
        If one of them differs; the message names the key. If classes are exclusive and a window has none or several.
    """
    found = {
        "fs": float(windows.fs),
        "n_samples": windows.signal_mv.shape[2],
        "lead_names": windows.lead_names,
        "n_leads": windows.signal_mv.shape[1],
        "class_names": windows.class_names,
        "n_classes": windows.targets.shape[1],
        "kind": windows.kind,
    }
    for key, value in found.items():
        if expected[key] != value:
            raise ValueError(
                f"datamodule.{key} is {expected[key]!r}, but the data have {value!r}: correct the"
                f" configuration or choose other data"
            )
    n_positive = windows.targets.sum(axis=1)
    if expected["exclusive"] and (n_positive != 1).any():
        first = int(np.flatnonzero(n_positive != 1)[0])
        raise ValueError(
            f"record {str(windows.record_ids[first])!r} has a window with {n_positive[first]:g} of the classes"
            f" {windows.class_names}, expected exactly one: correct its labels or set datamodule.exclusive=false"
        )


def check_classes(windows: EcgWindows, splits: Mapping[str, NDArray[np.int64]]) -> None:
    """Refuse splits in which a class has no positive or no negative window.

    Parameters
    ----------
    windows : EcgWindows
        Loaded windows.
    splits : mapping of str to ndarray of int64
        Positions of each split.

    Raises
    ------
    ValueError
        If so; the message names class and split.
    """
    for split, positions in splits.items():
        positive = windows.targets[positions].sum(axis=0).astype(int).tolist()
        for name, count in zip(windows.class_names, positive, strict=True):
            if count in (0, len(positions)):
                what = "absent from" if count == 0 else "in every window of"
                raise ValueError(
                    f"class {name!r} is {what} the split {split!r} ({count} of {len(positions)} windows), so"
                    f" it has no AUROC: choose another split (datamodule.folds, datamodule.split) or classes"
                    f" (datamodule.class_names)"
                )
