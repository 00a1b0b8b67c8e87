"""Simulated face videos: a drawn, moving face whose skin changes colour with a known pulse.

Nobody is shown: ellipses, noise and a Gaussian sum for the pulse wave. The colour of the pulse follows the usual
skin-reflection model, strongest in green (Wang et al. 2017, Algorithmic Principles of Remote PPG,
10.1109/TBME.2016.2609282).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.face_detectors import import_cv2

PULSE_RGB = np.array([0.33, 1.0, 0.53])
_HAIR, _EYES, _LIPS, _BROWS = (38, 30, 26), (32, 26, 24), (150, 82, 80), (54, 40, 32)
_SKINS = ((226, 178, 150), (206, 154, 122), (184, 132, 100), (232, 190, 168))
_NOISES = 16
_PAD = 1.35  # the drawn patch over the face's height, so that hair and chin are on it
_NODS, _NOD_BAND_HZ = 5, (0.7, 2.5)  # as fast as hearts beat


@dataclass(frozen=True, slots=True)
class FacePlan:
    """What a simulated video shows.

    Attributes
    ----------
    times_s : ndarray of float64, shape (n,)
        Times of the frames.
    width, height : int
        Size of a frame in pixels.
    hr_bpm : float
        Mean heart rate.
    pulse : float
        Amplitude of the pulse in green, as a share of the skin's brightness.
    face : float
        Height of the face in the middle as a share of the frame's shorter side.
    motion : float
        Sway of the head as a share of the face's size, slower than any heart.
    nod : float
        Root mean square of nods as a share of the face's size, as fast as hearts beat.
    shading : float
        Root mean square of the face's brightness, as a share of it, that comes with the nods under a lamp: the same
        in all colours, so that methods that look at one are fooled.
    drift : float
        Slow change of the light, as a share of it.
    noise : float
        Standard deviation of the sensor's noise, in steps of 8 bits.
    screen : float
        Root mean square of the background's brightness in each colour by itself, as a share of it, as fast as hearts
        beat: a screen that is on, or people who pass.
    infrared : bool
        Grey frames, as an infrared camera's; the pulse is then weak.
    faces : int
        Faces in the picture: the one in the middle has the pulse and is the largest. 0: only the background.
    leaves_s : float or None
        Time from which no face is in the picture.
    """

    times_s: NDArray[np.float64]
    width: int = 160
    height: int = 120
    hr_bpm: float = 72.0
    pulse: float = 0.012
    face: float = 0.62
    motion: float = 0.03
    nod: float = 0.0
    shading: float = 0.0
    drift: float = 0.04
    noise: float = 1.5
    screen: float = 0.0
    infrared: bool = False
    faces: int = 1
    leaves_s: float | None = None


def simulate_rate(rng: np.random.Generator, times_s: NDArray[np.float64], hr_bpm: float) -> NDArray[np.float64]:
    """Return a heart rate that wanders around its mean, in bpm, shape (n,)."""
    slow, breath = rng.uniform(0.02, 0.05), rng.uniform(0.2, 0.3)
    phases = rng.uniform(0, 2 * np.pi, 2)
    return (
        hr_bpm
        + 1.5 * np.sin(2 * np.pi * slow * times_s + phases[0])
        + 1.0 * np.sin(2 * np.pi * breath * times_s + phases[1])
    )


def simulate_pulse(
    rng: np.random.Generator, times_s: NDArray[np.float64], hr_bpm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the blood volume pulse: a systolic peak and a dicrotic one per beat, shape (n,), about -1 to 1."""
    steps = np.diff(times_s, prepend=times_s[0])
    phase = (rng.uniform() + np.cumsum(hr_bpm / 60 * steps)) % 1.0
    wave = np.zeros_like(phase)
    for centre, width, height in ((0.3, 0.13, 1.0), (0.62, 0.11, 0.35)):
        distance = np.abs(phase - centre)
        wave += height * np.exp(-0.5 * (np.minimum(distance, 1 - distance) / width) ** 2)
    return 2 * (wave - wave.mean()) / max(float(np.ptp(wave)), 1e-9)


