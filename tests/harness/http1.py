"""HTTP/1.1 as far as a relay needs it (RFC 9112): where a message ends, and whether its connection can carry another.

Messages pass as the bytes that came, so that what was signed stays as it was: heads unchanged, bodies in the framing they had.
"""

from __future__ import annotations

import asyncio
from typing import AsyncIterator, List, Optional, Tuple

# The longest head that is taken.
HEAD_LIMIT = 1 << 17
_BLOCK = 1 << 20


class Head:
    """A request's or an answer's head, which ends with an empty line. ValueError when it is none."""

    def __init__(self, raw: bytes) -> None:
        lines = raw[:-4].split(b"\r\n")
        self.raw = raw
        self.first = lines[0]
        self._fields: List[Tuple[bytes, bytes]] = []
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon:
                raise ValueError("a header line without a colon")
            self._fields.append((name.strip().lower(), value.strip()))

    def values(self, name: bytes) -> List[bytes]:
        """Every value of a field; its name is in lower case."""
        return [value for field, value in self._fields if field == name]

    def text(self, name: bytes) -> str:
        """The first value of a field, or nothing."""
        return next(iter(self.values(name)), b"").decode("latin-1")

    def method(self) -> str:
        """A request's method."""
        return self.first.split(b" ")[0].decode("latin-1")

    def target(self) -> str:
        """A request's target, as it was sent."""
        _, target, *_ = self.first.split(b" ")
        return target.decode("latin-1")

    def status(self) -> int:
        """An answer's status."""
        return int(self.first.split(b" ")[1])

    def chunked(self) -> bool:
        return any(b"chunked" in value.lower() for value in self.values(b"transfer-encoding"))

    def length(self) -> Optional[int]:
        lengths = self.values(b"content-length")
        return int(lengths[0]) if lengths else None

    def closes(self) -> bool:
        """Whether the connection ends with this message."""
        tokens = b",".join(self.values(b"connection")).lower()
        return b"close" in tokens or (b"HTTP/1.0" in self.first and b"keep-alive" not in tokens)


async def request_body(reader: asyncio.StreamReader, head: Head) -> AsyncIterator[bytes]:
    """A request's body as it is on the wire, block by block as it comes. IncompleteReadError when it is cut."""
    source = _chunks(reader) if head.chunked() else _counted(reader, head.length() or 0)
    async for block in source:
        yield block


async def answer_body(reader: asyncio.StreamReader, head: Head, method: str) -> AsyncIterator[bytes]:
    """An answer's body as it is on the wire. One of no declared length ends where the connection does."""
    if has_no_body(head, method):
        return
    if head.chunked():
        source = _chunks(reader)
    elif head.length() is not None:
        source = _counted(reader, head.length() or 0)
    else:
        source = _rest(reader)
    async for block in source:
        yield block


def has_no_body(head: Head, method: str) -> bool:
    """Whether an answer ends with its head, whatever the head says of a length."""
    return method == "HEAD" or head.status() in (204, 304) or head.status() < 200


def ends_with_connection(head: Head, method: str) -> bool:
    """Whether nothing can follow an answer on its connection."""
    return head.closes() or not (has_no_body(head, method) or head.chunked() or head.length() is not None)


async def offer(writer: asyncio.StreamWriter, block: bytes) -> None:
    """Passes bytes of a body on to a server that may have answered and stopped reading; the body is still taken to its end."""
    if not writer.transport.is_closing():
        try:
            writer.write(block)
            await writer.drain()
        except OSError:
            pass


async def _counted(reader: asyncio.StreamReader, count: int) -> AsyncIterator[bytes]:
    while count > 0:
        block = await reader.read(min(_BLOCK, count))
        if not block:
            raise asyncio.IncompleteReadError(b"", count)
        count -= len(block)
        yield block


async def _rest(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while block := await reader.read(_BLOCK):
        yield block


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """A chunked body in the chunks it came in, trailers included."""
    while True:
        line = await reader.readuntil(b"\r\n")
        yield line
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        async for block in _counted(reader, size + 2):
            yield block
    while True:
        line = await reader.readuntil(b"\r\n")
        yield line
        if line == b"\r\n":
            return
