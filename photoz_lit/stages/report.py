"""`stage=report`: all runs under output_dir in one page and one table of numbers."""

import logging
from pathlib import Path

from rich.console import Console

from photoz_lit.config import Config
from photoz_lit.report.page import corrections_table, print_table, write_report

log = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write `report.html` and `summary.csv`, print the table of corrections and where the page is."""
    output_dir = Path(config.output_dir)
    page, summary = write_report(output_dir)
    print_table(Console(), corrections_table(output_dir))
    log.info("numbers: %s", summary)
    log.info("report:  %s", page)
