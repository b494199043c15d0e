"""The survey's servers: one request with its faults sorted, patience, and frames fetched ahead of their use.

Frames arrive in parallel in `.partial` files, which a later try goes on with, since the archive's never
change, and get their names when they are whole and undamaged.
"""

import bz2
import logging
import random
import threading
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, product
from pathlib import Path

import requests
import urllib3
from astropy.io import fits

from photoz_lit.data.sdss.frames import UNREADABLE, Field
from photoz_lit.errors import DataError

log = logging.getLogger(__name__)

FRAMES = "https://data.sdss.org/sas/dr17/eboss/photoObj/frames"
RERUN = 301  # processing of the images, of all of SDSS imaging since DR8
USER_AGENT = "photoz_lit (photometric redshifts from SDSS frames; python-requests)"
TIMEOUT = 60.0  # longest silence of a server, s
RETRIES = 9  # further tries that make no progress; with the waits between them, three to four minutes
BACKOFF = 1.0  # s before the first of them; doubled each time, up to 64 times as long
LONGEST_WAIT = 600.0  # s that a server may ask for
FRESH_COPIES = 3  # a file that arrives damaged so many times is damaged in the archive
AHEAD = 6  # groups of fields on disk or under way
CHUNK = 1 << 16


class Fault(Exception):
    """Why a server gave no answer; whether that may pass, and how long it asks to be left alone, s."""

    def __init__(
        self, reason: str, *, passing: bool = True, unreachable: bool = False, wait: float = 0.0
    ) -> None:
        super().__init__(reason)
        self.passing, self.unreachable, self.wait = passing, unreachable, wait


def new_session(connections: int = 1) -> requests.Session:
    """Open a session that keeps so many connections."""
    session = requests.Session()
    session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=connections))
    return session


