"""What Step 2 may minimise: a module each, with its `Settings` and its `Loss`.

`Settings` are what stands under `correction.step2.loss`; they check themselves. A `Loss` is made from them
and from the training galaxies; it names the columns that a batch needs beside r_slice, z_bin and weight,
maps logits and batch to a scalar, and knows the implicit prior of the p(z) it leads to. Both may inherit
from those of `cross_entropy`. Modules import torch only where they compute: settings are read without it.
"""

from importlib import import_module
from types import ModuleType

LOSSES = {
    "cross_entropy": "photoz_lit.correction.losses.cross_entropy",
    "balanced_softmax": "photoz_lit.correction.losses.balanced_softmax",
    "crps": "photoz_lit.correction.losses.crps",
    "sord": "photoz_lit.correction.losses.sord",
    "nearest": "photoz_lit.correction.losses.nearest",
    "trend": "photoz_lit.correction.losses.trend",
}


def loss_module(name: str) -> ModuleType:
    """Import the module of a loss."""
    return import_module(LOSSES[name])
