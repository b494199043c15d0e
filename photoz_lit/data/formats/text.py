"""Text with commas, semicolons, tabs, bars or blanks between the columns, and enhanced CSV."""

import csv
import gzip
import logging
import re
from pathlib import Path

from astropy.io import ascii as astropy_text
from astropy.table import Table

log = logging.getLogger(__name__)

DELIMITERS = ",;\t|"
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
EMPTY = ("", "null", "NULL", "Null", "None", "NA", "N/A", "n/a", "<NA>", "--")


def read(path: Path, part: str | None) -> Table:
    """Read a table whose first line names the columns; lines of comments may stand above it."""
    if part is not None:
        raise ValueError(f"[{part}] is not known in text, which holds one table")
    content = decoded(path)
    if path.name.lower().endswith((".ecsv", ".ecsv.gz")):
        return astropy_text.read(content + "\n", format="ecsv")
    lines = content.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    comments, lines = [line for line in lines[:first] if line.strip()], lines[first:]
    if not lines:
        return Table()
    delimiter = max(DELIMITERS, key=lines[0].count)
    if comments and any(map(NUMBER.fullmatch, next(csv.reader(lines[:1], delimiter=delimiter)))):
        lines.insert(0, comments[-1].lstrip("# "))  # the names are commented out; SkyServer's #Table1 is none
    layout = {"format": "csv", "delimiter": delimiter}
    if delimiter not in lines[0] and len(lines[0].split()) > 1:
        layout = {"format": "basic"}  # columns between blanks
    elif delimiter == "\t":  # as csv, empty cells at the start of a line would be lost
        layout = {"format": "tab"}
    empty = [(word, "0") for word in EMPTY]
    return astropy_text.read("\n".join([*lines, ""]), **layout, guess=False, fill_values=empty)


def decoded(path: Path) -> str:
    """Return the text of a file, in UTF-8, UTF-16 with its mark, or else Latin-1; lines end as on Unix."""
    raw = path.read_bytes()
    if path.suffix.lower() == ".gz":
        raw = gzip.decompress(raw)
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        content: str = raw.decode("utf-16")
    elif b"\0" in raw:
        raise ValueError("it holds bytes that no text has")
    else:
        try:
            content = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            log.warning("%s is not in UTF-8 (byte %d): read as Latin-1; save it as UTF-8", path, error.start)
            content = raw.decode("latin-1")
    return content.replace("\r\n", "\n").replace("\r", "\n")
