"""Helps the checks of the operator's commands: the commands themselves, and the requests by which they see what these have changed."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Union

import recipes  # noqa: F401, I001 - it makes the modules of tests/clients known
from harness import Server
from harness.backend import Backend
from harness.process import Finished
from verify import Registry, Response

# By then every server knows a change of accounts and policy.
SECONDS = 10
# How many servers run on the same stores.
SERVERS = 3
EMPTY = b"{}"
EMPTY_DIGEST = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
# A refusal: no login, or no permission.
REFUSED = (401, 403)

POLICY = """\
syntax = 1

[[allow]]
name = "developers"
who = ["group:dev"]
repositories = ["dev/**"]
actions = ["pull", "push"]

[[allow]]
name = "own"
who = ["users"]
repositories = ["own/{name}/**"]
actions = ["pull", "push", "delete"]

[[immutable]]
name = "releases"
repositories = ["dev/**"]
tags = ["semver"]
"""
DENYING = f"""\
{POLICY}
[[deny]]
name = "closed"
who = ["anyone"]
repositories = ["own/forbidden/**"]
actions = ["push"]
"""


def within_ten_seconds(what: str, servers: Sequence[Server], done: Callable[[Server], bool]) -> None:
    """Waits until something holds at each server. A request that begins ten seconds after a change is answered by the change, however
    slow the machine is."""
    ended = time.monotonic() + SECONDS
    for server in servers:
        is_last = False
        while not done(server):
            assert not is_last, f"{what}: not at {server.address} after {SECONDS} s"
            time.sleep(0.2)
            is_last = time.monotonic() >= ended


def ask(
    server: Server, method: str, path: str, authorization: Optional[str] = None, body: Optional[bytes] = None, **headers: str
) -> Response:
    if authorization is not None:
        headers["Authorization"] = authorization
    return Registry(server.address).request(method, path, body, **headers)


def basic(user: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


def token(server: Server, authorization: str, *scopes: str) -> str:
    """An access token."""
    query = "".join(f"&scope={scope}" for scope in scopes)
    answer = ask(server, "GET", f"/token?service=roadstead{query}", authorization)
    assert answer.status == 200, answer
    return json.loads(answer.body)["token"]


def key_id_of(jws: str) -> str:
    """The id of the key that has signed a token."""
    head = jws.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"]


def may_push(server: Server, repository: str, authorization: str) -> bool:
    answer = ask(server, "POST", f"/v2/{repository}/blobs/uploads/", authorization)
    assert answer.status == 202 or answer.status in REFUSED, answer
    return answer.status == 202


def push(server: Server, repository: str, tag: str, note: str, authorization: Optional[str] = None) -> str:
    """Pushes a small manifest, and returns its digest."""
    answer = ask(server, "POST", f"/v2/{repository}/blobs/uploads/?digest={EMPTY_DIGEST}", authorization, EMPTY)
    assert answer.status == 201, answer
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY_DIGEST, "size": len(EMPTY)}
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": f"text/{note}", "config": config, "layers": []}
    body = json.dumps(document).encode()
    answer = ask(server, "PUT", f"/v2/{repository}/manifests/{tag}", authorization, body, Content_Type=MANIFEST)
    assert answer.status == 201, answer
    return answer.headers["docker-content-digest"]


class Operator:
    """The commands on one pair of stores, beside servers that share them."""

    def __init__(self, folder: Path, backend: Backend, servers: List[Server]) -> None:
        self.folder, self.backend, self.servers = folder, backend, servers
        self.file = folder / "policy.toml"
        self.file.write_text(POLICY)
        self.root = ""

    def run(self, *words: Union[str, Path], ok: Optional[Sequence[int]] = (0,), input: Optional[str] = None) -> Finished:
        return self.backend.operate(*words, ok=ok, input=input)

    def json(self, *words: Union[str, Path], input: Optional[str] = None) -> List[dict]:
        return [json.loads(line) for line in self.run(*words, "--json", input=input).stdout.splitlines()]

    def robot(self, name: str, *allow: str, groups: Sequence[str] = ()) -> str:
        """Adds a robot, and returns its key."""
        flags = [word for grant in allow for word in ("--allow", grant)] + [word for group in groups for word in ("--group", group)]
        return self.run("robot", "add", name, *flags, "--expires", "1d").stdout.strip()

    def user(self, name: str, *groups: str) -> str:
        """Adds a user with a key, and returns the key."""
        flags = [word for group in groups for word in ("--group", group)]
        self.run("user", "add", name, "--no-password", *flags)
        return self.run("key", "add", name, "--expires", "1d").stdout.strip()
