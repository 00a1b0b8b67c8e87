"""What a video reader yields: frozen records with ids, frame times, ground truth, and frames that are streamed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from datamodules.origin import Kind


@dataclass(frozen=True, eq=False, slots=True)
class VideoRecord:
    """One face video with its ground truth.

    Attributes
    ----------
    record_id, subject_id : str
        Ids of the video and of the person; splits go by the person.
    fps : float
        Mean real frames per second.
    times_s : ndarray of float64, shape (n,)
        Time of each frame in seconds, the first at 0.
    stream : callable
        Starts a new pass over the frames, see `frames`.
    bvp : ndarray of float64, shape (n,), optional
        Blood volume pulse at the frame times, arbitrary unit; NaN where the ground truth does not reach.
    hr_bpm : ndarray of float64, shape (n,), optional
        Heart rate at the frame times in bpm; NaN where the ground truth does not reach.
    mean_hr_bpm : float, optional
        Mean heart rate of the video in bpm.
    infrared : bool
        Whether the camera was infrared: such frames have no colour.
    notes : tuple of str
        What was found odd while reading.
    """

    record_id: str
    subject_id: str
    fps: float
    times_s: NDArray[np.float64]
    stream: Callable[[], Iterator[NDArray[np.uint8]]]
    bvp: NDArray[np.float64] | None = None
    hr_bpm: NDArray[np.float64] | None = None
    mean_hr_bpm: float | None = None
    infrared: bool = False
    notes: tuple[str, ...] = ()

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Stream the frames, one per time, uint8 RGB of shape (height, width, 3), upright.

        Raises
        ------
        ValueError
            If the video cannot be decoded to its end.
        """
        return self.stream()


@dataclass(frozen=True, slots=True)
class VideoEntry:
    """A record that a data set lists, before anything is read.

    Attributes
    ----------
    record_id, subject_id : str
        Ids of the video and of the person.
    files : tuple of Path
        Everything that the record is read from; its names, sizes and times key the cache.
    read : callable
        Reads ground truth and frame times and returns the record.
    """

    record_id: str
    subject_id: str
    files: tuple[Path, ...]
    read: Callable[[], VideoRecord]


@dataclass(frozen=True, slots=True)
class VideoListing:
    """The records of a data set.

    Attributes
    ----------
    name : str
        Name of the data set.
    entries : tuple of VideoEntry
        Its records.
    kind : {"real", "synthetic"}
        Whether the videos were recorded or simulated.
    counts : dict of str to int
        What was listed and left out.
    """

    name: str
    entries: tuple[VideoEntry, ...]
    kind: Kind
    counts: dict[str, int] = field(default_factory=dict)


class VideoSource(Protocol):
    """Lists a data set's records, as `datamodules.ubfc.list_ubfc` does."""

    def __call__(self, root: Path | str | None) -> VideoListing:
        """List the records under the folder."""
