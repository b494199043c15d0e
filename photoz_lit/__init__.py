"""Photometric redshifts from galaxy images, without the biases that deep classifiers add.

    model = photoz_lit.load("sdss_main")  # or a run folder
    result = model.predict(cutouts, ebv, r)
    result.to_table()

`photoz_lit.api` has the details.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Estimates", "Model", "load"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is: PyTorch takes seconds."""
    if name in __all__:
        from photoz_lit import api

        return getattr(api, name)
    raise AttributeError(f"module 'photoz_lit' has no attribute {name!r}")
