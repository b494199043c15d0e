"""Servers on loopback that answer as the survey's do, with faults by file and attempt."""

import bz2
import hashlib
import io
import re
import socket
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import numpy as np
from astropy.io import fits
from astropy.table import Table

from photoz_lit.data.sdss.frames import Field


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer."""

    status: int | None = None  # answer with this status and `content`
    content: bytes | None = None  # answer with this instead
    headers: Mapping[str, str] = field(default_factory=dict)  # say this too
    hang: bool = False  # take the request and never answer
    slam: bool = False  # take the request and close the connection
    stall_after: int | None = None  # send so many bytes, then nothing more
    drop_after: int | None = None  # send so many bytes, then close the connection
    truncate_to: int | None = None  # send so many bytes as if they were all
    no_length: bool = False  # do not say how long the answer is; it ends with the connection
    corrupt: bool = False  # change a byte in the middle
    ignore_range: bool = False  # send all, whatever part was asked for


@dataclass(frozen=True)
class Request:
    """What was asked for and how it was answered."""

    name: str
    headers: Mapping[str, str]
    status: int


class _Connections(ThreadingHTTPServer):
    """A server that can be stopped while clients keep connections open."""

    daemon_threads = False  # stopping waits for the threads

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.sockets: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.sockets.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that hang up are part of the tests."""


class LoopbackServer(ABC):
    """A server in a thread, on a port that stays its own when it is restarted."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[Request] = []
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.start()

    def start(self) -> None:
        self._ended.clear()
        self._server = _Connections(self.port, self._handler())
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        for connection in list(self._server.sockets):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed by the other side
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._ended.is_set():
            self.stop()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        return Handler

    @abstractmethod
    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request, by `send`."""

    def send(
        self,
        handler: BaseHTTPRequestHandler,
        name: str,
        status: int,
        content: bytes,
        headers: Mapping[str, str],
        fault: Fault,
    ) -> None:
        """Note the request and send an answer as far as the fault lets it through."""
        with self._lock:
            self.requests.append(
                Request(name, dict(handler.headers), 0 if fault.hang or fault.slam else status)
            )
        if fault.hang:
            self._ended.wait()
        if fault.hang or fault.slam:
            handler.close_connection = True
            return
        handler.send_response(status)
        length = {} if fault.no_length else {"Content-Length": str(len(content))}
        for key, value in {**length, **headers, **fault.headers}.items():
            handler.send_header(key, value)
        handler.end_headers()
        ends = [n for n in (fault.stall_after, fault.drop_after) if n is not None]
        handler.wfile.write(content[: min(ends)] if ends else content)
        if fault.stall_after is not None:
            self._ended.wait()
        handler.close_connection |= bool(ends)


class FrameServer(LoopbackServer):
    """The archive: files by name, in parts where a part is asked for.

    Parameters
    ----------
    files : mapping
        Name -> content; the folders in an address do not matter.
    faults : mapping
        Name -> one fault a request, None for none; when they are over, none.
    """

    def __init__(
        self, files: Mapping[str, bytes], faults: Mapping[str, Iterable[Fault | None]] | None = None
    ) -> None:
        self.files = dict(files)
        self.faults: dict[str, Iterator[Fault | None]] = {n: iter(f) for n, f in (faults or {}).items()}
        self.paths: list[str] = []
        super().__init__()

    def asked(self, name: str) -> list[Request]:
        """Return the requests for one file."""
        return [request for request in self.requests if request.name == name]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.rpartition("/")[2]
        with self._lock:
            self.paths.append(handler.path)
            fault = next(self.faults.get(name, iter(())), None) or Fault()
        if fault.status is not None or name not in self.files:
            self.send(handler, name, fault.status or 404, fault.content or b"none", {}, fault)
            return
        content = self.files[name] if fault.content is None else fault.content
        if fault.corrupt:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
        content = content[: fault.truncate_to]
        headers = {"ETag": f'"{hashlib.md5(self.files[name]).hexdigest()}"', "Accept-Ranges": "bytes"}
        start = self._start(handler, headers["ETag"])
        if start is None or fault.ignore_range:
            self.send(handler, name, 200, content, headers, fault)
        elif start >= len(content):
            self.send(handler, name, 416, b"", {"Content-Range": f"bytes */{len(content)}"}, fault)
        else:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send(handler, name, 206, content[start:], headers, fault)

    def _start(self, handler: BaseHTTPRequestHandler, etag: str) -> int | None:
        part = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        unchanged = handler.headers.get("If-Range", etag) == etag
        return int(part[1]) if part and unchanged else None


