"""The links of a correction on finished p(z), fitted one after the other and kept with the run as arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.correction.finishing import link_module
from photoz_lit.correction.finishing.link import Arrays, Facts, Galaxies, Link, Maybe
from photoz_lit.grids import Floats, MagnitudeSlices, RedshiftGrid


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

    def implicit_prior(self, before: Floats) -> Floats:
        """Return the implicit prior of finished p(z), (n_outputs,), as far as it is known."""
        for _, link in self.links:
            before = link.implicit_prior(before)
        return before

    def arrays(self) -> dict[str, ArrayLike]:
        """Return everything as named arrays, for a file without pickles."""
        named = {f"{i}.{name}": link.arrays() for i, (name, link) in enumerate(self.links)}
        return {f"{place}.{key}": values for place, arrays in named.items() for key, values in arrays.items()}

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
    see them; `facts` has the implicit prior that the heads were trained with.
    """
    chain = Chain()
    for name, value in steps:
        module = link_module(name)
        galaxies = held_out() if module.HELD_OUT else validation()
        pdf = chain._exact(galaxies.pdf, galaxies.dered_petro_r, galaxies.embeddings)
        now = replace(facts, implicit_prior=chain.implicit_prior(facts.implicit_prior))
        chain = Chain((*chain.links, (name, module.fit(value, replace(galaxies, pdf=pdf), now))))
    return chain
