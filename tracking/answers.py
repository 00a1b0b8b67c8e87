"""What an artifact answered on the test split, whatever it was asked."""

import zipfile
from pathlib import Path

import numpy as np

from tracking.hr_predictions import HeartRates, are_heart_rates, read_heart_rates, save_heart_rates
from tracking.predictions import Predictions, load_predictions, save_predictions

Answered = Predictions | HeartRates


def save_answers(path: Path | str, answers: Answered) -> Path:
    """Write answers as a compressed ``.npz`` without pickled objects."""
    if isinstance(answers, HeartRates):
        return save_heart_rates(path, answers)
    return save_predictions(path, answers)


def load_answers(path: Path | str) -> Answered:
    """Read answers of either kind.

    Raises
    ------
    ValueError
        If the file is damaged, holds pickled objects or lacks an array.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if are_heart_rates(arrays):
                return read_heart_rates(arrays)
    except (KeyError, EOFError, zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"{path}: not a readable predictions file ({error})") from error
    return load_predictions(path)
