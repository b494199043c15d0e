"""The simulated survey as it is observed: candidates are drawn, measured on their cutouts, and selected.

Magnitudes and images are of one sky: what the catalogue says was measured on the cutouts, with their noise,
their neighbours and their seeing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from astropy.table import Table, vstack
from numpy.typing import NDArray

from photoz_lit.data.mock.measure import GRI, measure
from photoz_lit.data.mock.population import R_FAINT, draw_galaxies
from photoz_lit.data.mock.render import by_band, render_cutouts
from photoz_lit.data.mock.scene import ALL, Image
from photoz_lit.grids import Bools, Floats

CHUNK = 100  # galaxies: a second of work, so that little is lost and the bar moves
# Candidates that are brighter by so much than the limit are not measured to be selected, and ones fainter by
# so much are not drawn, mag: it scatters by 0.06, and neighbours brighten it.
CERTAIN, HOPELESS = 0.10, 0.22
DRAWN_OVER_KEPT = 1.265  # enough in one go, mostly
# Kept of what the simulation knows: targets of their own, and the ceiling of what images can tell.
KEPT = (
    *("true_petro_r", "true_absolute_r", "true_g_r", "true_bulge_fraction", "true_bulge_radius"),
    *("true_disc_radius", "true_disc_axis_ratio", "true_young_share", "true_g_r_gradient"),
)

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Sky:
    """What makes the cutouts of a survey from its galaxies."""

    seed: int
    pixels: int
    without: tuple[str, ...] = ()

    def draw(self, galaxies: Table, bands: slice = ALL) -> Image:
        """Draw the cutouts of galaxies, (n, 5, pixels, pixels), nanomaggies; or of some bands alone."""
        return render_cutouts(galaxies, self.seed, pixels=self.pixels, without=self.without, bands=bands)

    def selected(self, galaxies: Table) -> Bools:
        """Draw candidates, and say which are measured as brighter than the survey's limit, (n,)."""
        return np.asarray(measured(galaxies, self.draw(galaxies, GRI), GRI)["dered_petro_r"] < R_FAINT)

    def observed(
        self, galaxies: Table, *, half: bool, measures: bool
    ) -> tuple[NDArray[Any], dict[str, Floats]]:
        """Draw cutouts, in float16 where it can hold them, and measure them as they are kept."""
        cutouts = self.draw(galaxies)
        with np.errstate(over="ignore"):
            halves = cutouts.astype(np.float16)
        kept = halves if half and np.isfinite(halves).all() else cutouts
        return kept, measured(galaxies, kept) if measures else {}


def measured(galaxies: Table, cutouts: NDArray[Any], bands: slice = ALL) -> dict[str, Floats]:
    """Return the columns that a survey measures on cutouts whose seeing, sky and extinction it knows."""
    seeing, sky = by_band(galaxies, "true_seeing"), by_band(galaxies, "true_sky")
    place = {"x": galaxies["true_x"], "y": galaxies["true_y"]}
    return measure(cutouts, seeing, sky, np.asarray(galaxies["ebv"]), **place, bands=bands)


def observe(n: int, sky: Sky, run: Map) -> Table:
    """Draw candidates until n are selected: galaxy i of a survey is the same whatever the survey's size.

    `run` maps a function over chunks, in order.
    """
    faintest = R_FAINT + HOPELESS
    chosen: list[Table] = []
    drawn, found = 0, 0
    while found < n:
        more = int((n - found) * DRAWN_OVER_KEPT) + 10
        candidates = draw_galaxies(drawn + more, sky.seed, without=sky.without, r_faint=faintest)
        candidates = candidates[drawn:]
        drawn += len(candidates)
        keep = np.asarray(candidates["true_petro_r"] < R_FAINT - CERTAIN)
        doubtful = np.flatnonzero(~keep)
        parts = [candidates[doubtful[i : i + CHUNK]] for i in range(0, len(doubtful), CHUNK)]
        keep[doubtful] = np.concatenate([[], *run(sky.selected, parts)]).astype(bool)
        chosen.append(candidates[keep])
        found += int(keep.sum())
    return vstack(chosen)[:n]


def measured_on(
    galaxies: Table,
    table: Table,
    cutouts: NDArray[Any],
    run: Map,
    known: Mapping[int, dict[str, Floats]] = MappingProxyType({}),
) -> Table:
    """Return the table with what is measured on all cutouts; of the last ones it is `known`, by first row."""
    end = min(known, default=len(galaxies))
    rows = [slice(i, min(i + CHUNK, end)) for i in range(0, end, CHUNK)]
    parts = list(run(_measured_pair, ((galaxies[r], cutouts[r]) for r in rows)))
    parts += [known[first] for first in sorted(known)]
    table = table.copy()
    for name in parts[0] if parts else ():
        table[name] = np.concatenate([part[name] for part in parts])
    return table


def _measured_pair(pair: tuple[Table, NDArray[Any]]) -> dict[str, Floats]:
    return measured(*pair)
