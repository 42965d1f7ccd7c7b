"""Checks of what commands take away and give back, at every server: accounts, groups, grants, keys, passwords and rules of the policy."""

from __future__ import annotations

import re
from typing import List, NamedTuple, Optional, Tuple

from recipes import PASSWORD  # noqa: I001 - it makes the modules of tests/clients known
from harness import Server
from harness.leaks import SEARCH
from operating import DENYING, EMPTY, EMPTY_DIGEST, REFUSED, SERVERS, Operator, ask, basic, may_push, token, within_ten_seconds

NEW_PASSWORD = "another pass word: buoy"


class Credential(NamedTuple):
    """A key from before something is taken away, and what may be done with it."""

    account: str
    user: str
    key: str
    repository: str
    # What takes it away, and what gives it back: commands, or None if a policy does it.
    loss: Optional[str]
    gain: Optional[str]

    def basic(self) -> str:
        return basic(self.user, self.key)


def taken_away(operator: Operator) -> None:
    """Tokens and uploads from before end too. `stays` loses nothing, and is not disturbed."""
    operator.run("policy", "set", operator.file)
    credentials = [
        Credential("gone", "gone", operator.user("gone"), "own/gone/a", "user disable gone", "user enable gone"),
        Credential(
            "left", "left", operator.user("left", "dev"), "dev/a",
            "user set left --remove-group dev", "user set left --add-group dev",
        ),
        Credential("lost", "key", operator.user("lost"), "own/lost/a", "key remove lost {id}", None),
        Credential("dead", "dead", operator.user("dead"), "own/dead/a", "user remove dead", None),
        Credential("forbidden", "forbidden", operator.user("forbidden"), "own/forbidden/a", None, None),
        Credential("shut", "shut", operator.robot("shut", "push:rob/shut"), "rob/shut", "robot disable shut", "robot enable shut"),
        Credential(
            "less", "key", operator.robot("less", "push:rob/less"), "rob/less",
            "robot set less --disallow push:rob/less", "robot set less --allow push:rob/less",
        ),
        Credential("away", "away", operator.robot("away", "push:rob/away"), "rob/away", "robot remove away", None),
        Credential(
            "outside", "outside", operator.robot("outside", groups=["dev"]), "dev/robots",
            "robot set outside --remove-group dev", "robot set outside --add-group dev",
        ),
    ]  # fmt: skip
    stays = Credential("stays", "stays", operator.user("stays", "dev"), "dev/a", None, None)
    # Users may push without a policy too, robots only where it says so.
    robot = credentials[-1]
    within_ten_seconds("the policy", operator.servers, lambda server: may_push(server, robot.repository, robot.basic()))
    before = {one.account: before_of(operator, number, one) for number, one in enumerate([*credentials, stays])}
    version = operator.json("policy", "show")[0]["version"]
    for one in credentials:
        if one.loss is not None:
            operator.run(*one.loss.format(id=one.key.split(".")[1][:8]).split(" "))
    operator.run("policy", "set", "-", "--if-version", str(version), input=DENYING)

    def all_refused(server: Server) -> bool:
        def allowed(one: Credential) -> List[bool]:
            return [may_push(server, one.repository, how) for how in (before[one.account][0], one.basic())]

        assert all(allowed(stays)), "stays is refused"
        return not any(any(allowed(one)) for one in credentials)

    within_ten_seconds("everything that was taken away is refused", operator.servers, all_refused)
    for number, one in enumerate([*credentials, stays]):
        bearer, upload = before[one.account]
        server = operator.servers[(number + 1) % SERVERS]
        statuses = [ask(server, "PUT", upload, how, EMPTY).status for how in (None, bearer)]
        assert all(status in REFUSED for status in statuses) if one is not stays else 201 in statuses, f"{one.account}: {statuses}"
        found = ask(server, "HEAD", f"/v2/{one.repository}/blobs/{EMPTY_DIGEST}", operator.root).status
        assert found == (200 if one is stays else 404), f"{one.account}: {found}"

    given = [one for one in credentials if one.gain is not None]
    for one in given:
        operator.run(*str(one.gain).split(" "))

    def all_given(server: Server) -> bool:
        return all(may_push(server, one.repository, one.basic()) for one in given)

    within_ten_seconds("everything that was given back is allowed", operator.servers, all_given)
    for number, one in enumerate(given):
        new = token(operator.servers[number % SERVERS], one.basic(), f"repository:{one.repository}:pull,push")
        for server in operator.servers:
            assert may_push(server, one.repository, f"Bearer {new}"), one.account
            # The old token stays withdrawn, except where only the account was disabled.
            assert not may_push(server, one.repository, before[one.account][0]), one.account


