"""Judge the simulated cutouts by the real sky: the same numbers of both, and how well they are told apart.

    python tests/bench/real_sky.py --real FOLDER --output FOLDER [--seed 1]

FOLDER holds `sdss_frames`: frames as the archive serves them and, for some fields, the galaxies they show
(`RRRRRR-C-FFFF_gals.csv`: x, y in pixels of the r frame). Galaxies are found on the r frames (needs sep and
scikit-learn) and cut as `photoz_lit.data.sdss` cuts them; simulated ones are drawn as deep and resampled to
the same magnitudes. Writes real_sky.svg, .png and .json, and prints a table.

The real galaxies come from few fields, each with one seeing and one sky; that alone tells them from any
simulation. How far, a control says: simulated galaxies, observed as if in so few fields, in their place.
"""

import argparse
import inspect
import json
from pathlib import Path

import numpy as np
import torch
from astropy.table import Table
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from morphology import BANDS, NOISE, SIDE, TITLES, Floats, Image, Numbers, measure
from numpy.typing import NDArray
from scipy import stats
from telling_apart import auc, tell_by_numbers, tell_by_pixels, views

from photoz_lit.data.mock.population import draw_galaxies
from photoz_lit.data.mock.render import render_cutouts
from photoz_lit.data.sdss.cut import fill, lay_grids
from photoz_lit.data.sdss.fields import Stamps
from photoz_lit.data.sdss.frames import find_frames, read_frame
from photoz_lit.report.figures import style

Areas = dict[str, tuple[float, float]]  # under the ROC curve, and errors, by classifier

BRIGHTEST, FAINTEST = 16.0, 20.3  # mag in r, as measured here; two fields show some 90 galaxies
EACH = 3  # simulated galaxies for a real one
OVER_STARS = 0.2  # mag by which a galaxy is less concentrated than stars (light within 2 and 7 pixels)
# Columns of a simulated galaxy that say how it is observed, for the control.
CONDITIONS = ("true_seeing", "true_sky", "true_psf")


def real_cutouts(folder: Path) -> tuple[Image, list[str]]:
    """Find and cut the galaxies of all fields of a folder: cutouts (n, 5, 64, 64) and their fields."""
    import sep

    stamps, found, names = Stamps(BANDS), [], []
    for field, files in find_frames(folder, BANDS).items():
        frames = [read_frame(files[band]) for band in BANDS]
        image, wcs = frames[2]
        sky = sep.Background(image.copy(), bw=128, bh=128)
        light = image - sky.back()
        objects = sep.extract(light, 1.5, err=sky.globalrms, minarea=5)
        x, y, _ = sep.winpos(light, objects["x"], objects["y"], 1.2)
        inner, outer = (np.maximum(sep.sum_circle(light, x, y, r)[0], 1e-3) for r in (2.0, 7.0))
        r, spread = 22.5 - 2.5 * np.log10(outer), 2.5 * np.log10(outer / inner)
        stars = np.median(spread[(r > 15.5) & (r < 18)])
        take = (r < FAINTEST + 0.6) & (spread > stars + OVER_STARS) & (objects["peak"] < 10)  # none saturated
        edge = SIDE / 2 + 1
        take &= (np.minimum(x, y) > edge) & (x < image.shape[1] - edge) & (y < image.shape[0] - edge)
        listed = folder / f"{field.run:06d}-{field.camcol}-{field.field:04d}_gals.csv"
        if listed.is_file():
            known = np.loadtxt(listed, delimiter=",")
            take &= (np.hypot(x[:, None] - known[:, 0], y[:, None] - known[:, 1]) < 3).any(1)
        grids = lay_grids(*wcs.pixel_to_world_values(x[take], y[take]), stamps, wcs)
        cutouts = np.zeros((int(take.sum()), *stamps.shape), np.float32)
        fill(cutouts, missing := np.ones(cutouts.shape, bool), frames, grids)
        whole = ~missing.any((1, 2, 3))
        found.append(cutouts[whole])
        names += [str(field)] * int(whole.sum())
    return np.concatenate(found), names


def simulate(n: int, seed: int) -> Table:
    """Draw simulated galaxies, to the depth of the real ones where the simulation can."""
    deeper = {"r_faint": FAINTEST + 0.6} if "r_faint" in inspect.signature(draw_galaxies).parameters else {}
    return draw_galaxies(n, seed, **deeper)


