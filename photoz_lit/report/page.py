"""The HTML report and its summary table, from the runs under an output folder."""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import photoz_lit
from photoz_lit.errors import DataError
from photoz_lit.report import paired
from photoz_lit.report import table as tables
from photoz_lit.report.answers import HEADINGS, answers, contestants
from photoz_lit.report.aside import aside
from photoz_lit.report.blocks import build_blocks, calibrated_block, comparison_blocks, sweep_block
from photoz_lit.report.calibrated import CALIBRATED_COLUMNS, Calibrated, calibrated_rows, read_calibrated
from photoz_lit.report.figures.labels import draw_labels
from photoz_lit.report.figures.style import PROMINENT, colour_of, known_label, number
from photoz_lit.report.html import Block, Cell, Notice, Page, Section, Table, Tile, plain_table, write
from photoz_lit.report.runs import Gathered, Run, gather, reason_of, sets_of_runs
from photoz_lit.report.sweeps import reference_runs, sweeps_of
from photoz_lit.report.table import Column, Rows
from photoz_lit.target import REDSHIFT, Target

MANY = 12  # runs; more are folded away


def write_report(output_dir: Path, family: str | None = None) -> tuple[Path, Path, list[dict[str, Any]]]:
    """Gather finished runs of a family, or of all, into `report.html`, which needs no other file.

    Beside it `summary.csv` has a row a run folder, `paired-<set of runs>.csv` differences from the Baseline,
    `blind.json` what blind numbers were frozen with, and `figures/<set of runs>/*.svg` are those of the page;
    figures of a classifier's labels go into its folder. Returns page, summary and `corrections_table`;
    DataError if nothing is finished there, or the folder cannot be written to.
    """
    gathered = gather(output_dir, family)
    if not gathered.runs:
        raise _nothing_finished(output_dir, family, gathered)
    calibrated, broken = read_calibrated(output_dir, family)
    # Every other run is drawn by the other process, and waited for after those that are drawn here.
    others = {run.folder: aside(draw_labels, run.folder, run.survey) for run in gathered.runs[1::2]}
    for run in (*gathered.runs[::2], *gathered.runs[1::2]):
        try:
            others.get(run.folder, partial(draw_labels, run.folder, run.survey))()
        except (DataError, KeyError) as error:
            broken.append((run.folder, reason_of(error, run.folder)))
    gathered = replace(gathered, broken=(*gathered.broken, *broken))
    finished = {(r.run, r.folder.name) for r in gathered.runs}
    rows = tables.corrections_table(gathered.runs)
    sections = []
    for name, runs in sets_of_runs(gathered.runs).items():
        own = {(r.run, r.folder.name) for r in runs}
        # Estimates of a table, or of a run that is gone, belong to the family all the same.
        products = [c for c in calibrated if c.run == runs[0].run and (c.run, c.model) not in finished - own]
        sections.append(build_section(name, runs, [row for row in rows if row["run"] == name], products))
        _write_figures(sections[-1], output_dir / "figures" / name)
        for file, text in (block.download for block in sections[-1].blocks if block.download):
            if file.startswith("paired-"):
                write(output_dir / file, text.encode())
    _write_blind(gathered.runs, output_dir)
    page, summary = output_dir / "report.html", output_dir / "summary.csv"
    write(page, build_page(gathered, sections, output_dir).render().encode())
    write(summary, tables.summary_csv(gathered.runs).encode())
    return page, summary, rows


def _write_blind(runs: Sequence[Run], output_dir: Path) -> None:
    """Write for each blind set of runs its commits, and its folders with the SHA-256 of their settings."""
    path, found = output_dir / "blind.json", {}
    for name, same in sets_of_runs(runs).items():
        if tables.blind(same) == "yes":
            settings = {r.folder.relative_to(output_dir): hashlib.sha256(r.config.encode()) for r in same}
            digests = {str(folder): sha256.hexdigest() for folder, sha256 in settings.items()}
            found[name] = {"commits": _commits(same), "config_sha256": digests}
    path.unlink(missing_ok=True)  # of runs that were there before
    if found:
        write(path, json.dumps(found, indent=1).encode())


