"""Calibrate the simulated survey on real magnitudes and redshifts.

    python tests/bench/calibrate_survey.py --real sdss_mgs.csv --output FOLDER [--steps 8] [--galaxies 8000]

The table holds spec_z and dereddened mag_u .. mag_z. Only its first 2,500 rows are used: the others are for
tests. Numbers of `photoz_lit.data.mock.red_blue` and corrections of spectra in `photometry` move until
quantiles of a simulated sample are those of the real one: least squares, with weak priors around the present
values. Writes calibrated.json, prints a table, and changes no file of the package. Needs scikit-learn.

Cutouts are measured once, not at each step: which galaxies were selected, and by how much measuring moved
their magnitudes, is kept while numbers move. What is said of the new numbers in the end is measured anew.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy.optimize import least_squares

from photoz_lit.data.mock import population
from photoz_lit.data.mock.instrument import ZERO_POINT
from photoz_lit.data.mock.photometry import BAND_CORRECTIONS, TEMPLATE_CORRECTIONS
from photoz_lit.data.mock.red_blue import NUMBERS
from photoz_lit.data.mock.survey import CHUNK, HOPELESS, Sky, measured, observe
from photoz_lit.data.mock.templates import BANDS
from photoz_lit.grids import Floats

REAL_ROWS = 2500
SEED, PIXELS, FOLDS, RESAMPLINGS = 11, 64, 5, 200  # simulated survey; real sample
FEWEST, FARTHEST = 10, 25.0  # galaxies of a cell; errors that a statistic may seem off
REACH = 0.15  # to either side for derivatives, in steps of the parameters
COLUMNS = ("u-g", "g-r", "r-i", "i-z", "r", "z")  # of a sample
# Where samples are cut into cells: percentiles of the real one; and mag, with g - r.
EDGES = {
    "z": [10, 22, 36, 50, 64, 78, 90],
    "g-r": [10, 25, 40, 55, 70, 85],
    "u-r": [12, 25, 37, 50, 62, 75, 88],
    "regression": [10, 20, 30, 40, 50, 60, 70, 80, 90],
    "network": [10, 25, 40, 55, 70, 82, 92],
}
R_EDGES = (16.4, 17.1)
# How much a statistic of each group counts.
WEIGHTS = {"z": 2, "r": 2, "colours": 2, "light at z": 1, "regression": 1, "network": 3, "z at light": 1}
ARRAYS = {**NUMBERS, "TEMPLATE_CORRECTIONS": TEMPLATE_CORRECTIONS, "BAND_CORRECTIONS": BAND_CORRECTIONS}
FIRM, MIDDLE, WEAK = 0.12, 0.06, 0.03  # residual of the prior, one step from the present value


@dataclass(frozen=True)
class Parameter:
    """One number in an array of the package, and a step that changes the sample visibly."""

    array: str
    place: tuple[int, ...]
    step: float
    prior: float = WEAK
    least: float = -np.inf


Parameters = Sequence[Parameter]
POPULATIONS: Parameters = (
    Parameter("density", (1,), 0.1, FIRM, least=0.01),
    *(Parameter(name, (i,), 0.2, FIRM) for name in ("m_star", "alpha") for i in (0, 1)),
    *(Parameter("evolution", (i,), 0.5, MIDDLE) for i in (0, 1)),
    *(Parameter(f"{part}_type", (i, 0), (0.1, 0.2)[i], FIRM) for part in ("bulge", "disc") for i in (0, 1)),
    *(Parameter("bulge_type", (i, 1), step, FIRM, least=0) for i, step in ((0, 0.05), (1, 0.1))),
    *(Parameter("disc_type", (i, 1), step, FIRM) for i, step in ((0, 0.05), (1, 0.1))),
    *(Parameter("disc_type", (i, 2), step, FIRM, least=0) for i, step in ((0, 0.1), (1, 0.2))),
    *(Parameter("tilt", (i, 0), step) for i, step in ((0, 0.02), (1, 0.03))),
    *(Parameter("tilt", (i, 1), step, least=0) for i, step in ((0, 0.02), (1, 0.03))),
    *(Parameter("curvature", (i,), 0.02, least=0) for i in (0, 1)),
    *(Parameter("lines", (1, i), step, least=0) for i, step in ((0, 0.5), (1, 0.3))),
    Parameter("dust", (1,), 0.3, FIRM, least=0),
)
IN_BANDS, SMOOTH = (
    tuple(Parameter(name, place, steps[place[1]]) for place in np.ndindex(ARRAYS[name].shape))
    for name, steps in (
        ("BAND_CORRECTIONS", (0.05, 0.02, 0.01, 0.02)),  # of u g i z
        ("TEMPLATE_CORRECTIONS", (0.05, 0.1, 0.3, 0.5)),  # of the powers
    )
)


def pack(parameters: Parameters) -> Floats:
    """Return the present values."""
    return np.array([ARRAYS[p.array][p.place] for p in parameters], float)


def unpack(parameters: Parameters, values: Floats) -> None:
    """Set the numbers of the package, in this process, and forget what was computed with others."""
    for p, value in zip(parameters, values, strict=True):
        ARRAYS[p.array][p.place] = value
    for kept in ("_luminosity_function", "_magnitude_offset", "_redshift_distribution"):
        getattr(population, kept).cache_clear()


@contextmanager
def restoring(parameters: Parameters) -> Iterator[None]:
    """Give the numbers of the package back their values in the end."""
    old = pack(parameters)
    try:
        yield
    finally:
        unpack(parameters, old)


def true_magnitudes(galaxies: Table) -> Floats:
    """Return what galaxies send, (n, 5)."""
    flux = [np.asarray(galaxies[f"true_bulge_{b}"] + galaxies[f"true_disc_{b}"]) for b in BANDS]
    return np.asarray(ZERO_POINT - 2.5 * np.log10(np.stack(flux, axis=1)))


@dataclass(frozen=True)
class Survey:
    """Selected galaxies of a simulated survey, and measured minus true magnitudes of them, (n, 5)."""

    ids: NDArray[np.int64]
    offsets: Floats

    def draw(self) -> Floats:
        """Draw the galaxies by the present numbers, as if measured; return a sample."""
        n, faintest = int(self.ids.max()) + 1, population.R_FAINT + HOPELESS
        galaxies = population.draw_galaxies(n, SEED, r_faint=faintest)[self.ids]
        return sample_of(true_magnitudes(galaxies) + self.offsets, galaxies["spec_z"])


def observed(n: int) -> Survey:
    """Draw, select and measure cutouts by the present numbers."""
    sky = Sky(SEED, PIXELS)
    galaxies = observe(n, sky, map)
    parts = [galaxies[i : i + CHUNK] for i in range(0, n, CHUNK)]
    columns = [measured(part, sky.draw(part)) for part in parts]
    seen = np.concatenate([np.stack([c[f"mag_{band}"] for band in BANDS], axis=1) for c in columns])
    return Survey(np.asarray(galaxies["object_id"]), seen - true_magnitudes(galaxies))


def sample_of(magnitudes: Floats, spec_z: Floats) -> Floats:
    """Return colours, r and redshift, (n, 6)."""
    colours, r = magnitudes[:, :-1] - magnitudes[:, 1:], magnitudes[:, BANDS.index("r")]
    return np.column_stack([colours, r, spec_z])


def taught(sample: Floats) -> Callable[[Floats], Floats]:
    """Fit a regression and a small network; return a function that gives the redshifts of both, (n, 2)."""
    from sklearn.linear_model import Ridge
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    def polynomial(x: Floats) -> Floats:
        return np.column_stack([x, *(x[:, [i]] * x[:, i:] for i in range(5)), x[:, :4] ** 3])

    network = MLPRegressor(
        hidden_layer_sizes=(64, 64), alpha=0.01, early_stopping=True, max_iter=1000, random_state=0
    )
    parts = (FunctionTransformer(polynomial), Ridge(1e-3)), (network,)
    z = 20 * sample[:, 5]  # near one, as networks like it
    ways = [make_pipeline(StandardScaler(), *p).fit(sample[:, :5], z) for p in parts]
    return lambda light: np.stack([way.predict(light) for way in ways], axis=1) / 20


def percentiles_in(values: Floats, cells: NDArray[np.intp], n: int, levels: Sequence[float]) -> Floats:
    """Return percentiles of values (n,) or (n, k) in each of n cells, in a row; NaN where too few are."""
    members = [values[cells == cell] for cell in range(n)]
    few = np.full((len(levels), *values.shape[1:]), np.nan)
    return np.ravel([np.percentile(m, levels, axis=0) if len(m) >= FEWEST else few for m in members])


class Comparison:
    """Statistics of simulated samples less those of the real one.

    Who guesses redshifts, of real and simulated rows of a fold, was taught on the real rows of other folds.
    """

    def __init__(self, real: Floats, resamplings: int = RESAMPLINGS) -> None:
        fold = np.arange(len(real)) % FOLDS
        self.teachers = [taught(real[fold != k]) for k in range(FOLDS)]
        known = self.with_guesses(real)
        self.edges = {name: np.percentile(v, EDGES[name]) for name, v in self.cut_by(known).items()}
        cells = np.digitize(real[:, 5], self.edges["z"])
        inside = [real[cells == cell, :5] for cell in range(8)]
        self.middle, self.scale = (np.stack([f(x, axis=0) for x in inside]) for f in (np.mean, np.std))
        self.components = np.stack([np.linalg.eigh(np.corrcoef(x.T))[1] for x in inside])
        groups = self.groups(known)
        target = np.concatenate(list(groups.values()))
        weight = np.repeat([WEIGHTS[name] for name in groups], [len(g) for g in groups.values()])
        self.use = np.isfinite(target)
        self.target, self.weight = target[self.use], weight[self.use] / np.sqrt(self.use.sum())
        rng, n = np.random.default_rng(1), len(real)
        again = [self.statistics(known[rng.integers(0, n, n)]) for _ in range(resamplings)]
        self.error = np.maximum(1.1 * np.nanstd(again, axis=0), 1e-4)  # the simulated one scatters too

    def with_guesses(self, sample: Floats) -> Floats:
        """Add what regression and network say of the redshift, (n, 8)."""
        guesses = np.empty((len(sample), 2))
        for k, teacher in enumerate(self.teachers):
            guesses[k::FOLDS] = teacher(sample[k::FOLDS, :5])
        return np.hstack([sample, guesses])

    @staticmethod
    def cut_by(known: Floats) -> dict[str, Floats]:
        """Return what makes the cells."""
        u_g, g_r, *_, z, regression, network = known.T
        return {"z": z, "g-r": g_r, "u-r": u_g + g_r, "regression": regression, "network": network}

    def groups(self, known: Floats) -> dict[str, Floats]:
        """Return the statistics by group, NaN where a cell holds too few galaxies."""
        at = {name: np.digitize(v, self.edges[name]) for name, v in self.cut_by(known).items()}
        light, (z, regression, network) = known[:, :5], known[:, 5:].T
        scaled = (light - self.middle[at["z"]]) / self.scale[at["z"]]
        turned = np.einsum("nk,nkj->nj", scaled, self.components[at["z"]])
        both, at_light = np.hstack([light, turned]), 3 * at["g-r"] + np.digitize(light[:, 4], R_EDGES)
        seven = [5, 16, 30, 50, 70, 84, 95]
        left = [percentiles_in(z - network, at[by], 8, seven) for by in ("u-r", "network")]
        return {
            "z": np.percentile(z, [2, 5, 10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 95, 98]),
            "r": np.percentile(light[:, 4], [2, 5, 10, 25, 40, 50, 60, 75, 90]),
            "colours": np.percentile(light[:, :4], [5, 10, 25, 50, 75, 90, 95], axis=0).ravel(),
            "light at z": percentiles_in(both, at["z"], 8, [4, 10, 20, 35, 50, 65, 80, 90, 96]),
            "regression": percentiles_in(z - regression, at["regression"], 10, [10, 25, 50, 75, 90]),
            "network": np.concatenate(left),
            "z at light": percentiles_in(z, at_light, 21, [10, 30, 50, 70, 90]),
        }

    def statistics(self, known: Floats) -> Floats:
        """Return those statistics that the real sample is large enough for."""
        return np.asarray(np.concatenate(list(self.groups(known).values()))[self.use])

    def residuals(self, sample: Floats) -> Floats:
        """Return weighted differences in units of their errors; their squares add to a weighted mean."""
        far = (self.statistics(self.with_guesses(sample)) - self.target) / self.error
        return np.asarray(self.weight * np.clip(np.nan_to_num(far, nan=FARTHEST), -FARTHEST, FARTHEST))


def fit(comparison: Comparison, draw: Callable[[], Floats], parameters: Parameters, steps: int) -> Floats:
    """Return the values that make what is drawn like the real sample; the package keeps its own."""
    start = pack(parameters)
    step, prior, least = np.array([(p.step, p.prior, p.least) for p in parameters]).T

    def residuals(moved: Floats) -> Floats:
        unpack(parameters, start + moved * step)
        return np.concatenate([comparison.residuals(draw()), prior * moved])

    def slopes(moved: Floats) -> Floats:
        moves = REACH * np.eye(len(moved))
        return np.stack([residuals(moved + m) - residuals(moved - m) for m in moves], axis=1) / (2 * REACH)

    limits, how = ((least - start) / step, np.inf), {"loss": "soft_l1", "f_scale": 0.3, "verbose": 2}
    with restoring(parameters):
        found = least_squares(residuals, 0 * start, slopes, limits, max_nfev=steps + 1, **how)
    return np.asarray(start + found.x * step)


def show(samples: dict[str, Floats]) -> dict[str, dict[str, list[float]]]:
    """Print how far the 10th, 50th and 90th percentiles are off; return them by sample and column."""
    at = {kind: np.percentile(sample, [10, 50, 90], axis=0).T for kind, sample in samples.items()}
    print(f"\n{'10, 50, 90 %':12}{'real':>27}{'before: off by':>29}{'after: off by':>27}")
    for i, name in enumerate(COLUMNS):
        off = np.concatenate([at[kind][i] - at["real"][i] for kind in ("before", "after")])
        print(f"{name:12}" + "".join(f"{v:9.3f}" for v in at["real"][i]), *(f"{v:+8.4f}" for v in off))
    return {kind: dict(zip(COLUMNS, values.tolist(), strict=True)) for kind, values in at.items()}


def main() -> None:
    """Fit, measure anew, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--galaxies", type=int, default=8000, help="simulated")
    parser.add_argument("--smooth", action="store_true", help="fit TEMPLATE_ in place of BAND_CORRECTIONS")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    table = Table.read(args.real)[:REAL_ROWS]
    real = sample_of(np.column_stack([table[f"mag_{b}"] for b in BANDS]), table["spec_z"])
    comparison, survey = Comparison(real), observed(args.galaxies)
    parameters = (*POPULATIONS, *(SMOOTH if args.smooth else IN_BANDS))
    numbers = {p.array: {"old": ARRAYS[p.array].tolist()} for p in parameters}
    samples = {"real": real, "before": survey.draw()}
    new = np.round(fit(comparison, survey.draw, parameters, args.steps), 3)
    for p, old, value in zip(parameters, pack(parameters), new, strict=True):
        print(f"{p.array + str(list(p.place)):27}{old:9.3f} -> {value:7.3f}")
    with restoring(parameters):
        unpack(parameters, new)
        for name, values in numbers.items():
            values["new"] = ARRAYS[name].tolist()
        samples |= {"fitted": survey.draw(), "after": observed(args.galaxies).draw()}
    distance = {kind: float(np.square(comparison.residuals(x)).sum()) for kind, x in samples.items()}
    result = {"numbers": numbers, "percentiles_10_50_90": show(samples), "distance": distance}
    print("distance: " + ", ".join(f"{kind} {value:.3f}" for kind, value in distance.items()))
    (args.output / "calibrated.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
