"""What can go wrong between a registry and its cloud, when it does, and how the cloud would say so."""

from __future__ import annotations

import json
import random
import zlib
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

from .http1 import Head
from .operations import DYNAMODB, S3, Operation

# Every kind of fault and what it does. The first six are answers of the service, after which nothing has been executed, but for the second.
ERROR = "error"
ERROR_AFTER = "error-after"
ERROR_IN_200 = "error-in-200"
THROTTLE = "throttle"
CONFLICT = "conflict"
UNPROCESSED = "unprocessed"
RESET_BEFORE = "reset-before"
RESET_AFTER = "reset-after"
CUT_REQUEST = "cut-request"
CUT_ANSWER = "cut-answer"
DELAY = "delay"

KINDS: Dict[str, str] = {
    ERROR: "500 InternalError (S3), InternalServerError (DynamoDB)",
    ERROR_AFTER: "the same 500, though the request was executed",
    ERROR_IN_200: "S3 answers 200 and puts the error into the body, as it may where an answer takes long",
    THROTTLE: "503 SlowDown (S3), 400 ThrottlingException or ProvisionedThroughputExceededException (DynamoDB)",
    CONFLICT: "DynamoDB: a transaction is cancelled, a single write refused, because another transaction has an item of it",
    UNPROCESSED: "DynamoDB: 200, and nothing of the batch was done",
    RESET_BEFORE: "the connection is reset before the request reaches the service",
    RESET_AFTER: "the connection is reset after the request was executed and before the answer",
    CUT_REQUEST: "the connection is reset in the middle of the request's body",
    CUT_ANSWER: "the connection is reset in the middle of the answer's body",
    DELAY: "the request waits 50 to 500 ms",
}

DELAY_SECONDS = (0.05, 0.5)

_TRANSACTIONS = ("TransactWriteItems", "TransactGetItems")
_SINGLE_WRITES = ("PutItem", "UpdateItem", "DeleteItem")
_BATCHES = {"BatchWriteItem": "UnprocessedItems", "BatchGetItem": "UnprocessedKeys"}
_SLOW_ANSWERS = ("CompleteMultipartUpload", "CopyObject", "UploadPartCopy")


class Fault(NamedTuple):
    """One fault that is to happen, with the randomness that its details are drawn from."""

    kind: str
    random: random.Random


class Settings(NamedTuple):
    """When faults happen.

    `kinds` and `operations` say which may and to which requests; none means all. The first `skip` requests that could have had one have
    none; after `limit` faults there are no more.
    """

    seed: int = 0
    probability: float = 0.0
    kinds: Sequence[str] = ()
    operations: Sequence[str] = ()
    skip: int = 0
    limit: Optional[int] = None


class Faults:
    """Decides over each request, and counts what it decided.

    The n-th request of an operation meets the same decision in every run with the same seed, however requests of several operations
    interleave.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.injected: Dict[str, Dict[str, int]] = {}
        self._asked: Dict[str, int] = {}
        self._skipped = 0
        self._total = 0

    def configure(self, settings: Settings) -> None:
        """Begins anew with other settings; `injected` goes on counting."""
        self.settings = settings
        self._asked = {}
        self._skipped = 0
        self._total = 0

    def choose(self, wanted: Operation, head: Head) -> Optional[Fault]:
        """The fault that this request meets, if any."""
        settings = self.settings
        if settings.operations and wanted.name not in settings.operations:
            return None
        kinds = [kind for kind in applicable(wanted, head) if not settings.kinds or kind in settings.kinds]
        if not kinds or (settings.limit is not None and self._total >= settings.limit):
            return None
        self._asked[wanted.name] = number = self._asked.get(wanted.name, 0) + 1
        # Text seeds are hashed the same way in every process.
        chance = random.Random(f"{settings.seed}/{wanted.name}/{number}")
        if chance.random() >= settings.probability:
            return None
        if self._skipped < settings.skip:
            self._skipped += 1
            return None
        self._total += 1
        kind = chance.choice(kinds)
        counts = self.injected.setdefault(wanted.name, {})
        counts[kind] = counts.get(kind, 0) + 1
        return Fault(kind, chance)


def applicable(wanted: Operation, head: Head) -> List[str]:
    """The kinds of fault that could happen to a request, in the order of `KINDS`."""
    method, length = head.method(), head.length()
    has_body = head.chunked() or bool(length)
    reads = wanted.service == S3 and method in ("GET", "HEAD")
    conflicts = wanted.name in _TRANSACTIONS or wanted.name in _SINGLE_WRITES
    conditions: Dict[str, bool] = {
        ERROR: True,
        # Whether a read was executed makes no difference.
        ERROR_AFTER: not reads,
        ERROR_IN_200: wanted.service == S3 and wanted.name in _SLOW_ANSWERS,
        THROTTLE: True,
        CONFLICT: wanted.service == DYNAMODB and conflicts and bool(length),
        UNPROCESSED: wanted.service == DYNAMODB and wanted.name in _BATCHES and bool(length),
        RESET_BEFORE: True,
        RESET_AFTER: not reads,
        CUT_REQUEST: has_body,
        # The rest of S3's answers have no body that could be cut.
        CUT_ANSWER: wanted.service == DYNAMODB or method in ("GET", "POST") or wanted.name in _SLOW_ANSWERS,
        DELAY: True,
    }
    return [kind for kind in KINDS if conditions[kind]]


# The kinds that are answered without asking the service, and those of them that are made of the request's own body.
ANSWERS = (ERROR, ERROR_IN_200, THROTTLE, CONFLICT, UNPROCESSED)
NEED_BODY = (CONFLICT, UNPROCESSED)


class Answer(NamedTuple):
    """A status line's end, a media type and a body."""

    status: str
    media_type: str
    body: bytes


