"""Frames from the survey's archive: fetched in parallel, resumed, checked, with a bounded number on disk."""

import bz2
import json
import logging
import random
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astropy.io import fits

from photoz_lit.data.sdss.frames import FrameName
from photoz_lit.errors import DataError

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

BASE = "https://data.sdss.org/sas/dr17/eboss/photoObj/frames"
USER_AGENT = "photoz_lit (photometric redshifts from SDSS frames; python-requests)"
MEAN_BYTES = 3.35e6  # a compressed frame: measured on eleven of three fields, 2.9 to 3.8 MB
CHUNK = 1 << 16
LONGEST_WAIT = 60.0  # between tries, s
UNREACHABLE = "the server cannot be reached"
FRESH_COPIES = 3  # a file that arrives corrupt so many times is corrupt in the archive


@dataclass(frozen=True)
class Fetched:
    """The frames of one field.

    Parameters
    ----------
    frames : tuple of FrameName
        What was asked for.
    paths : dict
        Band -> file, complete and checked.
    failures : dict
        Band -> why there is no file.
    """

    frames: tuple[FrameName, ...]
    paths: dict[str, Path]
    failures: dict[str, str]


@dataclass(frozen=True)
class Archive:
    """The archive's frames and the folder that they are fetched into.

    Parameters
    ----------
    base : str
        Address above `RERUN/RUN/CAMCOL/frame-B-RRRRRR-C-FFFF.fits.bz2`.
    folder : Path
        Where files go; one that is there under its final name is complete and is not fetched again.
    rerun : str
        Processing of the images; 301 for all of SDSS imaging since DR8.
    connections : int
        Files fetched at the same time.
    ahead : int
        Fields on disk or under way at any time, so that disk use stays flat if the consumer removes frames.
    timeout : float
        Longest silence of the server, s.
    retries : int
        Further tries for a file that make no progress; gaining bytes starts the count again.
    backoff : float
        Wait before the first retry, s; doubled each time up to a minute, with jitter.
    patience : float
        How long a server that cannot be reached is tried again, s, and the longest wait that it may ask for.
    delay : float
        Least time between the starts of two requests, over all connections, s.

    Raises
    ------
    DataError
        `connections` or `ahead` is below 1.
    """

    base: str
    folder: Path
    rerun: str = "301"
    connections: int = 4
    ahead: int = 4
    timeout: float = 30.0
    retries: int = 6
    backoff: float = 1.0
    patience: float = 600.0
    delay: float = 0.0

    def __post_init__(self) -> None:
        if self.connections < 1 or self.ahead < 1:
            raise DataError(
                f"connections is {self.connections} and ahead {self.ahead}: both must be at least 1"
            )

    def address(self, frame: FrameName) -> str:
        """Return the address of a frame."""
        return f"{self.base.rstrip('/')}/{self.rerun}/{frame.run}/{frame.camcol}/{frame.filename()}"

    def path(self, frame: FrameName) -> Path:
        """Return where a frame is kept."""
        return Path(self.folder) / frame.filename()

    def fetch(self, fields: Iterable[Sequence[FrameName]]) -> Generator[Fetched, None, None]:
        """Yield fields as they are complete, each with its files and the reasons for missing ones.

        Fetching goes on while the consumer works on a field, and waits when `ahead` fields are not consumed.
        Close the iterator (`contextlib.closing`) to stop early: transfers end at once, a request that the
        server has not answered yet within `timeout`, and what has arrived stays in `.partial` files for the
        next time.

        Parameters
        ----------
        fields : iterable of sequences of FrameName
            The frames of one field each, one a band. No frame may be in two fields.

        Yields
        ------
        Fetched
            In order of completion.

        Raises
        ------
        DataError
            `requests` is not installed, or the folder cannot be written.
        """
        coming = iter(fields)
        line = _Line(self)
        pool = ThreadPoolExecutor(self.connections, thread_name_prefix="frames")
        waiting: list[tuple[tuple[FrameName, ...], list[Future[Path]]]] = []
        try:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            while True:
                for field in islice(coming, self.ahead - len(waiting)):
                    jobs = [pool.submit(line.get, self.address(f), self.path(f)) for f in field]
                    waiting.append((tuple(field), jobs))
                if not waiting:
                    return
                unfinished = {job for _, jobs in waiting for job in jobs if not job.done()}
                done = next((w for w in waiting if unfinished.isdisjoint(w[1])), None)
                if done is None:
                    wait(unfinished, return_when=FIRST_COMPLETED)
                    continue
                waiting.remove(done)
                yield _fetched(*done)
        except OSError as error:
            raise DataError(f"{self.folder}: frames cannot be written there: {error}") from error
        finally:
            line.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            line.close()


def _fetched(frames: tuple[FrameName, ...], jobs: list[Future[Path]]) -> Fetched:
    paths: dict[str, Path] = {}
    failures: dict[str, str] = {}
    for frame, job in zip(frames, jobs, strict=True):
        try:
            paths[frame.band] = job.result()
        except _GaveUp as error:
            failures[frame.band] = str(error)
    return Fetched(frames, paths, failures)


