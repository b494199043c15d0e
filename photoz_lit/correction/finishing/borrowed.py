"""p(z) of the model whose representation this is, mixed with that of heads fitted to few galaxies.

The share of each is the one under which galaxies that no head saw are most likely (stacking: Wolpert 1992,
Neural Networks 5, 241). Where there are few, the other model's p(z) stays as it is.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, softmax

from photoz_lit.correction.finishing.link import Arrays, Facts, Galaxies, Link, Maybe, Nature
from photoz_lit.correction.settings import CorrectionConfig
from photoz_lit.errors import ConfigError
from photoz_lit.grids import Floats, RedshiftGrid

LEAST = 1e-9  # probability, so that no galaxy alone decides
STEPS = 200  # of expectation and maximisation, for one number


def nature(value: Any) -> Nature:
    """Is fitted on training galaxies that each head left out."""
    return Nature(held_out=True)


def check(value: Any, correction: CorrectionConfig) -> None:
    """Refuse all but `borrowed: fitted`."""
    if value != "fitted":
        raise ConfigError(f"correction.finish: borrowed={value} is not valid: type borrowed: fitted")


def fit(value: str, galaxies: Galaxies, facts: Facts) -> "Borrowed":
    """Fit the share of the other model's p(z)."""
    link = Borrowed(1.0, dict(facts.borrowed), facts.grid)
    rows, z_bin = np.arange(len(galaxies.pdf)), facts.grid.output_index(galaxies.spec_z)
    theirs, own = (
        np.maximum(p[rows, z_bin], LEAST)
        for p in (link.theirs(galaxies.embeddings), np.asarray(galaxies.pdf, dtype=np.float64))
    )
    share = 0.5
    for _ in range(STEPS):
        share = float(np.mean(share * theirs / (share * theirs + (1 - share) * own)))
    return Borrowed(share, link.heads, facts.grid)


def link_from(arrays: Arrays, facts: Facts) -> "Borrowed":
    """Build the link again."""
    heads = {name: values for name, values in arrays.items() if name != "share"}
    return Borrowed(float(arrays["share"]), heads, facts.grid)


@dataclass(frozen=True, eq=False)
class Borrowed(Link):
    """The share of the other model, and the weights of its heads, `models.heads.HiddenHead`.

    Of M heads: `mean`, `scale` (M, d), `hidden.weight` (M, h, d), `hidden.bias`, `redshift.weight`
    (M, K, h), `redshift.bias`, `farthest`; `edges` (K + 1,) of its bins.
    """

    share: float
    heads: dict[str, NDArray[Any]]
    grid: RedshiftGrid

    def __call__(self, pdf: ArrayLike, dered_petro_r: Maybe = None, embeddings: Maybe = None) -> Floats:
        """Return p(z), (n, n_outputs), rows of sum 1."""
        assert embeddings is not None
        mixed = self.share * self.theirs(embeddings) + (1 - self.share) * np.asarray(pdf, dtype=np.float64)
        return np.asarray(mixed)

    def theirs(self, embeddings: ArrayLike) -> Floats:
        """Return p(z) of the other model, (n, n_outputs), on the bins of this one."""
        h, x, edges = self.heads, np.asarray(embeddings, dtype=np.float64), self.grid.edges
        p = np.zeros((len(x), h["redshift.weight"].shape[1]))
        for m in range(len(h["mean"])):
            standard = np.clip((x - h["mean"][m]) / h["scale"][m], -h["farthest"], h["farthest"])
            linear = standard @ h["hidden.weight"][m].T + h["hidden.bias"][m]
            hidden = linear * ndtr(linear)  # GELU
            p += softmax(hidden @ h["redshift.weight"][m].T + h["redshift.bias"][m], axis=1)
        below = np.concatenate([np.zeros((len(p), 1)), np.cumsum(p, axis=1)], axis=1)
        low = np.clip(np.searchsorted(h["edges"], edges, side="right") - 1, 0, len(h["edges"]) - 2)
        part = np.clip((edges - h["edges"][low]) / np.diff(h["edges"])[low], 0, 1)
        own = np.diff(below[:, low] + part * p[:, low], axis=1) + LEAST
        return np.asarray(own / own.sum(axis=1, keepdims=True))

    def arrays(self) -> dict[str, ArrayLike]:
        """Return the share and the heads."""
        return {"share": self.share, **self.heads}
