"""The relay that client tests put before servers: the harness's `Dealer`, for clients that try https first.

docker, skopeo and podman speak TLS to a registry before they fall back to plain http. A server that speaks HTTP only
answers such a greeting at once; a relay that waited for a request's end would cost each command its TLS time limit.
"""

from __future__ import annotations

import asyncio

from harness import Dealer

# The first byte of every TLS connection: a record that holds a handshake (RFC 8446, 5.1).
HANDSHAKE = b"\x16"


class Relay(Dealer):
    """A `Dealer` that answers a TLS greeting as a plain HTTP server does."""

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.read(1)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            return
        if first == HANDSHAKE:
            writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\nThis server speaks plain HTTP.\n")
            writer.close()
            return
        await super()._client(_Begun(reader, first), writer)  # type: ignore[arg-type]


class _Begun:
    """A reader whose first byte was read already; it comes with the first line."""

    def __init__(self, reader: asyncio.StreamReader, first: bytes) -> None:
        self._reader, self._first = reader, first

    async def readuntil(self, separator: bytes) -> bytes:
        first, self._first = self._first, b""
        return first + await self._reader.readuntil(separator)

    async def read(self, count: int) -> bytes:
        return await self._reader.read(count)
