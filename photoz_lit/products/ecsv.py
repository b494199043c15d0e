"""The photo-z table as text with units and descriptions (ECSV), without p(z): for eyes and small samples."""

from pathlib import Path

from astropy.table import Table

NAME = "photo_z.ecsv"


def write(folder: Path, place: Path) -> None:
    """Write the table of a run folder."""
    table = Table.read(folder / "photo_z.fits", character_as_bytes=False, mask_invalid=False)
    table.write(place, format="ascii.ecsv", overwrite=True)
