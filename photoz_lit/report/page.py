"""The HTML report and its summary table, from the runs under an output folder."""

import base64
import os
import re
from dataclasses import replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import photoz_lit
from photoz_lit.errors import DataError
from photoz_lit.report.calibrated import read_calibrated
from photoz_lit.report.runs import Gathered, gather, sets_of_runs
from photoz_lit.report.sections import Section, build_section
from photoz_lit.report.table import corrections_table, nothing_finished, print_table, summary_csv
from photoz_lit.target import REDSHIFT, Target

__all__ = ["corrections_table", "print_table", "write_report"]

TEMPLATE = "template.html.jinja"


def write_report(output_dir: Path) -> tuple[Path, Path]:
    """Gather all finished runs into `report.html` and `summary.csv`, and `figures/<run>/*.svg`.

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
    calibrated, broken = read_calibrated(output_dir)
    gathered = replace(gathered, broken=(*gathered.broken, *broken))
    finished = {(r.run, r.folder.name) for r in gathered.runs}
    sections = []
    for name, runs in sets_of_runs(gathered.runs).items():
        own = {(r.run, r.folder.name) for r in runs}
        # Estimates of a table, or of a run that is gone, belong to the folder all the same.
        products = [c for c in calibrated if c.run == runs[0].run and c.key not in finished - own]
        sections.append(build_section(name, runs, products))
    for section in sections:
        _write_figures(section, output_dir / "figures" / section.run)
    _replace(page, render(gathered, sections, output_dir))
    _replace(summary, summary_csv(gathered.runs))
    return page, summary


def render(gathered: Gathered, sections: list[Section], output_dir: Path) -> str:
    """Render the page.

    Parameters
    ----------
    gathered : Gathered
        The runs, at least one of them finished.
    sections : list of Section
        What the page shows, a section a set of runs.
    output_dir : Path
        Their folder; paths on the page are relative to it.

    Returns
    -------
    str
        HTML with styles and figures inside.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    targets = list(dict.fromkeys(section.target for section in sections))
    return environment.get_template(TEMPLATE).render(
        version=photoz_lit.__version__,
        title=f"Photometric {'redshifts' if targets == [REDSHIFT] else 'estimates'} and their biases",
        targets=targets,
        words=_words(targets),
        subtitle=f"photoz_lit {photoz_lit.__version__} · {len(gathered.runs)} finished runs in {output_dir}",
        sections=sections,
        broken=[(folder.relative_to(output_dir), reason) for folder, reason in gathered.broken],
        incomplete=[folder.relative_to(output_dir) for folder in gathered.incomplete],
    )


def _words(targets: list[Target]) -> dict[str, str]:
    """Name what the page is about: the one target's words, or general ones for several."""
    if len(targets) > 1:
        general = ("a quantity", "values", "the truth", "the estimate", "the distribution of estimates")
        return dict(zip(("what", "plural", "true", "estimated", "n_of"), general, strict=True))
    (target,) = targets
    return {
        "what": "a redshift" if target.is_redshift else target.label,
        "plural": target.plural,
        "true": target.true,
        "estimated": target.estimated,
        "n_of": target.n_of,
    }


def _write_figures(section: Section, folder: Path) -> None:
    """Write the figures of a section as SVG files, named by their headings, for talks and papers."""
    folder.mkdir(parents=True, exist_ok=True)
    for block in section.all_blocks:
        slug = re.sub(r"[^a-z0-9]+", "-", block.heading.lower()).strip("-")
        for i, picture in enumerate((*block.figures, *block.more)):
            ending = f"-{i + 1}" if len(block.figures) + len(block.more) > 1 else ""
            _replace(folder / f"{slug}{ending}.svg", base64.b64decode(picture.data).decode())


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
