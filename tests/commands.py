"""The checks of the operator's commands for accounts, keys, the policy and signing keys.

Part of `samples`. Each command runs beside three servers, on SQLite and on DynamoDB, and what it changes is asked of all three. The pages
and samples that show the commands have checks of their own (`access`).
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import os
import pty
import re
import select
import subprocess
import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

from recipes import PASSWORD, TIMEOUT  # noqa: I001 - it makes the modules of tests/clients known
from harness import Cloud, Result, Server, at_once, check, wait_until
from harness.backend import Backend
from harness.build import roadstead
from harness.process import Finished, environment, spell
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
NOTHING_CHANGED = "nothing was changed"

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


# --- the commands ---


class Step(NamedTuple):
    """A command that succeeds. As text it prints `text`, to standard output or standard error; with --json it
    prints objects, of which the first one has `members`."""

    words: str
    text: str
    members: Dict[str, object]
    input: str = ""


KEY = r"rsk_{0}\.[0-9A-Za-z]{{{{57}}}}"

# Run twice: as text with one pair of names, and with --json with another one. `{u}` is a user, `{r}` a robot, `{id}` a key of the robot.
STEPS = (
    Step("user add {u} --group dev,ops --no-password", "^added the user {u}, groups: dev,ops$", {"name": "{u}", "has_password": False}),
    Step("user list", "^{u}$", {"kind": "user"}),
    Step("user show {u}", "^groups\tdev,ops$", {"name": "{u}", "groups": ["dev", "ops"], "by": ":operator"}),
    Step("user set {u} --add-group more --remove-group ops", "^changed the user {u}, groups: dev,more$", {"groups": ["dev", "more"]}),
    Step("user passwd {u} --password-stdin", "^set the password of the user {u}", {"has_password": True}, f"{PASSWORD}\n"),
    Step("user disable {u}", "^disabled the user {u}", {"disabled": True}),
    Step("user disable {u}", "^unchanged: ", {"disabled": True}),
    Step("user enable {u}", "^enabled the user {u}", {"disabled": False}),
    Step("robot add {r} --allow pull,create:rob/** --group bots --expires 90d", f"^{KEY.format('{r}')}$", {"name": "{r}", "kind": "robot"}),
    Step("robot list", "^{r}$", {"kind": "robot"}),
    Step("robot show {r}", "^grants\tpull,create:rob/\\*\\*$", {"grants": [{"repositories": "rob/**", "actions": ["pull", "create"]}]}),
    Step("robot set {r} --allow delete:rob/** --add-group dev", "^changed the robot {r}, groups: bots,dev, ", {"groups": ["bots", "dev"]}),
    Step("robot set {r} --disallow delete:rob/**", "grants: pull,create:rob/\\*\\*$", {"groups": ["bots", "dev"]}),
    Step("robot disable {r}", "^disabled the robot {r}", {"disabled": True}),
    Step("robot enable {r}", "^enabled the robot {r}", {"disabled": False}),
    Step("key add {u} --expires never --scope pull:**", f"^{KEY.format('{u}')}$", {"account": "{u}", "expires": "never"}),
    Step("key list {r}", "^{id}\t.*\t-\teverything$", {"id": "{id}", "last_used": None, "scope": None}),
    Step("key rotate {r} {id} --expires 30d --overlap 1h", "^the old key {id} ends at ", {"account": "{r}", "old_id": "{id}"}),
    Step("key remove {r} {id}", "^removed the key {id} of {r}$", {"id": "{id}"}),
    Step("group list", "^bots\t.*{r}", {"group": "admins", "members": ["root"]}),
    Step("signing-key rotate", "^the key \\S+ signs from ", {"condition": "published"}),
    Step("signing-key list", "^\\S{{16}}\tpublished\t", {}),
    Step("policy check {file}", "^3 rules in .*, no mistakes$", {}),
    Step("policy set {file} --note {u}", "^set version \\d+ of the policy", {"note": "{u}", "principal": ":operator"}),
    Step("policy show", '^name = "developers"$', {"note": "{u}", "form": "toml", "source": POLICY}),
    Step("policy versions", "\t:operator\t{u}$", {"note": "{u}"}),
    Step("policy explain {u} push dev/app:1.4.0", '^allowed: the rule "developers"', {"decision": "allowed", "rule": "developers"}),
    Step("policy explain anonymous pull dev/app", "^denied: no rule", {"decision": "denied", "rule": None}),
    Step("repo create new/{u}", "^new/{u}\tcreated$", {"created": True, "repository": "new/{u}"}),
    Step("repo create new/{u}", "^new/{u}\texists$", {"created": False}),
    Step("tag rollback app/{u} v {first}", "", {"tag": "v"}),
    Step("tag promote app/{u}:v new/{u}:1", "", {"digest": "{first}"}),
    Step("audit --event account.created --since 1h", "\taccount.created\t:operator\t.*\t{u}\t", {"event": "account.created"}),
    Step("audit --repository new/{u} --principal :operator", "\ttag.promoted\t", {"repository": "new/{u}", "event": "repository.created"}),
    Step("robot remove {r}", "^removed the robot {r} with 1 key$", {"name": "{r}"}),
    Step("user remove {u}", "^removed the user {u} with 1 key$", {"name": "{u}"}),
)


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


class Commands:
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

    def robot(self, name: str, *allow: str) -> str:
        """Adds a robot, and returns its key."""
        flags = [word for grant in allow for word in ("--allow", grant)]
        return self.run("robot", "add", name, *flags, "--expires", "1d").stdout.strip()

    def user(self, name: str, *groups: str) -> str:
        """Adds a user with a key, and returns the key."""
        flags = [word for group in groups for word in ("--group", group)]
        self.run("user", "add", name, "--no-password", *flags)
        return self.run("key", "add", name, "--expires", "1d").stdout.strip()

    # --- checks, in their order ---

    def first_account(self) -> None:
        """No client needs a login before."""
        for server in self.servers:
            assert ask(server, "GET", "/v2/").status == 200 and ask(server, "GET", "/v2/_catalog").status == 200
        self.digests = {user: [push(self.servers[0], f"app/{user}", "v", f"{number}") for number in range(2)] for user in ("text", "json")}
        self.run("user", "add", "root", "--admin", "--no-password")
        within_ten_seconds("closed", self.servers, lambda server: ask(server, "GET", "/v2/_catalog").status == 401)
        self.root = basic("root", self.run("key", "add", "root", "--expires", "1d").stdout.strip())
        for server in self.servers:
            assert ask(server, "POST", "/v2/app/text/blobs/uploads/").status == 401
            assert ask(server, "GET", "/v2/").status == 401
            assert ask(server, "GET", "/v2/_catalog", self.root).status == 200
            bearer = f"Bearer {token(server, self.root, 'registry:catalog:*')}"
            assert all(ask(other, "GET", "/v2/_catalog", bearer).status == 200 for other in self.servers)

    def every_command(self) -> str:
        for form in ("text", "json"):
            names = {"u": form, "r": f"{form}-bot", "file": str(self.file), "first": self.digests[form][0], "id": ""}
            for step in STEPS:
                if "{id}" in step.words + step.text and not names["id"]:
                    names["id"] = self.json("key", "list", names["r"])[0]["id"]
                self._step(step, form == "json", names)
            # What rollback and promotion have done.
            for server in self.servers:
                for path in (f"/v2/app/{form}/manifests/v", f"/v2/new/{form}/manifests/1"):
                    found = ask(server, "GET", path, self.root).headers.get("docker-content-digest")
                    assert found == self.digests[form][0], f"{path} at {server.address} is {found}"
        asked = {" ".join(step.words.split()[:2]) for step in STEPS}
        return f"{2 * len(STEPS)} commands, {len(asked)} different ones"

    def _step(self, step: Step, as_json: bool, names: Dict[str, str]) -> None:
        words = [word.format(**names) for word in step.words.split(" ")]
        done = self.run(*words, *(["--json"] if as_json else []), input=step.input or None)
        if not as_json:
            text = step.text.format(**{**names, "file": re.escape(names["file"])})
            assert re.search(text, done.stdout + done.stderr, re.MULTILINE), f"{words}: {text!r} is not in {done}"
            return
        objects = [json.loads(line) for line in done.stdout.splitlines()]
        assert objects or not step.members, f"{words} printed nothing"
        for name, value in step.members.items():
            expected = value.format(**names) if isinstance(value, str) and name != "source" else value
            assert objects[0].get(name) == expected, f"{words}: {name} is not {expected!r} in {objects[0]}"

    def unseen_prompts(self) -> None:
        """A password that is typed on a terminal is asked for twice, and not shown."""
        for words in (("user", "add", "typing"), ("user", "passwd", "typing")):
            shown = typed([roadstead(), *words, *self.backend.words()], self.backend.environment(), PASSWORD)
            assert shown.count(": ") == 2 and "Again: " in shown and PASSWORD not in shown, shown
        # Nobody types a password for nothing.
        for words, code, said in (
            (("user", "add", "typing"), 1, "there is a user typing already"),
            (("user", "passwd", "nobody"), 3, "there is no user nobody"),
        ):
            shown = refused([roadstead(), *words, *self.backend.words()], self.backend.environment(), code)
            assert said in shown and "Password: " not in shown, shown
        server = self.servers[0]
        within_ten_seconds("the user", [server], lambda one: login(one, "typing", PASSWORD, "127.0.0.2") == 200)

    def failures(self) -> None:
        """Each says why, and leaves no trace."""
        mistaken = self.folder / "mistaken.toml"
        mistaken.write_text(POLICY.replace("who =", "whom =", 1))
        before = len(self.json("audit"))
        for words, code, said in (
            ("user show nobody", 3, "there is no user nobody"),
            ("robot show nobody", 3, "there is no robot nobody"),
            ("robot show root", 1, "roadstead user"),
            ("key list nobody", 3, "there is no account nobody"),
            ("key remove root unknown0", 3, "no key unknown0"),
            ("user add root --no-password", 1, "there is a user root already"),
            ("robot add root --expires 1d", 1, "there is a user root already"),
            ("user add anonymous --no-password", 2, "anonymous"),
            ("robot add other", 2, "--expires"),
            ("user disable root", 1, "last enabled administrator"),
            ("user remove root", 1, "--force"),
            ("user set root --remove-group admins", 1, "--force"),
            ("user set root", 2, "--help"),
            ("user set root --remove-group none", 1, "not in the group none"),
            (f"policy set {mistaken}", 1, "mistaken.toml:5:1: "),
            (f"policy check {mistaken}", 1, "mistaken.toml:5:1: "),
            (f"policy set {self.file} --if-version 1", 1, NOTHING_CHANGED),
            ("policy show --version 1", 3, "no version 1"),
            ("policy explain robot:nobody pull a", 3, "no robot nobody"),
            ("tag rollback app/text never 1", 3, ""),
            ("tag promote app/none:v app/text:v", 3, ""),
            ("repo create Not/A/Name", 2, "not a valid name"),
            ("signing-key rotate --publish-ahead 1s", 2, "2s to 24h"),
        ):
            done = self.run(*words.split(" "), ok=(code,))
            assert said in done.stderr and not done.stdout, f"{words}: {done}"
        assert len(self.json("audit")) == before

    def effects(self) -> None:
        """Tokens and uploads from before end too. `stays` loses nothing, and is not disturbed."""
        self.run("policy", "set", self.file)
        credentials = [
            Credential("gone", "gone", self.user("gone"), "own/gone/a", "user disable gone", "user enable gone"),
            Credential(
                "left", "left", self.user("left", "dev"), "dev/a",
                "user set left --remove-group dev", "user set left --add-group dev",
            ),
            Credential("lost", "key", self.user("lost"), "own/lost/a", "key remove lost {id}", None),
            Credential("dead", "dead", self.user("dead"), "own/dead/a", "user remove dead", None),
            Credential("forbidden", "forbidden", self.user("forbidden"), "own/forbidden/a", None, None),
            Credential("shut", "shut", self.robot("shut", "push:rob/shut"), "rob/shut", "robot disable shut", "robot enable shut"),
            Credential(
                "less", "key", self.robot("less", "push:rob/less"), "rob/less",
                "robot set less --disallow push:rob/less", "robot set less --allow push:rob/less",
            ),
            Credential("away", "away", self.robot("away", "push:rob/away"), "rob/away", "robot remove away", None),
        ]  # fmt: skip
        stays = Credential("stays", "stays", self.user("stays", "dev"), "dev/a", None, None)
        within_ten_seconds("the policy", self.servers, lambda server: may_push(server, "dev/a", stays.basic()))
        before = {one.account: self._before(number, one) for number, one in enumerate([*credentials, stays])}
        version = self.json("policy", "show")[0]["version"]
        for one in credentials:
            if one.loss is not None:
                self.run(*one.loss.format(id=one.key.split(".")[1][:8]).split(" "))
        self.run("policy", "set", "-", "--if-version", str(version), input=DENYING)

        def all_refused(server: Server) -> bool:
            def allowed(one: Credential) -> List[bool]:
                return [may_push(server, one.repository, how) for how in (before[one.account][0], one.basic())]

            assert all(allowed(stays)), "stays is refused"
            return not any(any(allowed(one)) for one in credentials)

        within_ten_seconds("everything that was taken away is refused", self.servers, all_refused)
        for number, one in enumerate([*credentials, stays]):
            bearer, upload = before[one.account]
            server = self.servers[(number + 1) % SERVERS]
            statuses = [ask(server, "PUT", upload, how, EMPTY).status for how in (None, bearer)]
            assert all(status in REFUSED for status in statuses) if one is not stays else 201 in statuses, f"{one.account}: {statuses}"
            found = ask(server, "HEAD", f"/v2/{one.repository}/blobs/{EMPTY_DIGEST}", self.root).status
            assert found == (200 if one is stays else 404), f"{one.account}: {found}"

        given = [one for one in credentials if one.gain is not None]
        for one in given:
            self.run(*str(one.gain).split(" "))

        def all_given(server: Server) -> bool:
            return all(may_push(server, one.repository, one.basic()) for one in given)

        within_ten_seconds("everything that was given back is allowed", self.servers, all_given)
        for number, one in enumerate(given):
            new = token(self.servers[number % SERVERS], one.basic(), f"repository:{one.repository}:pull,push")
            for server in self.servers:
                assert may_push(server, one.repository, f"Bearer {new}"), one.account
                # The old token stays withdrawn, except where only the account was disabled.
                assert not may_push(server, one.repository, before[one.account][0]), one.account

    def _before(self, number: int, one: Credential) -> Tuple[str, str]:
        """A token and the path of an upload, of one server; all servers take the token."""
        server = self.servers[number % SERVERS]
        bearer = f"Bearer {token(server, one.basic(), f'repository:{one.repository}:pull,push')}"
        for other in self.servers:
            assert may_push(other, one.repository, bearer) and may_push(other, one.repository, one.basic()), one.account
        opened = ask(server, "POST", f"/v2/{one.repository}/blobs/uploads/", bearer)
        location = re.sub(r"^https?://[^/]+", "", opened.headers["location"])
        return bearer, f"{location}{'&' if '?' in location else '?'}digest={EMPTY_DIGEST}"

    def races(self) -> str:
        """Of several changes at once those that were made are there, and the others say that nothing was changed."""
        lost = rounds = 0
        # Whether two changes of an account meet is a matter of luck. Those of the policy are all for one version: one is made.
        while not lost and rounds < 10:
            lost = self._groups_at_once(f"racer{rounds}")
            rounds += 1
        self._policies_at_once()
        return f"{lost} changes of an account came too late, in {rounds} rounds"

    def _groups_at_once(self, name: str) -> int:
        self.run("user", "add", name, "--no-password")
        groups = [f"group{number}" for number in range(6)]
        done = at_once(*(partial(self.run, "user", "set", name, "--add-group", group, ok=(0, 1)) for group in groups))
        made = {group for group, one in zip(groups, done) if one.returncode == 0}
        assert made, done
        for one in done:
            assert (NOTHING_CHANGED in one.stderr) == (one.returncode == 1) == (not one.stdout), one
        assert set(self.json("user", "show", name)[0]["groups"]) == made, f"{made} were added"
        changes = [event for event in self.json("audit", "--event", "account.changed") if event["reference"] == name]
        assert len(changes) == len(made), changes
        return len(groups) - len(made)

    def _policies_at_once(self) -> None:
        version = self.json("policy", "show")[0]["version"]
        sources = [f"{POLICY}\n# number {number}\n" for number in range(4)]
        words = ("policy", "set", "-", "--if-version", str(version))
        done = at_once(*(partial(self.run, *words, ok=(0, 1), input=source) for source in sources))
        made = [source for source, one in zip(sources, done) if one.returncode == 0]
        assert len(made) == 1 and all(NOTHING_CHANGED in one.stderr for one in done if one.returncode == 1), done
        versions = [one["version"] for one in self.json("policy", "versions")]
        assert versions.index(version) == 1, versions
        assert self.run("policy", "show").stdout == f"{made[0]}# roadstead policy version {versions[0]}\n"

    def signing_keys(self) -> str:
        """Replaced twenty times, each key published for ten seconds instead of thirty, while clients get tokens and use them at every
        server. A stranger's token makes one server or another read the keys before its time. The next key is made while the ones before
        it are still published, so that they begin one soon after the other."""
        load = TokenLoad(self.servers, basic("key", self.robot("signed", "pull,push:signed/**")), "signed/a")
        self.run("signing-key", "rotate", "--now")
        self.run("signing-key", "rotate", "--now")
        within_ten_seconds("a key signs", self.servers, load.knows(self.json("signing-key", "list")[0]["kid"]))
        with load:
            for number in range(20):
                kid = self.json("signing-key", "rotate", "--publish-ahead", "10s")[0]["kid"]
                ask(self.servers[number % SERVERS], "GET", "/v2/", f"Bearer {stranger()}")
                time.sleep(0.4)
            wait_until(lambda: kid in load.kids, 30, "the last key signs")
        assert not load.refused, f"{len(load.refused)} of {load.asked} requests were refused: {load.refused[:3]}"
        assert len(load.kids) >= 10, f"only {len(load.kids)} keys have signed"
        listed = self.json("signing-key", "list")
        assert len(listed) == 21 and [key["kid"] for key in listed if key["condition"] == "signing"] == [kid], listed
        return f"{load.asked} requests with tokens of {len(load.kids)} keys"

    def guesses(self) -> str:
        """One account, one address, and three servers, which count together. The owner is elsewhere, or behind the same address."""
        self.backend.add_user("target", PASSWORD)
        own_key = self.run("key", "add", "target", "--expires", "1d").stdout.strip()
        within_ten_seconds("the account", self.servers, lambda server: login(server, "target", own_key, "127.0.0.3") == 200)
        begin = time.monotonic()
        statuses = [login(self.servers[number % SERVERS], "target", f"guess number {number}", "127.0.0.4") for number in range(60)]
        seconds = time.monotonic() - begin
        wrong = statuses.count(401)
        # 5 at once, and then one after 1 s, 2 s, 4 s and so on: `n` more need 2^n - 1 seconds. Each server alone would have taken 5.
        at_most = 5 + int(math.log2(seconds + 1))
        assert 5 <= wrong <= at_most, f"{wrong} guesses were hashed in {seconds:.1f} s, and not {at_most} at most: {statuses}"
        assert statuses.count(429) == len(statuses) - wrong, statuses
        for server in self.servers:
            assert login(server, "target", PASSWORD, "127.0.0.5") == 200, "a stranger locks the owner out"
            assert login(server, "target", own_key, "127.0.0.4") == 200, "a key waits for guesses"
        # Fifty machines with the password of before, behind the owner's address.
        for _ in range(2):
            stale = [partial(login, self.servers[number % SERVERS], "target", "the password before", "127.0.0.6") for number in range(50)]
            found = at_once(*stale, at_most=16)
            assert set(found) == {401}, found
        for server in self.servers:
            assert login(server, "target", PASSWORD, "127.0.0.6") == 200, "a stale password delays the owner"
        return f"{wrong} of {len(statuses)} guesses were hashed"

    def readiness(self) -> str:
        """Many guesses at once, from many addresses: the probe does not wait for them."""
        server = self.servers[0]
        guesses = [partial(login, server, f"unknown{number}", "a wrong password", f"127.0.1.{number + 1}") for number in range(48)]
        found: List[int] = []
        guessing = threading.Thread(target=lambda: found.extend(at_once(*guesses, at_most=24)))
        guessing.start()
        probes = 0
        try:
            while guessing.is_alive():
                assert ask(server, "GET", "/readyz").status == 200, "not ready"
                probes += 1
        finally:
            guessing.join()
        assert set(found) <= {401, 503} and found.count(401) > 8 and probes > 0, found
        return f"{probes} probes beside {len(found)} guesses"


def login(server: Server, user: str, secret: str, source: str) -> int:
    """The status of a request for a token from an address of loopback. A response that asks to wait says for how long."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT, source_address=(source, 0))
    try:
        connection.request("GET", "/token?service=roadstead", headers={"Authorization": basic(user, secret)})
        answer = connection.getresponse()
        answer.read()
        assert answer.status != 429 or int(answer.getheader("Retry-After", "0")) >= 1, "no Retry-After"
        return answer.status
    finally:
        connection.close()


