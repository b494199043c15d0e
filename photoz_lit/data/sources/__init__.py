"""The sources of galaxies by name; `settings.py` tells what a source is."""

from photoz_lit.data.sources import (
    arrays,
    catalogue,
    cfhtls,
    embeddings,
    galaxies_ml,
    mmu,
    mock,
    npy_folder,
    pasquet,
    sdss,
    stamps,
    store,
)

SOURCES = {
    "mock": mock,
    "catalogue": catalogue,
    "arrays": arrays,
    "stamps": stamps,
    "embeddings": embeddings,
    "sdss": sdss,
    "pasquet": pasquet,
    "npy_folder": npy_folder,
    "cfhtls": cfhtls,
    "galaxies_ml": galaxies_ml,
    "mmu": mmu,
    "store": store,
}
