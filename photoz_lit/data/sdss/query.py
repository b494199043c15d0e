"""The catalogue: galaxies with good spectra, by SQL from SDSS's SkyServer, page by page."""

import io
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pyarrow
import pyarrow.csv
import requests
from astropy.table import Table, vstack

from photoz_lit.data.dust import EXTINCTION_PER_EBV
from photoz_lit.data.sdss.fetch import Fault, get, new_session, pause, refusal
from photoz_lit.errors import DataError
from photoz_lit.files import beside

log = logging.getLogger(__name__)

CATALOGUE = "https://skyserver.sdss.org/dr17"
PAGE = "en/tools/search/x_results.aspx"
REQUEST = {"format": "csv", "searchtool": "SQL"}
BANDS = "ugriz"
PAGE_ROWS = 50_000  # the server cuts answers off at 500,000 (its help, "Query Timeouts and Row Limits")
LONGEST_REQUEST = 2048  # characters after the `?`: the SkyServer's web server (ASP.NET) refuses longer ones
TIMEOUT = 660.0  # s; the server works on a query for up to 600 s
PAUSE = 1.0  # s between pages: the server takes 60 queries a minute from one client
NOT_MEASURED = -9999.0

KINDS = {
    "objID": "int64",
    "specObjID": "uint64",  # plates above 8191 do not fit into 63 bits
    **dict.fromkeys(("run", "camcol", "field"), "int64"),
    **dict.fromkeys(("rowc", "colc", "ra", "dec", "z", "petroMag_r"), "float64"),
    **{f"{name}_{b}": "float64" for name in ("extinction", "modelMag", "modelMagErr") for b in BANDS},
}
OTHERS = {"specObjID": "s.specObjID", "z": "s.z", "rowc": "p.rowc_r AS rowc", "colc": "p.colc_r AS colc"}


@dataclass(frozen=True)
class Selection:
    """Which galaxies to take.

    With a limit they are the first by specObjID, hence by plate: close together, and no fair sample.
    """

    z_min: float = 0.0  # of spec_z, both ends included
    z_max: float = 0.4
    r_max: float = 17.8  # dereddened Petrosian r, mag
    limit: int | None = None
    region: Sequence[float] = ()  # ra_min, ra_max, dec_min, dec_max, deg; ra_min > ra_max goes through 0
    runs: Sequence[int] = ()  # only these imaging runs; empty for all


def sql(selection: Selection, *, rows: int | None = None, after: int = 0) -> str:
    """Write the query (T-SQL) for so many rows, by default the limit, after a specObjID."""
    rows = selection.limit if rows is None else rows
    conditions = [
        "s.class = 'GALAXY' AND s.zWarning = 0 AND s.sciencePrimary = 1 AND p.mode = 1",
        f"s.z BETWEEN {selection.z_min!r} AND {selection.z_max!r}",
        "p.petroMag_r > 0",  # not measured is -9999
        f"p.petroMag_r - p.extinction_r <= {selection.r_max!r}",
    ]
    if selection.region:
        ra_min, ra_max, dec_min, dec_max = selection.region
        ra = f"p.ra BETWEEN {ra_min!r} AND {ra_max!r}"
        if ra_min > ra_max:
            ra = f"(p.ra >= {ra_min!r} OR p.ra <= {ra_max!r})"
        conditions += [ra, f"p.dec BETWEEN {dec_min!r} AND {dec_max!r}"]
    if selection.runs:
        conditions.append(f"p.run IN ({','.join(str(run) for run in sorted(set(selection.runs)))})")
    if after:
        conditions.append(f"s.specObjID > {after}")
    top = "" if rows is None else f"TOP {rows} "
    columns = ",".join(OTHERS.get(name, f"p.{name}") for name in KINDS)
    tables = "FROM SpecObj AS s JOIN PhotoObj AS p ON p.objID = s.bestObjID"
    text = f"SELECT {top}{columns} {tables} WHERE {' AND '.join(conditions)} ORDER BY s.specObjID"
    if (length := len(urlencode({**REQUEST, "cmd": text}))) > LONGEST_REQUEST - (0 if after else 60):
        raise DataError(
            f"the query has {length} characters; the SkyServer takes {LONGEST_REQUEST}: name fewer data.runs"
        )
    return text