def refused(command: Sequence[Union[str, Path]], env: Dict[str, Optional[str]], code: int) -> str:
    """What a terminal shows while a command fails, without being asked anything."""
    keyboard, terminal = pty.openpty()
    words = [str(word) for word in command]
    process = subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=terminal, env=environment(env), start_new_session=True)
    os.close(terminal)
    shown = b""
    try:
        while select.select([keyboard], [], [], TIMEOUT)[0] and (read := _read(keyboard)):
            shown += read
        assert process.wait(TIMEOUT) == code, f"{spell(words)}: {shown!r}"
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)
    return shown.decode()


def _read(keyboard: int) -> bytes:
    """What comes next from a terminal; nothing at its end."""
    try:
        return os.read(keyboard, 1024)
    except OSError:
        # The command has ended, and its end of the terminal is closed.
        return b""


def typed(command: Sequence[Union[str, Path]], env: Dict[str, Optional[str]], password: str) -> str:
    """What a terminal shows while a command asks twice for a password. It must succeed."""
    keyboard, terminal = pty.openpty()
    shown = b""
    words = [str(word) for word in command]
    process = subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=terminal, env=environment(env), start_new_session=True)
    os.close(terminal)
    try:
        for question in (b"Password: ", b"Again: "):
            while not shown.endswith(question):
                assert select.select([keyboard], [], [], TIMEOUT)[0], f"{spell(words)} does not ask: {shown!r}"
                shown += os.read(keyboard, 1)
            os.write(keyboard, f"{password}\n".encode())
        while read := _read(keyboard):
            shown += read
        assert process.wait(TIMEOUT) == 0, shown
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)
    return shown.decode()


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
        return lambda server: key_id_of(self._token(server)) == kid

    def _token(self, server: Server) -> str:
        return token(server, self.authorization, f"repository:{self.repository}:pull,push")

    def _go_on(self, server: Server) -> None:
        while not self._ended.is_set():
            try:
                new = self._token(server)
                self.kids.add(key_id_of(new))
                self._tokens.append(new)
                # The newest one, and one of long ago.
                for one in (new, self._tokens[len(self._tokens) // 2]):
                    for other in self.servers:
                        self.asked += 1
                        answer = ask(other, "GET", f"/v2/{self.repository}/tags/list", f"Bearer {one}")
                        # There is no such repository, which only those are told who may pull it.
                        if answer.status != 404:
                            self.refused.append((key_id_of(one), other.address, answer))
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


def on(backend: Backend, folder: Path) -> Iterator[Result]:
    name = f"commands on {backend.name}"
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(backend=backend)) for _ in range(SERVERS)]
        commands = Commands(folder, backend, servers)
        yield check(f"{name}: the first account closes three open servers within 10 s", commands.first_account)
        yield check(f"{name}: every command, as text and in JSON, beside three servers", commands.every_command)
        yield check(f"{name}: passwords are asked for without being shown", commands.unseen_prompts)
        yield check(f"{name}: failures have exit codes, say why and change nothing", commands.failures)
        yield check(f"{name}: what is taken away and given back takes effect on three servers within 10 s", commands.effects)
        yield check(f"{name}: of changes at once, those that are lost say so and change nothing", commands.races)
        yield check(f"{name}: signing keys are replaced twenty times under load without a refused request", commands.signing_keys)
        yield check(f"{name}: three servers count guesses together, and delay neither the owner nor keys", commands.guesses)
        yield check(f"{name}: a server is ready while it hashes passwords", commands.readiness)


def on_sqlite(folder: Path) -> Iterator[Result]:
    yield from on(Backend("disk+sqlite", folder / "data"), folder)


def on_dynamodb(folder: Path) -> Iterator[Result]:
    with Cloud() as cloud:
        yield from on(cloud.backend("s3+dynamodb"), folder)


FAMILIES = {
    "commands": on_sqlite,
    "commands in the cloud": on_dynamodb,
}
