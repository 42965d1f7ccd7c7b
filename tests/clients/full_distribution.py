"""Tokens for another registry: distribution accepts those of the registry under test, whose keys it has as a file (`jwks`).

So the tokens and the key set are what distribution's specification says, as its own program reads them.
"""

from __future__ import annotations

import json
from typing import Iterator

from common import UNAUTHORIZED, Setting, client, refused, settled, tool
from harness import Child, HarnessError, Result, free_port
from harness.process import Finished
from verify import Registry, compare_layouts, root_digest

CONFIG = """\
version: 0.1
storage:
  filesystem: {{rootdirectory: {folder}/data}}
http: {{addr: "{address}"}}
auth:
  token:
    realm: http://{ours}/token
    service: roadstead
    issuer: roadstead
    jwks: {folder}/jwks.json
"""


def login(setting: Setting) -> Iterator[Result]:
    checks = Distribution(setting)
    # distribution v3 otherwise waits for a collector of traces that is not there. It takes REGISTRY_AUTH_FILE of a client for its own.
    env = {"OTEL_TRACES_EXPORTER": "none"}
    with Child([tool("distribution"), "serve", checks.config], setting.work / "distribution.log", env=env) as child:
        settled(lambda: not child.alive() or checks.answers(), 20, "distribution")
        if not child.alive():
            raise HarnessError(f"distribution ended with {child.returncode}\n{child.log_tail()}")
        yield setting.check("distribution: push without a token of ours is refused", checks.refused_push)
        yield setting.check("distribution: push and pull with tokens of ours", checks.push_and_pull)
        yield setting.check("distribution: a token without a login is for public images alone", checks.public)
        yield setting.check("distribution: a token that was changed is refused", checks.changed)


class Distribution:
    """A distribution server of which `setting.registry` grants the tokens."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.env, self.registry = setting, setting.home("crane"), setting.registry
        self.address = f"127.0.0.1:{free_port()}"
        self.other = Registry(self.address)
        folder = setting.folder("distribution")
        # The first token is signed by the first key.
        self.token("repository:any:pull")
        keys = self.registry.request("GET", "/.well-known/jwks.json")
        assert keys.status == 200 and json.loads(keys.body)["keys"], keys
        (folder / "jwks.json").write_bytes(keys.body)
        self.config = folder / "config.yml"
        # crane sends no password to a loopback address on behalf of another one, but to a name.
        ours = f"localhost:{setting.address.rsplit(':', 1)[1]}"
        self.config.write_text(CONFIG.format(folder=folder, address=self.address, ours=ours))

    def token(self, scope: str) -> str:
        answer = self.registry.request("GET", f"/token?service=roadstead&scope={scope}")
        assert answer.status == 200, f"{answer.status} {answer.body[:300]!r}"
        return json.loads(answer.body)["token"]

    def answers(self) -> bool:
        try:
            return self.other.request("GET", "/v2/").status == 401
        except OSError:
            return False

    def crane(self, *words: object) -> Finished:
        return client([tool("crane"), "--insecure", *words], self.env)

    def push(self, name: str) -> None:
        self.crane("push", self.setting.images.app, f"{self.address}/{name}:1")

    def refused_push(self) -> None:
        words = [tool("crane"), "--insecure", "push", self.setting.images.app, f"{self.address}/private/app:1"]
        refused(words, self.env, *UNAUTHORIZED)

    def push_and_pull(self) -> None:
        self.crane("auth", "login", self.address, "-u", self.registry.user, "-p", self.registry.password)
        for name in ("private/app", f"{self.registry.public}app"):
            self.push(name)
            back = self.setting.folder("back") / name
            self.crane("pull", "--format", "oci", f"{self.address}/{name}:1", back)
            compare_layouts(self.setting.images.app, str(back))

    def public(self) -> None:
        self.crane("auth", "logout", self.address)
        digest = self.crane("digest", f"{self.address}/{self.registry.public}app:1").stdout.strip()
        assert digest == root_digest(self.setting.images.app), digest
        refused([tool("crane"), "--insecure", "digest", f"{self.address}/private/app:1"], self.env, *UNAUTHORIZED)

    def changed(self) -> None:
        """Whether a bit of the signature is another one, or a bit of the claims, which the signature covers."""
        token = self.token("repository:private/app:pull")
        path = "/v2/private/app/tags/list"
        status = self.other.request("GET", path, Authorization=f"Bearer {token}").status
        assert status == 200, status
        header, claims, signature = token.split(".")
        for changed in (f"{header}.{claims}.{flipped(signature)}", f"{header}.{flipped(claims)}.{signature}"):
            status = self.other.request("GET", path, Authorization=f"Bearer {changed}").status
            assert status == 401, status


def flipped(text: str) -> str:
    """The same base64url with another character in its middle."""
    middle = len(text) // 2
    return text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]
