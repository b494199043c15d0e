"""The catalogue: galaxies with good spectra, by SQL from SDSS's SkyServer, page by page."""

import io
import json
import logging
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pyarrow
import pyarrow.csv
from astropy.table import Table, vstack
from numpy.typing import ArrayLike, NDArray

from photoz_lit.data.dust import EXTINCTION_PER_EBV, ebv_from_maps
from photoz_lit.errors import DataError

log = logging.getLogger(__name__)

SKYSERVER = "https://skyserver.sdss.org"
DATA_RELEASE = 17
BANDS = "ugriz"
MOST_ROWS = 500_000  # SkyServer cuts longer answers off (its help, "Query Timeouts and Row Limits")
LONGEST_REQUEST = 2048  # characters after the `?`: the SkyServer's web server (ASP.NET) refuses longer ones
NOT_MEASURED = -9999.0

KINDS = {
    "objID": "int64",
    "specObjID": "uint64",  # plates above 8191 do not fit into 63 bits
    **dict.fromkeys(("run", "rerun", "camcol", "field"), "int64"),
    **dict.fromkeys(("rowc", "colc", "ra", "dec", "z", "zErr"), "float64"),
    **{
        f"{quantity}_{band}": "float64"
        for quantity in ("extinction", "petroMag", "petroMagErr", "modelMag", "modelMagErr")
        for band in BANDS
    },
}
SOURCES = {"specObjID": "s.specObjID", "z": "s.z", "zErr": "s.zErr"} | {
    "rowc": "p.rowc_r AS rowc",
    "colc": "p.colc_r AS colc",
}


@dataclass(frozen=True)
class Selection:
    """Which galaxies to take.

    Parameters
    ----------
    z_min, z_max : float
        Range of spec_z, both ends included.
    r_max : float
        Faintest dereddened Petrosian r, mag.
    limit : int, optional
        At most so many galaxies: the first by specObjID, hence by plate. They lie close together on the sky
        and share frames, but are no fair sample.
    region : (ra_min, ra_max, dec_min, dec_max), optional
        Degrees; ra_min > ra_max goes through 0.
    runs : tuple of int
        Only these imaging runs; empty for all.

    Raises
    ------
    DataError
        A range is empty or no position.
    """

    z_min: float = 0.0
    z_max: float = 0.4
    r_max: float = 17.8
    limit: int | None = None
    region: tuple[float, float, float, float] | None = None
    runs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.z_min < self.z_max:
            raise DataError(f"z_min {self.z_min:g} is not below z_max {self.z_max:g}: no galaxy can be found")
        if self.limit is not None and self.limit < 1:
            raise DataError(f"limit is {self.limit}: ask for at least one galaxy, or set none")
        if self.region is None:
            return
        ra_min, ra_max, dec_min, dec_max = self.region
        if not (0 <= ra_min <= 360 and 0 <= ra_max <= 360 and -90 <= dec_min < dec_max <= 90):
            raise DataError(
                f"region {self.region} is none: give ra_min, ra_max (0 to 360; ra_min > ra_max goes through "
                "0), dec_min < dec_max (-90 to 90), degrees"
            )


@dataclass(frozen=True)
class SkyServer:
    """Where to ask, and how patiently.

    Parameters
    ----------
    base : str
        Address of the SkyServer.
    data_release : int
        SDSS data release, 11 or later.
    timeout : float
        Longest silence of the server, s; it works on a query for up to 600 s itself.
    retries : int
        Further tries for a page.
    backoff : float
        Wait before the first retry, s; doubled each time.
    pause : float
        Wait between pages, s: the server takes 60 queries a minute from one client.
    """

    base: str = SKYSERVER
    data_release: int = DATA_RELEASE
    timeout: float = 660.0
    retries: int = 5
    backoff: float = 2.0
    pause: float = 1.0


def sql(selection: Selection, *, rows: int | None = None, after: int = 0) -> str:
    """Write the query for one page of the catalogue.

    Parameters
    ----------
    selection : Selection
        Which galaxies.
    rows : int, optional
        At most so many rows; by default the selection's limit.
    after : int
        Only galaxies with a larger specObjID: the last one of the page before.

    Returns
    -------
    sql : str
        SQL as the SkyServer understands it (T-SQL).

    Raises
    ------
    DataError
        The text is longer than the server takes.
    """
    rows = selection.limit if rows is None else rows
    top = "" if rows is None else f"TOP {rows} "
    columns = ",".join(SOURCES.get(name, f"p.{name}") for name in KINDS)
    paging = f"\nAND s.specObjID > {after}" if after else ""
    return _checked(f"SELECT {top}{columns}\n{_from_where(selection)}{paging}\nORDER BY s.specObjID")


