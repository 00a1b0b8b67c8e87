"""WFDB's signal format 212 for two leads: two samples of 12 bits in three bytes, in a few array operations.

https://physionet.org/physiotools/wag/signal-5.htm. `wfdb.rdrecord` decodes the same in many times the time.
"""

import numpy as np
from numpy.typing import NDArray


def decode_212(raw: NDArray[np.uint8], lead: int) -> NDArray[np.int16]:
    """Decode one of two leads.

    Parameters
    ----------
    raw : ndarray of uint8, shape (3 * time,)
        The file's bytes.
    lead : {0, 1}
        Which lead.

    Returns
    -------
    ndarray of int16, shape (time,)
        Its samples.
    """
    n_samples = len(raw) // 3
    # The two bytes that a sample is in, of every third: NumPy reads a word anywhere.
    if lead == 0:
        samples = np.ndarray(n_samples, "<u2", raw, 0, 3).astype(np.int16)
        samples <<= 4
        samples >>= 4  # extends the sign of 12 bits to 16
        return samples
    low = np.ndarray(n_samples, ">u2", raw, 1, 3).astype(np.int16)
    samples = low >> 12
    samples <<= 8
    low &= 0xFF
    samples |= low
    return samples


def encode_212(digital: NDArray[np.int16]) -> bytes:
    """Encode two leads, shape (2, time)."""
    first, second = digital.astype(np.int32) & 0xFFF
    triplets = np.empty((digital.shape[1], 3), dtype=np.uint8)
    triplets[:, 0] = first & 0xFF
    triplets[:, 1] = first >> 8 | second >> 8 << 4
    triplets[:, 2] = second & 0xFF
    return triplets.tobytes()
