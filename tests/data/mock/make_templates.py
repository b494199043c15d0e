"""Make `photoz_lit/data/mock/templates.ecsv`.

The spectra ship with ``desc-bpz``, the filter curves with ``speclite``; both are in the extra ``mock``.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from astropy.table import Table

from photoz_lit.data.mock.templates import BANDS, TABLE, TYPES

REDSHIFTS = np.arange(0.0, 0.4501, 0.01)


def find_spectra() -> Path:
    """Return the folder of spectra inside an installed ``desc-bpz``."""
    spec = find_spec("desc_bpz")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "The spectra ship with desc-bpz, which is not installed. Type: pip install desc-bpz, "
            "or name a folder with --spectra that holds El_B2004a.sed, Sbc_B2004a.sed, ..."
        )
    return Path(spec.origin).parent / "data_files" / "SED"


def make_templates(spectra: Path) -> Table:
    """Put the four spectra through the SDSS filters at each redshift.

    The folder has ``{El,Sbc,Scd,Im}_B2004a.sed``: two columns, wavelength in angstrom and flux per angstrom.
    The table has ``z``, ``{type}_{band}`` (AB colour band - r) and ``{type}_k_r``, in mag.
    """
    from speclite.filters import load_filters

    filters = load_filters(*(f"sdss2010-{band}" for band in BANDS))
    table = Table({"z": np.round(REDSHIFTS, 4)})
    for name in TYPES:
        wavelength, flux = np.loadtxt(spectra / f"{name}_B2004a.sed", unpack=True)
        keep = np.diff(wavelength, prepend=-1.0) > 0
        wavelength, flux = wavelength[keep], flux[keep]
        # Any normalisation serves: only differences of magnitudes enter the table.
        flux = flux / flux.max() * 1e-12
        magnitudes = np.empty((len(REDSHIFTS), len(BANDS)))
        for i, z in enumerate(REDSHIFTS):
            row = filters.get_ab_magnitudes(flux / (1 + z), wavelength * (1 + z))[0]
            magnitudes[i] = [row[f"sdss2010-{band}"] for band in BANDS]
        r = magnitudes[:, 2]
        for j, band in enumerate(BANDS):
            table[f"{name}_{band}"] = np.round(magnitudes[:, j] - r, 4)
        table[f"{name}_k_r"] = np.round(r - r[0], 4)
    table.meta = {
        "content": "AB colours (band - r) and k-correction in r, mag, of redshifted template spectra",
        "spectra": "Coleman, Wu & Weedman 1980 (ApJS 43, 393) as recalibrated by Benitez et al. 2004 "
        "(ApJS 150, 1); files *_B2004a.sed of desc-bpz (MIT licence)",
        "filters": "sdss2010-[ugriz] of speclite (Doi et al. 2010, AJ 139, 1628)",
        "command": "python tests/data/mock/make_templates.py",
    }
    return table


def main() -> None:
    """Regenerate ``templates.ecsv``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--spectra", type=Path, help="folder of *_B2004a.sed (default: in desc-bpz)")
    parser.add_argument("--output", type=Path, default=TABLE, help="table to write (default: %(default)s)")
    options = parser.parse_args()
    table = make_templates(options.spectra or find_spectra())
    table.write(options.output, format="ascii.ecsv", overwrite=True)
    print(f"Wrote {options.output}")


if __name__ == "__main__":
    main()
