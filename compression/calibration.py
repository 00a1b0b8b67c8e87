"""Draw the windows that fix the ranges of a quantized file, and refuse those that would fix wrong ones."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# A range four times off spends two of eight bits on nothing, or clips most of the signal.
MAX_RATIO = 4.0
N_COMPARED = 512


def draw_calibration(datamodule: Any, n: int, seed: int) -> tuple[tuple[int, ...], NDArray[np.float32]]:
    """Draw windows of the training split.

    Parameters
    ----------
    datamodule : LightningDataModule
        Gives calibration windows, training windows and splits.
    n : int
        Windows.
    seed : int

    Returns
    -------
    tuple of int
        Positions among all windows.
    ndarray of shape (n, leads, time)
        The windows.

    Raises
    ------
    ValueError
        As `check_calibration`.
    """
    positions, windows = datamodule.calibration(n, seed)
    train = datamodule.splits["train"]
    some = train[:: max(len(train) // N_COMPARED, 1)]
    check_calibration(positions, windows, train, datamodule.windows("train", some))
    return tuple(int(position) for position in positions), windows


def check_calibration(
    positions: NDArray[np.integer],
    windows: NDArray[np.floating],
    train_positions: NDArray[np.integer],
    train_windows: NDArray[np.floating],
) -> None:
    """Refuse calibration windows that are none, lie outside the training split, or are not like its windows.

    Parameters
    ----------
    positions, windows : ndarray of shape (n,) and (n, leads, time)
        Of the calibration.
    train_positions : ndarray of shape (m,)
        All of the training split.
    train_windows : ndarray of shape (k, leads, time)
        Some of it.

    Raises
    ------
    ValueError
        With what is wrong, and what it would have to be.
    """
    if len(windows) == 0 or len(windows) != len(positions):
        raise ValueError(
            f"calibration: {len(windows)} windows at {len(positions)} places: expected one training window or more"
        )
    outside = np.setdiff1d(positions, train_positions)
    if outside.size:
        raise ValueError(
            f"calibration windows {outside[:5].tolist()} are not in the training split: ranges would be fitted to"
            " validation or test"
        )
    if windows.shape[1:] != train_windows.shape[1:]:
        raise ValueError(
            f"calibration windows of {windows.shape[1:]} (leads, samples), training windows of"
            f" {train_windows.shape[1:]}: expected the same leads, fs and window_s"
        )
    own, expected = (float(np.sqrt(np.mean(np.square(part, dtype=np.float64)))) for part in (windows, train_windows))
    ratio = own / expected if expected > 0 else float("nan")
    if not 1 / MAX_RATIO <= ratio <= MAX_RATIO:
        raise ValueError(
            f"calibration windows have {ratio:.3g} times the root mean square of the training windows, expected"
            f" {1 / MAX_RATIO:g} to {MAX_RATIO:g}: another unit (mV?), another normalisation, or too few windows"
            " (n_calibration)"
        )
