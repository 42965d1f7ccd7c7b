"""The checks of the operator's commands for accounts, keys, the policy and signing keys.

Part of `samples`. Each command runs beside three servers, on SQLite and on DynamoDB, and what it changes is asked of all three: here, in
`effects` and, under load, in `token_load`. The pages and samples that show the commands have checks of their own (`access`).
"""

from __future__ import annotations

import http.client
import json
import math
import re
import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

from recipes import PASSWORD, TIMEOUT  # noqa: I001 - it makes the modules of tests/clients known
from harness import Child, Cloud, Result, Server, at_once, check, wait_until
from harness.backend import Backend
from harness.build import roadstead
from operating import POLICY, SERVERS, Operator, ask, basic, push, token, within_ten_seconds
import effects
import terminals
import token_load

NOTHING_CHANGED = "nothing was changed"


class Step(NamedTuple):
    """A command that succeeds. As text it prints `text`, to standard output or standard error; with --json it
    prints objects, of which one has `members`."""

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
    Step("signing-key list", "^\\S{{16}}\tpublished\t", {"condition": "published", "until": None}),
    Step("policy check {file}", "^3 rules in .*, no mistakes$", {}),
    Step("policy set {file} --note {u}", "^set version \\d+ of the policy", {"note": "{u}", "principal": ":operator"}),
    Step("policy show", '^name = "developers"$', {"note": "{u}", "form": "toml", "source": POLICY}),
    Step("policy versions", "\t:operator\t{u}$", {"note": "{u}"}),
    Step("policy explain {u} push dev/app:1.4.0", '^allowed: the rule "developers"', {"decision": "allowed", "rule": "developers"}),
    Step("policy explain anonymous pull dev/app", "^denied: no rule", {"decision": "denied", "rule": None}),
    Step("repo create new/{u}", "^new/{u}\tcreated$", {"created": True, "repository": "new/{u}"}),
    Step("repo create new/{u}", "^new/{u}\texists$", {"created": False}),
    Step("tag rollback app/{u} v {first}", "^app/{u}:v names now {first}$", {"tag": "v", "digest": "{first}", "moved": True}),
    Step(
        "tag promote app/{u}:v new/{u}:1", "^new/{u}:1 names now {first} \\(1 manifest, 0 referrers\\)$",
        {"from": "app/{u}:v", "digest": "{first}", "moved": True, "manifests": 1, "referrers": 0},
    ),
    Step("audit --event account.created --since 1h", "\taccount.created\t:operator\t.*\t{u}\t", {"event": "account.created"}),
    Step("audit --repository new/{u} --principal :operator", "\ttag.promoted\t", {"repository": "new/{u}", "event": "repository.created"}),
    Step("robot remove {r}", "^removed the robot {r} with 1 key$", {"name": "{r}"}),
    Step("user remove {u}", "^removed the user {u} with 1 key$", {"name": "{u}"}),
)


