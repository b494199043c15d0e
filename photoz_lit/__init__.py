"""Photometric redshifts from galaxy images, without the biases that deep classifiers add.

    model = photoz_lit.load("sdss_main")  # or a run folder
    result = model.predict(cutouts, ebv, r)
    result.to_table()

    model = photoz_lit.correct(vectors, spec_z, r)  # of any network, corrected

`photoz_lit.ebv_at(ra, dec)` gives the dust before a galaxy, where nothing finer is at hand.
`photoz_lit.api` and `photoz_lit.corrected` have the details.
"""

import importlib
import os
from typing import Any

__version__ = "0.1.0"
__all__ = ["Estimates", "Model", "correct", "ebv_at", "load"]
# Read when PyTorch is first imported. OpenMP's threads wait for each other in a loop that keeps their cores
# busy: beside another busy process ten times as long as the work itself. After microseconds they now sleep.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# `correct` trains, with all that it takes.
_PLACES = {"correct": "photoz_lit.corrected", "ebv_at": "photoz_lit.data.dust"}  # others: photoz_lit.api


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is: PyTorch takes seconds."""
    if name in __all__:
        return getattr(importlib.import_module(_PLACES.get(name, "photoz_lit.api")), name)
    raise AttributeError(f"module 'photoz_lit' has no attribute {name!r}")
