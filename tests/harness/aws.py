"""A small client of S3 and DynamoDB for what tests look at behind the registry's back.

botocore signs the requests. Nothing else of it is used: it would retry, and it hides answers. Buckets are addressed by path, because
the servers are on loopback. One connection for each request and no retries: a test that meets a failure here is to see it.
"""

from __future__ import annotations

import functools
import http.client
import importlib
import json
import secrets
import string
import sys
import xml.etree.ElementTree as ElementTree
from types import ModuleType
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Set
from urllib.parse import quote, urlsplit

from .api import HarnessError
from .tools import ensure

_TIMEOUT = 60.0
_DYNAMODB_VERSION = "DynamoDB_20120810"


class Credentials(NamedTuple):
    """A key pair and the region that it signs for."""

    access_key: str
    secret_key: str
    region: str = "us-east-1"

    @staticmethod
    def random() -> "Credentials":
        """A pair that nobody has; of the lengths and alphabets that AWS uses."""
        letters = string.ascii_uppercase
        return Credentials("AKIA" + "".join(secrets.choice(letters) for _ in range(16)), secrets.token_hex(20))

    def environment(self) -> Dict[str, Optional[str]]:
        """Changes to an environment that give an AWS SDK this pair and nothing else: no profile, file or host may stand in for it."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


class AwsError(HarnessError):
    """An answer that is not a success. `status` is the HTTP status, `code` what the service calls it."""

    def __init__(self, what: str, status: int, code: str, text: str) -> None:
        super().__init__(f"{what} answered {status} {code}: {text[:1000]}")
        self.status = status
        self.code = code


class Object(NamedTuple):
    """One object of a listing. `etag` is without its quotes; `size` is in bytes."""

    key: str
    size: int
    etag: str


class Upload(NamedTuple):
    """One multipart upload that is neither complete nor aborted."""

    key: str
    upload_id: str


class _Answer(NamedTuple):
    status: int
    headers: Dict[str, str]
    body: bytes


class _Service:
    """What both services share: where they are, who asks, and the signature."""

    def __init__(self, endpoint: str, credentials: Credentials, service: str) -> None:
        self.endpoint = endpoint.rstrip("/")
        self.credentials = credentials
        self._service = service
        # As the client sends it in `Host`, which is signed.
        self._host = urlsplit(self.endpoint).netloc

    def _request(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes = b""
    ) -> _Answer:
        """Sends one signed request. `path` is not yet percent-encoded; its slashes stay."""
        target = quote(path, safe="/-_.~")
        parameters = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))
        signed = self._signed(method, target, parameters, headers, body)
        connection = http.client.HTTPConnection(self._host, timeout=_TIMEOUT)
        try:
            connection.request(method, target + (f"?{parameters}" if parameters else ""), body or None, signed)
            answer = connection.getresponse()
            return _Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        except (OSError, http.client.HTTPException) as error:
            raise HarnessError(f"{method} {self.endpoint}{target}: {error!r}") from error
        finally:
            connection.close()

    def _signed(self, method: str, target: str, parameters: str, headers: Mapping[str, str], body: bytes) -> Dict[str, str]:
        """The headers with which the request goes out."""
        botocore = _botocore()
        url = f"{self.endpoint}{target}" + (f"?{parameters}" if parameters else "")
        request = botocore.awsrequest.AWSRequest(method, url, headers=dict(headers), data=body)
        # The S3 signer leaves the path as it is and adds the hash of the body as a header, which S3 requires.
        signer = botocore.auth.S3SigV4Auth if self._service == "s3" else botocore.auth.SigV4Auth
        key, secret, region = self.credentials
        signer(botocore.credentials.Credentials(key, secret), self._service, region).add_auth(request)
        return dict(request.headers.items())


@functools.lru_cache(maxsize=None)
def _botocore() -> ModuleType:
    """The library that signs requests. It comes with ministack, whose environment is read here. Calls `skip` where that cannot be had."""
    packages = ensure("ministack").parent.glob("lib/python3*/site-packages")
    # At the end: what this Python brings itself stays first.
    sys.path.extend(str(folder) for folder in packages)
    for name in ("auth", "awsrequest", "credentials"):
        importlib.import_module(f"botocore.{name}")
    return sys.modules["botocore"]


class S3(_Service):
    """An S3 endpoint.

        for found in S3(cloud.versitygw.url, cloud.credentials).objects("bucket", "blobs/"):
            print(found.key, found.size)
    """

    def __init__(self, endpoint: str, credentials: Credentials) -> None:
        super().__init__(endpoint, credentials, "s3")

    def buckets(self) -> List[str]:
        """The names of all buckets."""
        return [name.text or "" for name in _xml(self._call("GET", "/")).iter("Name")]

    def create_bucket(self, bucket: str) -> None:
        self._call("PUT", f"/{bucket}")

    def objects(self, bucket: str, prefix: str = "", page: int = 1000) -> Iterator[Object]:
        """Every object whose key begins so, in the order of keys; asks for `page` of them at a time."""
        query = {"list-type": "2", "prefix": prefix, "max-keys": str(page)}
        while True:
            root = _xml(self._call("GET", f"/{bucket}", query))
            for found in root.iter("Contents"):
                etag = found.findtext("ETag", "").strip('"')
                yield Object(found.findtext("Key", ""), int(found.findtext("Size", "")), etag)
            if root.findtext("IsTruncated") != "true":
                return
            query["continuation-token"] = root.findtext("NextContinuationToken", "")

    def uploads(self, bucket: str, prefix: str = "", page: int = 1000) -> Iterator[Upload]:
        """Every open multipart upload whose key begins so, in no order."""
        query = {"uploads": "", "prefix": prefix, "max-uploads": str(page)}
        seen: Set[Upload] = set()
        while True:
            root = _xml(self._call("GET", f"/{bucket}", query))
            found = {Upload(one.findtext("Key", ""), one.findtext("UploadId", "")) for one in root.iter("Upload")}
            yield from found - seen
            if root.findtext("IsTruncated") != "true":
                return
            # By the key's marker alone, because versitygw refuses both; ministack then lists the marker's own uploads again.
            query["key-marker"] = root.findtext("NextKeyMarker", "")
            if found <= seen:
                raise HarnessError(f"more than {page} uploads of {query['key-marker']}, which cannot be listed page by page")
            seen |= found

    def head(self, bucket: str, key: str) -> Optional[Dict[str, str]]:
        """An object's headers, their names in lower case; None when there is none."""
        answer = self._request("HEAD", f"/{bucket}/{key}", {}, {})
        if answer.status == 404:
            return None
        return _good(answer, f"HEAD /{bucket}/{key}").headers

    def get(self, bucket: str, key: str) -> Optional[bytes]:
        """An object's bytes, whole in memory; None when there is none."""
        answer = self._request("GET", f"/{bucket}/{key}", {}, {})
        if answer.status == 404 and _code(answer) == "NoSuchKey":
            return None
        return _good(answer, f"GET /{bucket}/{key}").body

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self._call("PUT", f"/{bucket}/{key}", {}, body)

    def delete(self, bucket: str, key: str) -> None:
        self._call("DELETE", f"/{bucket}/{key}")

    def _call(self, method: str, path: str, query: Mapping[str, str] = {}, body: bytes = b"") -> _Answer:
        return _good(self._request(method, path, query, {}, body), f"{method} {path}")