class Commands(Operator):
    """The checks, in their order."""

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
        expected = {name: value.format(**names) if isinstance(value, str) and name != "source" else value for name, value in step.members.items()}
        is_quiet = not expected and not objects
        assert is_quiet or any({**found, **expected} == found for found in objects), f"{words}: {expected} is not in {objects}"

    def shown(self, words: Sequence[str], answers: Sequence[Tuple[str, str]] = (), code: int = 0) -> str:
        """What a terminal shows of a command on these stores."""
        return terminals.shown([roadstead(), *words, *self.backend.words()], self.backend.environment(), answers, code)

    def unseen_prompts(self) -> None:
        """A password that is typed on a terminal is asked for twice, and not shown."""
        for words in (("user", "add", "typing"), ("user", "passwd", "typing")):
            shown = self.shown(words, answers=(("Password: ", PASSWORD), ("Again: ", PASSWORD)))
            assert shown.count(": ") == 2 and "Again: " in shown and PASSWORD not in shown, shown
        # Nobody types a password for nothing.
        for words, code, said in (
            (("user", "add", "typing"), 1, "there is a user typing already"),
            (("user", "passwd", "nobody"), 3, "there is no user nobody"),
        ):
            shown = self.shown(words, code=code)
            assert said in shown and "Password: " not in shown, shown
        server = self.servers[0]
        within_ten_seconds("the user", [server], lambda one: login(one, "typing", PASSWORD, "127.0.0.2") == 200)

    def tables(self) -> None:
        """On a terminal, lists are tables with a heading."""
        events = (
            f"{'AT':24}  {'EVENT':18}  {'BY':16}  {'FROM':15}  {'REPOSITORY':24}  {'REFERENCE':24}  {'BEFORE':12}  {'AFTER':12}  DETAIL"
        )
        for words, heading, row in (
            ("user list", f"{'NAME':24}  {'STATUS':8}  {'KEYS':4}  {'CREATED':20}  GROUPS", r"root {22}enabled {3}1 {5}\S{20}  admins"),
            ("audit --event account.created", events, r"\S{24}  account\.created {5}:operator {9}\S+ +- +root {22}.*"),
        ):
            shown = self.shown(words.split()).splitlines()
            assert shown[0] == heading and any(re.fullmatch(row, line) for line in shown[1:]), f"{words}: {shown}"

    def followed(self) -> None:
        """Events are printed as they come, each once."""
        log, names = self.folder / "followed", [f"followed/{number}" for number in range(3)]
        command = [roadstead(), "audit", "--follow", "--json", "--event", "repository.created", *self.backend.words()]
        with Child(command, log, env=self.backend.environment()) as child:
            for name in names:
                self.run("repo", "create", name)
                wait_until(lambda: not child.alive() or name in log.read_text(), 30, f"the event of {name} is printed")
                assert child.alive(), child.log_tail()
        found = [json.loads(line)["repository"] for line in log.read_text().splitlines()]
        assert [name for name in found if name in names] == names, found

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

    def races(self) -> None:
        """Changes of an account at once are all made, since one that comes too late is made again. Those of the policy are all for one
        version: one is made, and the others say that nothing was changed."""
        self._groups_at_once("racer")
        self._policies_at_once()

    def _groups_at_once(self, name: str) -> None:
        self.run("user", "add", name, "--no-password")
        groups = [f"group{number}" for number in range(6)]
        at_once(*(partial(self.run, "user", "set", name, "--add-group", group) for group in groups))
        assert self.json("user", "show", name)[0]["groups"] == groups
        changes = [event for event in self.json("audit", "--event", "account.changed") if event["reference"] == name]
        assert len(changes) == len(groups), changes

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
        found: List[int] = []

        def guess(number: int) -> None:
            found.append(login(server, f"unknown{number}", "a wrong password", f"127.0.1.{number + 1}"))

        guessing = threading.Thread(target=at_once, args=[partial(guess, number) for number in range(48)], kwargs={"at_most": 24})
        guessing.start()
        probes, overtaking = 0, 0
        try:
            while guessing.is_alive():
                before = len(found)
                assert ask(server, "GET", "/readyz").status == 200, "not ready"
                probes += 1
                # Had the probe waited for its turn among them, one of the guesses would have ended meanwhile.
                overtaking += before == len(found) < 48
        finally:
            guessing.join()
        assert set(found) <= {401, 503} and len(found) == 48 and found.count(401) > 8, found
        assert overtaking >= 3, f"{overtaking} of {probes} probes were answered before the next guess"
        return f"{probes} probes beside {len(found)} guesses, {overtaking} of them before the next guess"


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


def on(backend: Backend, folder: Path) -> Iterator[Result]:
    name = f"commands on {backend.name}"
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(backend=backend)) for _ in range(SERVERS)]
        commands = Commands(folder, backend, servers)
        yield check(f"{name}: the first account closes three open servers within 10 s", commands.first_account)
        yield check(f"{name}: every command, as text and in JSON, beside three servers", commands.every_command)
        yield check(f"{name}: passwords are asked for without being shown", commands.unseen_prompts)
        yield check(f"{name}: lists are tables on a terminal", commands.tables)
        yield check(f"{name}: the audit trail is followed", commands.followed)
        yield check(f"{name}: failures have exit codes, say why and change nothing", commands.failures)
        yield check(f"{name}: what is taken away and given back takes effect on three servers within 10 s", effects.taken_away, commands)
        yield check(f"{name}: passwords and keys end for their successors, on three servers within 10 s", effects.replaced, commands)
        yield check(f"{name}: changes at once of one account are all made; of those of one version of the policy, one is", commands.races)
        yield check(f"{name}: three servers follow a policy within 10 s under load", token_load.policies, commands)
        yield check(f"{name}: signing keys are replaced twenty times under load without a refused request", token_load.signing_keys, commands)
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
