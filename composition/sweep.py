"""What a sweep has found, printed when its last job is done."""

import logging
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from tracking.leak_gap import tabulate_figures, tabulate_leak_gap
from tracking.rows import read_rows_file
from tracking.tables import to_plain

log = logging.getLogger(__name__)


class PrintSweep(Callback):
    """Print the rows of all jobs of a sweep below one another, and the leak gap where there is one."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Read every job's ``rows.json`` below the sweep's folder."""
        files = sorted(Path(config.hydra.sweep.dir).glob("*/rows.json"), key=lambda path: int(path.parent.name))
        rows = [row for path in files for row in read_rows_file(path)]
        if not rows:
            log.warning("no job of this sweep has written rows below %s", config.hydra.sweep.dir)
            return
        print(to_plain(tabulate_figures(rows), title="all jobs of this sweep"))
        gaps = tabulate_leak_gap(rows)
        if gaps.cells:
            print(to_plain(gaps, title="leak gap"))