class DynamoDb(_Service):
    """A DynamoDB endpoint. Items are as on the wire: `{"attribute": {"S": "text"}}`."""

    def __init__(self, endpoint: str, credentials: Credentials) -> None:
        super().__init__(endpoint, credentials, "dynamodb")

    def call(self, operation: str, request: Mapping[str, Any]) -> Dict[str, Any]:
        """Any operation by its name, for what has no method of its own here."""
        headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": f"{_DYNAMODB_VERSION}.{operation}"}
        answer = self._request("POST", "/", {}, headers, json.dumps(request).encode())
        return json.loads(_good(answer, operation).body)

    def tables(self) -> List[str]:
        """The names of all tables."""
        return list(self._pages("ListTables", {}, "TableNames", "LastEvaluatedTableName", "ExclusiveStartTableName"))

    def describe(self, table: str) -> Optional[Dict[str, Any]]:
        """What DescribeTable says about a table; None when there is none."""
        try:
            return self.call("DescribeTable", {"TableName": table})["Table"]
        except AwsError as error:
            if error.code == "ResourceNotFoundException":
                return None
            raise

    def scan(self, table: str) -> Iterator[Dict[str, Any]]:
        """Every item of a table, by consistent reads."""
        return self._pages("Scan", {"TableName": table, "ConsistentRead": True}, "Items", "LastEvaluatedKey", "ExclusiveStartKey")

    def _pages(self, operation: str, request: Mapping[str, Any], rows: str, last: str, start: str) -> Iterator[Any]:
        wanted = dict(request)
        while True:
            page = self.call(operation, wanted)
            yield from page[rows]
            if not page.get(last):
                return
            wanted[start] = page[last]


def _good(answer: _Answer, what: str) -> _Answer:
    if answer.status // 100 != 2:
        raise AwsError(what, answer.status, _code(answer), answer.body.decode(errors="replace"))
    return answer


def _code(answer: _Answer) -> str:
    """What the service calls an error: an element of S3's XML, a member of DynamoDB's JSON."""
    try:
        if answer.body.lstrip().startswith(b"{"):
            return str(json.loads(answer.body).get("__type", "")).rsplit("#", 1)[-1]
        return _xml(answer).findtext("Code", "")
    except (ValueError, ElementTree.ParseError):
        return ""


def _xml(answer: _Answer) -> ElementTree.Element:
    """The body without its namespace, which not every server gives."""
    root = ElementTree.fromstring(answer.body)
    for element in root.iter():
        element.tag = element.tag.rsplit("}", 1)[-1]
    return root
