"""Checks of commands that replace what all servers work with, while clients send requests: signing keys and the policy."""

from __future__ import annotations

import base64
import json
import threading
import time
from functools import partial
from typing import Callable, List, Sequence, Set

from harness import Server, at_once, wait_until
from operating import POLICY, SECONDS, SERVERS, Operator, ask, basic, key_id_of, push, token, within_ten_seconds

# How often a client asks after its server has followed a policy.
ASKED_AGAIN = 20


def signing_keys(operator: Operator) -> str:
    """Replaced twenty times, each key published for ten seconds instead of thirty, while clients get tokens and use them at every
    server. A stranger's token makes one server or another read the keys before its time. The next key is made while the ones before
    it are still published, so that they begin one soon after the other."""
    load = TokenLoad(operator.servers, basic("key", operator.robot("signed", "pull,push:signed/**")), "signed/a")
    older = [load.token(server) for server in operator.servers]
    assert all(load.accepts(server, one) for server in operator.servers for one in older)
    operator.run("signing-key", "rotate", "--now")
    operator.run("signing-key", "rotate", "--now")
    within_ten_seconds("a key signs", operator.servers, load.knows(operator.json("signing-key", "list")[0]["kid"]))

    def refuses(server: Server) -> bool:
        return not any(load.accepts(server, one) for one in older)

    within_ten_seconds("the tokens of older keys are refused", operator.servers, refuses)
    with load:
        for number in range(20):
            kid = operator.json("signing-key", "rotate", "--publish-ahead", "10s")[0]["kid"]
            ask(operator.servers[number % SERVERS], "GET", "/v2/", f"Bearer {stranger()}")
            time.sleep(0.4)
        wait_until(lambda: kid in load.kids, 30, "the last key signs")
    assert not load.refused, f"{len(load.refused)} of {load.asked} requests were refused: {load.refused[:3]}"
    assert len(load.kids) >= 10, f"only {len(load.kids)} keys have signed"
    listed = operator.json("signing-key", "list")
    assert len(listed) == 21 and [key["kid"] for key in listed if key["condition"] == "signing"] == [kid], listed
    return f"{load.asked} requests with tokens of {len(load.kids)} keys"


def policies(operator: Operator) -> str:
    """Each of two policies takes the place of the other one, while clients ask every server what only one of them allows."""
    repositories = ("load/one", "load/two")
    for repository in repositories:
        push(operator.servers[0], repository, "1", "load", operator.root)
    client = basic("key", operator.robot("loader"))
    asked: List[int] = []
    in_force(operator, repositories[0])

    def follows(server: Server) -> bool:
        return pulls(server, client, repositories) == [200, 403]

    within_ten_seconds("the first policy", operator.servers, follows)
    for old, new in (repositories, repositories[::-1]):
        changed: List[float] = []

        def change(new: str = new, changed: List[float] = changed) -> None:
            try:
                in_force(operator, new)
            finally:
                changed.append(time.monotonic())

        followers = [partial(follow, server, client, (old, new), changed, asked) for server in operator.servers]
        at_once(change, *followers, at_most=1 + SERVERS)
    return f"{sum(asked)} requests"


def in_force(operator: Operator, repository: str) -> None:
    """Sets a policy that lets the robot pull one of the repositories."""
    rule = f'[[allow]]\nname = "load"\nwho = ["robot:loader"]\nrepositories = ["{repository}"]\nactions = ["pull"]\n'
    operator.run("policy", "set", "-", input=f"{POLICY}\n{rule}")


def pulls(server: Server, client: str, repositories: Sequence[str]) -> List[int]:
    return [ask(server, "GET", f"/v2/{repository}/manifests/1", client).status for repository in repositories]


def follow(server: Server, client: str, repositories: Sequence[str], changed: List[float], asked: List[int]) -> None:
    """Asks a server until it has followed the new policy, and some more. The old one allows the first repository, and the new one the
    second."""
    since_then = 0
    while since_then < ASKED_AGAIN:
        begun = time.monotonic()
        statuses = pulls(server, client, repositories)
        asked.append(len(statuses))
        time.sleep(0.02)
        if statuses == [403, 200]:
            since_then += 1
            continue
        # The second request may be the first one that the new policy decides.
        assert statuses in ([200, 403], [200, 200]), statuses
        assert since_then == 0, "the policy from before is back"
        assert not changed or begun < changed[0] + SECONDS, f"a request that began {SECONDS} s later met the policy from before"


def stranger() -> str:
    """A token of a key that nobody has."""
    parts = ({"alg": "EdDSA", "kid": "AAAAAAAAAAAAAAAA", "typ": "JWT"}, {})
    head, claims = (base64.urlsafe_b64encode(json.dumps(part, separators=(",", ":")).encode()).decode().rstrip("=") for part in parts)
    return f"{head}.{claims}.{'A' * 86}"


class TokenLoad:
    """Clients that get tokens of every server, and use each at every server; a context manager."""

    def __init__(self, servers: List[Server], authorization: str, repository: str) -> None:
        self.servers, self.authorization, self.repository = servers, authorization, repository
        self.asked = 0
        self.kids: Set[str] = set()
        self.refused: List[object] = []
        self._tokens: List[str] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._go_on, args=(server,)) for server in servers]

    def knows(self, kid: str) -> Callable[[Server], bool]:
        return lambda server: key_id_of(self.token(server)) == kid

    def token(self, server: Server) -> str:
        return token(server, self.authorization, f"repository:{self.repository}:pull,push")

    def accepts(self, server: Server, one: str) -> bool:
        """Whether a server accepts a token. There is no such repository, and only who may pull it learns that."""
        status = ask(server, "GET", f"/v2/{self.repository}/tags/list", f"Bearer {one}").status
        assert status in (401, 404), status
        return status == 404

    def _go_on(self, server: Server) -> None:
        while not self._ended.is_set():
            try:
                new = self.token(server)
                self.kids.add(key_id_of(new))
                self._tokens.append(new)
                # The newest one, and one of long ago.
                for one in (new, self._tokens[len(self._tokens) // 2]):
                    for other in self.servers:
                        self.asked += 1
                        if not self.accepts(other, one):
                            self.refused.append((key_id_of(one), other.address))
            except Exception as error:  # the thread must not end unseen
                self.refused.append(error)
            time.sleep(0.05)

    def __enter__(self) -> "TokenLoad":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
