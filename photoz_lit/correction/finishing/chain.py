"""The links of a correction on finished p(z), fitted one after the other and kept with the run as arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.correction.finishing import link_module
from photoz_lit.correction.finishing.link import Arrays, Facts, Galaxies, Link, Maybe, OnTensors
from photoz_lit.correction.finishing.response import Response
from photoz_lit.correction.prior import Priors
from photoz_lit.files import read_arrays
from photoz_lit.grids import Floats, MagnitudeSlices, RedshiftGrid

FILE = "finishing.npz"  # in a run folder


@dataclass(frozen=True, eq=False)
class Chain:
    """Fitted links with their names, in order."""

    links: tuple[tuple[str, Link], ...] = ()

    def __call__(
        self, pdf: ArrayLike, dered_petro_r: Maybe = None, embeddings: Maybe = None
    ) -> NDArray[np.float32]:
        """Finish p(z), (n, n_outputs); r (n,), mag, and embeddings (n, d) may be unknown."""
        return self._exact(pdf, dered_petro_r, embeddings).astype(np.float32)

    def _exact(self, pdf: ArrayLike, dered_petro_r: Maybe, embeddings: Maybe) -> Floats:
        p = np.asarray(pdf, dtype=np.float64)
        for _, link in self.links:
            p = link(p, dered_petro_r, embeddings)
        return p

    def priors(self, before: Priors) -> Priors:
        """Return the priors of finished p(z), as far as they are known, from those before."""
        for _, link in self.links:
            before = link.priors(before)
        return before

    @property
    def responses(self) -> list[Response]:
        """The link that has an estimate of its own, if there is one."""
        return [link for _, link in self.links if isinstance(link, Response)]

    def on_tensors(self) -> list[tuple[str, OnTensors | None]]:
        """Return names of the links and their forms for an exported program."""
        return [(name, link.on_tensors()) for name, link in self.links]

    def arrays(self) -> dict[str, ArrayLike]:
        """Return everything as named arrays, for a file without pickles."""
        named = {f"{i}.{name}": link.arrays() for i, (name, link) in enumerate(self.links)}
        return {f"{place}.{key}": values for place, arrays in named.items() for key, values in arrays.items()}

    @classmethod
    def read(cls, folder: Path, slices: MagnitudeSlices, grid: RedshiftGrid) -> "Chain":
        """Read that of a run folder that has one."""
        return cls.from_arrays(read_arrays(folder / FILE), slices, grid)

    @classmethod
    def from_arrays(cls, arrays: Arrays, slices: MagnitudeSlices, grid: RedshiftGrid) -> "Chain":
        """Build it again from `arrays`."""
        own: dict[tuple[int, str], dict[str, NDArray[Any]]] = {}
        for place, values in arrays.items():
            number, name, key = place.split(".", 2)
            own.setdefault((int(number), name), {})[key] = values
        facts = Facts(grid, slices)
        return cls(tuple((name, link_module(name).link_from(own[i, name], facts)) for i, name in sorted(own)))


def fit_chain(
    steps: Sequence[tuple[str, Any]],
    validation: Callable[[], Galaxies],
    held_out: Callable[[], Galaxies],
    facts: Facts,
) -> Chain:
    """Fit links, by their names and what stands after them, in order, each to what those before it leave.

    `validation` has p(z) as the heads give it, `held_out`, training galaxies, that of the head that did not
    see them; `facts` has the priors that the heads were trained with.
    """
    chain = Chain()
    for name, value in steps:
        module = link_module(name)
        galaxies = held_out() if module.nature(value).held_out else validation()
        pdf = chain._exact(galaxies.pdf, galaxies.dered_petro_r, galaxies.embeddings)
        now = replace(facts, priors=facts.priors and chain.priors(facts.priors))
        chain = Chain((*chain.links, (name, module.fit(value, replace(galaxies, pdf=pdf), now))))
    return chain
