"""The HTML report and its summary table, from the runs under an output folder."""

import os
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import photoz_lit
from photoz_lit.errors import DataError
from photoz_lit.report.runs import Gathered, gather
from photoz_lit.report.sections import build_section
from photoz_lit.report.table import COLUMNS, corrections_table, nothing_finished, print_table, summary_csv

__all__ = ["corrections_table", "print_table", "write_report"]

TEMPLATE = "template.html.jinja"


def write_report(output_dir: Path) -> tuple[Path, Path]:
    """Gather all finished runs into `report.html` and `summary.csv`.

    Parameters
    ----------
    output_dir : Path
        Folder that holds `<run>/<stage>/<name>/`; the two files are written into it.

    Returns
    -------
    Path, Path
        The page, which needs no other file, and the table with a row a run folder.

    Raises
    ------
    NoResultsError
        Nothing is finished there; the message says what to run.
    DataError
        The folder cannot be written to.
    """
    gathered = gather(output_dir)
    if not gathered.runs:
        error = nothing_finished(output_dir)
        for folder, reason in gathered.broken:
            error.add_note(f"{folder}: {reason}")
        raise error
    page, summary = output_dir / "report.html", output_dir / "summary.csv"
    _replace(page, render(gathered, output_dir))
    _replace(summary, summary_csv(gathered.runs))
    return page, summary


def render(gathered: Gathered, output_dir: Path) -> str:
    """Render the page.

    Parameters
    ----------
    gathered : Gathered
        The runs, at least one of them finished.
    output_dir : Path
        Their folder; paths on the page are relative to it.

    Returns
    -------
    str
        HTML with styles and figures inside.
    """
    names = list(dict.fromkeys(r.run for r in gathered.runs))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        version=photoz_lit.__version__,
        title="Photometric redshifts and their biases",
        subtitle=f"photoz_lit {photoz_lit.__version__} · {len(gathered.runs)} finished runs in {output_dir}",
        sections=[build_section([r for r in gathered.runs if r.run == name]) for name in names],
        columns=COLUMNS,
        broken=[(folder.relative_to(output_dir), reason) for folder, reason in gathered.broken],
        incomplete=[folder.relative_to(output_dir) for folder in gathered.incomplete],
    )


def _replace(path: Path, text: str) -> None:
    """Write a file beside its place and move it there, so that a reader never sees half of it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise DataError(
            f"cannot write {path} ({error.strerror}): free some space or choose another output_dir"
        ) from error
    finally:
        beside.unlink(missing_ok=True)
