"""The registry under test and the layouts that clients write, read without any client's library.

Nothing here trusts a client's own word for what it pushed or pulled: `Registry.verify` reads every manifest and blob
again over raw HTTP and hashes it, and `compare_layouts` hashes what a client wrote to disk.
"""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import os
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

from layout import INDEX, MANIFEST, sha256

MANIFEST_TYPES = (
    INDEX,
    MANIFEST,
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
# The time limit of one read from a socket, in seconds.
TIMEOUT = 60


class Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Registry:
    """The registry under test, read without any client's library.

    `address` is host:port, plain http. `log` returns the end of the server's log, for the text of a failure. `public` is how the names of
    those repositories begin from which everyone may pull; it is empty if there are none.

    Requests are sent with the password without being asked for it, as curl and many scripts do it.
    """

    def __init__(
        self,
        address: str,
        user: Optional[str] = None,
        password: Optional[str] = None,
        log: Callable[[], str] = lambda: "",
        public: str = "",
    ) -> None:
        self.address, self.user, self.password, self.log, self.public = address, user, password, log, public

    def connect(self) -> http.client.HTTPConnection:
        """A new connection."""
        return http.client.HTTPConnection(self.address, timeout=TIMEOUT)

    def request(self, method: str, path: str, body: Optional[bytes] = None, **headers: str) -> Response:
        """One request on a connection of its own; underscores in header names stand for dashes. A redirect of a blob is followed."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.user is not None and "Authorization" not in sent:
            sent["Authorization"] = "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        connection = self.connect()
        try:
            connection.request(method, path, body=body, headers=sent)
            answer = connection.getresponse()
            found = Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()
        if method != "GET" or found.status != 307:
            return found
        digest_header = found.headers.get("docker-content-digest")
        assert digest_header == path.rsplit("/", 1)[-1], f"the redirect of {path} tells the digest {digest_header}"
        # The URL is an authority of its own: a client's credentials for the registry are nothing to the object store.
        return _elsewhere(found.headers["location"])

    def manifest(self, repository: str, reference: str) -> Tuple[str, str, bytes]:
        """The manifest as (digest, media type, bytes); the digest is computed here and must be the one the server tells."""
        answer = self.request("GET", f"/v2/{repository}/manifests/{reference}", Accept=", ".join(MANIFEST_TYPES))
        assert answer.status == 200, f"GET manifest {repository}:{reference} is {answer.status}: {answer.body[:300]!r}"
        digest = sha256(answer.body)
        digest_header = answer.headers.get("docker-content-digest")
        assert digest_header == digest, f"{repository}:{reference} hashes to {digest}, Docker-Content-Digest says {digest_header}"
        assert not reference.startswith("sha256:") or reference == digest, f"asked for {reference}, got {digest}"
        return digest, answer.headers.get("content-type", ""), answer.body

    def blob(self, repository: str, descriptor: Mapping[str, object], unpacked: Optional[str] = None) -> bytes:
        """Reads a blob and returns it; asserts its digest and size, and the digest of what it unpacks to when that is given."""
        digest = str(descriptor["digest"])
        answer = self.request("GET", f"/v2/{repository}/blobs/{digest}")
        assert answer.status == 200, f"GET blob {digest} of {repository} is {answer.status}: {answer.body[:300]!r}"
        assert len(answer.body) == descriptor["size"], f"{digest}: {len(answer.body)} bytes, not {descriptor['size']}"
        assert sha256(answer.body) == digest, f"{digest}: the bytes do not hash to it"
        packed = str(descriptor["mediaType"]).rsplit(".", 1)[-1]
        if unpacked and packed in ("gzip", "tar+gzip"):
            assert sha256(gzip.decompress(answer.body)) == unpacked, f"{digest} does not unpack to {unpacked}"
        elif unpacked and packed == "tar":
            assert digest == unpacked, f"{digest} is a layer without compression, but its content is {unpacked}"
        return answer.body

    def verify(self, repository: str, reference: str, expect: Optional[str] = None) -> Dict[str, int]:
        """Reads a manifest and all that it reaches, hashes all of it, and returns digest → size.

        `expect` is the digest that the reference must have. Layers are also unpacked and compared with the `diff_ids`
        of the image's configuration, so that a client which repacks layers is judged by their content.
        """
        digest, media_type, data = self.manifest(repository, reference)
        assert expect in (None, digest), f"{repository}:{reference} is {digest}, not {expect} as pushed"
        document = json.loads(data)
        assert media_type == document.get("mediaType", media_type), f"sent as {media_type}, says {document['mediaType']}"
        found = {digest: len(data)}
        for child in document.get("manifests", []):
            found.update(self.verify(repository, child["digest"]))
        if "config" in document:
            config = self.blob(repository, document["config"])
            found[document["config"]["digest"]] = len(config)
            unpacked: List[Optional[str]] = [None] * len(document["layers"])
            if "image" in document["config"]["mediaType"]:
                unpacked = json.loads(config)["rootfs"]["diff_ids"]
                assert len(unpacked) == len(document["layers"]), f"{len(unpacked)} diff_ids for {document['layers']}"
            for layer, content in zip(document["layers"], unpacked):
                self.blob(repository, layer, content)
                found[layer["digest"]] = layer["size"]
        return found

    def configuration(self, repository: str, reference: str) -> dict:
        """The configuration of an image, parsed."""
        document = json.loads(self.manifest(repository, reference)[2])
        return json.loads(self.blob(repository, document["config"]))

    def compressions(self, repository: str, reference: str) -> List[str]:
        """How each layer of an image is packed, by the end of its media type: `tar`, `tar+gzip`, `tar+zstd`."""
        layers = json.loads(self.manifest(repository, reference)[2])["layers"]
        return [layer["mediaType"].rsplit(".", 1)[-1] for layer in layers]

    def repositories(self) -> List[str]:
        answer = self.request("GET", "/v2/_catalog?n=1000")
        assert answer.status == 200, f"the catalog: {answer.status} {answer.body[:300]!r}"
        return json.loads(answer.body)["repositories"]

    def tags(self, repository: str) -> List[str]:
        answer = self.request("GET", f"/v2/{repository}/tags/list")
        assert answer.status == 200, f"tags of {repository}: {answer.status} {answer.body[:300]!r}"
        return json.loads(answer.body)["tags"] or []


def _elsewhere(url: str) -> Response:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        answer = connection.getresponse()
        return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def contents(layout: str) -> List[str]:
    """The digests of what a layout's one image unpacks to, layer by layer (its `diff_ids`)."""

    def read(digest: str) -> dict:
        with open(os.path.join(layout, "blobs", *digest.split(":")), "rb") as blob:
            return json.load(blob)

    return read(read(root_digest(layout))["config"]["digest"])["rootfs"]["diff_ids"]


def root_digest(layout: str, name: str = "1") -> str:
    """The digest that a layout's index.json names `name`; the only one there when none is named."""
    with open(os.path.join(layout, "index.json"), "rb") as index:
        roots = json.load(index)["manifests"]
    named = [r for r in roots if r.get("annotations", {}).get("org.opencontainers.image.ref.name") == name]
    assert named or len(roots) == 1, f"{layout} names none of its {len(roots)} manifests {name}"
    return (named or roots)[0]["digest"]


def reachable(layout: str, digest: str) -> Dict[str, int]:
    """Everything that a manifest in a layout reaches, as digest → size; each blob is hashed."""
    with open(os.path.join(layout, "blobs", *digest.split(":")), "rb") as blob:
        data = blob.read()
    assert sha256(data) == digest, f"{layout}: {digest} does not hash to its name"
    found = {digest: len(data)}
    try:
        document = json.loads(data) if len(data) < 1 << 20 else None
    except ValueError:
        document = None
    if isinstance(document, dict) and "schemaVersion" in document:
        config = [document["config"]] if "config" in document else []
        for child in document.get("manifests", []) + document.get("layers", []) + config:
            found.update(reachable(layout, child["digest"]))
    return found


def compare_layouts(source: str, pulled: str, name: str = "1") -> None:
    """Asserts that `pulled` holds, byte for byte, the image that `source` calls `name`."""
    expected = reachable(source, root_digest(source, name))
    found = reachable(str(pulled), root_digest(str(pulled), name))
    assert found == expected, f"pulled {sorted(found)}, pushed {sorted(expected)}"
