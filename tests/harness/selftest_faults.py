"""Checks of the fault proxy, against a server that answers each request with its body: what it counts, and each fault as the client
sees it."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import time
import zlib
from contextlib import ExitStack, contextmanager
from typing import Dict, Iterator, List, NamedTuple, Optional
from xml.etree import ElementTree

from .api import Result, check
from .fault_proxy import FaultProxy
from .faults import KINDS
from .http1 import Head
from .operations import operation
from .process import STORE_HOST, wait_until
from .selftest_backend import BackendServer, backends

# One request for each operation that a registry makes, and its name.
_OPERATIONS = {
    "PUT /b/k": "PutObject",
    "PUT /b/k?partNumber=1&uploadId=u": "UploadPart",
    "PUT /b/k?partNumber=2&uploadId=u copy": "UploadPartCopy",
    "PUT /b/a/k copy": "CopyObject",
    "POST /b/k?uploads": "CreateMultipartUpload",
    "POST /b/k?uploads=&x-id=CreateMultipartUpload": "CreateMultipartUpload",
    "POST /b/k?uploadId=u": "CompleteMultipartUpload",
    "DELETE /b/k?uploadId=u&x-id=AbortMultipartUpload": "AbortMultipartUpload",
    "DELETE /b/k": "DeleteObject",
    "POST /b?delete": "DeleteObjects",
    "POST /b/?delete=": "DeleteObjects",
    "GET /b/k?x-id=GetObject&X-Amz-Signature=0": "GetObject",
    "GET /b/k?uploadId=u": "ListParts",
    "HEAD /b/k": "HeadObject",
    "GET /b?list-type=2&prefix=a%2F": "ListObjectsV2",
    "GET /b/?uploads&prefix=a": "ListMultipartUploads",
    "HEAD /b": "HeadBucket",
    "PUT /b": "CreateBucket",
    "GET /": "ListBuckets",
    "POST / DynamoDB_20120810.TransactWriteItems": "TransactWriteItems",
}


def main() -> List[Result]:
    return [
        check("fault proxy: operations by their names", names_operations),
        check("fault proxy: counts, and leaves requests alone", counts),
        check("fault proxy: asks for a body only when the service does", continues),
        check("fault proxy: a client that breaks off is seen to", breaks_off),
        check("fault proxy: answers of S3", answers_of_s3),
        check("fault proxy: answers of DynamoDB", answers_of_dynamodb),
        check("fault proxy: executed, and not answered", executed_and_not_answered),
        check("fault proxy: resets and cuts", resets_and_cuts),
        check("fault proxy: delays", delays),
        check("fault proxy: the same seed, the same faults", same_seed),
    ]


class _Answer(NamedTuple):
    status: int
    headers: Dict[str, str]
    body: bytes


class _Client:
    """One connection at a time through the proxy, as long as it lives."""

    def __init__(self, proxy: FaultProxy, backend: BackendServer) -> None:
        self.proxy = proxy
        self.backend = backend
        self.connection = http.client.HTTPConnection(STORE_HOST, proxy.port, timeout=10)

    def ask(self, method: str, target: str, body: bytes = b"", operation: str = "", **headers: str) -> _Answer:
        """Makes a request; an operation of DynamoDB by its name."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if operation:
            named["X-Amz-Target"] = f"DynamoDB_20120810.{operation}"
        self.connection.request(method, target, body or None, named)
        answer = self.connection.getresponse()
        return _Answer(answer.status, dict(answer.getheaders()), answer.read())

    def lost(self, method: str, target: str, body: bytes = b"") -> None:
        """Makes a request whose connection must break before its answer is whole."""
        try:
            answer = self.ask(method, target, body)
        except (ConnectionError, http.client.HTTPException):
            self.connection.close()
        else:
            raise AssertionError(f"an answer came: {answer}")

    def seen(self) -> List[str]:
        """The methods and targets that reached the backend since last asked."""
        seen = [f"{method} {path}" for method, path, _ in self.backend.seen]
        self.backend.seen.clear()
        return seen


@contextmanager
def _proxied(probability: float = 1.0, kind: Optional[str] = None, **settings: int) -> Iterator[_Client]:
    with ExitStack() as stack:
        (backend,) = stack.enter_context(backends(1))
        kinds = [kind] if kind else []
        proxy = stack.enter_context(FaultProxy(f"127.0.0.1:{backend.server_port}", probability, kinds, seed=1, **settings))
        client = _Client(proxy, backend)
        stack.callback(client.connection.close)
        yield client


def names_operations() -> None:
    for request, expected in _OPERATIONS.items():
        method, target, *more = request.split(" ")
        field = "" if not more else "x-amz-copy-source: b/k\r\n" if more == ["copy"] else f"X-Amz-Target: {more[0]}\r\n"
        head = Head(f"{method} {target} HTTP/1.1\r\nHost: h\r\n{field}\r\n".encode())
        assert operation(head).name == expected, f"{request} was called {operation(head).name}"


