"""The embedded simulated survey, a stand-in for the SDSS Main Galaxy Sample that needs no download.

Galaxies come from `photoz_lit.data.mock.population`, their cutouts from `photoz_lit.data.mock.render`.
Redshifts and magnitudes may come from a catalogue of real galaxies instead.
"""

from dataclasses import replace
from pathlib import Path

from astropy.table import Table

from photoz_lit.data.catalogue import TableRules, standard_table
from photoz_lit.data.formats import read_table
from photoz_lit.data.mock.population import draw_galaxies
from photoz_lit.data.mock.render import render_cutouts
from photoz_lit.data.mock.templates import BANDS
from photoz_lit.data.splits import with_ids
from photoz_lit.errors import DataError

Z_RANGE = (0.0, 0.4)  # of the survey that it stands in for
VERSION = 1  # raise it when the simulated survey changes: stores are made again

__all__ = ["VERSION", "Z_RANGE", "draw_galaxies", "read_real_galaxies", "render_cutouts"]

LEAST_SPEC_Z = 1e-4  # nearer ones have no distance to be drawn at


def read_real_galaxies(path: Path, rules: TableRules) -> Table:
    """Read a catalogue of real galaxies to draw a simulated survey from.

    Parameters
    ----------
    path : Path
        Table with spec_z and magnitudes; ebv, dered_petro_r, errors, object_id, ra and dec are used if there.
    rules : TableRules
        Names of its columns, and what to check. Magnitudes are named in the order u g r i z; none stand for
        mag_u to mag_z, with mag_err_u to mag_err_z where the table has them.

    Returns
    -------
    Table
        object_id, spec_z, dered_petro_r, mag_u to mag_z; if known ebv, mag_err_u to mag_err_z, ra, dec, split

    Raises
    ------
    DataError
        A column is missing or a value cannot be used; the message names both.
    """
    table = read_table(path)
    ours = [f"mag_{band}" for band in BANDS]
    our_errors = [f"mag_err_{band}" for band in BANDS]
    theirs = list(rules.magnitudes) or ours
    if len(theirs) != len(ours):
        raise DataError(
            f"data.magnitudes names {len(theirs)} columns of {path}: name those of u, g, r, i and z, in order"
        )
    errors = list(rules.magnitude_errors) or [e for e in our_errors if set(our_errors) <= set(table.colnames)]
    columns = dict(rules.columns)
    wanted = {"data.magnitudes": theirs, "data.columns": list({"spec_z": "spec_z", **columns}.values())}
    for key, names in wanted.items():
        if missing := [name for name in names if name not in table.colnames]:
            raise DataError(
                f"{path}: no column {', '.join(missing)} (set by {key}). Its columns are: "
                f"{', '.join(table.colnames)}"
            )
    if "dered_petro_r" not in (*columns, *table.colnames):
        columns["dered_petro_r"] = theirs[BANDS.index("r")]
    has_ebv = "ebv" in columns or "ebv" in table.colnames
    if not has_ebv:
        table["ebv"] = 0.0
    low, high = rules.z_range
    rules = replace(
        rules,
        columns=columns,
        z_range=(max(low, LEAST_SPEC_Z), high),
        magnitudes=theirs,
        magnitude_errors=errors,
        labelled=True,
        target="spec_z",
    )
    galaxies = with_ids(standard_table(table, str(path), rules)[0])
    if not has_ebv and not (rules.ebv_maps is not None and {"ra", "dec"} <= set(galaxies.colnames)):
        galaxies.remove_column("ebv")  # it is drawn
    galaxies.rename_columns([*theirs, *errors], [*ours, *our_errors[: len(errors)]])
    return galaxies
