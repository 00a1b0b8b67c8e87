"""Runs after their job: given to others under an alias, or sent where the tracking store was away.

python runs.py promote run=RUN alias=champion                     # models:/<model>@champion, if RUN passed its gate
python runs.py promote run=RUN alias=champion name=ptbxl allow_inconclusive=true
python runs.py push outputs/2026-01-31/12-00-00-000000            # or its rows.json, or a folder of many jobs
python runs.py list                                               # the registered models and their aliases
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from tracking.connection import TrackingError
from tracking.outbox import UNSENT, Outbox
from tracking.registry import PromotionRefused, list_models, promote
from tracking.sending import push
from tracking.store import Store, initialise
from tracking.tables import to_plain

CONFIG = Path(__file__).resolve().parent / "conf" / "tracking" / "mlflow.yaml"
REFUSED = 2
PROMOTE_OPTIONS = ("run", "alias", "name", "allow_inconclusive")
ANSWERS = {"true": True, "false": False}


def promote_run(arguments: Sequence[str]) -> str:
    """Register the run that the arguments name; what to tell.

    Raises
    ------
    PromotionRefused
        If an argument is unknown or missing, or as in `tracking.registry.promote`.
    """
    options: dict[str, str] = {}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in PROMOTE_OPTIONS or not value:
            raise PromotionRefused(f"{argument!r}: expected {', '.join(f'{name}=' for name in PROMOTE_OPTIONS)}")
        options[key] = value
    if missing := [name for name in ("run", "alias") if name not in options]:
        raise PromotionRefused(
            f"missing {', '.join(f'{name}=' for name in missing)}: python runs.py promote run=.. alias=champion"
        )
    allow = options.get("allow_inconclusive", "false").lower()
    if allow not in ANSWERS:
        raise PromotionRefused(f"allow_inconclusive={allow!r}, expected true or false")
    done = promote(
        _open_store(),
        options["run"],
        options["alias"],
        name=options.get("name"),
        allow_inconclusive=ANSWERS[allow],
    )
    before = f"; it was version {done.replaced}" if done.replaced else ""
    told = [f"{done.uri} is version {done.version}: run {options['run']} ({done.row.name}){before}"]
    if done.row.verdict != "PASS":
        told.append(f"its gate could not decide: {'; '.join(done.row.reasons)}")
    told.append(f"""as a teacher: python train.py compression=distill "compression.teacher.weights='{done.uri}'\"""")
    return "\n".join([*told, ""])


def push_rows(arguments: Sequence[str]) -> str:
    """Send what jobs could not send; what to tell.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    """
    paths = [Path(argument) for argument in arguments] or [Path("outputs")]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}: name a job's output folder, or its rows.json")
    folders = [path.parent if path.is_file() else path for path in paths]
    outboxes = [Outbox(found) for folder in folders for found in sorted(folder.rglob(UNSENT)) if found.is_dir()]
    waiting = [outbox for outbox in outboxes if outbox.waiting]
    if not waiting:
        return f"nothing is left to send in {', '.join(map(str, folders))}\n"
    store = _open_store()
    told = []
    for outbox in waiting:
        rows = push(store.client, store.tracking_uri, outbox)
        told.append(f"{outbox.folder.parent}: {len(rows)} rows sent to {store.tracking_uri}\n")
        if rows:
            told.append(f"compare: python compare.py --group {rows[0].group}\n")
    return "".join(told)


def list_registered(arguments: Sequence[str]) -> str:
    """Table of the registered models; what to tell."""
    if arguments:
        raise PromotionRefused(f"{arguments[0]!r}: list takes no arguments")
    table = list_models(_open_store())
    return to_plain(table) if table.cells else "no model is registered: python runs.py promote run=.. alias=champion\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command; 0, or 2 when it is refused."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    given = sys.argv[1:] if arguments is None else list(arguments)
    commands = {"promote": promote_run, "push": push_rows, "list": list_registered}
    if not given or given[0] not in commands:
        print(__doc__, file=sys.stderr)
        return REFUSED
    try:
        print(commands[given[0]](given[1:]), end="")
    except (PromotionRefused, TrackingError, ValueError, FileNotFoundError) as error:
        print(f"runs.py {given[0]}: {error}", file=sys.stderr)
        return REFUSED
    return 0


def _open_store() -> Store:
    return initialise(**dict(OmegaConf.load(CONFIG)), must_exist=True)


if __name__ == "__main__":
    sys.exit(main())