def counts() -> None:
    with _proxied(probability=0) as client:
        body = b"0123456789" * 300_000
        assert client.ask("PUT", "/b/a%2Bb", body, X_Kept="as it is").body == body
        kept = client.connection.sock
        assert client.ask("PUT", "/b/k", b"short").body == b"short"
        assert client.ask("POST", "/", b"{}", operation="GetItem").body == b"{}"
        assert client.ask("HEAD", "/b/k").status == 200
        assert client.connection.sock is kept, "the client's connection was not kept"
        client.connection.request("PUT", "/b/k", iter([b"one", b"two"]))
        assert client.connection.getresponse().read() == b"onetwo"
        found = client.proxy.counts()
        assert client.proxy.requests() == {"PutObject": 3, "GetItem": 1, "HeadObject": 1}, found
        # Of a chunked body the framing counts too: 3 CR LF one CR LF, twice, and the end.
        assert found["PutObject"].sent == len(body) + 5 + 21 and found["PutObject"].received == len(body) + 5 + 6, found
        assert found["PutObject"].answers == {200: 3}, found
        _, path, headers = client.backend.seen[0]
        assert path == "/b/a%2Bb" and headers["X-Kept"] == "as it is", (path, headers)
        assert headers["Host"] == client.proxy.address, f"Host was changed: {headers}"
        assert "Transfer-Encoding" in client.backend.seen[-1][2], "the framing was changed"
        client.proxy.reset()
        assert client.proxy.counts() == {} == client.proxy.injected() == client.proxy.schemes()
        client.ask("GET", "/b/k")
        client.ask("GET", "/b/k", Authorization="Basic eDp5")
        assert client.proxy.schemes() == {"": 1, "Basic": 1}, client.proxy.schemes()


