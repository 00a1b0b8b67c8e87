"""What a model file says about its windows is what the stream needs to cut them."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np

from composition.window_rules import describe_windows
from datamodules.filters import Filters
from datamodules.live_beats import BeatRules
from datamodules.rhythm_beats import load_beats
from datamodules.rhythm_rr import load_rr_windows
from datamodules.rpeaks import detect_pan_tompkins


def datamodule(source):
    return SimpleNamespace(
        source=source,
        record_ids=lambda split: np.array(["b", "a", "a", "c"]),
        times_s=lambda split: np.array([500.0, 7.0, 900.0, 600.0]),
    )


def test_beats_carry_their_rules():
    source = partial(load_beats, cache_dir="x", filters=Filters(low_hz=1.0), detector=partial(detect_pan_tompkins))
    found = json.loads(json.dumps(describe_windows(datamodule(source))))
    assert found.pop("cut") == "beats"
    rules = BeatRules(filters=Filters(low_hz=1.0), detector="pan_tompkins", record_s=600.0)
    assert BeatRules.from_plain(found) == rules


def test_defaults_of_the_source_are_written_out():
    found = describe_windows(datamodule(partial(load_beats, cache_dir="x")))
    assert (found["detector"], found["max_rr_s"], found["filters"]["high_hz"]) == ("sleepecg", 3.0, 50.0)


def test_other_windows_say_how_they_are_cut():
    assert describe_windows(datamodule(partial(load_rr_windows, max_rr_s=2.5))) == {"cut": "rr", "max_rr_s": 2.5}
    assert describe_windows(SimpleNamespace()) == {"cut": "stretches"}
