"""Vectors of another method: the last hidden layer of a small regression network on simulated magnitudes.

Writes `galaxies.fits` and `vectors.npy` into this folder, for `experiment=embeddings`:

    python regression.py [N_GALAXIES] [STEPS]
"""

import sys

import numpy as np
import torch
from astropy.table import Table

from photoz_lit.data.mock.population import draw_galaxies

n, steps = [int(word) for word in sys.argv[1:]] or (20_000, 1500)

galaxies, rng = draw_galaxies(n, 3, r_faint=17.77), np.random.default_rng(0)
magnitudes = np.stack([galaxies[f"ideal_mag_{band}"] for band in "ugriz"], 1) + rng.normal(0, 0.03, (n, 5))
columns = np.hstack([magnitudes, magnitudes[:, :-1] - magnitudes[:, 1:]])
x = torch.tensor((columns - columns.mean(0)) / columns.std(0), dtype=torch.float32)
z, train = torch.tensor(np.asarray(galaxies["spec_z"]), dtype=torch.float32), np.arange(n) % 5 > 0

torch.manual_seed(0)
layers = [torch.nn.Linear(9, 128), torch.nn.SiLU(), torch.nn.Linear(128, 64), torch.nn.SiLU()]
body, out = torch.nn.Sequential(*layers), torch.nn.Linear(64, 1)
optimiser = torch.optim.Adam([*body.parameters(), *out.parameters()], 3e-3)
for _ in range(steps):
    rows = torch.tensor(rng.choice(np.flatnonzero(train), 512))
    loss = ((out(body(x[rows]))[:, 0] - z[rows]) ** 2).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

np.save("vectors.npy", body(x).detach().numpy())
table = Table({"spec_z": galaxies["spec_z"], "dered_petro_r": galaxies["true_petro_r"]})
table["split"] = np.where(train, "train", "test")
table.write("galaxies.fits", overwrite=True)