def before_of(operator: Operator, number: int, one: Credential) -> Tuple[str, str]:
    """A token and the path of an upload, of one server; all servers take the token."""
    server = operator.servers[number % SERVERS]
    bearer = f"Bearer {token(server, one.basic(), f'repository:{one.repository}:pull,push')}"
    for other in operator.servers:
        assert may_push(other, one.repository, bearer) and may_push(other, one.repository, one.basic()), one.account
    opened = ask(server, "POST", f"/v2/{one.repository}/blobs/uploads/", bearer)
    location = re.sub(r"^https?://[^/]+", "", opened.headers["location"])
    return bearer, f"{location}{'&' if '?' in location else '?'}digest={EMPTY_DIGEST}"


def replaced(operator: Operator) -> None:
    """A password and keys that others take the place of."""
    password(operator)
    keys(operator)


def password(operator: Operator) -> None:
    """Neither the password of before nor a token that was got with it is accepted any more."""
    SEARCH.knows(NEW_PASSWORD, "renewed")
    operator.backend.add_user("renewed", PASSWORD)
    repository, old, new = "own/renewed/a", basic("renewed", PASSWORD), basic("renewed", NEW_PASSWORD)
    within_ten_seconds("the user", operator.servers, lambda server: may_push(server, repository, old))
    bearer = token_for(operator.servers[0], old, repository)
    assert all(may_push(server, repository, bearer) for server in operator.servers)
    operator.run("user", "passwd", "renewed", "--password-stdin", input=f"{NEW_PASSWORD}\n")

    def follows(server: Server) -> bool:
        return [may_push(server, repository, how) for how in (old, bearer, new)] == [False, False, True]

    within_ten_seconds("the new password alone", operator.servers, follows)
    other = token_for(operator.servers[1], new, repository)
    assert all(may_push(server, repository, other) for server in operator.servers)


def keys(operator: Operator) -> None:
    """During an overlap both keys work; without one the old key and its tokens end at once."""
    repository = "rob/turned"
    first = operator.robot("turned", f"push:{repository}")
    within_ten_seconds("the robot", operator.servers, lambda server: may_push(server, repository, basic("key", first)))
    second = rotated(operator, first, "1h")
    within_ten_seconds("the second key", operator.servers, lambda server: may_push(server, repository, basic("key", second)))
    assert all(may_push(server, repository, basic("key", first)) for server in operator.servers), "the first key ended before the overlap"
    first_token, second_token = (token_for(operator.servers[0], basic("key", key), repository) for key in (first, second))
    third = rotated(operator, second, "0")

    def follows(server: Server) -> bool:
        used = [basic("key", second), second_token, basic("key", first), first_token, basic("key", third)]
        return [may_push(server, repository, how) for how in used] == [False, False, True, True, True]

    within_ten_seconds("the third key in place of the second one", operator.servers, follows)


def rotated(operator: Operator, key: str, overlap: str) -> str:
    """The key of the robot that takes the place of another one."""
    return operator.run("key", "rotate", "turned", id_of(key), "--expires", "30d", "--overlap", overlap).stdout.strip()


def id_of(key: str) -> str:
    return key.split(".")[1][:8]


def token_for(server: Server, authorization: str, repository: str) -> str:
    return f"Bearer {token(server, authorization, f'repository:{repository}:pull,push')}"
