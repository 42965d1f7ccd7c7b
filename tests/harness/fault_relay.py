"""The process of `FaultProxy`: a relay in front of one service that counts requests by operation and injects faults.

Heads pass unchanged, `Host` included, because it is signed; bodies pass in the framing they came in. Each client connection has one
connection to the service, which is kept as long as both sides keep theirs.

It is a process of its own, so that its speed and that of the test do not depend on each other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import struct
from pathlib import Path
from typing import Any, AsyncIterator, Awaitable, Dict, Optional, Tuple

from . import faults
from .faults import Fault, Faults, Settings
from .http1 import HEAD_LIMIT, Head, answer_body, ends_with_connection, has_no_body, offer, request_body
from .operations import Operation, operation
from .process import STORE_ADDRESS

_Streams = Tuple[asyncio.StreamReader, asyncio.StreamWriter]

# What is read ahead in each direction of a connection.
_BUFFER = 1 << 20
# How long a client may go on sending a body that has been answered already, as most do before they look for an answer.
_LINGER_SECONDS = 5.0
# Of a chunked body, whose length is unknown, a cut leaves at most so much.
_UNKNOWN_LENGTH = 1 << 16


class Relay:
    """What all connections share: where the service is, what was counted, which faults are to come."""

    def __init__(self, address: str, settings: Settings) -> None:
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)
        self.faults = Faults(settings)
        self.counts: Dict[str, Dict[str, Any]] = {}
        # The first words of `Authorization`; a request without one counts as "".
        self.schemes: Dict[str, int] = {}

    def count(self, wanted: Operation) -> Dict[str, Any]:
        """The counters of an operation."""
        return self.counts.setdefault(wanted.name, {"requests": 0, "sent": 0, "received": 0, "answers": {}})

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client connection, until one side wants to close."""
        connection = _Connection(self, reader, writer)
        try:
            while await connection.exchange():
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            # A peer went away, or spoke what is not HTTP/1: cut, so that the other side sees it too.
            _reset(writer)
        finally:
            connection.close()

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request of the test itself: `GET /` tells everything, `POST /` changes settings, `DELETE /` zeroes the counters."""
        try:
            head = Head(await reader.readuntil(b"\r\n\r\n"))
            if head.method() == "POST":
                changes = json.loads(await reader.readexactly(head.length() or 0))
                self.faults.configure(self.faults.settings._replace(**changes))
            elif head.method() == "DELETE":
                self.counts.clear()
                self.schemes.clear()
                self.faults.injected.clear()
            body = json.dumps({"counts": self.counts, "injected": self.faults.injected, "schemes": self.schemes}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
        finally:
            writer.close()


class _Connection:
    """One client and the connection to the service that belongs to it."""

    def __init__(self, relay: Relay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._relay = relay
        self._reader = reader
        self._writer = writer
        self._back: Optional[_Streams] = None

    async def exchange(self) -> bool:
        """One request and its answer; whether the connection can carry another."""
        try:
            request = Head(await self._reader.readuntil(b"\r\n\r\n"))
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return False
        wanted = operation(request)
        count = self._relay.count(wanted)
        count["requests"] += 1
        scheme = request.text(b"authorization").split(" ")[0]
        self._relay.schemes[scheme] = self._relay.schemes.get(scheme, 0) + 1
        fault = self._relay.faults.choose(wanted, request)
        if fault is not None:
            print(f"{wanted.name} {count['requests']} {wanted.path}: {fault.kind}", flush=True)
            if fault.kind == faults.RESET_BEFORE:
                _reset(self._writer)
                return False
            if fault.kind in faults.ANSWERS:
                return await self._refuse(request, wanted, count, fault)
            if fault.kind == faults.DELAY:
                await asyncio.sleep(fault.random.uniform(*faults.DELAY_SECONDS))
        return await self._forward(request, wanted, count, fault)

    async def _refuse(self, request: Head, wanted: Operation, count: Dict[str, Any], fault: Fault) -> bool:
        """Answers in the service's place."""
        waits = "100-continue" in request.text(b"expect").lower()
        body = b""
        if not waits:
            async for block in request_body(self._reader, request):
                count["sent"] += len(block)
                if fault.kind in faults.NEED_BODY:
                    body += block
        answer = faults.answer(fault, wanted, body)
        # A client that waits to be asked for its body may send it or not, so its connection ends.
        closes = waits or request.closes()
        await self._tell(answer, request, wanted, closes)
        if waits:
            self._writer.write_eof()
            await _within(_LINGER_SECONDS, _drop(self._reader))
        return not closes

    async def _tell(self, answer: faults.Answer, request: Head, wanted: Operation, closes: bool) -> None:
        """Sends an answer of the proxy's own."""
        self._writer.write(faults.head_of(answer, wanted, closes) + (b"" if request.method() == "HEAD" else answer.body))
        await self._writer.drain()

    async def _forward(self, request: Head, wanted: Operation, count: Dict[str, Any], fault: Optional[Fault]) -> bool:
        """Passes request and answer on, as far as the fault lets them."""
        back = await self._service()
        kind = fault.kind if fault is not None else ""
        upload = asyncio.ensure_future(self._upload(request, count, back[1], fault if kind == faults.CUT_REQUEST else None))
        try:
            answer = await self._answer_head(back[0], upload)
            answers = count["answers"]
            answers[str(answer.status())] = answers.get(str(answer.status()), 0) + 1
            method = request.method()
            body = answer_body(back[0], answer, method)
            closes = request.closes() or ends_with_connection(answer, method)
            if kind in (faults.RESET_AFTER, faults.ERROR_AFTER):
                async for _ in body:
                    pass
                await _within(_LINGER_SECONDS, upload)
                if kind == faults.RESET_AFTER or not upload.done():
                    _reset(self._writer)
                    return False
                assert fault is not None
                await self._tell(faults.answer(fault, wanted, b""), request, wanted, closes)
                return not closes
            if fault is not None and kind == faults.CUT_ANSWER:
                if not has_no_body(answer, method):
                    self._writer.write(answer.raw)
                    async for block in _part(body, fault, answer):
                        await self._send(block, count)
                _reset(self._writer)
                return False
            self._writer.write(answer.raw)
            async for block in body:
                await self._send(block, count)
            await self._writer.drain()
            # A client that is still sending would take a closed connection for a failure and never read the answer.
            await _within(_LINGER_SECONDS, upload)
            complete = upload.done() and not upload.cancelled() and upload.exception() is None
            return complete and not closes
        finally:
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)

    async def _upload(self, request: Head, count: Dict[str, Any], writer: asyncio.StreamWriter, cut: Optional[Fault]) -> None:
        """Sends the request's head and body; with a fault only a part of the body, and then a reset."""
        writer.write(request.raw)
        body = request_body(self._reader, request)
        try:
            async for block in body if cut is None else _part(body, cut, request):
                count["sent"] += len(block)
                await offer(writer, block)
        except (asyncio.IncompleteReadError, OSError):
            # The client is gone: the service must see a cut body, not a finished one.
            _reset(writer)
            raise
        if cut is not None:
            _reset(writer)
            raise ConnectionResetError("cut by a fault")

    async def _answer_head(self, reader: asyncio.StreamReader, upload: "asyncio.Future[None]") -> Head:
        """The head of the final answer; those before it (100 Continue) are passed on."""
        while True:
            waiting = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
            try:
                await asyncio.wait([waiting, upload], return_when=asyncio.FIRST_COMPLETED)
                if upload.done() and upload.exception() is not None:
                    raise upload.exception()  # type: ignore[misc]
                answer = Head(await waiting)
            finally:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            if answer.status() >= 200:
                return answer
            self._writer.write(answer.raw)
            await self._writer.drain()

    async def _send(self, block: bytes, count: Dict[str, Any]) -> None:
        count["received"] += len(block)
        self._writer.write(block)
        await self._writer.drain()

    async def _service(self) -> _Streams:
        """The connection to the service; a new one when it has closed the old one."""
        if self._back is None or self._back[0].at_eof() or self._back[1].transport.is_closing():
            if self._back is not None:
                self._back[1].close()
            self._back = await asyncio.open_connection(self._relay.host, self._relay.port, limit=_BUFFER)
        return self._back

    def close(self) -> None:
        """Closes both sides; what the service has not got in full it will not get."""
        self._writer.close()
        if self._back is not None:
            self._back[1].transport.abort()


