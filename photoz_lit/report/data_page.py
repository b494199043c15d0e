"""`data_report.html`: what is in a store, and what looks wrong with it, before anything is trained."""

import base64
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from numpy.typing import NDArray

import photoz_lit
from photoz_lit.data.store import FLAGS, Store
from photoz_lit.errors import DataError
from photoz_lit.report.contact_sheet import (
    check_images,
    chosen,
    column,
    labels,
    read_rows,
    sample_rows,
    shown_noise,
    write_figure,
)
from photoz_lit.report.cutout_checks import (
    FAR,
    LARGE_OFFSET,
    Comparison,
    CutoutFacts,
    compare_r,
    measure,
    suspicions,
)
from photoz_lit.report.figures import data as figures
from photoz_lit.report.figures.style import as_svg, signed
from photoz_lit.target import REDSHIFT, Target

TEMPLATE = "data_template.html.jinja"
BY_BAND_SHOWN = 5
DISTRIBUTIONS = ("spec_z", "dered_petro_r", "ebv")
SPLITS = ("train", "val", "test", "unused")

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Picture:
    """A figure as a data URL, the text that stands in for it, and its natural width in CSS pixels."""

    url: str
    alt: str
    width: int


@dataclass(frozen=True)
class Section:
    """A heading, what to look for, figures side by side, and a table: headings, then rows of cells."""

    heading: str
    text: str
    figures: tuple[Picture, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Findings:
    """What a part of the page says: warnings in words, numbers to be seen first, sections."""

    warnings: list[str]
    tiles: list[tuple[str, str, str]]
    sections: list[Section]


def write_data_report(
    store: Store,
    folder: Path,
    *,
    split: NDArray[np.str_] | None,
    bands: str,
    pixel_scale: float,
    name: str,
    target: Target = REDSHIFT,
) -> Path:
    """Write `data_report.html`, and `contact_sheet.png` for images.

    A sample of up to 512 galaxies, spread over the store, is read; the table is read whole.

    Parameters
    ----------
    store : Store
        What to report on.
    folder : Path
        Where the files go.
    split : array of str (n,), optional
        Split of each galaxy; None where there are none.
    bands : str
        Names of the bands of its images, a letter each.
    pixel_scale : float
        arcsec per pixel of its images.
    name : str
        What the page calls the data.
    target : Target
        What is to be estimated; its column is shown by split.

    Returns
    -------
    Path
        The page, which needs no other file.

    Raises
    ------
    DataError
        The images have another number of bands, or the folder cannot be written to.
    """
    rows = sample_rows(store)
    parts = [_table_findings(store, split, target)]
    if store.kind == "images":
        check_images(store, bands)
        if rows.size:
            sheet, findings = _image_findings(store, rows, bands, pixel_scale)
            write_figure(sheet, folder / "contact_sheet.png")
            parts.insert(0, findings)
    elif rows.size:
        parts.append(_vector_findings(store, rows))
    path = folder / "data_report.html"
    _replace(path, _render(parts, store, name))
    return path


def _render(parts: list[Findings], store: Store, name: str) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shape = " × ".join(str(n) for n in store.inputs.shape[1:])
    return environment.get_template(TEMPLATE).render(
        version=photoz_lit.__version__,
        name=name,
        subtitle=f"photoz_lit {photoz_lit.__version__} · {store.kind} of {shape}, {store.inputs.dtype} · "
        f"{store.folder}",
        warnings=[w for part in parts for w in part.warnings],
        tiles=[t for part in reversed(parts) for t in part.tiles],
        sections=[s for part in parts for s in part.sections],
    )


# ---- The table


def _table_findings(store: Store, split: NDArray[np.str_] | None, target: Target) -> Findings:
    """Count galaxies, and describe the columns of the catalogue."""
    n, flags = len(store.catalogue), store.flags
    flagged = int((flags != "").sum())
    warnings = []
    if flagged > 0.05 * n:
        warnings.append(f"{flagged / n:.0%} of the galaxies are flagged and cannot be used: see Counts.")
    columns = {c: column(store, c) for c in _numeric(store)}
    known = {c: v for c, v in columns.items() if v is not None}
    for c, values in known.items():
        missing = int((~np.isfinite(values)).sum())
        if missing and missing < n:
            warnings.append(f"Column {c} is empty or not finite in {missing} of {n} galaxies.")
    wanted = dict.fromkeys((target.column, *DISTRIBUTIONS))
    shown = {c: known[c] for c in wanted if c in known and np.isfinite(known[c]).any()}
    counts = [("all", f"{n:,}")]
    if split is not None:
        counts += [(s, f"{(split == s).sum():,}") for s in SPLITS if (split == s).any()]
    counts += [(f"flagged: {FLAGS[f]}", f"{(flags == f).sum():,}") for f in FLAGS if f and (flags == f).any()]
    sections = [
        Section("Counts", "", table=(("", "galaxies"), *counts)),
        Section(
            "Columns of the table",
            "Numbers that are not finite count as missing.",
            table=(
                ("column", "missing", "least", "1 %", "median", "99 %", "greatest"),
                *(_statistics(c, v) for c, v in known.items()),
            ),
        ),
    ]
    if shown:
        histograms = figures.figure_distributions(shown, split, target)
        picture = _svg(histograms, "Histograms of " + ", ".join(shown))
        text = (
            ""
            if split is None
            else "Splits should look alike, unless the test galaxies have their own table."
        )
        sections.insert(1, Section("Distributions", text, (picture,)))
    tiles = [("galaxies", f"{n:,}", f"{flagged:,} flagged" if flagged else "none flagged")]
    if target.column in shown:
        low, middle, high = np.nanpercentile(shown[target.column], [0, 50, 100])
        tiles.append((f"median {target.column}", f"{middle:.3f}", f"from {low:.3f} to {high:.3f}"))
    return Findings(warnings, tiles, sections)


def _numeric(store: Store) -> list[str]:
    return [
        c for c in store.catalogue.colnames if c != "object_id" and store.catalogue[c].dtype.kind in "fiu"
    ]


def _statistics(name: str, values: Values) -> tuple[str, ...]:
    finite = values[np.isfinite(values)]
    missing = f"{values.size - finite.size:,}"
    if not finite.size:
        return (name, missing, *["–"] * 5)
    return (
        name,
        missing,
        *(f"{q:.5g}".replace("-", "−") for q in np.percentile(finite, [0, 1, 50, 99, 100])),
    )


# ---- Images


def _image_findings(
    store: Store, rows: NDArray[np.int64], bands: str, pixel_scale: float
) -> tuple[Figure, Findings]:
    """Look at a sample of cutouts; return the contact sheet for a file of its own too."""
    cutouts = read_rows(store, rows)
    facts = measure(cutouts, bands, pixel_scale)
    r, ebv = column(store, "dered_petro_r"), column(store, "ebv")
    dust = np.zeros(len(rows)) if ebv is None else ebv[rows]
    comparison = None if r is None else compare_r(facts, r[rows], dust)
    places = chosen(store, rows)
    stretch = figures.stretch_for(shown_noise(cutouts, bands))
    sheet = figures.figure_contact_sheet(cutouts[places], labels(store, rows[places]), bands, stretch)
    few = chosen(store, rows, BY_BAND_SHOWN)
    noise = [f.noise for f in facts.bands]
    by_band = figures.figure_bands(cutouts[few], labels(store, rows[few]), bands, noise, facts.stack)
    z = column(store, "spec_z")
    order = "From low to high spec_z; " if z is not None and np.isfinite(z[rows]).any() else ""
    red, green, blue = (bands[i] for i in figures.colour_bands(bands))
    sections = [
        Section(
            "Galaxies",
            f"{order}{red}, {green}, {blue} as red, green, blue, brightness against the noise. Each galaxy "
            "should sit in the middle; nearby ones are large, distant ones redder.",
            (_png(sheet, "Cutouts in colour"),),
        ),
        Section(
            "Band by band",
            f"Above, the median of {len(rows)} galaxies with a cross at the centre: a band that is shifted, "
            "turned or empty stands out. Below, single galaxies; each band has one scale.",
            (_png(by_band, "Cutouts in each band"),),
        ),
        _photometry(facts, comparison),
        Section("Noise and centring by band", _BANDS_TEXT, table=_band_table(facts)),
    ]
    return sheet, Findings(suspicions(facts, comparison), _image_tiles(facts, comparison), sections)


_BANDS_TEXT = (
    "Noise: of a pixel at the border. Depth: 5 sigma in 2 arcsec, if pixels are independent. Sky: level of "
    "the border in units of the noise. About half of all pixels is negative where the sky is subtracted."
)


def _image_tiles(facts: CutoutFacts, comparison: Comparison | None) -> list[tuple[str, str, str]]:
    """Return name, value and verdict of what is to be seen first."""
    reference = facts.bands[facts.reference]
    tiles = [
        ("off the centre", f"{facts.off_centre:.1f} px", "far off" if facts.off_centre > FAR else "centred"),
        (f"depth in {reference.band}", f"{reference.depth:.1f} mag", "5 sigma in 2 arcsec"),
    ]
    if comparison is not None:
        verdict = "wrong units?" if abs(comparison.offset) > LARGE_OFFSET else "agrees with the table"
        tiles.insert(0, ("cutouts − table, in r", f"{signed(comparison.offset, 2)} mag", verdict))
    return tiles


def _photometry(facts: CutoutFacts, comparison: Comparison | None) -> Section:
    """Compare the brightness of the cutouts with the table, and band with band."""
    bands = "".join(f.band for f in facts.bands)
    brightness = figures.figure_brightness(facts.magnitudes, bands, [f.depth for f in facts.bands])
    pictures = [_svg(brightness, "Brightness and depth by band")]
    text = "Galaxies are brighter in redder bands: the line should rise."
    if comparison is not None:
        scatter = figures.figure_photometry(comparison.table, comparison.measured, comparison.offset)
        pictures.insert(0, _svg(scatter, "Magnitudes of cutouts against the table"))
        side = "fainter" if comparison.offset > 0 else "brighter"
        text = (
            f"Within two Petrosian radii, corrected for ebv, the cutouts are {abs(comparison.offset):.2f} "
            f"mag {side} than dered_petro_r (median). Wrong units show as an offset, rows that do not "
            f"belong to their cutouts as a cloud, bright neighbours as points above the line. {text}"
        )
    return Section("Brightness", text, tuple(pictures))


def _band_table(facts: CutoutFacts) -> tuple[tuple[str, ...], ...]:
    head = (
        "band",
        "noise [nMgy]",
        "depth [mag]",
        "sky [noise]",
        "shift in x [px]",
        "in y [px]",
        "negative",
        "zero",
    )
    return (
        head,
        *(
            (
                f.band,
                f"{f.noise:.4g}",
                f"{f.depth:.2f}",
                signed(f.sky, 2),
                signed(f.shift[0], 1),
                signed(f.shift[1], 1),
                f"{f.negative:.1%}",
                f"{f.zero:.1%}",
            )
            for f in facts.bands
        ),
    )


# ---- Vectors and features


def _vector_findings(store: Store, rows: NDArray[np.int64]) -> Findings:
    """Describe vectors as a whole, or each magnitude and its error."""
    values = read_rows(store, rows).astype(np.float64)
    if store.kind == "features":
        table = [
            _statistics(f"{what} {i + 1}", values[:, j, i])
            for i in range(values.shape[2])
            for j, what in enumerate(("magnitude", "error"))
        ]
        text = f"As the network gets them, from {len(rows)} galaxies, in the order of data.magnitudes."
        head = ("input", "missing", "least", "1 %", "median", "99 %", "greatest")
        return Findings([], [], [Section("Inputs", text, table=(head, *table))])
    spread = values.std(axis=0)
    constant = int((spread == 0).sum())
    warnings = [f"{constant} of the {spread.size} numbers of a vector are the same for all galaxies."]
    head = ("over the numbers of a vector", "missing", "least", "1 %", "median", "99 %", "greatest")
    table = [
        _statistics("mean", values.mean(axis=0)),
        _statistics("standard deviation", spread),
        _statistics("least", values.min(axis=0)),
        _statistics("greatest", values.max(axis=0)),
    ]
    picture = _svg(figures.figure_vectors(values), "Lengths and spread of vectors")
    section = Section("Vectors", f"From {len(rows)} galaxies.", (picture,), (head, *table))
    return Findings(warnings if constant else [], [], [section])


# ---- Files


def _svg(figure: Figure, alt: str) -> Picture:
    return _picture("image/svg+xml", as_svg(figure), alt, figure)


def _png(figure: Figure, alt: str) -> Picture:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return _picture("image/png", buffer.getvalue(), alt, figure)


def _picture(kind: str, content: bytes, alt: str, figure: Figure) -> Picture:
    url = f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
    return Picture(url, alt, round(96 * figure.get_figwidth()))


def _replace(path: Path, text: str) -> None:
    """Write a file beside its place and move it there, so that a reader never sees half of it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path} ({error.strerror}): free some space") from error
    finally:
        beside.unlink(missing_ok=True)