def count_sql(selection: Selection) -> str:
    """Write the query for the number of galaxies, whatever the limit."""
    return _checked(f"SELECT COUNT(*) AS n\n{_from_where(selection)}")


def _from_where(selection: Selection) -> str:
    conditions = [
        "s.class = 'GALAXY'",
        "s.zWarning = 0",
        "s.sciencePrimary = 1",
        "p.mode = 1",
        f"s.z BETWEEN {selection.z_min!r} AND {selection.z_max!r}",
        "p.petroMag_r > 0",  # not measured is -9999
        f"p.petroMag_r - p.extinction_r <= {selection.r_max!r}",
    ]
    if selection.region is not None:
        ra_min, ra_max, dec_min, dec_max = selection.region
        if ra_min <= ra_max:
            conditions.append(f"p.ra BETWEEN {ra_min!r} AND {ra_max!r}")
        else:
            conditions.append(f"(p.ra >= {ra_min!r} OR p.ra <= {ra_max!r})")
        conditions.append(f"p.dec BETWEEN {dec_min!r} AND {dec_max!r}")
    if selection.runs:
        conditions.append(f"p.run IN ({','.join(str(run) for run in sorted(set(selection.runs)))})")
    where = "\nAND ".join(conditions)
    return f"FROM SpecObj AS s\nJOIN PhotoObj AS p ON p.objID = s.bestObjID\nWHERE {where}"


def _checked(text: str) -> str:
    length = len(urlencode({"cmd": f" {text}", "format": "csv", "searchtool": "SQL"}))
    if length > LONGEST_REQUEST - 40:  # room for the page's first specObjID
        raise DataError(
            f"the query has {length} characters; the SkyServer takes {LONGEST_REQUEST}: name fewer runs"
        )
    return text


def count(selection: Selection, server: SkyServer = SkyServer()) -> int:
    """Ask how many galaxies there are, at most the selection's limit.

    Raises
    ------
    DataError
        The server cannot be reached or does not answer the query.
    """
    answer = _ask(count_sql(selection), server, {"n": "int64"})
    found = int(_table(answer, {"n": "int64"})["n"][0])
    return found if selection.limit is None else min(found, selection.limit)


def query(
    selection: Selection,
    folder: Path,
    server: SkyServer = SkyServer(),
    *,
    page_rows: int = 50_000,
) -> Table:
    """Fetch the catalogue, going on where an interrupted query stopped.

    Parameters
    ----------
    selection : Selection
        Which galaxies.
    folder : Path
        Keeps `query.json` (the exact SQL and the server) and each page as the server sent it.
    server : SkyServer
        Where to ask.
    page_rows : int
        Rows a page, at most 500,000.

    Returns
    -------
    table : Table
        One row a galaxy by specObjID, with the columns `KINDS`: magnitudes and extinctions in mag, ra and
        dec in deg, rowc and colc in pixels of the r frame (the centre of the first pixel is 0.5).
        Identifiers are exact.

    Raises
    ------
    DataError
        The server cannot be reached, refuses the query or answers nonsense (with its own words), the folder
        holds another query, or no galaxy was found.
    """
    if not 1 <= page_rows <= MOST_ROWS:
        raise DataError(f"page_rows is {page_rows}: a page has 1 to {MOST_ROWS} rows")
    folder = Path(folder)
    _claim(folder, selection, server)
    pages = []
    for page in _pages(selection, folder, server, page_rows):
        pages.append(page)
        log.info("%d galaxies so far", sum(len(p) for p in pages))
    if not pages:
        raise DataError(
            f"{server.base} (DR{server.data_release}) has no galaxy with z in {selection.z_min:g}-"
            f"{selection.z_max:g}, r <= {selection.r_max:g}, region {selection.region or 'all'}, "
            f"runs {selection.runs or 'all'}"
        )
    return vstack(pages, join_type="exact", metadata_conflicts="silent")