class _GaveUp(Exception):
    """There is no way to get the file; the message says why."""


class _Fault(Exception):
    """Something that may pass; `wait` is how long the server asks to be left alone, s."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Unreachable(_Fault):
    """There is no connection to the server."""


class _Line:
    """The connections of one run of `Archive.fetch`, shared by its threads."""

    def __init__(self, archive: Archive) -> None:
        requests = _requests()
        self.archive = archive
        self.session: Any = requests.Session()
        self.session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=archive.connections))
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self.bodies: set[Any] = set()
        self.next_start = 0.0
        self.silent_since: float | None = None

    def stop(self) -> None:
        """Make every thread leave off: those that wait, and those that read."""
        with self.lock:
            self.stopped.set()
            for body in self.bodies:
                with suppress(RuntimeError, ValueError):  # it has just ended by itself
                    body.shutdown()

    def close(self) -> None:
        """Close the connections."""
        self.session.close()

    def get(self, address: str, path: Path) -> Path:
        """Fetch one file unless it is there; retry, resume, check, rename."""
        if path.is_file():
            return path
        partial = _Partial(path)
        tries, silences, copies = 0, 0, 0
        while True:
            before = partial.size()
            try:
                if not partial.whole():
                    self._receive(address, partial)
                if (fault := damage(partial.path)) is None:
                    return partial.finish()
                partial.discard()
                copies += 1
                if copies == FRESH_COPIES:
                    raise _GaveUp(f"{address}: {fault}, in {copies} copies one after another")
                self._pause(address, copies, _Fault(fault))
            except _Unreachable as error:
                silences += 1
                if self._silence() > self.archive.patience:
                    raise _GaveUp(f"{address}: {UNREACHABLE}: {error}") from error
                self._pause(address, silences, error)
            except _Fault as error:
                silences = 0
                tries = 1 if partial.size() > before else tries + 1
                if tries > self.archive.retries:
                    raise _GaveUp(f"{address}: {error}; gave up after {tries} tries") from error
                self._pause(address, tries, error)

    def _silence(self) -> float:
        """Return for how long no thread has had an answer, s."""
        with self.lock:
            if self.silent_since is None:
                self.silent_since = time.monotonic()
            return time.monotonic() - self.silent_since

    def _pause(self, address: str, tries: int, fault: _Fault) -> None:
        """Wait before the next try, as long as the server asks or ever longer."""
        if fault.wait > self.archive.patience:
            raise _GaveUp(f"{address}: {fault}; the server asks to wait {fault.wait:.0f} s")
        seconds = min(LONGEST_WAIT, self.archive.backoff * 2 ** (tries - 1)) * random.uniform(0.5, 1.0)
        with self.lock:  # a server that asks for peace means every connection
            self.next_start = max(self.next_start, time.monotonic() + fault.wait)
        log.debug("%s: %s; again in %.1f s", address, fault, max(seconds, fault.wait))
        self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        if self.stopped.wait(seconds):
            raise _GaveUp("stopped")

    def _take_turn(self) -> None:
        """Keep the starts of requests `delay` apart."""
        with self.lock:
            now = time.monotonic()
            start = max(now, self.next_start)
            self.next_start = start + self.archive.delay
        self._wait(start - now)

    def _receive(self, address: str, partial: "_Partial") -> None:
        """Ask once for what is missing and append it to the partial file."""
        requests = _requests()
        from urllib3.exceptions import ProtocolError

        self._take_turn()
        try:
            response = self.session.get(
                address, headers=partial.request(), stream=True, timeout=self.archive.timeout
            )
        except requests.ConnectionError as error:
            # The server took this request and hung up: there it is, but with this file it cannot cope.
            hung_up = isinstance(next(iter(error.args), None), ProtocolError)
            raise (_Fault if hung_up else _Unreachable)(str(error)) from error
        except requests.Timeout as error:
            raise _Fault(f"no answer within {self.archive.timeout:g} s") from error
        except requests.RequestException as error:
            raise _GaveUp(f"{address}: {error}") from error
        with self.lock:
            self.silent_since = None
        with response:
            _check_status(response, address, partial)
            self._copy(response.raw, partial, partial.begin(response))
        if partial.expected() is not None and not partial.whole():
            raise _Fault(f"the connection ended after {partial.size()} of {partial.expected()} bytes")

    def _copy(self, body: Any, partial: "_Partial", mode: str) -> None:
        """Write what arrives as it arrives, so that a broken connection loses nothing."""
        from urllib3.exceptions import HTTPError

        with self.lock:
            if self.stopped.is_set():
                raise _GaveUp("stopped")
            self.bodies.add(body)
        try:
            with partial.path.open(mode, buffering=0) as file:
                while chunk := body.read1(CHUNK, decode_content=False):
                    if self.stopped.is_set():  # what is read now may be the remains of a closed TLS stream
                        raise _GaveUp("stopped")
                    file.write(chunk)
        except HTTPError as error:
            raise _Fault(f"the connection broke after {partial.size()} bytes ({error})") from error
        finally:
            with self.lock:
                self.bodies.discard(body)
        if self.stopped.is_set():
            raise _GaveUp("stopped")


class _Partial:
    """A file that is arriving, with what the server said of it: its size and its version.

    A later request goes on with it only if the server says that the file is still the same.
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        self.path = final.with_name(f"{final.name}.partial")
        self.notes = final.with_name(f"{final.name}.partial.json")
        try:
            self.known: dict[str, str] = dict(json.loads(self.notes.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            self.known = {}  # what is here is of no use

    def size(self) -> int:
        """Return the bytes that are here."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def expected(self) -> int | None:
        """Return the bytes that there should be, where the server said."""
        size = self.known.get("size", "")
        return int(size) if size.isdecimal() else None

    def whole(self) -> bool:
        """Tell whether as many bytes are here as the server said."""
        return self.expected() == self.size()

    def discard(self) -> None:
        """Start over."""
        self.known = {}
        self.path.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)

    def finish(self) -> Path:
        """Give the file its final name."""
        self.path.replace(self.final)
        self.notes.unlink(missing_ok=True)
        return self.final

    def request(self) -> dict[str, str]:
        """Return the headers that ask for the missing part, if the file is still the same."""
        if self.size() == 0 or self.expected() is None:
            return {}
        version = self.known.get("ETag") or self.known.get("Last-Modified")
        unchanged = {"If-Range": version} if version and not version.startswith("W/") else {}
        return {"Range": f"bytes={self.size()}-", **unchanged}

    def begin(self, response: "requests.Response") -> str:
        """Compare the answer with what is here: append to it, or start over with the whole file.

        Returns
        -------
        mode : str
            How to open the partial file.
        """
        said = {
            name: response.headers[name] for name in ("ETag", "Last-Modified") if name in response.headers
        }
        if response.status_code == 206:
            here = f"bytes {self.size()}-{int(self.known['size']) - 1}/{self.known['size']}"
            if response.headers.get("Content-Range") == here and said.items() <= self.known.items():
                return "ab"
            self.discard()
            raise _Fault("the file changed, or the server sent another part than was asked for")
        self.discard()
        if "Content-Length" in response.headers:
            said["size"] = response.headers["Content-Length"]
        self.known = {"status": "begun", **said}
        self.notes.write_text(json.dumps(self.known))
        return "wb"


def _check_status(response: "requests.Response", address: str, partial: _Partial) -> None:
    """Sort answers without a file into those that pass and those that do not."""
    code = response.status_code
    if code == 200 or (code == 206 and partial.request()):
        return
    reason = f"HTTP {code} {response.reason}"
    if code == 416:  # there is no such part: the file has become shorter
        partial.discard()
        raise _Fault(reason)
    if code >= 500 or code in (408, 425, 429):
        raise _Fault(reason, _retry_after(response))
    raise _GaveUp(f"{address}: {reason}")


def _retry_after(response: "requests.Response") -> float:
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    try:
        return float(Retry().parse_retry_after(response.headers.get("Retry-After", "0")))
    except InvalidHeader:
        return 0.0


def damage(path: Path) -> str | None:
    """Look for damage in a compressed frame: its checksums, and an image of the size that its header says.

    Returns
    -------
    damage : str or None
        What is wrong; None if nothing is.
    """
    try:
        with bz2.open(path) as file:
            content = file.read()
    except (EOFError, OSError, ValueError) as error:
        return f"not a whole bz2 file ({error})"
    if not content.startswith(b"SIMPLE  ="):
        return "not a FITS file"
    try:
        stream = BytesIO(content)
        header = fits.Header.fromfile(stream)
        rows, columns, bits = header["NAXIS2"], header["NAXIS1"], abs(header["BITPIX"])
    except (KeyError, OSError, ValueError) as error:
        return f"not a FITS file with an image in front ({error})"
    here, image = len(content) - stream.tell(), bits // 8 * rows * columns
    if image == 0 or here < image:
        return f"the image of {rows} rows has {here} of {image} bytes"
    return None


def size_estimate(
    n_frames: int, *, connections: int = 4, bytes_per_second: float = 1.0e6
) -> tuple[int, float]:
    """Estimate what a download takes.

    Parameters
    ----------
    n_frames : int
        Frames, one a band and field.
    connections : int
        Files fetched at the same time.
    bytes_per_second : float
        What one connection gets: an assumption, to be replaced by what yours gets.

    Returns
    -------
    size : int
        Bytes, at the measured mean of 3.35 MB a frame.
    seconds : float
        Time.
    """
    size = round(n_frames * MEAN_BYTES)
    return size, size / (connections * bytes_per_second)


def _requests() -> Any:
    try:
        import requests
    except ImportError as error:
        raise DataError(f"the archive needs requests ({error}): pip install 'photoz_lit[sdss]'") from error
    return requests