def frame_bytes(frame: Field, band: str, shape: tuple[int, int] = (16, 24)) -> bytes:
    """Return a small compressed frame; no two are alike, and noise keeps it from shrinking."""
    rng = np.random.default_rng([ord(band), *frame])
    hdu = fits.PrimaryHDU(rng.normal(size=shape).astype(np.float32))
    hdu.header["FILTER"] = band
    file = io.BytesIO()
    hdu.writeto(file)
    return bz2.compress(file.getvalue())


def error_page(words: str) -> bytes:
    """Return an error as the SkyServer puts it."""
    head = "<html><head><title>Skyserver Error</title></head><body bgcolor=white>"
    return (
        f"{head}<h2>An error occured</h2><H3><font color=red>{words}<br></font></H3></body></html>".encode()
    )


class SkyServer(LoopbackServer):
    """SQL search over two tables; SQLite knows all but T-SQL's TOP and the function for the nearest object.

    Parameters
    ----------
    photo, spec : Table
        The tables PhotoObj and SpecObj.
    faults : iterable
        One fault a query, None for none; when they are over, none.
    most_rows : int
        Longer answers are cut off without a word.
    """

    def __init__(
        self, photo: Table, spec: Table, faults: Sequence[Fault | None] = (), most_rows: int = 500_000
    ) -> None:
        self.faults = iter(faults)
        self.most_rows = most_rows
        self.queries: list[str] = []
        self.database = sqlite3.connect(":memory:", check_same_thread=False)
        for name, table in (("PhotoObj", photo), ("SpecObj", spec)):
            columns = ", ".join(table.colnames)
            self.database.execute(f"CREATE TABLE {name} ({columns})")
            marks = ", ".join("?" * len(table.colnames))
            rows = [[value.item() for value in row] for row in table.iterrows()]
            self.database.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)
        super().__init__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.database.close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        address = urlsplit(handler.path)
        words = {name: values[0] for name, values in parse_qs(address.query).items()}
        with self._lock:
            fault = next(self.faults, None) or Fault()
            self.queries.append(" ".join(words.get("cmd", "").split()))
        right = re.fullmatch(r"/dr\d+/en/tools/search/x_results.aspx", address.path)
        if not right or words.get("format") != "csv" or words.get("searchtool") != "SQL":
            self.send(handler, "sql", 404, b"<html><body>Not Found</body></html>", {}, fault)
        elif fault.content is not None or fault.status is not None:
            self.send(handler, "sql", fault.status or 200, fault.content or b"", {}, fault)
        else:
            self.send(handler, "sql", *self._select(words["cmd"]), {}, fault)

    def _select(self, query: str) -> tuple[int, bytes]:
        top = re.search(r"\bTOP (\d+)", query)
        rows = min(self.most_rows, int(top[1]) if top else self.most_rows)
        if near := re.search(r"dbo\.fGetNearestObjEq\(([-\d.e]+),([-\d.e]+),([\d.]+)\)", query):
            squared = f"((ra - {near[1]}) * (ra - {near[1]}) + (dec - {near[2]}) * (dec - {near[2]}))"
            within = f"WHERE {squared} < {(float(near[3]) / 60) ** 2!r} ORDER BY {squared} LIMIT 1"
            query = query.replace(near[0], f"(SELECT objID FROM PhotoObj {within})")  # near the equator
        try:
            with self._lock:
                found = self.database.execute(f"{re.sub(r'TOP [0-9]+', '', query)} LIMIT {rows}")
                names, values = [column[0] for column in found.description], found.fetchall()
        except sqlite3.Error as error:
            return 500, error_page(str(error))
        lines = ["#Table1", ",".join(names), *(",".join(str(v) for v in row) for row in values)]
        return 200, ("\n".join(lines) + "\n").encode()
