"""`data_report.html`: what is in a store, and what looks wrong with it, before anything is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

import photoz_lit
from photoz_lit.data.store import FLAGS, Store
from photoz_lit.errors import DataError
from photoz_lit.grids import Floats, Ints, MagnitudeSlices, Texts
from photoz_lit.report import limits
from photoz_lit.report.cutout_checks import Comparison, CutoutFacts, compare_r, measure, suspicions
from photoz_lit.report.figures import data as figures
from photoz_lit.report.figures.style import DASH, MINUS, number
from photoz_lit.report.html import Block, Notice, Page, Section, Table, Tile, plain_table, png, svg, write
from photoz_lit.report.table_checks import table_suspicions
from photoz_lit.target import REDSHIFT, Target

SHOWN = 30  # galaxies in the contact sheet
SAMPLE = 512
SAMPLE_BYTES = 200_000_000
BY_BAND_SHOWN = 5
DISTRIBUTIONS = ("spec_z", "dered_petro_r", "ebv")


@dataclass(frozen=True)
class Findings:
    """What a part of the page says: warnings in words, numbers to be seen first, blocks."""

    warnings: list[str] = field(default_factory=list)
    tiles: list[Tile] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)


def write_data_report(
    store: Store,
    *,
    split: Texts | None,
    bands: str,
    pixel_scale: float,
    slices: MagnitudeSlices,
    name: str,
    target: Target = REDSHIFT,
) -> list[str]:
    """Write `data_report.html` and `png` into a store's folder; return what looks wrong.

    The table is read whole; of the inputs a sample of up to 512 galaxies, spread over the store. `split` is
    that of each galaxy, (n,); `bands` of images are a letter each, `pixel_scale` is in arcsec. DataError: the
    images have another number of bands, or the folder cannot be written to.
    """
    rows = sample_rows(store)
    inputs, table = Findings(), _table_findings(store, split, slices, target)
    if store.kind == "images":
        if (n := store.inputs.shape[1]) != len(bands):
            raise DataError(f"{store.folder}: cutouts of {n} bands, but {len(bands)} are named: {bands}")
        if rows.size:
            inputs = _image_findings(store, rows, bands, pixel_scale)
            write(store.folder / "contact_sheet.png", inputs.blocks[0].figures[0].content)
    elif rows.size:
        inputs = _vector_findings(store, rows)
    shape = " × ".join(str(n) for n in store.inputs.shape[1:])
    warnings = [*inputs.warnings, *table.warnings]
    notice = Notice("Nothing looks wrong.", (), "The pictures below show what no check can.", good=True)
    if warnings:
        title = f"{len(warnings)} {'thing looks' if len(warnings) == 1 else 'things look'} wrong"
        notice = Notice(title, [("", warning) for warning in warnings])
    sections = [Section("Inputs", blocks=inputs.blocks), Section("Table", blocks=table.blocks)]
    page = Page(
        title=name,
        subtitle=f"photoz_lit {photoz_lit.__version__} · {store.kind} of {shape}, {store.inputs.dtype} ·"
        f" {store.folder}",
        notices=[notice],
        tiles=[*table.tiles, *inputs.tiles],
        sections=[section for section in sections if section.blocks],
    )
    write(store.folder / "data_report.html", page.render().encode())
    return warnings


def _names(store: Store) -> Texts:
    return np.char.add("object_id ", np.asarray(store.catalogue["object_id"]).astype(str))


def _table_findings(store: Store, split: Texts | None, slices: MagnitudeSlices, target: Target) -> Findings:
    """Count galaxies, and describe the columns of the catalogue."""
    n, flags, usable = len(store.catalogue), store.flags, store.usable
    flagged = n - int(usable.sum())
    warnings = []
    if flagged > limits.FLAGGED * n:
        warnings.append(f"{flagged / n:.0%} of the galaxies are flagged and cannot be used: see Counts.")
    numeric = [c for c in store.catalogue.colnames if store.catalogue[c].dtype.kind in "fiu"]
    columns = {c: store.column(c) for c in numeric if c != "object_id"}
    tiles = [Tile("galaxies", f"{n:,}", f"{flagged:,} flagged" if flagged else "none flagged")]
    wanted = dict.fromkeys((target.column, *DISTRIBUTIONS))
    shown = {c: columns[c] for c in wanted if c in columns and np.isfinite(columns[c]).any()}
    if target.column in shown:
        low, middle, high = np.nanpercentile(shown[target.column], [0, 50, 100])
        tiles.append(Tile(f"median {target.column}", f"{middle:.3f}", f"from {low:.3f} to {high:.3f}"))
    if "dered_petro_r" in shown:
        r = shown["dered_petro_r"][usable]
        low, high = slices.edges[[0, -1]]
        outside = int(((r < low) | (r > high)).sum())
        if outside > limits.OUTSIDE * len(r):
            warnings.append(
                f"{outside} of {len(r)} galaxies lie outside the slices (survey.r_min, survey.r_width, "
                f"survey.n_slices), {low:g} to {high:g} in dered_petro_r: they count in the first or last of "
                "them."
            )
        tiles.append(Tile("outside the slices", f"{outside:,} of {len(r):,}", f"of r, {low:g} to {high:g}"))
    warnings += table_suspicions({c: v[usable] for c, v in columns.items()}, _names(store)[usable])
    counts = [("all", f"{n:,}")]
    if split is not None:
        counts += [(s, f"{(split == s).sum():,}") for s in figures.SPLITS if (split == s).any()]
    counts += [(f"flagged: {FLAGS[f]}", f"{(flags == f).sum():,}") for f in FLAGS if f and (flags == f).any()]
    blocks = [Block("Counts", table=plain_table(("", "galaxies"), counts, "narrow"))]
    if shown:
        histograms = figures.figure_distributions(shown, split, target)
        text = "Splits should look alike, unless the test galaxies have their own table."
        picture = svg(histograms, "Histograms of " + ", ".join(shown))
        blocks.append(Block("Distributions", text if split is not None else "", figures=(picture,)))
    text = "Numbers that are not finite count as missing."
    blocks.append(Block("Columns of the table", text, table=_statistics("column", columns)))
    return Findings(warnings, tiles, blocks)


def _statistics(what: str, columns: Mapping[str, Floats]) -> Table:
    """Make a table of the extremes and percentiles of columns."""
    rows = []
    for name, values in columns.items():
        finite = values[np.isfinite(values)]
        cells = [DASH] * 5
        if finite.size:
            cells = [f"{q:.5g}".replace("-", MINUS) for q in np.percentile(finite, [0, 1, 50, 99, 100])]
        rows.append((name, f"{values.size - finite.size:,}", *cells))
    return plain_table((what, "missing", "least", "1 %", "median", "99 %", "greatest"), rows)


def sample_rows(store: Store, most: int = SAMPLE) -> Ints:
    """Return usable rows, evenly spread over the store, as many as fit in little memory."""
    usable = np.flatnonzero(store.usable)
    row_bytes = 4 * int(np.prod(store.inputs.shape[1:]))
    n = min(len(usable), most, max(SHOWN, SAMPLE_BYTES // row_bytes))
    return usable[np.linspace(0, len(usable) - 1, n).astype(np.int64)] if n else usable


def read_rows(store: Store, rows: Ints) -> NDArray[np.float32]:
    """Read rows of the inputs, (n, ...)."""
    inputs = np.empty((len(rows), *store.inputs.shape[1:]), np.float32)
    for out, row in zip(inputs, rows.tolist(), strict=True):
        out[:] = store.read(row, row + 1)[0]
    return inputs


def chosen(store: Store, rows: Ints, n: int = SHOWN) -> Ints:
    """Return which places of `rows` to show: n, in the order of spec_z, or of r, or of the store."""
    columns = (store.column(name)[rows] for name in ("spec_z", "dered_petro_r"))
    order = np.argsort(next((c for c in columns if np.isfinite(c).any()), 0 * rows), kind="stable")
    return order[np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(np.int64)]


def labels(store: Store, rows: Ints) -> list[str]:
    """Write spec_z and r of galaxies, or their object_id where neither is known."""
    columns = ("z", 3, store.column("spec_z")), ("r", 2, store.column("dered_petro_r"))
    written = []
    for row in rows.tolist():
        words = [f"{name} = {c[row]:.{digits}f}" for name, digits, c in columns if np.isfinite(c[row])]
        written.append("  ".join(words) or str(store.catalogue["object_id"][row]))
    return written


def _image_findings(store: Store, rows: Ints, bands: str, pixel_scale: float) -> Findings:
    """Look at a sample of cutouts; the contact sheet comes first."""
    cutouts = read_rows(store, rows)
    facts = measure(cutouts, bands, pixel_scale)
    z, r, ebv = (store.column(name)[rows] for name in DISTRIBUTIONS)
    comparison = compare_r(facts, r, np.nan_to_num(ebv))
    shown, few = chosen(store, rows), chosen(store, rows, BY_BAND_SHOWN)
    noise, colours = [f.noise for f in facts.bands], figures.colour_bands(bands)
    stretch = figures.stretch_for(float(np.median([noise[i] for i in colours])))
    sheet = figures.figure_contact_sheet(cutouts[shown], labels(store, rows[shown]), bands, stretch)
    by_band = figures.figure_bands(cutouts[few], labels(store, rows[few]), bands, noise, facts.stack)
    order = "From low to high spec_z; " if np.isfinite(z).any() else ""
    red, green, blue = (bands[i] for i in colours)
    blocks = [
        Block(
            "Galaxies",
            f"{order}{red}, {green}, {blue} as red, green, blue, brightness against the noise. Each galaxy "
            "should sit in the middle; nearby ones are large, distant ones redder.",
            figures=(png(sheet, "Cutouts in colour"),),
        ),
        Block(
            "Band by band",
            f"Above, the median of {len(rows)} galaxies with a cross at the centre: a band that is shifted, "
            "turned or empty stands out. Below, single galaxies; each band has one scale.",
            figures=(png(by_band, "Cutouts in each band"),),
        ),
        _photometry(facts, comparison),
        Block(
            "Noise and centring by band",
            "Noise: of a pixel at the border. Depth: 5 sigma in 2 arcsec, if pixels are independent. Sky: "
            "level of the border in units of the noise; lowest: the lowest pixel of all below it. About half "
            "of all pixels is negative where the sky is subtracted.",
            table=_band_table(facts),
        ),
    ]
    said = suspicions(facts, comparison, _names(store)[rows])
    return Findings(said, _image_tiles(facts, comparison), blocks)


def _image_tiles(facts: CutoutFacts, comparison: Comparison | None) -> list[Tile]:
    reference = facts.bands[facts.reference]
    centred = "far off" if facts.off_centre > limits.OFF_CENTRE else "centred"
    tiles = []
    if comparison is not None:
        verdict = "wrong units?" if abs(comparison.offset) > limits.OFFSET else "agrees with the table"
        offset = f"{number(comparison.offset, 2, signed=True)} mag"
        tiles.append(Tile("cutouts − table, in r", offset, verdict))
    tiles.append(Tile("off the centre", f"{facts.off_centre:.1f} px", centred))
    depth = f"{reference.depth:.1f} mag"
    return [*tiles, Tile(f"depth in {reference.band}", depth, "5 sigma in 2 arcsec")]


def _photometry(facts: CutoutFacts, comparison: Comparison | None) -> Block:
    """Compare the brightness of the cutouts with the table, and band with band."""
    bands = "".join(f.band for f in facts.bands)
    brightness = figures.figure_brightness(facts.magnitudes, bands, [f.depth for f in facts.bands])
    pictures = [svg(brightness, "Brightness and depth by band")]
    text = "Galaxies are brighter in redder bands: the line should rise."
    if comparison is not None:
        scatter = figures.figure_photometry(comparison.table, comparison.measured, comparison.offset)
        pictures.insert(0, svg(scatter, "Magnitudes of cutouts against the table"))
        side = "fainter" if comparison.offset > 0 else "brighter"
        text = (
            f"Within two Petrosian radii, corrected for ebv, the cutouts are {abs(comparison.offset):.2f} "
            f"mag {side} than dered_petro_r (median). Wrong units show as an offset, rows that do not "
            f"belong to their cutouts as a cloud, bright neighbours as points above the line. {text}"
        )
    return Block("Brightness", text, figures=tuple(pictures))


def _band_table(facts: CutoutFacts) -> Table:
    head = ("noise [nMgy]", "depth [mag]", "sky [noise]", "lowest [noise]", "shift in x [px]", "in y [px]")
    rows = []
    for f in facts.bands:
        brightness = (f"{f.noise:.4g}", f"{f.depth:.2f}", number(f.sky, 2, signed=True))
        pixels = (number(-float(f.lowest.max()), 1), *(number(shift, 1, signed=True) for shift in f.shift))
        rows.append((f.band, *brightness, *pixels, f"{f.negative:.1%}", f"{f.zero:.1%}"))
    return plain_table(("band", *head, "negative", "zero"), rows)


def _vector_findings(store: Store, rows: Ints) -> Findings:
    """Describe vectors as a whole, or each magnitude and its error."""
    values = read_rows(store, rows).astype(np.float64)
    if store.kind == "features":
        columns: dict[str, Floats] = {}
        for i, (magnitude, error) in enumerate(values.transpose(2, 1, 0), 1):
            columns |= {f"magnitude {i}": magnitude, f"error {i}": error}
        text = f"As the network gets them, from {len(rows)} galaxies, in the order of data.magnitudes."
        block = Block("Magnitudes", text, table=_statistics("input", columns))
        return Findings(table_suspicions(columns, _names(store)[rows]), [], [block])
    spread = values.std(axis=0)
    constant = int((spread == 0).sum())
    warning = f"{constant} of the {spread.size} numbers of a vector are the same for all galaxies."
    columns = {
        "length of a vector": np.linalg.norm(values, axis=1),
        "mean": values.mean(axis=0),
        "standard deviation": spread,
        "least": values.min(axis=0),
        "greatest": values.max(axis=0),
    }
    table = _statistics("over the numbers of a vector", columns)
    block = Block("Vectors", f"From {len(rows)} galaxies.", table=table)
    return Findings([warning] if constant else [], [], [block])
