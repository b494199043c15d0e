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


@dataclass(frozen=True)
class Picture:
    """A figure as a file, the text that stands in for it, and its natural width in CSS pixels."""

    kind: str
    content: bytes
    alt: str
    width: int


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    small: str = ""  # letters below it
    value: str = ""  # what its column is sorted by and, in the first cell, the name of the row
    key: str = ""  # name of the number
    kind: str = ""  # class of the cell, or of the row where it is the first
    colour: str = ""  # of a square before the text


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
    """A part of a section, all of it optional, in the order of its fields."""

    heading: str = ""
    text: str = ""  # what to look for
    download: tuple[str, str] | None = None  # name and content of a CSV file
    figures: tuple[Picture, ...] = ()  # side by side
    table: Table | None = None
    note: str = ""
    code: str = ""
    summary: str = ""  # a click on it unfolds what is folded
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
        environment = Environment(autoescape=True, undefined=StrictUndefined)
        environment.loader = FileSystemLoader(Path(__file__).parent)
        environment.trim_blocks = environment.lstrip_blocks = True
        environment.filters |= {"marked": _marked, "data_url": _data_url}
        return environment.get_template("page.html.jinja").render(page=self, version=photoz_lit.__version__)


def _marked(text: str) -> Markup:
    """Set subscripts: z_{spec}, σ_MAD."""
    return Markup(re.sub(r"_(?:\{(\w+)\}|(MAD))", r"<sub>\1\2</sub>", str(escape(text))))


def _data_url(kind: str, content: bytes) -> str:
    """Return the address of a file that is part of the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def svg(figure: Figure, alt: str) -> Picture:
    """Return a figure for the page, as lines and letters, of the size that its text was drawn with."""
    return Picture("image/svg+xml", as_svg(figure), alt, round(96 * figure.get_figwidth()))


def png(figure: Figure, alt: str) -> Picture:
    """Return a figure for the page, as pixels."""
    return Picture("image/png", as_png(figure), alt, round(96 * figure.get_figwidth()))


def write(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there; DataError where it cannot be written."""
    try:
        with beside(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        hint = "free some space or choose another folder"
        raise DataError(f"cannot write {path} ({error.strerror}): {hint}") from error
