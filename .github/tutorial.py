"""photoz_lit in a minute: photo-z with an honest p(z), without a training set, a GPU or a file.

Cells, as editors and notebooks read them; each needs those above it. Figures go into a folder that is named:

    python .github/tutorial.py figures
"""

# %% A survey: 150 simulated galaxies as SDSS would see them, in memory
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

import photoz_lit
from photoz_lit import metrics
from photoz_lit.data.mock.population import draw_galaxies
from photoz_lit.data.mock.survey import Sky, measured, observe

mpl.use("Agg")
folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
sky = Sky(seed=12, pixels=64)
galaxies = observe(150, sky, lambda function, parts: map(function, parts))
cutouts = sky.draw(galaxies)  # (150, 5, 64, 64), ugriz, nanomaggies
galaxies.update(
    measured(galaxies, cutouts)
)  # a table with dered_petro_r and magnitudes beside spec_z and ebv
spec_z, ebv, r = (np.asarray(galaxies[name]) for name in ("spec_z", "ebv", "dered_petro_r"))
print(cutouts.shape, f"r {r.min():.1f} to {r.max():.1f}, spec_z {spec_z.min():.2f} to {spec_z.max():.2f}")


def keep(figure, name):
    """Save a figure where a folder is named."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.png", dpi=110)


def judge(what, result, true):
    """Print how good estimates are."""
    dz = metrics.residual(true, result.photo_z)
    crps = metrics.crps(result.pdf.astype(np.float64), true, result.grid).mean()
    print(f"{what}: sigma_mad {metrics.sigma_mad(dz):.4f}, mean dz {dz.mean():+.4f}, CRPS {crps:.4f}")
    return metrics.sigma_mad(dz)


# %% Three lines: the model that comes with the package
model = photoz_lit.load("sdss_main")
result = model.predict(cutouts, ebv, r)
result.to_table()[:5].pprint(max_width=-1)
judge("sdss_main, cutouts", result, spec_z)

# %% One galaxy: its p(z), the interval that holds 68 %, and the n(z) of the training galaxies as bright as it
one = int(np.argsort(r)[75])
keep(result.plot(one, spec_z=spec_z[one]), "p_of_z")

# %% All of them: photo_z against spec_z, and which intervals hold the truth
figure = Figure(figsize=(5, 4.6), layout="constrained")
ax = figure.subplots()
inside = (result.lower <= spec_z) & (spec_z <= result.upper)
for members, word in ((inside, "within 68 %"), (~inside, "outside")):
    bars = np.abs(np.stack([result.lower, result.upper]) - result.photo_z)[:, members]
    share = f"{word}: {members.mean():.0%}"
    ax.errorbar(spec_z[members], result.photo_z[members], bars, fmt="o", ms=3, lw=0.6, label=share)
ax.plot([0, 0.3], [0, 0.3], color="grey", lw=0.8)
ax.set(xlabel="spec_z", ylabel="photo_z")
ax.legend(frameon=False)
keep(figure, "photo_z")

# %% Flags: what deserves doubt is said, and nothing is dropped
spoilt = cutouts[:4].copy()
spoilt[1, 2, 30, 30] = np.nan  # a bad pixel
spoilt[2] *= 30  # the wrong unit
doubted = model.predict(spoilt, np.array([ebv[0], ebv[1], ebv[2], np.nan]), r[:4])
print("flags:", doubted.flag.tolist())
print("good of the survey:", f"{(result.flag == 'good').mean():.0%}")

# %% The prior: p(z) was multiplied with the n(z) of simulated galaxies; divide by it for a likelihood
likelihood = result.pdf / np.maximum(result.prior, 1e-4)
likelihood /= likelihood.sum(axis=1, keepdims=True)
print(f"mean of p(z) of that galaxy: {result.pdf[one] @ result.z:.3f}, of its likelihood ", end="")
print(f"{likelihood[one] @ result.z:.3f}, spec_z {spec_z[one]:.3f}")

# %% Magnitudes alone
by_magnitudes = photoz_lit.load("sdss_main_magnitudes")
judge("sdss_main_magnitudes", by_magnitudes.predict(galaxies), spec_z)

# %% Vectors of any network, corrected: here 16 numbers that know the magnitudes of 2,500 galaxies
many = draw_galaxies(2500, seed=13)
colours = np.stack([many[f"ideal_mag_{band}"] for band in "ugriz"], axis=1)
rng = np.random.default_rng(0)
mix = rng.normal(size=(5, 16))
vectors = np.tanh((colours - colours.mean(axis=0)) @ mix / 5) + 0.01 * rng.normal(size=(2500, 16))
many_z, many_r = np.asarray(many["spec_z"]), np.asarray(many["true_petro_r"])
steps = ["training.representation.max_steps=300", "training.hidden.max_steps=400"]  # a minute is short
corrected = photoz_lit.correct(vectors[:2000], many_z[:2000], many_r[:2000], settings=steps)
others = corrected.predict(vectors[2000:], r=many_r[2000:])
judge("correct() on vectors", others, many_z[2000:])

# %% Few spec_z: a survey with a hundred or more of its own
# Heads on the package's model, mixed with its p(z) as far as these galaxies ask for it. On the command line,
# of a table of magnitudes, and of cutouts:
#
#     python -m photoz_lit experiment=few_spectra fit_missing=true data.path=galaxies.csv
#     python -m photoz_lit stage=classifier correction=few representation=sdss_main data=arrays \
#         data.path=galaxies.csv data.images=cutouts.npy
