"""Photo-z of real cutouts by models that have seen simulated ones alone.

    python tests/bench/real_cutouts.py --model sdss_main --real FOLDER --output FOLDER [--ebv 0.04]

FOLDER holds `sdss_cutouts`: cutouts.npy (n, 5, 64, 64), nanomaggies, and galaxies.csv with ra, dec, spec_z
and mag_r. E(B-V) is that of the coarse map of dust, or `--ebv`, mag, for all. Several models (also run
folders) are an ensemble. Writes real_cutouts.svg and .png: every galaxy with its 68 % and 95 % intervals, and
prints a table.
"""

import argparse
from pathlib import Path

import numpy as np
from astropy.table import Table
from matplotlib import rc_context
from matplotlib.figure import Figure

from photoz_lit import metrics
from photoz_lit.config import finished_runs
from photoz_lit.data.dust import EXTINCTION_PER_EBV, ebv_at
from photoz_lit.grids import Bools, Floats, RedshiftGrid
from photoz_lit.inference import Predictor, open_model
from photoz_lit.report.figures import style

LIMIT = 17.9  # mag: what the simulated survey reaches, as measured here
DEPTH = 0.3  # redshift up to which galaxies are shown that are fainter than that


def scores(spec_z: Floats, photo_z: Floats, pdf: Floats, grid: RedshiftGrid, members: Bools) -> str:
    """Return what a group of galaxies says, in words."""
    dz = metrics.residual(spec_z, photo_z)[members]
    inside = metrics.covered(pdf, spec_z, grid)[members].mean()
    return (
        f"{members.sum()} galaxies: mean dz {metrics.bias(dz):+.4f}, "
        f"sigma_mad {metrics.sigma_mad(dz):.4f}, {inside:.0%} within 68 %"
    )


def draw(table: Table, pdf: Floats, grid: RedshiftGrid, groups: dict[str, Bools]) -> Figure:
    """Draw photo_z against spec_z, a mark a galaxy."""
    figure = Figure(figsize=(style.FULL_WIDTH, 5.2))
    ax = figure.subplots()
    spec_z, photo_z = np.asarray(table["spec_z"]), metrics.median(pdf, grid)
    wide, narrow = (np.abs(metrics.interval(pdf, grid, level).T - photo_z) for level in (0.95, 0.68))
    looks = zip(groups.items(), ((style.BLUE, "o"), (style.ORANGE, "s")), strict=False)
    for (name, members), (colour, marker) in looks:
        for error, width in ((wide, 0.8), (narrow, 2.4)):
            x, y = spec_z[members], photo_z[members]
            label = f"{name}: {scores(spec_z, photo_z, pdf, grid, members)}" if width > 1 else None
            ax.errorbar(
                x, y, error[:, members], color=colour, marker=marker, ls="", elinewidth=width, label=label
            )
    ends = [0, 1.05 * spec_z[np.any(list(groups.values()), axis=0)].max()]
    ax.plot(ends, ends, color=style.INK, linewidth=0.8)
    ax.set(xlabel="spec_z", ylabel="photo_z (median), 68 % and 95 % intervals", xlim=ends)
    ax.set_title("Real galaxies, read by networks that have seen simulated ones alone", fontsize=11)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", fontsize=9)
    return figure


def main() -> None:
    """Predict, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", required=True, help="names, or run folders of classifiers")
    parser.add_argument("--real", type=Path, required=True, help="folder with sdss_cutouts")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--ebv", type=float, help="mag, instead of the map")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    table = Table.read(args.real / "sdss_cutouts" / "galaxies.csv")
    cutouts = np.load(args.real / "sdss_cutouts" / "cutouts.npy")
    ebv = ebv_at(table["ra"], table["dec"]) if args.ebv is None else np.full(len(table), args.ebv)
    r = np.asarray(table["mag_r"]) - EXTINCTION_PER_EBV["r"] * ebv
    models = [open_model(folder) for name in args.model for folder in finished_runs(name)]
    predictor = Predictor(models, "images", cutouts.shape[1:])
    pdf = predictor(cutouts, ebv, r)[0].astype(np.float64)
    grid, bright = predictor.grid, np.asarray(table["mag_r"]) < LIMIT
    near = np.asarray(table["spec_z"]) < DEPTH
    groups = {f"r < {LIMIT}": bright, f"fainter, z < {DEPTH}": near & ~bright}
    with rc_context(style.STYLE):
        figure = draw(table, pdf, grid, groups)
        (args.output / "real_cutouts.svg").write_bytes(style.as_svg(figure))
        (args.output / "real_cutouts.png").write_bytes(style.as_png(figure))
    low, high = metrics.interval(pdf, grid).T
    for row, middle, a, b in zip(table, metrics.median(pdf, grid), low, high, strict=True):
        print(f"{row['object_id']:>4} r {row['mag_r']:.2f} spec_z {row['spec_z']:.3f}", end=" ")
        print(f"photo_z {middle:.3f} ({a:.3f} to {b:.3f})")
    for name, members in groups.items():
        spec_z = np.asarray(table["spec_z"], dtype=float)
        print(f"{name}: {scores(spec_z, metrics.median(pdf, grid), pdf, grid, members)}")


if __name__ == "__main__":
    main()