def get(
    session: requests.Session,
    address: str,
    timeout: float,
    *,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> requests.Response:
    """Ask once, for whatever status; the body of an answer without params is still to be read."""
    try:
        return session.get(address, params=params, headers=headers, timeout=timeout, stream=params is None)
    except requests.ConnectionError as error:
        # A server that takes a request and hangs up is there, but cannot cope with this one.
        hung_up = isinstance(next(iter(error.args), None), urllib3.exceptions.ProtocolError)
        raise Fault(f"the server cannot be reached: {error}", unreachable=not hung_up) from error
    except requests.Timeout as error:
        raise Fault(f"no answer within {timeout:g} s") from error
    except requests.RequestException as error:
        broke = isinstance(error, requests.exceptions.ChunkedEncodingError)
        raise Fault(str(error), passing=broke) from error


def refusal(response: requests.Response, words: str = "") -> Fault:
    """Sort an answer with the status of an error."""
    code, after = response.status_code, response.headers.get("Retry-After", "0")
    try:
        wait: float = urllib3.Retry().parse_retry_after(after)
    except urllib3.exceptions.InvalidHeader:
        wait = 0.0
    passing = code >= 500 or code in (408, 425, 429)
    return Fault(f"HTTP {code} {response.reason}{words}", passing=passing, wait=wait)


def pause(fault: Fault, tries: int) -> float | None:
    """Return how long to wait after so many tries, s; None where there is no point in another."""
    if not fault.passing or tries > RETRIES or fault.wait > LONGEST_WAIT:
        return None
    return max(fault.wait, BACKOFF * 2.0 ** min(tries - 1, 6) * random.uniform(0.5, 1.0))


@dataclass(frozen=True)
class Archive:
    """The archive's frames, and the folder that they are fetched into."""

    base: str  # address above RERUN/RUN/CAMCOL/frame-B-RRRRRR-C-FFFF.fits.bz2
    folder: Path  # a file that is there under its final name is whole and is not fetched again
    connections: int = 4  # files fetched at the same time

    def fetch(
        self, jobs: Sequence[Sequence[Field]], bands: str
    ) -> Generator[tuple[dict[Field, dict[str, Path]], dict[Field, str]], None, None]:
        """Yield the files by band of groups of fields, in order, and why fields lack some; others arrive.

        A field's frames are removed after the last group that has it, unless one of them is missing: then
        they stay for another try. Close the iterator to stop early.
        """
        last = {field: i for i, fields in enumerate(jobs) for field in fields}
        coming: dict[Field, dict[str, Future[Path]]] = {}
        line = _Line(self)
        pool = ThreadPoolExecutor(self.connections, thread_name_prefix="frames")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for i, fields in enumerate(jobs):
                for field in chain.from_iterable(jobs[i : i + AHEAD]):
                    if field not in coming:
                        coming[field] = {band: pool.submit(line.get, field, band) for band in bands}
                paths: dict[Field, dict[str, Path]] = {field: {} for field in fields}
                failures: dict[Field, str] = {}
                for field, band in product(fields, bands):
                    try:
                        paths[field][band] = coming[field][band].result()
                    except Fault as fault:
                        if fault.unreachable:
                            again = "What is cut is kept: type the same command to go on"
                            raise DataError(f"{fault}. {again}") from fault
                        failures.setdefault(field, f"band {band}: {fault}")
                yield paths, failures
                for field in fields:
                    if last[field] == i:
                        del coming[field]
                        for path in paths[field].values() if field not in failures else ():
                            path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{self.folder}: frames cannot be written there: {error}") from error
        finally:
            line.stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            line.session.close()


class _Line:
    """The connections of one run of `Archive.fetch`, shared by its threads."""

    def __init__(self, archive: Archive) -> None:
        self.archive, self.session = archive, new_session(archive.connections)
        self.stopped = threading.Event()

    def get(self, field: Field, band: str) -> Path:
        """Fetch one file unless it is there; retry, resume, check, rename."""
        name = field.filename(band)
        address = f"{self.archive.base.rstrip('/')}/{RERUN}/{field.run}/{field.camcol}/{name}"
        path = self.archive.folder / name
        partial, tries, copies = path.with_name(f"{name}.partial"), 0, 0
        while not path.is_file():
            before = _size(partial)
            try:
                self._receive(address, partial)
                if fault := damage(partial):
                    partial.unlink(missing_ok=True)
                    copies += 1
                    passing = copies < FRESH_COPIES
                    raise Fault(f"{fault}, in {copies} copies one after another", passing=passing)
                partial.replace(path)
            except Fault as error:
                tries = 1 if _size(partial) > before else tries + 1
                if (seconds := pause(error, tries)) is None:
                    raise Fault(f"{address}: {error}", unreachable=error.unreachable) from error
                log.debug("%s: %s; again in %.1f s", address, error, seconds)
                self.stopped.wait(seconds)
        return path

    def _receive(self, address: str, partial: Path) -> None:
        """Ask once for what is missing, and write what arrives as it arrives: a break loses nothing."""
        if self.stopped.is_set():
            raise Fault("stopped", passing=False)
        here = _size(partial)
        headers = {"Range": f"bytes={here}-"} if here else {}
        with get(self.session, address, TIMEOUT, headers=headers) as response:
            if response.status_code == 416:  # there is no more
                return
            if response.status_code not in (200, 206):
                raise refusal(response)
            mode = "ab" if here and response.status_code == 206 else "wb"
            try:
                with partial.open(mode, buffering=0) as file:
                    while chunk := response.raw.read1(CHUNK, decode_content=False):
                        file.write(chunk)
                        if self.stopped.is_set():
                            raise Fault("stopped", passing=False)
            except urllib3.exceptions.HTTPError as error:
                raise Fault(f"the connection broke after {_size(partial)} bytes ({error})") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def damage(path: Path) -> str:
    """Say what is wrong with a compressed frame: its checksums, the image that its header announces."""
    try:
        content = bz2.decompress(path.read_bytes())
    except (OSError, ValueError) as error:
        return f"not a whole bz2 file ({error})"
    try:
        stream = BytesIO(content)
        image = fits.Header.fromfile(stream).data_size
    except UNREADABLE as error:
        return f"not a FITS file with an image in front ({error})"
    here = len(content) - stream.tell()
    return "" if 0 < image <= here else f"the image has {here} of {image} bytes"
