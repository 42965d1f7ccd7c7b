"""A name server on a loopback address of its own: what a program asks it, and how it takes the answers."""

from __future__ import annotations

import random
import socket
import struct
import threading
from typing import List, Mapping, Optional

from .api import HarnessError

_A = 1
_NO_SUCH_NAME = 3


class NameServer:
    """Answers for a few names, each with one IPv4 address, and says of all others that they do not exist; a context manager.

    It takes the port of name servers, since a resolver's configuration has none: that needs root. `asked` are the names of all
    questions, in their order.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = {name.lower(): socket.inet_aton(address) for name, address in names.items()}
        self.address = ""
        self.asked: List[str] = []
        self._ended = threading.Event()
        self._socket: Optional[socket.socket] = None
        self._thread: Optional[threading.Thread] = None

    def __enter__(self) -> "NameServer":
        self._socket = self._bound()
        self._thread = threading.Thread(target=self._serve, args=[self._socket], daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._socket is not None and self._thread is not None
        self._ended.set()
        self._thread.join(5)
        self._socket.close()

    def _bound(self) -> socket.socket:
        for _ in range(20):
            # Loopback has millions of addresses, so that nobody else's name server is in the way.
            address = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                server.bind((address, 53))
            except OSError:
                server.close()
                continue
            self.address = address
            return server
        raise HarnessError("no loopback address takes a name server at port 53")

    def _serve(self, server: socket.socket) -> None:
        server.settimeout(0.2)
        while not self._ended.is_set():
            try:
                question, client = server.recvfrom(4096)
            except socket.timeout:
                continue
            server.sendto(self._answer(question), client)

    def _answer(self, question: bytes) -> bytes:
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode("ascii", "replace"))
            at += 1 + question[at]
        name = ".".join(labels).lower()
        self.asked.append(name)
        (kind,) = struct.unpack_from(">H", question, at + 1)
        known = self._names.get(name)
        # A name that has no address of this kind exists all the same.
        record = b"\xc0\x0c" + struct.pack(">HHIH", _A, 1, 1, 4) + known if known and kind == _A else b""
        flags = 0x8180 | (0 if known else _NO_SUCH_NAME)
        # The question is said again, without what stands behind it.
        return question[:2] + struct.pack(">HHHHH", flags, 1, bool(record), 0, 0) + question[12 : at + 5] + record