def continues() -> None:
    """100 Continue is the service's to send; a refused client is not asked for its body, and its connection ends."""
    with _proxied(probability=0) as client:
        with socket.create_connection((STORE_HOST, client.proxy.port), timeout=10) as raw:
            raw.sendall(b"PUT /b/k HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            assert raw.recv(1 << 16).startswith(b"HTTP/1.1 100")
            raw.sendall(b"body")
            assert raw.recv(1 << 16).startswith(b"HTTP/1.1 200")
        client.proxy.inject(1, ["throttle"])
        with socket.create_connection((STORE_HOST, client.proxy.port), timeout=10) as raw:
            raw.sendall(b"PUT /b/k HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            answer = b""
            while block := raw.recv(1 << 16):
                answer += block
            assert answer.startswith(b"HTTP/1.1 503") and b"100" not in answer.split(b"\r\n")[0], answer


def breaks_off() -> None:
    """A body that the client cuts, in order or by a reset, is cut for the service too; an answer that came early still arrives."""
    for linger in (struct.pack("ii", 0, 0), struct.pack("ii", 1, 0)):
        with _proxied(probability=0) as client:
            with socket.create_connection((STORE_HOST, client.proxy.port), timeout=10) as raw:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                raw.sendall(b"PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf")
                wait_until(lambda: client.backend.seen, 5, "the request arrives")
            wait_until(lambda: client.backend.cut, 5, "the service sees the body end early")
    with _proxied(probability=0) as client:
        client.connection.request("PUT", "/early", (b"x" * 65536 for _ in range(64)))
        answer = client.connection.getresponse()
        assert (answer.status, answer.read()) == (413, b"too large")


def answers_of_s3() -> None:
    for kind, target, status, code in (
        ("error", "/b/k", 500, "InternalError"),
        ("throttle", "/b/k", 503, "SlowDown"),
        ("error-in-200", "/b/k?uploadId=u", 200, "InternalError"),
    ):
        with _proxied(kind=kind) as client:
            for _ in range(2):  # on the same connection
                answer = client.ask("POST", target, b"x" * 300_000)
                assert answer.status == status, f"{kind}: {answer}"
                root = ElementTree.fromstring(answer.body)
                assert root.tag == "Error" and root.findtext("Code") == code, answer.body
            assert client.seen() == [], "a refused request was executed"
            if kind != "error-in-200":
                assert client.ask("HEAD", "/b/k")[::2] == (status, b"")
                assert client.ask("GET", "/b/k").status == status


def answers_of_dynamodb() -> None:
    items = {"TransactItems": [{"Put": {}}, {"Put": {}}, {"Delete": {}}]}
    batch = {"RequestItems": {"t": [{"PutRequest": {"Item": {"p": {"S": "1"}}}}]}}
    seen: List[str] = []
    with _proxied() as client:

        def ask(kind: str, name: str, request: object) -> Dict[str, object]:
            client.proxy.inject(1, [kind])
            answer = client.ask("POST", "/", json.dumps(request).encode(), operation=name)
            assert answer.headers["x-amz-crc32"] == str(zlib.crc32(answer.body))
            value = json.loads(answer.body)
            seen.append(f"{answer.status} {value.get('__type', '').rsplit('#')[-1]}".strip())
            return value

        ask("error", "PutItem", {})
        assert seen[-1] == "500 InternalServerError"
        for _ in range(12):
            ask("throttle", "Query", {})
        assert set(seen[1:]) <= {"400 ThrottlingException", "400 ProvisionedThroughputExceededException"}, seen
        reasons = ask("conflict", "TransactWriteItems", items)["CancellationReasons"]
        assert isinstance(reasons, list)
        assert sorted(reason["Code"] for reason in reasons) == ["None", "None", "TransactionConflict"], reasons
        assert seen[-1] == "400 TransactionCanceledException"
        ask("conflict", "UpdateItem", {"Key": {}})
        assert seen[-1] == "400 TransactionConflictException"
        assert ask("unprocessed", "BatchWriteItem", batch) == {"UnprocessedItems": batch["RequestItems"]}
        assert ask("unprocessed", "BatchGetItem", batch) == {"UnprocessedKeys": batch["RequestItems"], "Responses": {}}
        assert client.seen() == [], "a refused request was executed"
        # A kind that cannot happen to an operation does not.
        assert client.ask("POST", "/", b"{}", operation="GetItem").body == b"{}"
        assert client.proxy.total_injected() == {"error": 1, "throttle": 12, "conflict": 2, "unprocessed": 2}


def executed_and_not_answered() -> None:
    with _proxied(kind="error-after") as client:
        answer = client.ask("PUT", "/b/k", b"x" * 300_000)
        assert answer.status == 500 and b"InternalError" in answer.body
        assert client.seen() == ["PUT /b/k"]
        assert client.ask("GET", "/b/k").status == 200, "a read needs no such fault"
    with _proxied(kind="reset-after") as client:
        client.lost("PUT", "/b/k", b"x" * 300_000)
        assert client.seen() == ["PUT /b/k"] and not client.backend.cut
        assert client.proxy.counts()["PutObject"].answers == {200: 1}


def resets_and_cuts() -> None:
    body = b"x" * 3_000_000
    with _proxied(kind="reset-before") as client:
        client.lost("PUT", "/b/k", body)
        client.lost("HEAD", "/b/k")
        assert client.seen() == []
    with _proxied(kind="cut-request") as client:
        client.lost("PUT", "/b/k", body)
        wait_until(lambda: client.backend.cut, 5, "the service sees the body end early")
        assert client.ask("HEAD", "/b/k").status == 200, "without a body there is nothing to cut"
    with _proxied(kind="cut-answer") as client:
        for _ in range(5):
            client.connection.request("POST", "/b/k?uploadId=u", body)
            answer = client.connection.getresponse()
            assert answer.status == 200 and answer.getheader("Content-Length") == str(len(body))
            try:
                got = answer.read()
            except (ConnectionError, http.client.IncompleteRead):
                client.connection.close()
            else:
                raise AssertionError(f"{len(got)} of {len(body)} bytes came, and no error")
        received = client.proxy.counts()["CompleteMultipartUpload"].received
        assert 0 < received < 5 * len(body), f"{received} bytes of the answers were sent"


def delays() -> None:
    with _proxied(kind="delay") as client:
        for _ in range(3):
            began = time.monotonic()
            assert client.ask("PUT", "/b/k", b"body").body == b"body"
            took = time.monotonic() - began
            assert took >= 0.05, f"{took} s"


def same_seed() -> None:
    """Two runs of one seed meet the same faults; 5 % of requests do; `skip` and `limit` are kept."""
    runs = []
    for _ in range(2):
        with _proxied(probability=0.05, kind="throttle") as client:
            runs.append([client.ask("PUT", "/b/k").status for _ in range(400)])
            assert client.proxy.injected() == {"PutObject": {"throttle": runs[-1].count(503)}}
    assert runs[0] == runs[1]
    assert 8 <= runs[0].count(503) <= 36, f"{runs[0].count(503)} of 400"
    with _proxied(kind="throttle", skip=2, limit=1) as client:
        assert [client.ask("PUT", "/b/k").status for _ in range(5)] == [200, 200, 503, 200, 200]
        client.proxy.inject(1, operations=["DeleteObject"], kinds=["error"])
        assert client.ask("PUT", "/b/k").status == 200 and client.ask("DELETE", "/b/k").status == 500
    # Every kind occurs when none is named.
    with _proxied() as client:
        for number in range(400):
            try:
                name = ("TransactWriteItems", "BatchWriteItem")[number % 2]
                if number % 4 == 3:
                    client.ask("POST", "/b/k?uploadId=u", b"x")
                else:
                    client.ask("POST", "/", b'{"TransactItems":[{}],"RequestItems":{}}', operation=name)
            except (ConnectionError, http.client.HTTPException):
                client.connection.close()
            if set(client.proxy.total_injected()) == set(KINDS):
                return
        raise AssertionError(f"not every kind occurred: {client.proxy.total_injected()}")
