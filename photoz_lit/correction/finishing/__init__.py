"""What a correction may do to finished p(z): a module each, links of a chain in the order of its `finish`.

A module has `check(value, correction)` and `nature(value)` of what stands after its name, e.g. `- pit:
slices`; `fit(value, galaxies, facts)`, which returns a link; and `link_from(arrays, facts)`, which builds it
again from its `arrays()`. A link maps p(z) to p(z); one may have an estimate of its own, `individual`.
"""

from importlib import import_module
from types import ModuleType

LINKS = {
    "prior": "photoz_lit.correction.finishing.prior",
    "temperature": "photoz_lit.correction.finishing.temperature",
    "pit": "photoz_lit.correction.finishing.pit",
    "borrowed": "photoz_lit.correction.finishing.borrowed",
    "response": "photoz_lit.correction.finishing.response",
}


def link_module(name: str) -> ModuleType:
    """Import the module of a link."""
    return import_module(LINKS[name])
