"""Several servers behind one address. Each request goes to the next server in turn.

The front of a registry that runs as several processes. It chooses a server for each request, not for each connection,
so that a client which keeps one connection open still meets every server: POST at the first, PATCH at the second, PUT at the third. Bodies pass
through as they come, in the framing they came in (a chunked body stays chunked), and heads pass through unchanged, `Host`
included. A body that is cut on one side is cut on the other. A server that is down is passed over.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Deque, List, NamedTuple, Optional, Sequence, Tuple

from .api import HarnessError
from .http1 import HEAD_LIMIT, Head, answer_body, ends_with_connection, offer, request_body

# The first byte of every TLS connection: a record that holds a handshake (RFC 8446, 5.1).
_TLS_HANDSHAKE = b"\x16"
# How long a client may go on sending a body that the server has already answered.
_LINGER_SECONDS = 5.0


class ProxiedRequest(NamedTuple):
    """One request and the server (by its place in the list) that it went to. `scheme` is that of its credentials, in lower case; it is
    empty if there are none."""

    method: str
    target: str
    server: int
    agent: str
    scheme: str


class RoundRobinProxy:
    """A relay on a loopback port; a context manager.

        with RoundRobinProxy([a.address, b.address, c.address]) as round_robin:
            run(["crane", "push", "--insecure", image, f"{round_robin.address}/a:1"], timeout=60)
    """

    def __init__(self, addresses: Sequence[str], port: int = 0) -> None:
        self.addresses = list(addresses)
        self.port = port
        # The last requests in the order in which they were forwarded.
        self.requests: Deque[ProxiedRequest] = deque(maxlen=100_000)
        self._next = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._failure: Optional[BaseException] = None
        self._thread = threading.Thread(target=self._serve, name="round-robin", daemon=True)

    @property
    def address(self) -> str:
        """Host and port to send requests to."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://{self.address}"

    def counts(self) -> List[int]:
        """How many requests each server got."""
        counts = [0] * len(self.addresses)
        for request in list(self.requests):
            counts[request.server] += 1
        return counts

    def __enter__(self) -> "RoundRobinProxy":
        self._thread.start()
        self._ready.wait(10)
        if self._failure is not None:
            raise HarnessError(f"the round-robin proxy cannot listen: {self._failure}")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            server = self._loop.run_until_complete(
                asyncio.start_server(self._client, "127.0.0.1", self.port, limit=HEAD_LIMIT, backlog=512)
            )
            self.port = server.sockets[0].getsockname()[1]
        except BaseException as error:  # raised again in the thread that waits
            self._failure = error
            return
        finally:
            self._ready.set()
        self._loop.run_forever()
        server.close()
        # A task may begin another one while it is ended, for the rest of an upload.
        while tasks := asyncio.all_tasks(self._loop):
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client connection: request after request, until one side wants to close."""
        try:
            begun = await reader.read(1)
            if begun == _TLS_HANDSHAKE:
                # docker, skopeo and podman try https first. A server that speaks HTTP alone answers that at once.
                writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\nThis server speaks plain HTTP.\n")
                return
            while begun and await self._request(begun, reader, writer):
                begun = await reader.read(1)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            # A peer went away, or spoke what is not HTTP/1: cut, so that the other side sees it too.
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()  # the round-robin proxy itself ends
        finally:
            writer.close()

    async def _forward(self, request: Head) -> Tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connects to the next server. One that refuses is passed over, as a load balancer does it: it has not seen the request."""
        for _ in self.addresses:
            server = self._next % len(self.addresses)
            self._next += 1
            host, port = self.addresses[server].rsplit(":", 1)
            try:
                # A connection for each request: none can have gone stale, and a cut body concerns no other request.
                back = await asyncio.open_connection(host, int(port), limit=HEAD_LIMIT)
            except ConnectionRefusedError:
                continue
            scheme = request.text(b"authorization").partition(" ")[0].lower()
            self.requests.append(ProxiedRequest(request.method(), request.target(), server, request.text(b"user-agent"), scheme))
            return back
        raise ConnectionRefusedError("no server is up")

    async def _request(self, begun: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Relays the request that begins so, and its answer; whether the client's connection can carry another."""
        request = Head(begun + await reader.readuntil(b"\r\n\r\n"))
        back_reader, back_writer = await self._forward(request)
        upload = asyncio.ensure_future(_pass_request(request, reader, back_writer))
        try:
            keep = await _pass_answer(request.method(), back_reader, writer, upload)
            if not upload.done():
                # The server answered before the body's end. The rest is read and dropped for a while: a client that is
                # still sending would take a closed connection for a failure and never read the answer.
                await asyncio.wait([upload], timeout=_LINGER_SECONDS)
            return keep and upload.done() and upload.exception() is None and not request.closes()
        finally:
            if not upload.done():
                upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)
            back_writer.transport.abort()


async def _pass_request(request: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends head and body on. Once the server no longer reads, the body is still read to its end, and dropped."""
    writer.write(request.raw)
    try:
        async for block in request_body(reader, request):
            await offer(writer, block)
    except asyncio.IncompleteReadError:
        # The client is gone: the server must see a cut body, not a finished one.
        writer.transport.abort()
        raise


async def _pass_answer(
    method: str,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    upload: "asyncio.Future[None]",
) -> bool:
    """Sends the answer on; whether the connection it goes to may stay open."""
    while True:
        waiting = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        await asyncio.wait([waiting, upload], return_when=asyncio.FIRST_COMPLETED)
        if upload.done() and upload.exception() is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            raise upload.exception()  # type: ignore[misc]
        answer = Head(await waiting)
        writer.write(answer.raw)
        await writer.drain()
        if answer.status() >= 200:
            break
    async for block in answer_body(reader, answer, method):
        writer.write(block)
        await writer.drain()
    return not ends_with_connection(answer, method)
