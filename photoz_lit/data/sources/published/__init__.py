"""`data=published`: data sets as their authors published them, streamed in flat memory from any row on."""

from pathlib import Path

from photoz_lit.data.sources.published.cfhtls import open_cfhtls
from photoz_lit.data.sources.published.galaxies_ml import open_galaxies_ml
from photoz_lit.data.sources.published.npy_folder import open_npy_folder
from photoz_lit.data.sources.published.pasquet import open_pasquet
from photoz_lit.data.sources.published.reader import Reader
from photoz_lit.errors import DataError

__all__ = ["Reader", "open_layout"]


def open_layout(layout: str, path: Path, n_bands: int, pixels: int) -> Reader:
    """Open a published data set; its cutouts are not read yet.

    Parameters
    ----------
    layout : str
        `pasquet`, `npy_folder`, `cfhtls` or `galaxies_ml`; the modules of these names tell what each is.
    path : Path
        The file, folder or pattern of files.
    n_bands, pixels : int
        Of the survey: bands of a cutout and pixels of its side.

    Returns
    -------
    Reader
        Its labels and a way to stream its cutouts. Cutouts with the bands last are turned to (bands, y, x);
        the rows of an image are y, its columns x, as in arrays that FITS readers return.

    Raises
    ------
    DataError
        The data set is absent, damaged, of another layout, or of another shape than the survey's.
    """
    path = Path(path).expanduser()
    match layout:
        case "pasquet":
            return open_pasquet(path, n_bands, pixels)
        case "npy_folder":
            return open_npy_folder(path, n_bands, pixels)
        case "cfhtls":
            return open_cfhtls(path, n_bands, pixels)
        case "galaxies_ml":
            return open_galaxies_ml(path, n_bands, pixels)
        case _:
            known = "pasquet, npy_folder, cfhtls, galaxies_ml"
            raise DataError(f"data.layout={layout} is unknown. Known: {known}")