def _commits(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(one["commit"] for run in runs for one in run.frozen["code"]))


def _nothing_finished(output_dir: Path, family: str | None, gathered: Gathered) -> DataError:
    of = f" of run={family}" if family else ""
    known = sorted({p.parents[2].name for p in output_dir.glob("*/*/*/done.json")})
    error = DataError(
        f"no finished run{of} under {output_dir}"
        + (f" (there are {', '.join(known)})" if family and known else "")
        + ": run the demo with `make demo`, or a single run with"
        " `python -m photoz_lit stage=representation`, then"
        " `python -m photoz_lit stage=classifier correction=full`, and repeat the report"
    )
    for folder, reason in gathered.broken:
        error.add_note(f"{folder}: {reason}")
    return error


def _write_figures(section: Section, folder: Path) -> None:
    """Write the figures of a section as SVG files, named by their headings, for talks and papers."""
    pictures: dict[str, list[bytes]] = {}
    for block in section.blocks:
        for heading, picture in block.pictures():
            slug = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
            pictures.setdefault(slug, []).append(picture.content)
    folder.mkdir(parents=True, exist_ok=True)
    for slug, contents in pictures.items():
        for i, content in enumerate(contents):
            ending = f"-{i + 1}" if len(contents) > 1 else ""
            write(folder / f"{slug}{ending}.svg", content)


def build_page(gathered: Gathered, sections: list[Section], output_dir: Path) -> Page:
    """Put sections below what the page is about; paths on it are relative to the output folder."""
    targets = list(dict.fromkeys(run.survey.target for run in gathered.runs))
    what, plural, true, estimated, n_of = _words(targets)
    uneven = f"Estimates are drawn towards crowded {plural}: the mean residual tilts with {true}."
    uneven += " Look for flat lines at zero."
    edges = "At the ends estimates can only scatter inward: the mean residual bends up at low and down at"
    edges += f" high {true}."
    pile = f"Many galaxies pile up on a few values of {estimated}: spikes in {n_of} that {true} does not"
    pile += " have."
    definitions = ", ".join(_definition(target) for target in targets)
    broken = [(str(folder.relative_to(output_dir)), reason) for folder, reason in gathered.broken]
    begun = [(str(folder.relative_to(output_dir)), "") for folder in gathered.incomplete]
    notices = (
        Notice("Left out, because the results cannot be read:", broken),
        Notice("Incomplete: begun, not finished.", begun, "The same command resumes them."),
    )
    return Page(
        title=f"Photometric {'redshifts' if targets == [REDSHIFT] else 'estimates'} and their biases",
        subtitle=f"photoz_lit {photoz_lit.__version__} · {len(gathered.runs)} finished runs in {output_dir}",
        text=f"A classifier that reads {what} from a galaxy's image is biased in three ways. Below, each"
        " correction is judged by how much of each bias it leaves, and by what it costs in scatter."
        f" Throughout, {definitions}, on test galaxies that no training has seen.",
        asides=(("Uneven training numbers", uneven), ("Edges of the range", edges), ("Mode collapse", pile)),
        notices=[notice for notice in notices if notice.items],
        sections=sections,
    )


def _definition(target: Target) -> str:
    truth, estimate = (f"{target.symbol}_{{{name}}}" for name in target.subscripts)
    difference = f"{estimate} − {truth}"
    return f"Δ{target.symbol} = " + (f"({difference}) / (1 + {truth})" if target.relative else difference)


