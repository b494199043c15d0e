"""What a correction may do to finished p(z): a module each, links of a chain in the order of its `finish`.

A module has `check(value, correction)` of what stands after its name, e.g. `- pit: slices`; `fit(value,
galaxies, facts)`, which returns a link; and `link_from(arrays, facts)`, which builds it again from its
`arrays()`. It says whether it is fitted on training galaxies that no head saw, `HELD_OUT`, and not on the
validation split; whether it needs the implicit prior of p(z), `NEEDS_PRIOR`; and whether that is known
after it, `KEEPS_PRIOR`. A link maps p(z) to p(z).
"""

from importlib import import_module
from types import ModuleType

LINKS = {
    "prior": "photoz_lit.correction.finishing.prior",
    "temperature": "photoz_lit.correction.finishing.temperature",
    "pit": "photoz_lit.correction.finishing.pit",
    "unshrink": "photoz_lit.correction.finishing.unshrink",
}


def link_module(name: str) -> ModuleType:
    """Import the module of a link."""
    return import_module(LINKS[name])
