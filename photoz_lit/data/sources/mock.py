"""The embedded simulated survey, a stand-in for the SDSS Main Galaxy Sample that needs no download.

Galaxies come from `photoz_lit.data.mock.population`, their cutouts from `photoz_lit.data.mock.render`.
"""

from photoz_lit.data.mock.population import draw_galaxies
from photoz_lit.data.mock.render import render_cutouts

VERSION = 1  # raise it when the simulated survey changes: stores are made again

__all__ = ["VERSION", "draw_galaxies", "render_cutouts"]
