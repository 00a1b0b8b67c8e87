"""Take a model to a device, and its measurements home.

python bundle.py build run=RUN device=raspberry_pi               # one folder, bundle_raspberry_pi
python bundle.py build run=RUN device=coral output=coral datamodule.root=/data/ptb-xl
python bundle.py ingest device.json                              # a row below the model's run; compare.py shows it
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from composition.bundles import N_SLICE, build_bundle
from composition.ingest import ingest_report
from deploy.artifact import ArtifactError
from deploy.bundle import BundleError
from tracking.connection import TrackingError
from tracking.store import initialise
from tracking.tables import tabulate_rows, to_plain

CONFIG = Path(__file__).resolve().parent / "conf" / "tracking" / "mlflow.yaml"
REFUSED = 2
OPTIONS = ("run", "device", "output", "n_slice")


def build(arguments: Sequence[str]) -> str:
    """Build the bundle that the arguments name; what to tell.

    Raises
    ------
    BundleError
        If an argument is unknown or missing, or as `composition.bundles.build_bundle`.
    """
    options: dict[str, str] = {}
    changes: list[str] = []
    for argument in arguments:
        key, sign, value = argument.partition("=")
        if key in OPTIONS and value:
            options[key] = value
        elif sign and key.startswith("datamodule."):
            changes.append(argument)
        else:
            raise BundleError(
                f"{argument!r}: expected {', '.join(f'{name}=' for name in OPTIONS)} or datamodule.<key>="
            )
    if missing := [name for name in ("run", "device") if name not in options]:
        raise BundleError(
            f"missing {', '.join(f'{name}=' for name in missing)}: python bundle.py build run=.. device=.."
        )
    n_slice = options.get("n_slice", str(N_SLICE))
    if not n_slice.isdecimal():
        raise BundleError(f"n_slice={n_slice!r}, expected a number of test windows")
    store = initialise(**dict(OmegaConf.load(CONFIG)), must_exist=True)
    output = options.get("output", f"bundle_{options['device']}")
    folder = build_bundle(store, options["run"], options["device"], output, changes=changes, n_slice=int(n_slice))
    return f"{folder}: copy this folder to the device and run python3 run_on_device.py in it\n"


def ingest(arguments: Sequence[str]) -> str:
    """Add the measurements of device.json files to their models' runs; a table of the rows.

    Raises
    ------
    BundleError
        If no file is named, or as `composition.bundles.ingest_report`.
    """
    if not arguments:
        raise BundleError("name at least one device.json: python bundle.py ingest device.json")
    store = initialise(**dict(OmegaConf.load(CONFIG)), must_exist=True)
    rows = [ingest_report(store, path) for path in arguments]
    shown = [row for item in rows for row in (store.read_row(str(item.reference_run_id)), item)]
    return f"{to_plain(tabulate_rows(shown, only_differing=True))}compare: python compare.py --group {rows[0].group}\n"


COMMANDS = {"build": build, "ingest": ingest}


def main(arguments: Sequence[str] | None = None) -> int:
    """Build or ingest from the command line; 0, or 2 when it is refused."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or given[0] not in COMMANDS:
        print(__doc__, file=sys.stderr)
        return REFUSED
    try:
        print(COMMANDS[given[0]](given[1:]), end="")
    except (BundleError, ArtifactError, TrackingError, ValueError, FileNotFoundError) as error:
        print(f"bundle.py {given[0]}: {error}", file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
