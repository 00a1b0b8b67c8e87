"""Model files that read the pulse of a video: the user's, or those that ``make weights`` has made."""

from dataclasses import dataclass
from pathlib import Path

from composition.live_contract import PulseContract, read_pulse_contract
from deploy.artifact import Session, find_target, load_artifact

WEIGHTS = ("pure", "rlap")
PRECISIONS = ("float32", "int8")


@dataclass(frozen=True, eq=False, slots=True)
class PulseModel:
    """A model file, ready to read the pulse.

    Attributes
    ----------
    path : Path
        The file.
    precision : str
        Of its numbers.
    contract : PulseContract
        What it says about itself.
    session : callable
        Maps clips (n, n_frames, 6, size, size) to derivatives (n, n_frames).
    """

    path: Path
    precision: str
    contract: PulseContract
    session: Session


def published_path(folder: Path | str, weights: str, precision: str) -> Path:
    """Say where the file of a published set of weights lies."""
    return Path(folder) / f"tscan_{weights}-{precision}.onnx"


def find_published(folder: Path | str, weights: str, precision: str) -> Path:
    """Find the file of a published set of weights.

    Parameters
    ----------
    folder : Path or str
        Folder that ``make weights`` fills.
    weights : {"pure", "rlap"}
        Data set that they were trained on.
    precision : {"float32", "int8"}
        Of the file.

    Raises
    ------
    FileNotFoundError
        If it is not there; the message says how to make it.
    ValueError
        If there is no such set, or no such precision.
    """
    for key, value, allowed in (("weights", weights, WEIGHTS), ("precision", precision, PRECISIONS)):
        if value not in allowed:
            raise ValueError(f"{key} is {value!r}, expected one of {allowed!r}")
    path = published_path(folder, weights, precision)
    if not path.is_file():
        raise FileNotFoundError(f"no installed TS-CAN {str(path)!r}: run `make weights`, or give artifact=<model file>")
    return path


def open_pulse_model(path: Path | str, threads: int = 1) -> PulseModel:
    """Load a model file into its runtime.

    Parameters
    ----------
    path : Path or str
        The file.
    threads : int, default 1
        Threads of the runtime.

    Raises
    ------
    ArtifactError
        If the file cannot be loaded, or is of another kind.
    """
    artifact = load_artifact(path)
    contract = read_pulse_contract(artifact)
    session = find_target(artifact.path).open_session(artifact.path, threads=threads)
    return PulseModel(artifact.path, artifact.precision, contract, session)
