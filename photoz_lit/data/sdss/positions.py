"""Single positions: as they are typed, what the archive's catalogue knows there, and what cutouts show.

A position is coordinates, in degrees or in hours and degrees, or a name that is looked up; `r=` (dereddened
Petrosian) and `ebv=`, mag, may follow. Cutouts are centred on the position, not on what is found there.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from photoz_lit.data.dust import ebv_at, ebv_from_maps
from photoz_lit.data.faults import LIMITS
from photoz_lit.data.mock import instrument
from photoz_lit.data.sdss.fetch import Fault, get, new_session, refusal
from photoz_lit.data.sdss.fields import Stamps
from photoz_lit.data.sdss.query import KINDS, NOT_MEASURED, OTHERS, PAGE, REQUEST, read_page, standard_columns
from photoz_lit.errors import ConfigError, DataError

EXAMPLE = 'position="10:00:00 +12:42:00" or "150.0 12.7 r=16.3 ebv=0.03; 151.2 12.4"'
COORDINATES = re.compile(r"[\d+-][\d\s.:+\-hmsd]*")
NAME_WITH_COORDINATES = re.compile(r"J\d{6}\.\d+[+-]\d{6}")  # less exact ones only say where to look
NEAR = 2.0  # arcsec from the position: what is there is the galaxy that is meant
SMOOTHING = 1.4  # pixels, Gaussian: about the seeing
SIGNIFICANT = 5.0  # sigma of a peak that is a source
AROUND = 1.0  # arcmin in which the catalogue's nearest object tells field and E(B-V)
ANSWER = 60.0  # s, longest silence of the catalogue


class Position(NamedTuple):
    """A position as it was typed; NaN is what is not known."""

    name: str
    ra: float  # deg
    dec: float
    r: float  # mag
    ebv: float


def typed_positions(text: str) -> list[Position]:
    """Read positions, `A; B` or `[A, B]`; names have no coordinates yet. ConfigError where one cannot be."""
    inner = re.fullmatch(r"\s*\[(.*)\]\s*", text, re.S)
    items = re.split(r"[,;]", inner[1]) if inner else text.replace(",", " ").split(";")
    if not (found := [_position(item.strip(" \"'")) for item in items if item.strip(" \"'")]):
        raise ConfigError(f"position={text}: there is none in it. Type {EXAMPLE}")
    return found


def _position(item: str) -> Position:
    given = dict(re.findall(r"(\w+)\s*=\s*(\S+)", item))
    name = " ".join(re.sub(r"\w+\s*=\s*\S+", "", item).split())
    if not name or not given.keys() <= {"r", "ebv"}:
        raise ConfigError(f"position={item}: only r= and ebv= may follow a position, as in {EXAMPLE}")
    try:
        return Position(
            name, *_coordinates(name), _number(given, "r", "magnitude"), _number(given, "ebv", "ebv")
        )
    except ValueError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ConfigError(f"position={item}: {reason}. Type {EXAMPLE}") from error


def _number(given: dict[str, str], key: str, kind: str) -> float:
    low, high, words = LIMITS[kind]
    if key in given and not low <= float(given[key]) <= high:
        raise ValueError(f"{key} {words}")
    return float(given.get(key, "nan"))


def _coordinates(name: str) -> tuple[float, float]:
    """Return ra and dec, deg; NaN of a name that has to be looked up; ValueError if they cannot be."""
    from astropy.coordinates import SkyCoord

    if NAME_WITH_COORDINATES.search(name):
        sky = SkyCoord.from_name(name, parse=True)
    elif not COORDINATES.fullmatch(name):
        return np.nan, np.nan
    else:
        hours = re.search("[:h]", name) or len(name.split()) == 6
        parts = re.findall(r"[+-]?[\d.]+", name)
        if not hours and not (len(parts) == 2 or set("dms") & set(name)):
            raise ValueError(
                "it must have ra and dec, two numbers in degrees or three each in hours and degrees"
            )
        if not hours and not 0 <= float(parts[0]) <= 360:
            raise ValueError("ra must be 0 to 360 degrees")
        sky = SkyCoord(name, unit=("hourangle" if hours else "deg", "deg"))
    return float(sky.ra.deg), float(sky.dec.deg)


def positions_table(positions: list[Position], server: str | None, maps: str | None) -> Table:
    """Return positions as `Walk` needs them; `r_from` and `ebv_from` say where these are from.

    The catalogue of a SkyServer gives field, r and E(B-V), maps E(B-V), where they are not typed; without
    either the coarse map does, unless `maps` is none. DataError where a name is not found, or the server does
    not answer.
    """
    folder = None if maps in (None, "none", "coarse") else Path(str(maps))
    rows = []
    for p in map(_looked_up, positions):
        name = p.name.encode("ascii", "replace").decode()  # FITS holds no other letters
        row: dict[str, Any] = {"object_id": name, "ra": p.ra, "dec": p.dec}
        known = {} if server is None else _catalogue(p, server)
        at = np.array([p.ra]), np.array([p.dec])
        fine = np.nan if folder is None or np.isfinite(p.ebv) else float(ebv_from_maps(*at, folder)[0])
        coarse = np.nan if maps == "none" else float(ebv_at(*at)[0])
        options = {
            "r": {"typed": p.r, "catalogue": known.pop("dered_petro_r", np.nan)},
            "ebv": {"typed": p.ebv, "maps": fine, "catalogue": known.pop("ebv", np.nan), "SFD map": coarse},
        }
        for key, column in (("r", "dered_petro_r"), ("ebv", "ebv")):
            origin, value = next(((o, v) for o, v in options[key].items() if np.isfinite(v)), ("", np.nan))
            row |= {column: value, f"{key}_from": f"{origin:9s}"}
        rows.append(row | known)
    table = Table(rows=rows)
    table["ebv_known"], table["ebv"] = np.isfinite(table["ebv"]), np.nan_to_num(table["ebv"])
    return table


def _looked_up(position: Position) -> Position:
    from astropy.coordinates import SkyCoord
    from astropy.coordinates.name_resolve import NameResolveError

    if np.isfinite(position.ra):
        return position
    try:
        sky = SkyCoord.from_name(position.name)
    except NameResolveError as error:
        raise DataError(
            f"position={position.name}: these are no coordinates, and as a name it could not be looked up "
            f"({' '.join(str(error).split())[:160]}). Without a network type coordinates, {EXAMPLE}"
        ) from error
    return position._replace(ra=float(sky.ra.deg), dec=float(sky.dec.deg))


def _catalogue(p: Position, server: str) -> dict[str, float]:
    """Return what the primary object nearest to a position says; run, camcol and field are -1 without one.

    Magnitude and pixels are given where it is the object at the position itself.
    """
    own = {**OTHERS, "specObjID": "CAST(1 AS bigint) AS specObjID", "z": "CAST(0 AS float) AS z"}
    text = (
        f"SELECT TOP 1 {','.join(own.get(column, f'p.{column}') for column in KINDS)} "
        f"FROM dbo.fGetNearestObjEq({p.ra!r},{p.dec!r},{AROUND!r}) AS n "
        "JOIN PhotoObj AS p ON p.objID = n.objID"
    )
    try:
        with new_session() as session:
            response = get(session, f"{server}/{PAGE}", ANSWER, params={**REQUEST, "cmd": text})
            if response.status_code != 200:
                raise refusal(response)
            page = read_page(response.content)
    except (Fault, ValueError) as error:
        raise DataError(
            f"{server} does not say on which frames {p.name} is ({error}). Name a folder of frames by "
            "data.images, which needs no network, or try again later"
        ) from error
    out: dict[str, float] = {"run": -1, "camcol": -1, "field": -1, "rowc": np.nan, "colc": np.nan}
    if len(page):
        known = standard_columns(page)[0]
        step = (known["ra"] - p.ra) * np.cos(np.radians(p.dec)), known["dec"] - p.dec
        apart = float(np.hypot(*step)) * 3600
        measured = apart < NEAR and page["petroMag_r"][0] > NOT_MEASURED + 1
        use = ("run", "camcol", "field", "ebv", *(("dered_petro_r",) if measured else ()))
        out |= {name: known[name] for name in (*use, *(("rowc", "colc") if apart < instrument.PIXEL else ()))}
    return out


def with_sources(table: Table, cutouts: NDArray[np.floating], stamps: Stamps) -> Table:
    """Add what cutouts show: the peak (sigma), its distance (arcsec), and r where it is not known.

    The peak is the brightest in the smoothed reference band within 2 arcsec of the position; its distance is
    NaN where the light only rises towards something else. Without a peak the flag is `empty`. r is the
    dereddened Petrosian magnitude as `photo` takes it, with the light outside the cutout by its model.
    """
    from photoz_lit.data.mock.measure import measure

    out, band = table.copy(), stamps.bands.index(stamps.reference)
    peaks = np.full((len(out), 2), np.nan)
    for i in np.flatnonzero(out["flag"] == ""):
        peaks[i] = _peak(np.asarray(cutouts[i, band], np.float64), stamps.pixel_scale)
    out["peak"], out["peak_distance"] = peaks.T
    out["flag"] = np.where(peaks[:, 0] < SIGNIFICANT, "empty", out["flag"])
    wanted = np.asarray((out["flag"] == "") & ~np.isfinite(out["dered_petro_r"]))
    if wanted.any() and (stamps.bands, stamps.pixel_scale) == ("ugriz", instrument.PIXEL):
        seeing, sky = (np.tile(of, (wanted.sum(), 1)) for of in (instrument.SEEING, instrument.SKY))
        measured = measure(cutouts[wanted], seeing, sky, np.asarray(out["ebv"])[wanted])
        out["dered_petro_r"][wanted], out["r_from"][wanted] = measured["dered_petro_r"], "measured"
    return out


def _peak(image: NDArray[np.float64], pixel_scale: float) -> tuple[float, float]:
    """Return the significance of the brightest peak near the middle, and its distance from it, arcsec."""
    smooth = gaussian_filter(image, SMOOTHING)
    lag = round(4 * SMOOTHING)  # beyond which smoothed noise has no memory
    # Of a quarter: most of a stamp may be galaxy.
    sigma = np.quantile(np.abs(smooth[:, lag:] - smooth[:, :-lag]), 0.25) / 0.3186 / 2**0.5
    y, x = np.indices(image.shape) - (image.shape[0] - 1) / 2
    away = np.hypot(x, y) * pixel_scale
    tops = (away <= NEAR) & (smooth == maximum_filter(smooth, 3))
    place = np.where(tops if tops.any() else away <= NEAR, smooth, -np.inf).argmax()
    return float(smooth.flat[place] / sigma), float(away.flat[place]) if tops.any() else np.nan
