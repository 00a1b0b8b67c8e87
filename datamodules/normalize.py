"""Per-lead standardisation with statistics that remember which windows they came from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.cache import content_digest
from datamodules.records import EcgWindows

CHUNK = 1024


@dataclass(frozen=True, eq=False, slots=True)
class Normalizer:
    """Standardisation of each lead.

    Attributes
    ----------
    mean_mv, std_mv : ndarray of float32, shape (leads,)
        Statistics over all samples of the training windows.
    indices : ndarray of int64
        Positions of those windows, for the leakage check.
    """

    mean_mv: NDArray[np.float32]
    std_mv: NDArray[np.float32]
    indices: NDArray[np.int64]

    def apply(self, signal_mv: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardise windows.

        Parameters
        ----------
        signal_mv : ndarray of float32, shape (..., leads, time)
            Signal in mV; left as it is.

        Returns
        -------
        ndarray of float32, shape (..., leads, time)
            Signal in standard deviations from the mean of its lead.
        """
        normalized = signal_mv - self.mean_mv[:, None]
        normalized /= self.std_mv[:, None]
        return normalized


def fit_normalizer(windows: EcgWindows, train_indices: NDArray[np.int64]) -> Normalizer:
    """Compute the mean and standard deviation of each lead over the training windows.

    Parameters
    ----------
    windows : EcgWindows
        All windows; those outside ``train_indices`` have no influence.
    train_indices : ndarray of int64
        Positions of the training windows.

    Returns
    -------
    Normalizer
        The statistics with their origin.

    Raises
    ------
    ValueError
        If there is no training window, or a lead never changes in any of them.
    """
    if len(train_indices) == 0:
        raise ValueError("there is no training window to take normalisation statistics from")
    means, variances = _moments(windows, train_indices)
    mean = means.mean(axis=0)
    # All windows have one length: the variance is the mean of their variances plus the variance of their
    # means.
    std = np.sqrt(variances.mean(axis=0) + means.var(axis=0))
    if flat := [name for name, value in zip(windows.lead_names, std, strict=True) if not value > 0]:
        raise ValueError(
            f"leads {flat!r} never change in any training window (standard deviation 0): take them out of"
            f" datamodule.lead_names"
        )
    return Normalizer(mean.astype(np.float32), std.astype(np.float32), train_indices)


def digest_preprocessing(windows: EcgWindows, normalizer: Normalizer) -> str:
    """Digest what is done to a signal before a model sees it.

    Parameters
    ----------
    windows : EcgWindows
        Says which leads, how long and at which frequency.
    normalizer : Normalizer
        The standardisation.

    Returns
    -------
    str
        SHA-256, 64 hexadecimal digits.
    """
    return content_digest(
        {
            "fs": windows.fs,
            "lead_names": windows.lead_names,
            "n_samples": windows.signal_mv.shape[2],
            "normalize": "standard deviations from the training mean, per lead",
            "mean_mv": normalizer.mean_mv.tolist(),
            "std_mv": normalizer.std_mv.tolist(),
        }
    )


def _moments(windows: EcgWindows, indices: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if windows.lead_means_mv is not None and windows.lead_variances_mv2 is not None:
        return windows.lead_means_mv[indices], windows.lead_variances_mv2[indices]
    means, variances = [], []
    for start in range(0, len(indices), CHUNK):
        chunk = windows.signal_mv[indices[start : start + CHUNK]]
        means.append(chunk.mean(axis=2, dtype=np.float64))
        variances.append(chunk.var(axis=2, dtype=np.float64))
    return np.concatenate(means), np.concatenate(variances)
