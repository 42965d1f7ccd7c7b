"""The server behind the relays that the harness checks itself with."""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Iterator, List, Tuple


class _Backend(BaseHTTPRequestHandler):
    """Answers a request with its body; `/early` is answered before the body's end, which is then read and dropped."""

    protocol_version = "HTTP/1.1"
    server: "BackendServer"
    # Else an answer's head and body are two small packets, and the second waits for the first's acknowledgement.
    disable_nagle_algorithm = True

    def do_PUT(self) -> None:
        seen = self.server.seen
        seen.append((self.command, self.path, dict(self.headers.items())))
        if self.path == "/early":
            self._answer(413, b"too large", close=True)
            self.connection.shutdown(socket.SHUT_WR)
            while self.rfile.read1(1 << 16):
                pass
            return
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline() or b"0", 16):
                body += self.rfile.read(size)
                self.server.received = len(body)
                self.rfile.readline()
            self.rfile.readline()
        else:
            wanted = int(self.headers.get("Content-Length", "0"))
            try:
                body = self.rfile.read(wanted)
            except ConnectionResetError:
                body, self.close_connection = b"", True
            self.server.cut = len(body) < wanted
        if not self.server.cut:
            self._answer(200, body)

    do_GET = do_POST = do_PUT

    def do_HEAD(self) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers.items())))
        self._answer(200, b"")

    def _answer(self, status: int, body: bytes, close: bool = False) -> None:
        self.send_response(status)
        if close:
            self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class BackendServer(ThreadingHTTPServer):
    """Remembers the requests that it saw, how much of a chunked body has come, and whether a body was cut."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Backend)
        self.seen: List[Tuple[str, str, dict]] = []
        self.received = 0
        self.cut = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A broken connection is what is tested; anything else is reported as ever."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def backends(count: int) -> Iterator[List[BackendServer]]:
    """So many of them, listening."""
    with ExitStack() as stack:
        servers = [BackendServer() for _ in range(count)]
        for server in servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
        yield servers