def _claim(folder: Path, selection: Selection, server: SkyServer) -> None:
    """Write down what the folder's pages answer, or check that they answer this query."""
    asked = {"sql": sql(selection), "base": server.base, "data_release": server.data_release}
    path = folder / "query.json"
    if path.is_file():
        try:
            held = json.loads(path.read_text())
        except ValueError as error:
            raise DataError(f"{path}: cannot be read ({error}). Remove {folder} and start again") from error
        if held != asked:
            raise DataError(
                f"{folder} holds the pages of another query ({path}): remove it or name another folder"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    _write(path, json.dumps(asked, indent=2).encode())


def _pages(selection: Selection, folder: Path, server: SkyServer, page_rows: int) -> Iterator[Table]:
    """Yield pages, from disk where they are there, until one is empty or the limit is reached.

    A short page is not taken for the last: a server may cut answers below its documented limit.
    """
    got, after, number = 0, 0, 0
    while selection.limit is None or got < selection.limit:
        path = folder / f"page-{number:04d}.csv"
        if path.is_file():
            page = _page(path.read_bytes(), str(path), after)
        else:
            rows = page_rows if selection.limit is None else min(page_rows, selection.limit - got)
            if number:
                time.sleep(server.pause)
            answer = _ask(sql(selection, rows=rows, after=after), server, KINDS)
            page = _page(answer, server.base, after)
            _write(path, answer)
        if len(page) == 0:
            return
        yield page
        got, after, number = got + len(page), int(page["specObjID"][-1]), number + 1


def _page(answer: bytes, origin: str, after: int) -> Table:
    """Read a page and check that it goes on where the last one ended."""
    try:
        page = _table(answer, KINDS)
    except ValueError as error:
        raise DataError(
            f"{origin}: not a page of the catalogue ({error}). Remove it and start again"
        ) from error
    last = np.concatenate([np.array([after], np.uint64), np.asarray(page["specObjID"])])
    if not (last[1:] > last[:-1]).all():
        raise DataError(
            f"{origin}: galaxies are not in order of specObjID after {after}; pages would not join"
        )
    return page


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f"{path.name}.partial")
    beside.write_bytes(content)
    beside.replace(path)


def _table(answer: bytes, kinds: dict[str, str]) -> Table:
    """Read the server's CSV (a line `#Table1`, a header, rows) with exact 64-bit integers.

    Raises
    ------
    ValueError
        It is no such CSV, lacks a column, or has a value of the wrong kind.
    """
    first, _, rest = answer.lstrip(b"\xef\xbb\xbf\r\n ").partition(b"\n")
    if not first.startswith(b"#Table"):
        raise ValueError("it does not begin with #Table1")
    header = rest.partition(b"\n")[0].decode("utf-8", errors="replace").strip().split(",")
    theirs = {name.lower(): name for name in header}  # SQL Server does not care for case
    if missing := [name for name in kinds if name.lower() not in theirs]:
        raise ValueError(f"it has no column {', '.join(missing)}")
    read = pyarrow.csv.read_csv(
        io.BytesIO(rest),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={theirs[name.lower()]: getattr(pyarrow, kind)() for name, kind in kinds.items()}
        ),
    )
    columns = {name: read[theirs[name.lower()]] for name in kinds}
    if empty := [name for name, kind in kinds.items() if kind != "float64" and columns[name].null_count]:
        raise ValueError(f"column {', '.join(empty)} has empty cells")
    return Table({name: np.array(columns[name].to_numpy(), dtype=kind) for name, kind in kinds.items()})


class _NoAnswer(Exception):
    """Why the server gave no table, and whether that may pass."""

    def __init__(self, reason: str, passing: bool = True) -> None:
        super().__init__(reason)
        self.passing = passing


def _ask(text: str, server: SkyServer, kinds: dict[str, str]) -> bytes:
    """Send one query, again after passing faults, and return the server's CSV."""
    for attempt in range(server.retries + 1):
        try:
            return _answer(text, server, kinds)
        except _NoAnswer as error:
            fault = error
        if not fault.passing or attempt == server.retries:
            break
        wait = server.backoff * 2**attempt * random.uniform(0.75, 1.25)
        log.warning("%s: %s; again in %.1f s", server.base, fault, wait)
        time.sleep(wait)
    raise DataError(
        f"{server.base} (DR{server.data_release}) did not answer the query: {fault}. Pages fetched so far "
        f"are kept; try again later, or check the address. The query was: {text}"
    )


