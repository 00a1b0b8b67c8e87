"""Diagnostic findings of the simulation: what a disease does to the vectors of the heart."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from datamodules.simulated_ecg import WAVES, Heart


@dataclass(frozen=True)
class Finding:
    """One diagnostic statement and what it does to a heart at severity 1.

    Attributes
    ----------
    code, superclass : str
        SCP-ECG code and diagnostic superclass, as PTB-XL names them.
    sign : str
        Form statement that goes with it; empty for none.
    shift_mv : mapping of str to (x, y, z)
        Added to the vector of a wave, in mV: left, down, back.
    gain, stretch : mapping of str to float
        Factor on the vector, and on the duration, of a wave.
    delay_s : mapping of str to float
        Added to the time of a wave, in seconds.
    """

    code: str
    superclass: str
    sign: str = ""
    shift_mv: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    gain: Mapping[str, float] = field(default_factory=dict)
    stretch: Mapping[str, float] = field(default_factory=dict)
    delay_s: Mapping[str, float] = field(default_factory=dict)


FINDINGS = (
    Finding("NORM", "NORM"),
    # Infarction: initial forces and T point away from the dead wall.
    Finding("IMI", "MI", "QWAVE", shift_mv={"Q": (0, -0.5, 0), "ST": (0, 0.06, 0), "T": (0, -0.35, 0)}),
    Finding(
        "ASMI",
        "MI",
        "QWAVE",
        shift_mv={"Q": (0, 0, 0.4), "R": (0, 0, 0.3), "ST": (0, 0, -0.1), "T": (0, 0, 0.35)},
    ),
    Finding("LMI", "MI", shift_mv={"Q": (-0.45, 0, 0), "T": (-0.35, 0, 0)}, gain={"R": 0.8}),
    # Repolarisation alone: flat or inverted T, ST away from the left ventricle.
    Finding("NDT", "STTC", "LOWT", gain={"T": 0.0}),
    Finding("ISC_", "STTC", "INVT", shift_mv={"ST": (-0.08, -0.06, 0.03)}, gain={"T": -0.5}),
    Finding("NST_", "STTC", "STD_", shift_mv={"ST": (-0.14, -0.12, 0.08)}, gain={"T": 0.6}),
    # Conduction: late forces towards the side that is reached last; axis; PR interval.
    Finding(
        "CLBBB",
        "CD",
        "ABQRS",
        shift_mv={"late": (0.6, 0.1, 0.4)},
        gain={"Q": -0.5, "S": 0.5, "T": -0.4},
        stretch={"R": 1.5, "late": 1.8, "S": 1.4},
    ),
    Finding(
        "CRBBB",
        "CD",
        shift_mv={"late": (-0.4, 0, -0.5), "T": (0, 0, 0.15)},
        stretch={"late": 1.6},
        delay_s={"late": 0.02},
    ),
    Finding("IRBBB", "CD", shift_mv={"late": (-0.3, 0, -0.4)}),
    Finding("LAFB", "CD", shift_mv={"Q": (0, 0.2, 0), "R": (0, -0.9, 0), "S": (0.1, -0.4, 0)}),
    Finding("1AVB", "CD", "LPR", delay_s={"P": -0.12}),
    # Hypertrophy: voltage towards the thick wall, with strain.
    Finding(
        "LVH",
        "HYP",
        "VCLVH",
        shift_mv={"R": (0.2, 0, 0.4), "ST": (-0.08, -0.04, 0.04)},
        gain={"R": 1.9, "S": 1.6, "T": 0.2},
    ),
    Finding("RVH", "HYP", shift_mv={"R": (-0.8, 0, -0.7), "S": (-0.3, 0, -0.1), "T": (0, 0, 0.2)}),
    Finding("LAO/LAE", "HYP", shift_mv={"P": (0.05, 0, 0.12)}, gain={"P": 1.5}, stretch={"P": 1.7}),
)
"""All findings that a simulated patient can have."""


def apply_finding(heart: Heart, finding: Finding, severity: float) -> Heart:
    """Bend the vectors and times of a heart by one finding.

    Parameters
    ----------
    heart : Heart
        Left as it is.
    finding : Finding
        What changes at severity 1.
    severity : float
        0 for no change, 1 for all of it.

    Returns
    -------
    Heart
        The changed heart.
    """
    vector, centre, stretch = heart.vector_mv.copy(), heart.centre_s.copy(), heart.stretch.copy()
    for wave, factor in finding.gain.items():
        vector[WAVES.index(wave)] *= 1 + severity * (factor - 1)
    for wave, shift in finding.shift_mv.items():
        vector[WAVES.index(wave)] += severity * np.asarray(shift)
    for wave, factor in finding.stretch.items():
        stretch[WAVES.index(wave)] *= 1 + severity * (factor - 1)
    for wave, delay in finding.delay_s.items():
        centre[WAVES.index(wave)] += severity * delay
    return replace(heart, vector_mv=vector, centre_s=centre, stretch=stretch)