def query(selection: Selection, folder: Path, server: str) -> Table:
    """Fetch the catalogue, going on where an interrupted query stopped.

    `folder`, of this query alone, keeps each page as the server sent it; `server` is the address of a data
    release at the SkyServer. Returns one row a galaxy by specObjID, with the columns `KINDS`: magnitudes and
    extinctions in mag, ra and dec in deg, rowc and colc in pixels of the r frame (the centre of the first
    pixel is 0.5).

    Raises
    ------
    DataError
        What the server refuses, in its own words; there is no such galaxy; a page is spoilt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pages: list[Table] = []
    got, after = 0, 0
    with new_session() as session:
        while selection.limit is None or got < selection.limit:
            path = folder / f"page-{len(pages):04d}.csv"
            if not path.is_file():
                rows = PAGE_ROWS if selection.limit is None else min(PAGE_ROWS, selection.limit - got)
                if pages:
                    time.sleep(PAUSE)
                answer = _ask(session, server, sql(selection, rows=rows, after=after))
                with beside(path) as partial:
                    partial.write_bytes(answer)
            try:
                page = read_page(path.read_bytes(), after)
            except ValueError as error:
                raise DataError(
                    f"{path}: not a page of the catalogue ({error}). Remove it and start again"
                ) from error
            if len(page) == 0:  # a short one need not be the last: a server may cut answers below its limit
                break
            pages.append(page)
            got, after = got + len(page), int(page["specObjID"][-1])
            log.info("%d galaxies so far", got)
    if not pages:
        raise DataError(
            f"{server} has no galaxy with z in {selection.z_min:g}-{selection.z_max:g}, r <= "
            f"{selection.r_max:g}, region {list(selection.region) or 'all'}, "
            f"runs {list(selection.runs) or 'all'}"
        )
    return vstack(pages, join_type="exact", metadata_conflicts="silent")


def read_page(answer: bytes, after: int = 0) -> Table:
    """Read the server's CSV (a line `#Table1`, a header, rows); ValueError where it cannot be used."""
    first, _, rest = answer.lstrip(b"\xef\xbb\xbf\r\n ").partition(b"\n")
    if not first.startswith(b"#Table"):
        raise ValueError("it does not begin with #Table1")
    header, _, rows = rest.partition(b"\n")
    header = header.lower()  # SQL Server does not care for case
    if missing := [name for name in KINDS if name.lower().encode() not in header.strip().split(b",")]:
        raise ValueError(f"it has no column {', '.join(missing)}")
    types = {name.lower(): getattr(pyarrow, kind)() for name, kind in KINDS.items()}
    options = pyarrow.csv.ConvertOptions(column_types=types)
    read = pyarrow.csv.read_csv(io.BytesIO(header + b"\n" + rows), convert_options=options)
    columns = {name: read[name.lower()] for name in KINDS}
    if empty := [name for name, kind in KINDS.items() if kind != "float64" and columns[name].null_count]:
        raise ValueError(f"column {', '.join(empty)} has empty cells")
    page = Table({name: np.array(columns[name].to_numpy(), dtype=kind) for name, kind in KINDS.items()})
    numbers = np.concatenate([np.array([after], np.uint64), np.asarray(page["specObjID"])])
    if not (numbers[1:] > numbers[:-1]).all():
        raise ValueError(f"galaxies are not in order of specObjID after {after}: pages would not join")
    return page


def _ask(session: requests.Session, server: str, text: str) -> bytes:
    tries = 0
    while True:
        tries += 1
        try:
            params = {**REQUEST, "cmd": text}
            response = get(session, f"{server.rstrip('/')}/{PAGE}", TIMEOUT, params=params)
            if response.status_code != 200:
                raise refusal(response, f": {_words(response.content)}")
            try:
                read_page(response.content)
            except ValueError as error:
                raise Fault(f"not the expected table, {error}: {_words(response.content)}") from error
            return response.content
        except Fault as fault:
            if (seconds := pause(fault, tries)) is None:
                raise DataError(
                    f"{server} did not answer the query: {fault}. Pages fetched so far are kept: try again "
                    f"later. The query was: {text}"
                ) from fault
            log.warning("%s: %s; again in %.1f s", server, fault, seconds)
            time.sleep(seconds)


def _words(content: bytes) -> str:
    """Return what an error page says, without its markup."""
    text = content.decode("utf-8", errors="replace")
    text = re.sub(r"(?is)<(script|style|head)\b.*?</\1>", " ", text)
    text = " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split())
    return f"'{text[:500]}'" if text else "an empty answer"


def standard_columns(table: Table) -> Table:
    """Turn the columns of `query` into the project's.

    mag_[ugriz] are dereddened model magnitudes; they and their errors are NaN where the survey has none.
    """
    out = Table({"object_id": table["objID"], "spec_z": table["z"]})
    out["dered_petro_r"] = np.asarray(table["petroMag_r"]) - np.asarray(table["extinction_r"])
    a_g, a_r = (np.asarray(table[f"extinction_{band}"]) for band in "gr")
    expected = EXTINCTION_PER_EBV["g"] / EXTINCTION_PER_EBV["r"]
    dusty = a_r > 0.01  # rounding hides the ratio below
    if dusty.any() and abs((found := np.median(a_g[dusty] / a_r[dusty])) / expected - 1) > 0.01:
        raise DataError(
            f"the catalogue's extinction_g / extinction_r is {found:.3f}, not {expected:.3f}: they "
            "have other coefficients than those of Stoughton et al. (2002), and E(B-V) cannot be derived "
            "from them"
        )
    out["ebv"] = a_r / EXTINCTION_PER_EBV["r"]
    for name in ("ra", "dec", "run", "camcol", "field", "rowc", "colc"):
        out[name] = table[name]
    for ours, theirs in (("mag", "modelMag"), ("mag_err", "modelMagErr")):
        for band in BANDS:
            values = np.asarray(table[f"{theirs}_{band}"])
            out[f"{ours}_{band}"] = np.where(values <= NOT_MEASURED + 1, np.nan, values)
    for band in BANDS:
        out[f"mag_{band}"] -= table[f"extinction_{band}"]
    return out
