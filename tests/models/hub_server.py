"""A loopback HTTP server in the place of a model hub: ranges, redirects, and ways to fail."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """What the server does; change it while it runs.

    `hold_at` stops sending at that offset of the file until `released`; `drops` is how many
    answers break off after 100 kB; `status` is given instead of the file; `redirect` sends the
    client to another path first, as real hubs do.
    """

    content: bytes
    url: str = ""
    hold_at: int | None = None
    drops: int = 0
    status: int = 0
    redirect: bool = True
    ranges: bool = True
    paths: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serve(content: bytes) -> Iterator[Hub]:
    hub = Hub(content)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            hub.paths.append(self.path)
            hub.headers.append({key.lower(): value for key, value in self.headers.items()})
            if hub.status:
                self.answer(hub.status, {})
            elif hub.redirect and not self.path.startswith("/storage"):
                self.answer(302, {"Location": f"{hub.url}/storage{self.path}"})
            else:
                self.send_file()

        def answer(self, status, headers, length=0):
            self.send_response(status)
            for key, value in {"Content-Length": str(length), **headers}.items():
                self.send_header(key, value)
            self.end_headers()

        def send_file(self):
            size = len(hub.content)
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            start, end = 0, size
            if span and hub.ranges:
                start = int(span[1])
                end = min(int(span[2]) + 1, size) if span[2] else size
                content_range = {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
                self.answer(206, content_range, end - start)
            else:
                self.answer(200, {}, size)
            if end - start == 1:
                self.wfile.write(hub.content[start:end])
                return
            hub.starts.append(start)
            stop = end
            if hub.drops:
                hub.drops -= 1
                stop = min(start + 100_000, end)
            try:
                for at in range(start, stop, 50_000):
                    if hub.hold_at is not None and at >= hub.hold_at:
                        hub.released.wait(60)
                    self.wfile.write(hub.content[at : min(at + 50_000, stop)])
            except OSError:  # the client was killed
                self.close_connection = True
            if stop < end:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a killed client is part of the tests
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def silent_server() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def closed_port() -> Iterator[str]:
    """An address where nobody listens: bound, so that nobody else takes it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"