def answer(fault: Fault, wanted: Operation, body: bytes) -> Answer:
    """What the service answers to a request that meets a fault of `ANSWERS`, or `ERROR_AFTER`; `body` is the request's, where needed."""
    if wanted.service == S3:
        if fault.kind == THROTTLE:
            return _s3("503 Slow Down", "SlowDown", "Please reduce your request rate.")
        status = "200 OK" if fault.kind == ERROR_IN_200 else "500 Internal Server Error"
        return _s3(status, "InternalError", "We encountered an internal error. Please try again.")
    return _DYNAMODB[fault.kind](fault, wanted, body)


def _s3(status: str, code: str, message: str) -> Answer:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>FAULT</RequestId><HostId>fault</HostId></Error>"
    return Answer(status, "application/xml", f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode())


def _json(status: str, value: object) -> Answer:
    return Answer(status, "application/x-amz-json-1.0", json.dumps(value).encode())


def _internal(_fault: Fault, _wanted: Operation, _body: bytes) -> Answer:
    kind = "com.amazonaws.dynamodb.v20120810#InternalServerError"
    return _json("500 Internal Server Error", {"__type": kind, "message": "Internal server error"})


def _throttled(fault: Fault, _wanted: Operation, _body: bytes) -> Answer:
    kind, message = fault.random.choice(
        (
            ("com.amazon.coral.availability#ThrottlingException", "Throughput exceeds the current capacity of your table."),
            (
                "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
                "The level of configured provisioned throughput for the table was exceeded.",
            ),
        )
    )
    return _json("400 Bad Request", {"__type": kind, "message": message})


def _conflict(fault: Fault, wanted: Operation, body: bytes) -> Answer:
    if wanted.name not in _TRANSACTIONS:
        kind = "com.amazonaws.dynamodb.v20120810#TransactionConflictException"
        return _json("400 Bad Request", {"__type": kind, "message": "Transaction is ongoing for the item"})
    reasons: List[Dict[str, str]] = [{"Code": "None"} for _ in json.loads(body)["TransactItems"]]
    reasons[fault.random.randrange(len(reasons))] = {"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}
    codes = ", ".join(reason["Code"] for reason in reasons)
    message = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
    kind = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException"
    return _json("400 Bad Request", {"__type": kind, "Message": message, "CancellationReasons": reasons})


def _unprocessed(_fault: Fault, wanted: Operation, body: bytes) -> Answer:
    value = {_BATCHES[wanted.name]: json.loads(body)["RequestItems"]}
    return _json("200 OK", {**value, "Responses": {}} if wanted.name == "BatchGetItem" else value)


_DYNAMODB: Dict[str, Callable[[Fault, Operation, bytes], Answer]] = {
    ERROR: _internal,
    ERROR_AFTER: _internal,
    THROTTLE: _throttled,
    CONFLICT: _conflict,
    UNPROCESSED: _unprocessed,
}


def head_of(sent: Answer, wanted: Operation, closes: bool) -> bytes:
    """The head of an answer, with the fields by which SDKs recognize the service and check the body."""
    fields = [f"HTTP/1.1 {sent.status}", f"Content-Type: {sent.media_type}", f"Content-Length: {len(sent.body)}"]
    if wanted.service == DYNAMODB:
        fields += ["x-amzn-RequestId: FAULT", f"x-amz-crc32: {zlib.crc32(sent.body)}"]
    else:
        fields += ["x-amz-request-id: FAULT", "x-amz-id-2: fault"]
    if closes:
        fields.append("Connection: close")
    return "\r\n".join([*fields, "", ""]).encode()
