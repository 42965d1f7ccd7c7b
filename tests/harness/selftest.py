"""Checks of the harness itself: what other parts rely on without looking, above all the dealer."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Iterator, List, Tuple

from .api import Result, check
from .dealer import Dealer
from .process import Child, CommandFailed, run, scratch, wait_until


def main() -> List[Result]:
    return [
        check("dealer: each request to the next server", deals_in_turn),
        check("dealer: framing and Host unchanged", leaves_requests_alone),
        check("dealer: a body is passed on as it comes", streams),
        check("dealer: a cut body is cut", cuts),
        check("dealer: an early answer arrives", early_answer),
        check("process: a command past its time is ended with its children", ends_groups),
    ]


class _Backend(BaseHTTPRequestHandler):
    """Answers a request with its body; `/early` is answered before the body's end, which is then read and dropped."""

    protocol_version = "HTTP/1.1"
    server: "_BackendServer"

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
            body = self.rfile.read(wanted)
            self.server.cut = len(body) < wanted
        if not self.server.cut:
            self._answer(200, body)

    do_GET = do_PUT

    def _answer(self, status: int, body: bytes, close: bool = False) -> None:
        self.send_response(status)
        if close:
            self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _BackendServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Backend)
        self.seen: List[Tuple[str, str, dict]] = []
        self.received = 0
        self.cut = False


@contextmanager
def _dealt(count: int) -> Iterator[Tuple[Dealer, List[_BackendServer], http.client.HTTPConnection]]:
    with ExitStack() as stack:
        servers = [_BackendServer() for _ in range(count)]
        for server in servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
        dealer = stack.enter_context(Dealer([f"127.0.0.1:{server.server_port}" for server in servers]))
        connection = http.client.HTTPConnection("127.0.0.1", dealer.port, timeout=10)
        stack.callback(connection.close)
        yield dealer, servers, connection


def deals_in_turn() -> None:
    with _dealt(3) as (dealer, servers, connection):
        connection.connect()
        first = connection.sock
        for number in range(9):
            connection.request("PUT", f"/{number}", b"body of %d" % number)
            assert connection.getresponse().read() == b"body of %d" % number
        assert connection.sock is first, "the client's connection was not kept"
        assert [[path for _, path, _ in server.seen] for server in servers] == [["/0", "/3", "/6"], ["/1", "/4", "/7"], ["/2", "/5", "/8"]]
        assert dealer.counts() == [3, 3, 3]


def leaves_requests_alone() -> None:
    with _dealt(1) as (dealer, servers, connection):
        connection.request("PUT", "/a?b=c%20d", iter([b"one", b"two"]), {"X-Kept": "as it is"})
        assert connection.getresponse().read() == b"onetwo"
        _, path, headers = servers[0].seen[0]
        assert path == "/a?b=c%20d"
        assert headers["Transfer-Encoding"] == "chunked" and "Content-Length" not in headers, f"framing changed: {headers}"
        assert headers["Host"] == dealer.address and headers["X-Kept"] == "as it is", f"heads changed: {headers}"


def streams() -> None:
    """The server has the first chunk while the second is not yet sent."""
    with _dealt(1) as (dealer, servers, _):
        with socket.create_connection(("127.0.0.1", dealer.port), timeout=10) as client:
            client.sendall(b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
            wait_until(lambda: servers[0].received == 3, 5, "the first chunk arrives")
            client.sendall(b"0\r\n\r\n")
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")


def cuts() -> None:
    with _dealt(1) as (dealer, servers, _):
        with socket.create_connection(("127.0.0.1", dealer.port), timeout=10) as client:
            client.sendall(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf")
            wait_until(lambda: servers[0].seen, 5, "the request arrives")
        wait_until(lambda: servers[0].cut, 5, "the server sees the body end early")


def early_answer() -> None:
    """The client gets an answer that came before its body's end, and may go on sending for a while."""
    with _dealt(1) as (_, _, connection):
        connection.request("PUT", "/early", (b"x" * 65536 for _ in range(64)))
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (413, b"too large")


def ends_groups() -> None:
    with scratch("selftest") as folder:
        mark = folder / "pid"
        try:
            run(["sh", "-c", f"sleep 60 & echo $! > {mark}; wait"], timeout=0.5)
        except CommandFailed as error:
            assert "stopped after 0.5 s" in str(error)
        else:
            raise AssertionError("a command past its time was not ended")
        grandchild = int(mark.read_text())
        wait_until(lambda: not _runs(grandchild), 5, "the grandchild has ended")
        began = time.monotonic()
        with Child(["sleep", "60"], folder / "log") as child:
            assert child.alive()
        assert not child.alive() and time.monotonic() - began < 5


def _runs(pid: int) -> bool:
    """Whether a process is alive; one that only waits to be reaped is not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
