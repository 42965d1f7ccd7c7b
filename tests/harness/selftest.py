"""Checks of the harness itself: what other parts rely on without looking, above all the relays and the stand-ins."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
from contextlib import ExitStack, contextmanager
from typing import Iterator, List, Tuple

from . import selftest_cloud, selftest_faults, selftest_leaks, selftest_long_tests, selftest_modules, selftest_nextest, selftest_sources
from .api import Result, check
from .process import Child, CommandFailed, at_once, run, scratch, wait_until
from .round_robin import RoundRobinProxy
from .selftest_backend import BackendServer, backends


def main() -> List[Result]:
    return [
        check("round-robin proxy: each request to the next server", takes_servers_in_turn),
        check("round-robin proxy: framing and Host unchanged", leaves_requests_alone),
        check("round-robin proxy: a body is passed on as it comes", streams),
        check("round-robin proxy: a cut body is cut", cuts),
        check("round-robin proxy: an early answer arrives", early_answer),
        check("round-robin proxy: a server that is down is passed over", passes_over),
        check("process: a command past its time is ended with its children", ends_groups),
        check("process: functions at once, and the exception of one", calls_at_once),
        check("process: an interrupt ends functions at once, and none starts another command", interrupts_all),
        *selftest_nextest.main(),
        *selftest_long_tests.main(),
        *selftest_leaks.main(),
        *selftest_sources.main(),
        *selftest_modules.main(),
        *selftest_faults.main(),
        *selftest_cloud.main(),
    ]


@contextmanager
def _proxied(count: int) -> Iterator[Tuple[RoundRobinProxy, List[BackendServer], http.client.HTTPConnection]]:
    with ExitStack() as stack:
        servers = stack.enter_context(backends(count))
        round_robin = stack.enter_context(RoundRobinProxy([f"127.0.0.1:{server.server_port}" for server in servers]))
        connection = http.client.HTTPConnection("127.0.0.1", round_robin.port, timeout=10)
        stack.callback(connection.close)
        yield round_robin, servers, connection


def takes_servers_in_turn() -> None:
    with _proxied(3) as (round_robin, servers, connection):
        connection.connect()
        first = connection.sock
        for number in range(9):
            connection.request("PUT", f"/{number}", b"body of %d" % number)
            assert connection.getresponse().read() == b"body of %d" % number
        assert connection.sock is first, "the client's connection was not kept"
        assert [[path for _, path, _ in server.seen] for server in servers] == [["/0", "/3", "/6"], ["/1", "/4", "/7"], ["/2", "/5", "/8"]]
        assert round_robin.counts() == [3, 3, 3]


def leaves_requests_alone() -> None:
    with _proxied(1) as (round_robin, servers, connection):
        sent = {"X-Kept": "as it is", "User-Agent": "tester/1 (x)", "Authorization": "Bearer secret"}
        connection.request("PUT", "/a?b=c%20d", iter([b"one", b"two"]), sent)
        assert connection.getresponse().read() == b"onetwo"
        assert list(round_robin.requests) == [("PUT", "/a?b=c%20d", 0, "tester/1 (x)", "bearer")], round_robin.requests
        _, path, headers = servers[0].seen[0]
        assert path == "/a?b=c%20d"
        assert headers["Transfer-Encoding"] == "chunked" and "Content-Length" not in headers, f"framing changed: {headers}"
        assert headers["Host"] == round_robin.address and headers["X-Kept"] == "as it is", f"heads changed: {headers}"


def streams() -> None:
    """The server has the first chunk while the second is not yet sent."""
    with _proxied(1) as (round_robin, servers, _):
        with socket.create_connection(("127.0.0.1", round_robin.port), timeout=10) as client:
            client.sendall(b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
            wait_until(lambda: servers[0].received == 3, 5, "the first chunk arrives")
            client.sendall(b"0\r\n\r\n")
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")


def cuts() -> None:
    with _proxied(1) as (round_robin, servers, _):
        with socket.create_connection(("127.0.0.1", round_robin.port), timeout=10) as client:
            client.sendall(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf")
            wait_until(lambda: servers[0].seen, 5, "the request arrives")
        wait_until(lambda: servers[0].cut, 5, "the server sees the body end early")


def early_answer() -> None:
    """The client gets an answer that came before its body's end, and may go on sending for a while."""
    with _proxied(1) as (_, _, connection):
        connection.request("PUT", "/early", (b"x" * 65536 for _ in range(64)))
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (413, b"too large")


def passes_over() -> None:
    """No request is lost while one of three is down, and it has its share again when it is back."""
    with _proxied(3) as (round_robin, servers, connection):
        up = list(round_robin.addresses)
        with socket.socket() as closed:
            # Bound and not listening: connections to it are refused, and no other process can have the port.
            closed.bind(("127.0.0.1", 0))
            round_robin.addresses[1] = f"127.0.0.1:{closed.getsockname()[1]}"
            for number in range(6):
                connection.request("PUT", f"/{number}", b"body")
                assert connection.getresponse().read() == b"body"
        assert not servers[1].seen and round_robin.counts()[1] == 0
        round_robin.addresses[:] = up
        for number in range(3):
            connection.request("PUT", f"/{number}", b"body")
            assert connection.getresponse().read() == b"body"
        assert len(servers[1].seen) == 1


def ends_groups() -> None:
    with scratch("selftest") as folder:
        mark = folder / "pid"
        # A busy machine may take longer until there is a grandchild to end.
        for timeout in (0.5, 5, 50):
            mark.write_text("")
            try:
                run(["sh", "-c", f"sleep 600 & echo $! > {mark}; wait"], timeout=timeout)
            except CommandFailed as error:
                assert f"stopped after {timeout:g} s" in str(error)
            else:
                raise AssertionError("a command past its time was not ended")
            if mark.read_text():
                break
        grandchild = int(mark.read_text())
        wait_until(lambda: not _runs(grandchild), 60, "the grandchild has ended")
        with Child(["sleep", "600"], folder / "log") as child:
            assert child.alive()
        # By the first signal: neither by itself, nor after the grace.
        assert not child.alive() and child.returncode == -signal.SIGTERM


def calls_at_once() -> None:
    meeting = threading.Barrier(2, timeout=10)
    assert at_once(lambda: (meeting.wait(), 1)[1], lambda: (meeting.wait(), 2)[1]) == [1, 2]
    try:
        at_once(lambda: 1, lambda: [][0])
    except IndexError:
        return
    raise AssertionError("the exception was lost")


def interrupts_all() -> None:
    begun: List[str] = []

    def works(name: str) -> None:
        for _ in range(3):
            begun.append(name)
            # As a check does, it takes a command that was stopped for a failure, and goes on.
            check(name, run, ["sleep", "30"], timeout=60)

    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        at_once(lambda: works("one"), lambda: works("two"))
    except KeyboardInterrupt:
        # One command each, and the attempt to start the next.
        assert sorted(begun) == ["one", "one", "two", "two"], begun
    else:
        raise AssertionError("the interrupt was lost")
    run(["true"], timeout=20)



def _runs(pid: int) -> bool:
    """Whether a process is alive; one that only waits to be reaped is not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