async def _part(body: AsyncIterator[bytes], fault: Fault, head: Head) -> AsyncIterator[bytes]:
    """The beginning of a body, and never the whole."""
    most = fault.random.randrange(max(1, head.length() or _UNKNOWN_LENGTH))
    held = b""
    async for block in body:
        if len(held) >= most:
            break
        most -= len(held)
        if held:
            yield held
        held = block
    yield held[: min(most, len(held) // 2)]


async def _within(seconds: float, work: Awaitable[None]) -> None:
    """Waits for something that may not end, and leaves it as it is."""
    task = asyncio.ensure_future(work)
    if not task.done():
        await asyncio.wait([task], timeout=seconds)


async def _drop(reader: asyncio.StreamReader) -> None:
    while await reader.read(_BUFFER):
        pass


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection by RST: the peer sees an error where an orderly end could pass for the end of a message."""
    try:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass  # the peer was faster
    writer.transport.abort()


async def _serve(relay: Relay, ready: Path) -> None:
    # Heads are small, but the limit is also what is read ahead of a body.
    front = await asyncio.start_server(relay.client, STORE_ADDRESS, 0, limit=max(HEAD_LIMIT, _BUFFER), backlog=512)
    control = await asyncio.start_server(relay.control, "127.0.0.1", 0)
    ports = {"port": front.sockets[0].getsockname()[1], "control": control.sockets[0].getsockname()[1]}
    # Whole or not at all: the test polls for the file.
    partial = ready.with_suffix(".partial")
    partial.write_text(json.dumps(ports))
    os.replace(partial, ready)
    async with front, control:
        await asyncio.gather(front.serve_forever(), control.serve_forever())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="HOST:PORT of the service")
    parser.add_argument("ready", type=Path, help="the file that gets the two ports, as JSON, when they listen")
    parser.add_argument("settings", type=json.loads, help="the faults' settings, as JSON")
    chosen = parser.parse_args()
    asyncio.run(_serve(Relay(chosen.address, Settings(**chosen.settings)), chosen.ready))


if __name__ == "__main__":
    main()
