"""How a data set's windows came about, as plain values for the contract inside a model file."""

import inspect
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from datamodules.filters import Filters
from datamodules.rhythm_beats import load_beats
from datamodules.rhythm_rr import load_rr_windows
from datamodules.rpeaks import detect_pan_tompkins, detect_sleepecg

_DETECTORS = {detect_sleepecg: "sleepecg", detect_pan_tompkins: "pan_tompkins"}


def describe_windows(datamodule: Any) -> dict[str, Any]:
    """Say how windows are cut, so that a stream can cut the same ones.

    Parameters
    ----------
    datamodule : EcgDataModule
        Set up, with the source that it loaded its windows from.

    Returns
    -------
    dict
        ``cut``: "beats", "rr" or "stretches"; beats come with the fields of `datamodules.live_beats.BeatRules`,
        RR intervals with ``max_rr_s``.
    """
    source = getattr(datamodule, "source", None)
    function = source.func if isinstance(source, partial) else source
    if function is load_beats:
        options = _bound(source)
        return {
            "cut": "beats",
            "filters": asdict(options["filters"] or Filters()),
            "detector": _name_detector(options["detector"]),
            "min_rr_s": options["min_rr_s"],
            "max_rr_s": options["max_rr_s"],
            "record_s": _typical_length(datamodule),
        }
    if function is load_rr_windows:
        return {"cut": "rr", "max_rr_s": _bound(source)["max_rr_s"]}
    return {"cut": "stretches"}


def _bound(source: Any) -> dict[str, Any]:
    """Options of a source, defaults included."""
    parameters = inspect.signature(source).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def _name_detector(detector: Any) -> str:
    """Name a detector of ours; any other by its own name, which a stream will refuse."""
    function = detector.func if isinstance(detector, partial) else detector
    bound = isinstance(detector, partial) and (detector.args or detector.keywords)
    return str(
        _DETECTORS.get(function, getattr(function, "__qualname__", repr(function))) + " with options" * bool(bound)
    )


def _typical_length(datamodule: Any) -> float:
    """Median length of the training records in seconds, by their last beat."""
    records, times_s = datamodule.record_ids("train"), datamodule.times_s("train")
    order = np.lexsort((times_s, records))
    last = np.append(records[order][1:] != records[order][:-1], True)
    return round(float(np.median(times_s[order][last])), 1)
