"""The part `memory`: a blob goes in and out of a server whose memory does not depend on it, and many uploads to an object store share what
they may hold together. With --full the blob has 2 GiB; otherwise it is still larger than all that the server may hold.

The bytes are made on the fly and hashed on the way back, so this process holds a megabyte of them at a time. Each case has a server of
its own, because what is judged is the most memory that its process ever had.
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import threading
from typing import Callable, Dict, Iterator, List, Optional
from urllib.parse import urlsplit

from harness import Cloud, Context, Result, Server, check
from harness.progress import step

MIB = 1 << 20
LARGE = 2048 * MIB
# Below 100 MB.
SMALL = 95 * MIB
# For one upload or download at a time.
BOUND = 64 * MIB
# For many at once the bodies of uploads share what `--upload-memory` grants and wait for room; the rest is the process itself and the
# buffers of its connections.
TOGETHER = 4
UPLOAD_MEMORY = 64 * MIB
BOUND_TOGETHER = UPLOAD_MEMORY + 64 * MIB

# What `--upload-memory` is for S3 by default, and the process itself.
BOUND_S3 = (512 + 64) * MIB

# For one step of a request, seconds: the answer to a body comes when the disk has it.
_TIMEOUT = 300
_REPOSITORY = "memory/large"


def main(context: Context) -> List[Result]:
    size = LARGE if context.full else SMALL
    results = [
        check(f"{size // MIB} MiB pushed as one chunked PATCH, pulled", one, "patch", size),
        check(f"{size // MIB} MiB pushed as one PUT, pulled", one, "put", size),
    ]
    many, size = (50, 200 * MIB) if context.full else (16, 64 * MIB)
    results.append(check(f"{many} uploads of {size // MIB} MiB at once to S3", to_s3, many, size))
    if context.full:
        results.append(check(f"{TOGETHER} times 2 GiB pushed at once, pulled at once", together))
    return results


def one(way: str, size: int) -> str:
    with Server() as server, step(f"{size // MIB} MiB by {way}"):
        blob = Blob(b"one " + way.encode(), size)
        _push(server, blob, way)
        pushed = server.peak_memory()
        _pull(server, blob)
        return _within(server, BOUND, f"after the push {pushed // MIB} MiB")


def together() -> str:
    blobs = [Blob(b"together %d" % number, LARGE) for number in range(TOGETHER)]
    with Server("--upload-memory", str(UPLOAD_MEMORY)) as server, step(f"{TOGETHER} times 2 GiB"):
        # Half of them each way, so that both are in flight at once.
        _all_at_once([lambda blob=blob, way=way: _push(server, blob, way) for blob, way in zip(blobs, ("patch", "put") * 2)])
        pushed = server.peak_memory()
        _all_at_once([lambda blob=blob: _pull(server, blob) for blob in blobs])
        return _within(server, BOUND_TOGETHER, f"after the pushes {pushed // MIB} MiB")


def to_s3(many: int, size: int) -> str:
    """Parts wait in memory until the object store has taken them; all uploads together hold what the server's default grants."""
    blobs = [Blob(b"to s3 %d" % number, size) for number in range(many)]
    with Cloud() as cloud, Server(backend=cloud.backend("s3+sqlite")) as server, step(f"{many} times {size // MIB} MiB"):
        ways = itertools.cycle(("patch", "put"))
        _all_at_once([lambda blob=blob, way=way: _push(server, blob, way) for blob, way in zip(blobs, ways)])
        summary = _within(server, BOUND_S3, "all pushed")
        assert len(server.backend.objects()) == many, "other objects than blobs are left in the bucket"
        return summary


class Blob:
    """Bytes that any length of can be made again: one megabyte grown from a seed, with its place written over its beginning."""

    def __init__(self, seed: bytes, size: int) -> None:
        self.size = size
        # Incompressible, and of no period that a chunk size could hide behind.
        self._block = hashlib.shake_256(seed).digest(MIB)
        whole = hashlib.sha256()
        for block in self.blocks():
            whole.update(block)
        self.digest = f"sha256:{whole.hexdigest()}"

    def blocks(self) -> Iterator[bytes]:
        block = bytearray(self._block)
        for place in range(0, self.size, MIB):
            block[:8] = place.to_bytes(8, "big")
            yield bytes(block[: min(MIB, self.size - place)])


def _push(server: Server, blob: Blob, way: str) -> None:
    location = _request(server, "POST", f"/v2/{_REPOSITORY}/blobs/uploads/", 202)["location"]
    if way == "patch":
        # As docker does it: one body of unknown length, then an empty PUT.
        location = _request(server, "PATCH", location, 202, blob.blocks())["location"]
        answer = _request(server, "PUT", _with_digest(location, blob.digest), 201)
    else:
        answer = _request(server, "PUT", _with_digest(location, blob.digest), 201, blob.blocks(), blob.size)
    assert answer["docker-content-digest"] == blob.digest, f"the server stored {answer['docker-content-digest']}"


def _pull(server: Server, blob: Blob) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_TIMEOUT)
    try:
        connection.request("GET", f"/v2/{_REPOSITORY}/blobs/{blob.digest}")
        answer = connection.getresponse()
        assert answer.status == 200, f"GET answered {answer.status}: {answer.read(2000)!r}"
        assert answer.getheader("content-length") == str(blob.size), f"Content-Length: {answer.getheader('content-length')}"
        whole, buffer = hashlib.sha256(), memoryview(bytearray(MIB))
        while count := answer.readinto(buffer):
            whole.update(buffer[:count])
    finally:
        connection.close()
    assert f"sha256:{whole.hexdigest()}" == blob.digest, "the bytes that came back are not those that went in"


def _request(
    server: Server, method: str, target: str, expected: int, body: Optional[Iterator[bytes]] = None, length: Optional[int] = None
) -> Dict[str, str]:
    """Makes one request and returns the answer's headers, their names in lower case. A body without a length is sent chunked."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_TIMEOUT)
    headers = {"Content-Length": str(length)} if length is not None else {}
    try:
        if body is None:
            connection.request(method, target, headers={"Content-Length": "0"})
        else:
            connection.request(method, target, body, headers, encode_chunked=length is None)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == expected, f"{method} {urlsplit(target).path} answered {answer.status}: {text[:2000]!r}"
        return {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def _with_digest(location: str, digest: str) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


def _within(server: Server, bound: int, summary: str) -> str:
    peak = server.peak_memory()
    assert peak <= bound, f"peak memory {peak / MIB:.1f} MiB, allowed {bound // MIB} MiB ({summary})"
    return f"peak memory {peak / MIB:.1f} MiB ({summary})"


def _all_at_once(tasks: List[Callable[[], None]]) -> None:
    failures: List[BaseException] = []

    def attempt(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # raised again in the main thread
            failures.append(error)

    threads = [threading.Thread(target=attempt, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