def _answer(text: str, server: SkyServer, kinds: dict[str, str]) -> bytes:
    """Send one query once; astroquery itself would read an error page as a table."""
    sdss, conf = _astroquery()
    import requests  # there where astroquery is

    try:
        with conf.set_temp("skyserver_baseurl", server.base.rstrip("/")):
            response = sdss.query_sql_async(
                text, timeout=server.timeout, data_release=server.data_release, cache=False
            )
    except requests.Timeout as error:
        raise _NoAnswer(f"no answer within {server.timeout:g} s") from error
    except requests.RequestException as error:
        raise _NoAnswer(f"cannot be reached ({error})") from error
    content: bytes = response.content
    if response.status_code != 200:
        passing = response.status_code >= 500 or response.status_code in (408, 429)
        raise _NoAnswer(f"HTTP {response.status_code} {response.reason}: {_words(content)}", passing)
    try:
        _table(content, kinds)
    except ValueError as error:
        raise _NoAnswer(f"not the expected table, {error}: {_words(content)}") from error
    return content


def _words(content: bytes, most: int = 500) -> str:
    """Return what an error page says, without its markup."""
    text = content.decode("utf-8", errors="replace")
    text = re.sub(r"(?is)<(script|style|head)\b.*?</\1>", " ", text)
    text = " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split())
    return f"'{text[:most]}'" if text else "an empty answer"


def _astroquery() -> tuple[Any, Any]:
    try:
        from astroquery.sdss import SDSS, conf
    except ImportError as error:
        raise DataError(f"SDSS queries need astroquery ({error}): pip install 'photoz_lit[sdss]'") from error
    return SDSS, conf


def standard_columns(table: Table, maps: Path | None = None) -> Table:
    """Turn the server's columns into the project's.

    Parameters
    ----------
    table : Table
        From `query`.
    maps : Path, optional
        Folder with the dust maps of Schlegel, Finkbeiner & Davis (1998); by default E(B-V) is the catalogue's
        extinction_r over its coefficient, from the same maps.

    Returns
    -------
    table : Table
        object_id, spec_z, dered_petro_r (mag), ebv (mag), ra, dec (deg), run, rerun, camcol, field, rowc,
        colc (r-frame pixels), dereddened model magnitudes mag_[ugriz] and mag_err_[ugriz] (mag; NaN where the
        survey has none).

    Raises
    ------
    DataError
        The catalogue's extinctions have other coefficients than expected, or the maps cannot be used.
    """
    out = Table({"object_id": table["objID"], "spec_z": table["z"]})
    out["dered_petro_r"] = np.asarray(table["petroMag_r"]) - np.asarray(table["extinction_r"])
    if maps is None:
        out["ebv"] = _catalogue_ebv(table)
    else:
        out["ebv"] = ebv_from_maps(np.asarray(table["ra"]), np.asarray(table["dec"]), maps)
    for name in ("ra", "dec", "run", "rerun", "camcol", "field", "rowc", "colc"):
        out[name] = table[name]
    for band in BANDS:
        out[f"mag_{band}"] = _measured(table[f"modelMag_{band}"]) - np.asarray(table[f"extinction_{band}"])
    for band in BANDS:
        out[f"mag_err_{band}"] = _measured(table[f"modelMagErr_{band}"])
    return out


def _measured(column: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(column, dtype=np.float64)
    return np.where(values <= NOT_MEASURED + 1, np.nan, values)


def _catalogue_ebv(table: Table) -> NDArray[np.float64]:
    """E(B-V), mag, from extinction_r; the bands' ratio tells whether the coefficients are those of 2002."""
    a_g, a_r = (np.asarray(table[f"extinction_{band}"], dtype=np.float64) for band in "gr")
    expected = EXTINCTION_PER_EBV["g"] / EXTINCTION_PER_EBV["r"]
    dusty = a_r > 0.01  # rounding hides the ratio below
    if dusty.any() and abs(np.median(a_g[dusty] / a_r[dusty]) / expected - 1) > 0.01:
        raise DataError(
            f"the catalogue's extinction_g / extinction_r is {np.median(a_g[dusty] / a_r[dusty]):.3f}, not "
            f"{expected:.3f}: its extinctions have other coefficients than those of Stoughton et al. (2002), "
            "and E(B-V) cannot be derived from them. Give a folder with the dust maps, or use data release 17"
        )
    return a_r / EXTINCTION_PER_EBV["r"]