def render_frames(rng: np.random.Generator, plan: FacePlan, bvp: NDArray[np.float64]) -> Iterator[NDArray[np.uint8]]:
    """Draw the frames one after the other.

    Parameters
    ----------
    rng : numpy Generator
        Source of everything drawn.
    plan : FacePlan
        What to show.
    bvp : ndarray of float64, shape (n,)
        Blood volume pulse at the frame times.

    Yields
    ------
    ndarray of uint8, shape (height, width, 3)
        Frames in RGB.
    """
    cv2 = import_cv2()

    shape = (plan.height, plan.width)
    size = plan.face * min(plan.height, plan.width)
    background = _draw_background(rng, shape)
    patches = [_draw_face(rng, round(size * _PAD))] + [
        _draw_face(rng, round(0.62 * size * _PAD)) for _ in range(plan.faces - 1)
    ]
    noises = rng.normal(0, plan.noise, (_NOISES, *shape, 3)).astype(np.float32)
    phases, light = rng.uniform(0, 2 * np.pi, 4), rng.uniform(0.05, 0.12)
    picks = rng.integers(0, _NOISES, len(plan.times_s))
    still = np.zeros(len(plan.times_s))
    nods = _simulate_nods(rng, plan.times_s) if plan.nod or plan.shading else still
    glows = np.stack([_simulate_nods(rng, plan.times_s) if plan.screen else still for _ in "rgb"], axis=1)
    for time_s, value, pick, nod, glow in zip(plan.times_s, bvp, picks, nods, glows, strict=True):
        frame = background * (1 + plan.screen * glow).astype(np.float32)
        gone = plan.leaves_s is not None and time_s >= plan.leaves_s
        sway = plan.motion * size * np.sin(2 * np.pi * np.array([0.11, 0.07]) * time_s + phases[:2])
        sway[1] += size * (0.3 * plan.motion * np.sin(2 * np.pi * 0.24 * time_s + phases[2]) + plan.nod * nod)
        for number, (rgb, alpha, skin) in enumerate(patches[: 0 if gone else plan.faces]):
            beat = 1 + (plan.pulse * value * PULSE_RGB * skin[..., None] if number == 0 else 0.0)
            beat *= 1 + plan.shading * nod
            # The others stand at the sides.
            left = (plan.width / 2 if number == 0 else plan.width * (0.13 if number % 2 else 0.87)) - alpha.shape[1] / 2
            move = np.array([[1, 0, left + sway[0]], [0, 1, plan.height / 2 - alpha.shape[0] / 2 + sway[1]]])
            options = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_CONSTANT, "borderValue": 0}
            warped = cv2.warpAffine((rgb * beat * alpha[..., None]).astype(np.float32), move, shape[::-1], **options)
            cover = cv2.warpAffine(alpha, move, shape[::-1], **options)[..., None]
            frame = frame * (1 - cover) + warped
        frame = frame * np.float32(1 + plan.drift * np.sin(2 * np.pi * light * time_s + phases[3]))
        frame += noises[pick]
        if plan.infrared:
            frame = np.repeat(frame.mean(axis=2, keepdims=True), 3, axis=2)
        yield np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def _simulate_nods(rng: np.random.Generator, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a sum of sines of random rates, with a root mean square of 1, shape (n,)."""
    rates_hz, phases = rng.uniform(*_NOD_BAND_HZ, _NODS), rng.uniform(0, 2 * np.pi, _NODS)
    waves = np.sin(2 * np.pi * rates_hz * times_s[:, None] + phases)
    return np.sqrt(2 / _NODS) * np.asarray(waves.sum(axis=1), dtype=np.float64)


def _draw_background(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    cv2 = import_cv2()

    coarse = rng.uniform(70, 120, (3, 4, 1)) + rng.uniform(-8, 8, (3, 4, 3))
    return cv2.resize(coarse.astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)


def _draw_face(
    rng: np.random.Generator, side: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return colours (side, side, 3), coverage (side, side) and which of it is skin (side, side), 0 to 1."""
    cv2 = import_cv2()

    scale = 4  # drawn larger and reduced by area: soft edges
    full = side * scale
    unit = full / (2 * _PAD)  # half the height of the face
    skin_rgb = np.array(_SKINS[rng.integers(len(_SKINS))], np.float64) + rng.uniform(-8, 8, 3)
    rgb = np.zeros((full, full, 3), np.float32)
    cover, skin = np.zeros((full, full), np.float32), np.zeros((full, full), np.float32)
    middle = np.array([full / 2, full / 2])

    def ellipse(on: NDArray[np.float32], x: float, y: float, a: float, b: float, colour: object) -> None:
        centre = tuple(np.rint(middle + unit * np.array([x, y])).astype(int).tolist())
        axes = (max(1, round(a * unit)), max(1, round(b * unit)))
        cv2.ellipse(on, centre, axes, 0, 0, 360, colour, -1)

    tone = tuple(float(value) for value in skin_rgb)
    shade = tuple(float(value) * 0.8 for value in skin_rgb)
    bright = tuple(min(255.0, float(value) * 1.08) for value in skin_rgb)
    ellipse(rgb, 0, -0.15, 0.86, 1.02, _HAIR)
    ellipse(cover, 0, -0.15, 0.86, 1.02, 1.0)
    for on, colour in ((rgb, tone), (cover, 1.0), (skin, 1.0)):
        ellipse(on, 0, 0.1, 0.74, 0.92, colour)
    ellipse(rgb, 0, -0.42, 0.5, 0.2, bright)
    for side_of in (-1, 1):
        ellipse(rgb, 0.42 * side_of, 0.3, 0.2, 0.2, bright)
        ellipse(rgb, 0.3 * side_of, -0.06, 0.24, 0.13, shade)
        ellipse(rgb, 0.3 * side_of, -0.22, 0.22, 0.045, _BROWS)
        ellipse(rgb, 0.3 * side_of, -0.05, 0.15, 0.075, _EYES)
        ellipse(rgb, 0.1 * side_of, 0.42, 0.06, 0.04, shade)
        ellipse(skin, 0.3 * side_of, -0.05, 0.15, 0.075, 0.0)
    ellipse(rgb, 0, 0.18, 0.07, 0.26, bright)
    ellipse(rgb, 0, 0.66, 0.26, 0.08, _LIPS)
    ellipse(rgb, 0, 0.66, 0.2, 0.02, _EYES)
    texture = cv2.GaussianBlur(rng.normal(0, 14, (full, full, 1)).astype(np.float32), (0, 0), scale * 0.8)
    rgb += texture[..., None] * scale * 0.6 * skin[..., None]
    blur = (0, 0)
    rgb = cv2.GaussianBlur(rgb * cover[..., None], blur, scale * 0.5)
    cover = cv2.GaussianBlur(cover, blur, scale * 0.5)
    rgb = np.divide(rgb, cover[..., None], out=rgb, where=cover[..., None] > 1e-3)
    small = tuple(cv2.resize(layer, (side, side), interpolation=cv2.INTER_AREA) for layer in (rgb, cover, skin))
    return small[0], small[1], small[2]