def observe_in_few_fields(galaxies: Table, fields: list[str]) -> None:
    """Give simulated galaxies the seeing and sky of as many rows as there are fields, in their shares."""
    _, field = np.unique(fields, return_inverse=True)
    rows = np.resize(field, len(galaxies))
    for name in galaxies.colnames:
        if name.startswith(CONDITIONS):
            galaxies[name] = np.asarray(galaxies[name])[rows]


def match(r: Floats, pool: Floats, each: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Choose the nearest of a pool for every magnitude, `each` times, none twice; rows, (len(r) each,)."""
    free, rows = pool.copy(), []
    for value in rng.permutation(np.repeat(r, each)):
        rows.append(int(np.argmin(np.abs(free - value))))
        free[rows[-1]] = np.inf
    return np.array(rows)


def compare(real: Numbers, other: Numbers) -> dict[str, dict[str, float]]:
    """Return how far two samples lie apart in each number: Kolmogorov-Smirnov, Wasserstein over real std."""
    table = {}
    for name in TITLES:
        a, b = real[name], other[name]
        test = stats.ks_2samp(a, b)
        table[name] = {
            **{"ks": float(test.statistic), "p": float(test.pvalue)},
            "wasserstein": float(stats.wasserstein_distance(a, b) / a.std()),
            **{"real_median": float(np.median(a)), "simulated_median": float(np.median(b))},
        }
    return table


def judge(
    real: tuple[Image, Numbers], simulated: tuple[Image, Numbers], names: tuple[str, ...], seed: int
) -> tuple[Areas, dict[str, float]]:
    """Return the area under the ROC curve, and its error, of each classifier, and what numbers are used."""
    is_real = np.arange(len(real[0]) + len(simulated[0])) < len(real[0])
    groups = {
        "all numbers": tuple(TITLES),
        "numbers but noise": tuple(name for name in TITLES if name not in NOISE),
        "noise numbers": NOISE,
    }
    areas, used = {}, {}
    for group, members in groups.items():
        table = np.stack([np.concatenate([real[1][name], simulated[1][name]]) for name in members], 1)
        score, falls = tell_by_numbers(table, is_real, seed)
        areas[group] = auc(is_real, score)
        print(f"{group}: {areas[group][0]:.3f}", flush=True)
        used |= {} if group == "all numbers" else dict(zip(members, falls.tolist(), strict=True))
    shown = views(np.concatenate([real[0], simulated[0]]))
    for name in names:
        areas[f"pixels, {name}"] = auc(is_real, tell_by_pixels(shown[name], is_real, seed))
        print(f"pixels, {name}: {areas[f'pixels, {name}'][0]:.3f}", flush=True)
    return areas, used


def draw(real: Numbers, simulated: Numbers, result: dict) -> Figure:
    """Draw the numbers of real and simulated galaxies, and how well they are told apart."""
    figure = Figure(figsize=(style.FULL_WIDTH, 17.2))
    above, below = figure.subfigures(2, 1, height_ratios=[3.8, 1])
    panels = above.subplots(8, 5).ravel()
    for ax, (name, title) in zip(panels, TITLES.items(), strict=False):
        _draw_number(ax, real[name], simulated[name], whole=name == "objects")
        far = result["distances"][name]
        p = f"p = {far['p']:.2f}" if far["p"] >= 0.01 else "p < 0.01" if far["p"] >= 1e-3 else "p < 0.001"
        words = f"KS {far['ks']:.2f}, {p}\nW {far['wasserstein']:.2f} σ"
        ax.text(0.98, 0.97, words, transform=ax.transAxes, ha="right", va="top", fontsize=8, color=style.INK)
        ax.set_title(title, fontsize=9, fontweight="normal")
    key, n = panels[-1], result["galaxies"]
    key.axis("off")
    labels = f"real, {n['real']}", f"simulated, {n['simulated']}"
    key.legend(panels[0].get_legend_handles_labels()[0], labels, loc="center", fontsize=10, title="Galaxies")
    uses, areas = below.subplots(1, 2)
    top = sorted(result["importance"], key=result["importance"].__getitem__)[-12:]
    uses.barh([TITLES[name] for name in top], [result["importance"][name] for name in top], color=style.BLUE)
    uses.set(title="What numbers tell them apart", xlabel="fall of the area under the curve when shuffled")
    uses.tick_params(labelsize=9)
    _draw_areas(areas, result["auc"], result["control"])
    return figure


def _draw_number(ax: Axes, real: Floats, simulated: Floats, *, whole: bool) -> None:
    """Draw two histograms in shares; what lies beyond the last bins counts in them."""
    low, high = np.percentile(np.concatenate([real, simulated]), [0.7, 99.3])
    bins = np.arange(-0.5, np.ceil(high) + 1) if whole else np.linspace(low, high, 17)
    for values, look in (
        (real, {"color": style.SKY, "alpha": 0.75}),
        (simulated, {"color": style.VERMILION, "histtype": "step", "linewidth": 1.7}),
    ):
        shares = np.full(len(values), 1 / len(values))
        ax.hist(np.clip(values, bins[0], bins[-1]), bins, weights=shares, label="galaxies", **look)
    ax.tick_params(labelsize=8)
    ax.set_yticks([])
    ax.set_ylim(0, ax.get_ylim()[1] * 1.45)  # room for words


def _draw_areas(ax: Axes, areas: Areas, control: Areas) -> None:
    """Draw how well classifiers do; the first stands highest."""
    names = list(areas)[::-1]
    for values, colour, marker, aside, label in (
        (areas, style.BLUE, "o", 0.12, "real from simulated"),
        (control, style.GREY, "X", -0.12, "control: simulated in few fields"),
    ):
        x, error = np.array([values[name] for name in values]).T
        y = [names.index(name) + aside for name in values]
        ax.errorbar(x, y, xerr=error, color=colour, marker=marker, linestyle="none", label=label)
    ax.set_yticks(range(len(names)), names)
    ax.set(title="Area under the ROC curve", xlabel="0.5: cannot be told apart; 1: always", xlim=(0.38, 1.03))
    ax.set_ylim(-0.6, len(names) + 1.9)  # room for the key
    ax.axvline(0.5, color=style.INK, linewidth=0.8)
    ax.legend(loc="upper left", fontsize=9)


def report(result: dict) -> None:
    """Print what was found, the worst first."""
    print(f"{'':16}{'real':>9}{'simulated':>11}{'KS':>7}{'p':>9}{'W/std':>7}")
    for name, far in sorted(result["distances"].items(), key=lambda item: -item[1]["ks"]):
        medians = f"{far['real_median']:9.3f}{far['simulated_median']:11.3f}"
        print(f"{name:16}{medians}{far['ks']:7.2f}{far['p']:9.1g}{far['wasserstein']:7.2f}")
    print(f"{'area under the ROC curve':26}{'real':>14}{'control':>16}")
    for name, values in result["auc"].items():
        words = ["{:.3f} ± {:.3f}".format(*pair) for pair in (values, result["control"].get(name)) if pair]
        print(f"{name:26}{words[0]:>14}{words[-1] if len(words) > 1 else '':>16}")


def main() -> None:
    """Compare, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, required=True, help="folder with sdss_frames")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    cutouts, fields = real_cutouts(args.real / "sdss_frames")
    real = measure(cutouts)
    keep = (real["r"] > BRIGHTEST) & (real["r"] < FAINTEST)
    fields = [field for field, kept in zip(fields, keep, strict=True) if kept]
    sky = cutouts[keep], {name: values[keep] for name, values in real.items()}
    samples = []
    for seed, each in ((args.seed, EACH), (args.seed + 1, 1)):
        galaxies = simulate(500 + 400 * each, seed)
        if each == 1:
            observe_in_few_fields(galaxies, fields)
        drawn = render_cutouts(galaxies, seed)
        numbers = measure(drawn)
        rows = match(sky[1]["r"], numbers["r"], each, rng)
        samples.append((drawn[rows], {name: values[rows] for name, values in numbers.items()}))
    simulated, control = samples
    areas, importance = judge(
        sky, simulated, ("all", "centre", "outskirts", "smoothed", *(f"{b} alone" for b in BANDS)), args.seed
    )
    result = {
        "galaxies": {
            "real": len(sky[0]),
            "simulated": len(simulated[0]),
            "fields": {f: fields.count(f) for f in set(fields)},
        },
        "distances": compare(sky[1], simulated[1]),
        "auc": areas,
        "control": judge(control, simulated, ("all", "smoothed"), args.seed)[0],
        "importance": importance,
    }
    (args.output / "real_sky.json").write_text(json.dumps(result, indent=1) + "\n")
    with rc_context(style.STYLE):
        figure = draw(sky[1], simulated[1], result)
        (args.output / "real_sky.svg").write_bytes(style.as_svg(figure))
        (args.output / "real_sky.png").write_bytes(style.as_png(figure))
    report(result)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
