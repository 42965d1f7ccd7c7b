"""What a request to S3 or DynamoDB is called, by its head alone.

Buckets are addressed by path, as everything on loopback is.
"""

from __future__ import annotations

from typing import Dict, NamedTuple
from urllib.parse import parse_qs, urlsplit

from .http1 import Head

S3 = "s3"
DYNAMODB = "dynamodb"


class Operation(NamedTuple):
    """A service and the name that its API gives the request; `path` is the target without its query, which may hold a signature."""

    service: str
    name: str
    path: str


def operation(head: Head) -> Operation:
    """Names a request; one that S3 has no name for here is called by its method, `PATCH /`."""
    target = urlsplit(head.target())
    wanted = head.text(b"x-amz-target")
    if wanted:
        return Operation(DYNAMODB, wanted.rsplit(".", 1)[-1], target.path)
    query = {name: values[0] for name, values in parse_qs(target.query, keep_blank_values=True).items()}
    bucket, _, key = target.path.lstrip("/").partition("/")
    if key:
        name = _of_object(head, query)
    elif bucket:
        name = _of_bucket(head, query)
    else:
        name = "ListBuckets" if head.method() == "GET" else ""
    return Operation(S3, name or f"{head.method()} /{'…' if bucket else ''}", target.path)


def _of_object(head: Head, query: Dict[str, str]) -> str:
    method = head.method()
    copied = bool(head.values(b"x-amz-copy-source"))
    if method == "GET":
        return "ListParts" if "uploadId" in query else "GetObject"
    if method == "HEAD":
        return "HeadObject"
    if method == "PUT" and "uploadId" in query:
        return "UploadPartCopy" if copied else "UploadPart"
    if method == "PUT":
        return "CopyObject" if copied else "PutObject"
    if method == "DELETE":
        return "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
    if method == "POST" and "uploads" in query:
        return "CreateMultipartUpload"
    if method == "POST" and "uploadId" in query:
        return "CompleteMultipartUpload"
    return ""


def _of_bucket(head: Head, query: Dict[str, str]) -> str:
    method = head.method()
    if method == "GET":
        if "uploads" in query:
            return "ListMultipartUploads"
        if "location" in query:
            return "GetBucketLocation"
        return "ListObjectsV2" if query.get("list-type") == "2" else "ListObjects"
    if method == "POST" and "delete" in query:
        return "DeleteObjects"
    return {"HEAD": "HeadBucket", "PUT": "CreateBucket", "DELETE": "DeleteBucket"}.get(method, "")