def _words(targets: list[Target]) -> tuple[str, str, str, str, str]:
    """Name what the page is about: the one target's words, or general ones for several."""
    if len(targets) > 1:
        return "a quantity", "values", "the truth", "the estimate", "the distribution of estimates"
    (t,) = targets
    return "a redshift" if t.is_redshift else t.label, t.plural, t.true, t.estimated, t.n_of


def build_section(name: str, runs: Sequence[Run], table: Rows, calibrated: Sequence[Calibrated]) -> Section:
    """Build the section of one set of runs from them, their rows of the table, and calibrated estimates."""
    corrections, target = tables.by_correction(runs), runs[0].survey.target
    before, after = calibrated_rows(calibrated, corrections)
    sweeps, differences = sweeps_of(runs), aside(_paired_blocks, name, corrections, target)
    blocks = [sweep_block(sweep, target) for sweep in sweeps]
    # Numbers of different values do not compete: bins or galaxies differ, for trainz too.
    table, swept = contestants(table) if sweeps else table, bool(sweeps)
    blocks += [_corrections_block(name, table, target, swept=swept), _estimates_block(name, table, target)]
    if swept:
        value, shown = reference_runs(sweeps[0])
        summary = f"Figures of every correction at {sweeps[0].key} = {value}"
        against = comparison_blocks(contestants(tables.corrections_table(shown)), target)
        drawn = [Block(summary=summary, folded=(*against, *build_blocks(tables.by_correction(shown))))]
    else:
        found = answers(table, after, target)
        blocks += [_answers_block(found)] if found else []
        compared = aside(comparison_blocks, contestants(table), target)
        drawn = build_blocks(corrections)
        blocks += compared()
    blocks += differences()
    if before:
        blocks += [calibrated_block(before, after, target), _changes_block(before, after, target)]
    return Section(
        heading=name,
        text=_facts(runs, list(corrections)),
        tiles=() if sweeps else _tiles(table, target),
        blocks=[*blocks, *drawn, *_runs_blocks(corrections)],
    )


