"""Enhanced CSV, astropy's text with units and types."""

from pathlib import Path
from typing import TYPE_CHECKING

from photoz_lit.data.formats.text import decoded

if TYPE_CHECKING:
    from astropy.table import Table


def read(path: Path, part: str | None) -> "Table":
    """Read the one table of a file."""
    from astropy.io import ascii as astropy_text

    if part is not None:
        raise ValueError(f"[{part}] is not known in ECSV, which holds one table")
    return astropy_text.read(decoded(path) + "\n", format="ecsv")
