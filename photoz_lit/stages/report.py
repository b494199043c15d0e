"""`stage=report`: runs under output_dir in one page and one table of numbers."""

import logging
import shlex
from pathlib import Path

from rich.console import Console

from photoz_lit.config import Config
from photoz_lit.report.page import write_report
from photoz_lit.report.table import print_table

log = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write `report.html` and the tables beside it, print the table of corrections and where the page is.

    With a name typed as `run=NAME`, or set by an experiment, only the runs of this name are shown.
    """
    typed = any(word.startswith("run=") for word in shlex.split(config.names.get("words", "")))
    family = config.run if typed or config.run != Config.run else None
    page, summary, rows = write_report(Path(config.output_dir), family)
    print_table(Console(), rows)
    log.info("numbers: %s", summary)
    log.info("report:  %s", page)
