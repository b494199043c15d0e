"""One HTML page: what to see first, then sections of text, figures and tables. It needs no other file."""

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

import photoz_lit
from photoz_lit.errors import DataError
from photoz_lit.files import beside
from photoz_lit.report.figures.style import as_png, as_svg

TEMPLATE = "page.html.jinja"


@dataclass(frozen=True)
class Picture:
    """A figure as a data URL, the text that stands in for it, and its natural width in CSS pixels."""

    url: str
    alt: str
    width: int

    @property
    def content(self) -> bytes:
        """The file that the URL holds."""
        return base64.b64decode(self.url.partition(",")[2])


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and what stands below it in small letters.

    `value` is what its column is sorted by and, in the first cell, the name of the row; `key` names the
    number, `kind` is the class of the cell, or of a row where it is the first, `colour` that of a square.
    """

    text: str
    small: str = ""
    value: str = ""
    key: str = ""
    kind: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Table:
    """Headings, each with what it means, and rows of cells; `kind` is a class of the style sheet."""

    headings: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Cell]]
    kind: str = ""


def plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> Table:
    """Make a table of plain texts."""
    return Table([(h, "") for h in headings], [[Cell(text) for text in row] for row in rows], kind)


@dataclass(frozen=True)
class Block:
    """A part of a section, all of it optional, in the order of its fields.

    `text` says what to look for, `download` has name and content of a CSV file, `figures` stand side by side,
    `note` is a soft line, `code` are settings, and a click on `summary` unfolds what is folded.
    """

    heading: str = ""
    text: str = ""
    download: tuple[str, str] | None = None
    figures: tuple[Picture, ...] = ()
    table: Table | None = None
    note: str = ""
    code: str = ""
    summary: str = ""
    folded: "tuple[Block, ...]" = ()

    def pictures(self) -> Iterator[tuple[str, Picture]]:
        """Yield each figure of this block and what is folded away, under its heading."""
        yield from ((self.heading, picture) for picture in self.figures)
        for block in self.folded:
            yield from ((heading or self.heading, picture) for heading, picture in block.pictures())


@dataclass(frozen=True)
class Tile:
    """One number to be seen first, with what it was before where it changed, and what that means."""

    name: str
    value: str
    verdict: str
    before: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page under its own heading."""

    heading: str
    text: str = ""
    tiles: Sequence[Tile] = ()
    blocks: Sequence[Block] = ()


@dataclass(frozen=True)
class Notice:
    """What must not be missed: a title, items with a folder or nothing before each, or good news."""

    title: str
    items: Sequence[tuple[str, str]] = ()
    text: str = ""
    good: bool = False


@dataclass(frozen=True)
class Page:
    """All of a page; `asides` are short texts side by side, each with a bold beginning."""

    title: str
    subtitle: str
    text: str = ""
    asides: Sequence[tuple[str, str]] = ()
    notices: Sequence[Notice] = ()
    tiles: Sequence[Tile] = ()
    sections: Sequence[Section] = ()

    def render(self) -> str:
        """Return the page as HTML, with styles, figures and script inside."""
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"marked": _marked, "url": _csv_url}
        return environment.get_template(TEMPLATE).render(page=self, version=photoz_lit.__version__)


def _marked(text: str) -> Markup:
    """Set subscripts: z_{spec}, σ_MAD."""
    return Markup(re.sub(r"_(?:\{(\w+)\}|(MAD))", r"<sub>\1\2</sub>", str(escape(text))))


def _csv_url(text: str) -> str:
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text.encode()).decode('ascii')}"


def svg(figure: Figure, alt: str) -> Picture:
    """Return a figure for the page, as lines and letters."""
    return _picture("image/svg+xml", as_svg(figure), alt, figure)


def png(figure: Figure, alt: str) -> Picture:
    """Return a figure for the page, as pixels."""
    return _picture("image/png", as_png(figure), alt, figure)


def _picture(kind: str, content: bytes, alt: str, figure: Figure) -> Picture:
    url = f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
    return Picture(url, alt, round(96 * figure.get_figwidth()))  # text keeps the size it was drawn with


def write(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there, so that a reader never sees half of it.

    Raises
    ------
    DataError
        It cannot be written.
    """
    try:
        with beside(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise DataError(
            f"cannot write {path} ({error.strerror}): free some space or choose another folder"
        ) from error
