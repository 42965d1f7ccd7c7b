"""The checks of docs/api.md: every command of the page, in the order of the page, on one registry.

Part of `samples`. The commands are run as they are written, with the address of the page replaced by that of a server (`recipes`).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Iterator, List

from recipes import PASSWORD, blocks, filled, shell, steps  # noqa: I001 - it makes the modules of tests/clients known
from access import ADDRESS, MANIFEST, SECONDS, POLICIES, Pusher, home
from harness import Result, Server, check, ensure, run, wait_until
from harness.build import roadstead
from harness.cache import ROOT
from verify import Registry

PAGE = ROOT / "docs" / "api.md"
# A policy under which the robot of the page may create what it asks for.
POLICY = POLICIES / "frozen-releases.toml"


def checks(folder: Path) -> Iterator[Result]:
    data = folder / "data"
    env = home(folder, ROADSTEAD_DATA=str(data))
    run([roadstead(), "user", "add", "alice", "--admin", "--password-stdin"], 60, env=env, input=f"{PASSWORD}\n")
    with Server(data=data) as server:
        page = Page(server, folder)
        yield check("docs/api.md: a key, and who asks", page.log_in)
        yield check("docs/api.md: a robot, its groups and its key", page.accounts)
        yield check("docs/api.md: the policy", page.policy)
        yield check("docs/api.md: repositories, tags, rollback and promotion", page.tags)
        yield check("docs/api.md: the audit trail, by pages", page.audit)
        yield check("docs/api.md: an error", page.error)
        yield check("docs/api.md: no other commands, and the operations that there are", page.nothing_else)
        yield check("the document of the API is valid OpenAPI 3.1", page.document)


class Page:
    """The commands of the page on one registry."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.env = home(folder, ROADSTEAD_DATA=str(server.data))
        self.asked: List[str] = []

    def _run(self, holding: str) -> List[str]:
        """The lines that a block of the page prints. The first block makes a key; the others know its file and its names."""
        block = steps(PAGE, holding)
        self.asked.append(block)
        begin = filled(steps(PAGE, "export API="), {ADDRESS: self.server.address})
        if len(self.asked) > 1:
            begin = "".join(line for line in begin.splitlines(keepends=True) if "key add" not in line)
        else:
            block = ""
        return shell(begin + block, self.folder, self.env).stdout.splitlines()

    def _is_private(self, *names: str) -> None:
        for name in names:
            assert (self.folder / name).stat().st_mode & 0o077 == 0, f"others may read {name}"

    def log_in(self) -> None:
        self._run("export API=")
        key = (self.folder / "alice.key").read_text().strip()
        self._is_private("alice.key", "alice.header")
        registry = Registry(self.server.address, "key", key)
        wait_until(lambda: registry.request("GET", "/api/v1/whoami").status == 200, 2 * SECONDS, "the new key works")
        principal, *paths = self._run("paths | keys")
        assert principal == "alice" and "/api/v1/tags/promote" in paths, (principal, paths)

    def accounts(self) -> None:
        self._run('"kind": "robot"')
        assert (self.folder / "ci.key").read_text().startswith("rsk_ci.")
        self._is_private("ci.key")
        assert self._run('"groups": ["deployers"]') == ['["deployers"]']
        (changed,) = self._run('"expires": "2099')
        assert json.loads(changed) == ["2099-12-31T00:00:00Z", [{"repositories": "payments/**", "actions": ["pull"]}]], changed

    def policy(self) -> None:
        (self.folder / "policy.toml").write_text(POLICY.read_text())
        checked, version, reason = self._run("$API/policy/check")
        assert json.loads(checked)["mistakes"] == [] and int(version) > 0, (checked, version)
        assert "robot:ci#1" in reason, reason

    def tags(self) -> None:
        alice = Pusher(self.server, "alice")
        for number in (1, 2):
            assert alice.push("staging/app", "latest", number) == 201
        created, listed, tag = self._run("$API/repositories?name=")
        assert (created, listed) == ("prod/app", "staging/app")
        assert re.fullmatch(r"latest sha256:[0-9a-f]{64} false", tag), tag
        assert self._run("$API/tags/rollback") == ["true"]
        assert self._run("$API/tags/promote") == ['["prod/app","1.0.0",true]']
        answer = alice.registry.request("GET", "/v2/prod/app/manifests/1.0.0", Accept=MANIFEST)
        assert json.loads(answer.body)["artifactType"] == "text/1", answer

    def audit(self) -> None:
        lines = self._run("$API/audit")
        for line in ("alice account.created ci", "alice tag.rolled-back latest", "alice tag.promoted 1.0.0"):
            assert line in lines, lines
        assert any(line.startswith("alice key.changed ci.") for line in lines), lines

    def error(self) -> None:
        assert self._run("nobody:wrong") == ["UNAUTHORIZED"]

    def nothing_else(self) -> str:
        left = [block for block in blocks(PAGE) if block not in self.asked]
        assert not left, f"not tested: {left}"
        document = json.loads(self._document())
        operations = {f"{method.upper()} {path[len('/api/v1/'):]}" for path, item in document["paths"].items() for method in item}
        named = set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) [a-z][a-z/-]*)`", PAGE.read_text()))
        assert named and named <= operations, f"no such operation: {sorted(named - operations)}"
        return f"{len(self.asked)} blocks"

    def document(self) -> None:
        """With a parameter in a place that does not exist, it is not."""
        whole = self._document()
        assert json.loads(whole)["openapi"].startswith("3.1."), whole[:100]
        damaged = re.sub(rb'"in": ?"query"', b'"in":"body"', whole, count=1)
        for body, is_valid in ((whole, True), (damaged, False)):
            file = self.folder / "openapi.json"
            file.write_bytes(body)
            done = run([ensure("openapi-spec-validator"), file], 60, ok=None)
            assert (done.returncode == 0) == is_valid, done

    def _document(self) -> bytes:
        return Registry(self.server.address).request("GET", "/api/v1/openapi.json").body