def _facts(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Say what the set is made of; where its runs differ, say so too."""
    survey, grid, target = runs[0].survey, runs[0].survey.grid, runs[0].survey.target
    sizes = sorted({r.spec_z.size for r in runs})
    bins = sorted({r.survey.grid.n_bins for r in runs})
    number_of, n_bins = (f"{s[0]:,}" if len(s) == 1 else f"{s[0]:,} to {s[-1]:,}" for s in (sizes, bins))
    estimates = " or ".join(dict.fromkeys(r.survey.estimate for r in runs))
    stores = ", ".join(dict.fromkeys(r.store for r in runs if r.store))
    seeds = len({r.seed for r in runs})
    n_corrections = len({known_label(label) for label in labels})
    settings = f" in {len(labels)} settings" if len(labels) > n_corrections else ""
    unit = f" {target.unit}" if target.unit else ""
    blind = "Not blind: settings may have been chosen with such numbers in sight."
    if tables.blind(runs) == "yes":
        commits = ", ".join(commit[:7] for commit in _commits(runs))
        blind = f"Blind: no setting was chosen on these galaxies; settings committed as {commits}."
    return (
        f"Survey {survey.name}{f', data set {stores}' if stores else ''}:"
        f" {target.plural} {grid.z_min:g} to {grid.z_max:g}{unit} in {n_bins} bins."
        f" Estimates are the {estimates} of {target.pdf}."
        f" {number_of} test galaxies. {len(runs)} runs of {n_corrections} corrections{settings},"
        f" {seeds} {'seed' if seeds == 1 else 'seeds'}. {blind}"
    )


def _tiles(table: Rows, target: Target) -> tuple[Tile, ...]:
    """Compare full and best with the Baseline, or with what else no correction was applied to."""
    rows = {row["label"]: row for row in table}
    reference = next((rows[name] for name in paired.REFERENCES if name in rows), None)
    if reference is None:
        return ()
    tiles = []
    for label in (name for name in PROMINENT if name in rows):
        of = {e["estimate"]: e for e in rows[label]["estimates"]}
        floor = number(rows[label]["total_variation_floor"], 3)
        names = {
            "slope_spec_z": f"Tilt: slope against {target.true}",
            "total_variation": f"Mode collapse: total variation (floor {floor})",
            "sigma_mad": "Cost: scatter σ_MAD",
        }
        for column in (c for c in tables.COLUMNS if c.key in names):
            # The tilt is what the individual estimate is for.
            individual = column.key == "slope_spec_z" and "individual" in of
            row, which = (of["individual"], f"{label}, individual") if individual else (rows[label], label)
            before, after = abs(reference[column.key]), abs(row[column.key])
            what = "|slope|" if column.signed else "ratio"
            change = f": {what} × {number(after / before, 2)}" if before > 0 else ""
            verdict = f"{reference['label']} to {which}{change}"
            tiles.append(Tile(names[column.key], column.text(row), verdict, column.text(reference)))
    return tuple(tiles)


def _corrections_block(name: str, table: Rows, target: Target, *, swept: bool) -> Block:
    """Show the table of corrections, the best of each column marked where they compete."""
    text = "One seed; errors from the bootstrap."
    if any(row["spread"] == "seeds" for row in table):
        text = "Medians over seeds, with half their range; bootstrap errors where there is one seed."
    if not swept:
        text += (
            f" ▸ marks the best correction of a column. trainz gives every galaxy the {target.n_of} of the"
            " training set: what one reaches without looking at any galaxy."
        )
    judged = [] if swept else contestants(table)
    best = {}
    for c in tables.COLUMNS if len(judged) > 1 else ():
        if not c.key.endswith("floor"):  # which describes the sample, not the correction
            best[c.key] = min((c.miss(row) for row in judged if math.isfinite(row[c.key])), default=math.nan)
    rows = []
    for row in table:
        label, seconds = str(row["label"]), row["seconds"]
        kind = label if label == "trainz" else "highlight" if label in PROMINENT else ""
        cells = [
            Cell(label, value=label, kind=kind, colour=colour_of(label)),
            Cell(str(row["seeds"]), value=str(row["seeds"])),
            Cell(tables.galaxies(row), value=repr(row["n"])),
        ]
        for c in tables.COLUMNS:
            leads = label != "trainz" and c.miss(row) == best.get(c.key)
            spread = f"± {c.spread(row)}" if c.spread(row) else ""
            cells.append(Cell(c.text(row), spread, repr(row[c.key]), c.key, "best" if leads else ""))
        rows.append([*cells, Cell(tables.duration(seconds), value=repr(seconds))])
    headings = [("correction", ""), ("seeds", ""), ("n", "test galaxies, median over seeds")]
    headings += [(c.heading, c.meaning) for c in tables.columns_for(target)]
    headings += [("time", "median wall-clock time of a run")]
    file = f"corrections-{name}.csv", tables.corrections_csv(table)
    shown = Table(headings, rows, "sortable")
    return Block("Corrections", f"{text} A click on a heading sorts.", download=file, table=shown)


def _estimates_block(name: str, table: Rows, target: Target) -> Block:
    """Show mode, median and individual estimate of each correction's p(z)."""
    rows = [{"correction": e["label"]} | e for row in table for e in row["estimates"]]
    columns = tables.columns_for(target, tables.POINT_COLUMNS)
    block = Block(
        "Estimates: mode, median, individual",
        f"Three estimates of one {target.pdf}. The median is for samples chosen by {target.estimated}; the"
        f" individual one, with its error, for one galaxy of given {target.true}; the mode is that of the"
        " paper. Slopes are those of weighted bins, and plain ones of ordinary least squares over galaxies.",
    )
    words = ("correction", "estimate", "seeds")
    return _with_table(block, f"estimates-{name}.csv", words, columns, rows, "spread")


def _paired_blocks(name: str, corrections: dict[str, list[Run]], target: Target) -> list[Block]:
    """Show what each correction changes on the same galaxies, where there is one to compare with."""
    rows, columns = paired.paired_rows(corrections), tables.columns_for(target, paired.COLUMNS)
    if not rows:
        return []
    block = Block(
        f"Differences from {rows[0]['reference']}, paired",
        "On the same test galaxies, by each correction's own estimate: below zero is better. ± is the error"
        " of a paired bootstrap over galaxies, then half the range over seeds. Grey: within twice the error.",
    )
    words = ("correction", "reference", "seeds")
    return [_with_table(block, f"paired-{name}.csv", words, columns, rows, "err", "spread")]


def _with_table(
    block: Block, file: str, words: Sequence[str], columns: Sequence[Column], rows: Rows, *ends: str
) -> Block:
    """Give a block a table of words and numbers, what ends with `_<end>` in small, and all as CSV."""

    def cell(c: Column, row: dict[str, Any]) -> Cell:
        small = ", ".join(f"± {c.spread(row, end)}" for end in ends if c.spread(row, end))
        alike = "err" in ends and not abs(row[c.key]) > 2 * row[f"{c.key}_err"]
        return Cell(c.text(row), small, kind="alike" if alike else "")

    cells = [[*(Cell(str(row[w])) for w in words), *(cell(c, row) for c in columns)] for row in rows]
    headings = [*((word, "") for word in words), *((c.heading, c.meaning) for c in columns)]
    names = [*words, *(f"{c.key}{end}" for c in columns for end in ("", *(f"_{e}" for e in ends)))]
    shown = Table(headings, cells, "numbers")
    return replace(block, download=(file, tables.as_csv(names, rows)), table=shown)


def _answers_block(rows: list[list[Cell]]) -> Block:
    """Say which correction is best at what."""
    return Block(
        "Corrections compared: which is best at what",
        "The best by each number, its cost in scatter, and whether it can be told apart from the others: two"
        " corrections are told apart if they differ by more than both spreads together. The best of many is"
        " always a little lucky, and these are test galaxies: choose on a validation set.",
        table=Table([(name, "") for name in HEADINGS], rows, "answers"),
    )


def _changes_block(before: Rows, after: Rows, target: Target) -> Block:
    """Show the numbers of calibrated estimates before and after."""
    columns = tables.columns_for(target, CALIBRATED_COLUMNS)
    headings = [("calibrated", ""), ("seeds", ""), *((c.heading, c.meaning) for c in columns)]
    rows = []
    for b, a in zip(before, after, strict=True):
        changes = [Cell(f"{c.with_spread(b)} → {c.with_spread(a)}") for c in columns]
        rows.append([Cell(b["title"]), Cell(str(b["seeds"])), *changes])
    return Block(
        table=Table(headings, rows, "changes"),
        note=f"Residuals against {target.estimated}: mean over galaxies, and largest, of the absolute mean"
        " residual of their bin, of bins with more than 100 galaxies.",
    )


def _runs_blocks(corrections: dict[str, list[Run]]) -> list[Block]:
    """List the run folders and the settings of each correction; many are folded away."""
    heading, rows, settings = "Runs and settings", [], []
    for label, same in corrections.items():
        for r in same:
            folder = f"{r.run}/{r.stage}/{r.folder.name}"
            n, took = f"{r.spec_z.size:,}", tables.duration(r.seconds)
            rows.append((label, r.stage, str(r.seed), n, took, folder))
        if same[0].config:
            settings.append(Block(summary=f"Settings of {label}", folded=(Block(code=same[0].config),)))
    table = plain_table(("correction", "stage", "seed", "test galaxies", "time", "folder"), rows, "runs")
    if len(rows) <= MANY:
        return [Block(heading, table=table), *settings]
    summary = f"{len(rows)} runs and their settings"
    return [Block(heading, summary=summary, folded=(Block(table=table), *settings))]
