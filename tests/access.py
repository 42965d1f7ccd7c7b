"""The checks of samples/policies, samples/release-repository, docs/accounts.md, docs/policies.md and the README's first minutes.

Part of `samples`. The commands of each text are run as they are written, with the example names replaced (`recipes`). Where a text
shows what a command prints, the test compares it.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional, Tuple

from recipes import (  # noqa: I001 - it makes the modules of tests/clients known
    PASSWORD, SAMPLES, TIMEOUT, blocks, commands, console, filled, need_root, path_with, shell, steps, tool,
)  # fmt: skip
from harness import Child, Cloud, Result, Server, cache_dir, check, free_port, run, wait_until
from harness.backend import Backend
from harness.build import roadstead
from harness.cache import ROOT
from harness.process import Finished
from engines import Dockerd
from images import Images
from verify import Registry

POLICIES = SAMPLES / "policies"
RELEASES = SAMPLES / "release-repository"
ACCOUNTS_PAGE = ROOT / "docs" / "accounts.md"
POLICIES_PAGE = ROOT / "docs" / "policies.md"
README = ROOT / "README.md"

# The address of the texts.
ADDRESS = "127.0.0.1:5000"
# By then every server knows a change of accounts and policy.
SECONDS = 10
EMPTY = b"{}"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def home(folder: Path, **more: str) -> Dict[str, Optional[str]]:
    """An environment with `roadstead` in the PATH, a home of its own, and no setting of this machine."""
    (folder / "home").mkdir(exist_ok=True)
    own = {name: str(folder / "home") for name in ("HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR")}
    return {**Backend("disk+sqlite").environment(), **own, "PATH": path_with(roadstead()), **more}


# --- samples/policies ---


def policies(folder: Path) -> Iterator[Result]:
    recipes = Recipes(folder)
    yield check("policies: the README names every recipe, and so does docs/policies.md", all_named)
    yield check("policies: the README's accounts, check, set and show", recipes.set_up)
    for file in sorted(POLICIES.glob("*.toml")):
        yield check(f"policies: {file.name} has neither mistakes nor warnings", recipes.checked, file)
        yield check(f"policies: {file.name} means what its comments say", recipes.explained, file)
    yield check("policies: frozen-releases.toml freezes a tag after its grace, for administrators too", frozen, folder / "frozen")
    yield check("policies: listed-repositories.toml refuses a push to a repository that nobody has made", listed, folder / "listed")


def all_named() -> None:
    there = {path.name for path in POLICIES.glob("*.toml")}
    for page, folder in ((POLICIES / "README.md", ""), (POLICIES_PAGE, "../samples/policies/")):
        pattern = rf"\]\({re.escape(folder)}([\w-]+\.toml)\)"
        named = set(re.findall(pattern, page.read_text()))
        assert named == there, f"{page.relative_to(ROOT)} names {sorted(named)}, there are {sorted(there)}"


class Recipes:
    """The policies, and a registry with the accounts of their README."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.data.mkdir()
        self.env = home(folder, ROADSTEAD_DATA=str(self.data))

    def set_up(self) -> None:
        make = steps(POLICIES / "README.md", "roadstead user add")
        shell(filled(make, {"$(mktemp -d)": str(self.data)}), POLICIES, self.env)
        done = shell(steps(POLICIES / "README.md", "roadstead policy set"), POLICIES, self.env)
        (name,) = re.findall(r"policy set (\S+\.toml)", steps(POLICIES / "README.md", "roadstead policy set"))
        assert (POLICIES / name).read_text() in done.stdout, done.stdout
        assert "warning" not in done.stderr, done.stderr

    def checked(self, file: Path) -> str:
        done = run([roadstead(), "policy", "check", file.name, "--accounts"], TIMEOUT, env=self.env, cwd=POLICIES)
        assert not done.stderr, done.stderr
        return done.stdout.strip()

    def explained(self, file: Path) -> str:
        """Each comment `$ COMMAND`, with its output in the comments that follow."""
        asked = printed(re.findall(r"^# ?(.*)$", file.read_text(), re.MULTILINE), ("allowed: ", "denied: "))
        assert len(asked) >= 2, f"{len(asked)} commands"
        for command, expected in asked:
            assert command.startswith("roadstead policy explain ") and f" --file {file.name}" in command, command
            found = shell(command, POLICIES, self.env).stdout
            assert found == expected, f"$ {command}\n{found}is printed, and not\n{expected}"
        decisions = {expected.split(":")[0] for _, expected in asked}
        assert decisions == {"allowed", "denied"} or "frozen" in file.name, f"only {decisions}"
        return f"{len(asked)} decisions"


def printed(lines: List[str], beginnings: Tuple[str, ...]) -> List[Tuple[str, str]]:
    """The commands of a text, each with those of the lines after it that begin as its output does."""
    found: List[Tuple[str, str]] = []
    for line in lines:
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif found and line.startswith(beginnings):
            command, output = found[-1]
            found[-1] = (command, f"{output}{line}\n")
    return found


class Pusher:
    """Pushes manifests over plain HTTP as an account with a password."""

    def __init__(self, server: Server, user: str) -> None:
        self.registry = Registry(server.address, user, PASSWORD)

    def push(self, repository: str, tag: str, number: int) -> int:
        """Pushes a manifest that depends on `number`, and returns the status."""
        digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        answer = self.registry.request("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", EMPTY)
        if answer.status != 201:
            return answer.status
        config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest, "size": len(EMPTY)}
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": f"text/{number}", "config": config, "layers": []}
        body = json.dumps(document).encode()
        return self.registry.request("PUT", f"/v2/{repository}/manifests/{tag}", body, Content_Type=MANIFEST).status


def with_policy(folder: Path, text: str, *accounts: str) -> Server:
    """A server with a policy, and with users who have PASSWORD: each is a name with flags of `roadstead user add`."""
    folder.mkdir()
    backend = Backend("disk+sqlite", folder / "data")
    for account in accounts:
        command = [roadstead(), "user", "add", *account.split(), "--password-stdin", *backend.words()]
        run(command, TIMEOUT, env=backend.environment(), input=f"{PASSWORD}\n")
    (folder / "policy.toml").write_text(text)
    backend.operate("policy", "set", folder / "policy.toml")
    return Server(backend=backend)


def frozen(folder: Path) -> None:
    """With a grace that a test can wait for."""
    text = filled((POLICIES / "frozen-releases.toml").read_text(), {'grace = "10m"': 'grace = "10s"'})
    with with_policy(folder, text, "zoe --group payments", "root --admin") as server:
        zoe, root = Pusher(server, "zoe"), Pusher(server, "root")
        assert zoe.push("payments/api", "1.4.0", 1) == 201
        assert zoe.push("payments/api", "1.4.0", 2) == 201, "not moved within the grace"
        assert zoe.push("payments/api", "1.4.0-rc.1", 1) == 201
        wait_until(lambda: zoe.push("payments/api", "1.4.0", 2) == 201 and explained(server).startswith("denied"), 30, "the tag is frozen")
        for pusher in (zoe, root):
            assert pusher.push("payments/api", "1.4.0", 3) == 403, "a frozen tag was moved"
            assert pusher.push("payments/api", "1.4.0", 2) == 201, "the same digest was refused"
            assert pusher.registry.request("DELETE", "/v2/payments/api/manifests/1.4.0").status == 403, "a frozen tag was deleted"
        assert zoe.push("payments/api", "1.4.0-rc.1", 2) == 201, "an exception is frozen"


def explained(server: Server) -> str:
    return server.backend.operate("policy", "explain", "zoe", "push", "payments/api:1.4.0").stdout


def listed(folder: Path) -> None:
    text = (POLICIES / "listed-repositories.toml").read_text()
    with with_policy(folder, text, "zoe --group payments") as server:
        zoe = Pusher(server, "zoe")
        assert zoe.push("payments/anything", "1", 1) == 201
        assert zoe.push("prod/payments-api", "1", 1) == 404, "a repository that nobody has made took a push"
        server.backend.operate("repo", "create", "prod/payments-api")
        wait_until(lambda: zoe.push("prod/payments-api", "1", 1) == 201, 2 * SECONDS, "the new repository takes a push")


# --- docs/accounts.md, docs/policies.md ---


def pages(folder: Path) -> Iterator[Result]:
    accounts = AccountsPage(folder)
    yield check("docs/accounts.md: the first account, beside a running server, closes it", accounts.first)
    yield check("docs/accounts.md: users, robots and groups", accounts.add)
    yield check("docs/accounts.md: keys: made, replaced and removed", accounts.keys)
    yield check("docs/accounts.md: signing keys are replaced, and clients do not notice", accounts.signing_keys)
    yield check("docs/accounts.md: a new password", accounts.password)
    yield check("docs/accounts.md: from a file of users to accounts", accounts.from_file)
    yield check("docs/accounts.md: behind a proxy", accounts.proxy)
    yield check("docs/accounts.md: no other commands", accounts.nothing_else)
    yield check("docs/accounts.md: a server on another address starts with an account, and not without", other_address, folder / "other")
    yield check("docs/policies.md: the policy that it shows, and its commands", policies_page, folder / "policies")


class AccountsPage:
    """The commands of docs/accounts.md on one registry."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self.data.mkdir()
        self.env = home(folder)
        self.asked: List[str] = []

    def _run(self, holding: str, changes: Optional[Mapping[str, str]] = None) -> Finished:
        """Runs a block of the page, after the line that says where the stores are."""
        block = steps(ACCOUNTS_PAGE, holding)
        self.asked.append(block)
        export = filled(steps(ACCOUNTS_PAGE, "export ROADSTEAD_DATA"), {"/var/lib/roadstead": str(self.data)})
        return shell(export + filled(block, changes or {}), self.folder, self.env)

    def _server(self) -> Server:
        return Server(data=self.data)

    def _token(self, server: Server, user: str, secret: str) -> int:
        """The status of a request for a token."""
        return Registry(server.address, user, secret).request("GET", "/token?service=roadstead").status

    def first(self) -> None:
        with self._server() as server:
            stranger = Registry(server.address)
            assert stranger.request("GET", "/v2/_catalog").status == 200, "not open"
            self._run("user add alice --admin", with_password("user add alice --admin"))
            wait_until(lambda: stranger.request("GET", "/v2/_catalog").status == 401, 2 * SECONDS, "the registry is closed")
            assert self._token(server, "alice", PASSWORD) == 200
            assert Registry(server.address, "alice", PASSWORD).request("GET", "/v2/_catalog").status == 200

    def add(self) -> None:
        done = self._run("user add bob", with_password("user add bob --group payments"))
        assert "payments\tbob" in done.stdout and "alice\nbob\nzoe\n" in done.stdout, done.stdout
        robot = json.loads(self._operate("robot", "show", "ci", "--json"))
        patterns = {grant["repositories"]: grant["actions"] for grant in robot["grants"]}
        assert patterns == {"payments/**": ["pull", "create"], "base/**": ["pull"]}, patterns

    def _operate(self, *words: str) -> str:
        return run([roadstead(), *words, "--data", self.data], TIMEOUT, env=self.env).stdout

    def _key(self, name: str) -> str:
        return (self.folder / name).read_text().strip()

    def keys(self) -> None:
        self._run("key add bob")
        pattern = re.findall(r"`(rsk_\[\S+)`", ACCOUNTS_PAGE.read_text())[0]
        with self._server() as server:
            for user, file in (("bob", "laptop.key"), ("ci", "ci.key"), ("ci", "pull.key"), ("key", "ci.key")):
                assert re.fullmatch(pattern, self._key(file)), file
                assert self._token(server, user, self._key(file)) == 200, (user, file)
            self._run("key rotate bob")
            wait_until(lambda: self._token(server, "bob", self._key("laptop-new.key")) == 200, 2 * SECONDS, "the new key works")
            assert self._token(server, "bob", self._key("laptop.key")) == 200, "the old key ended before the overlap"
            old, new = self._ids()
            self._run("key remove bob", {"3f9aK2dQ": old})
            wait_until(lambda: self._token(server, "bob", self._key("laptop.key")) == 401, 2 * SECONDS, "the removed key is refused")
            assert self._token(server, "bob", self._key("laptop-new.key")) == 200
            assert self._ids() == [new]
            assert self._pushed_with(server, "laptop-new.key") == [new], "the audit trail does not name the key"

    def _pushed_with(self, server: Server, file: str) -> List[str]:
        """Pushes with a key of bob's, and returns the keys with which bob has changed something, by the page's command."""
        pusher = Pusher(server, "bob")
        pusher.registry = Registry(server.address, "bob", self._key(file))
        assert pusher.push("payments/audited", "1", 1) == 201
        (command,) = [line for line in steps(ACCOUNTS_PAGE, "key remove bob").splitlines() if " audit " in line]
        export = filled(steps(ACCOUNTS_PAGE, "export ROADSTEAD_DATA"), {"/var/lib/roadstead": str(self.data)})
        printed = shell(export + command, self.folder, self.env).stdout
        return [json.loads(line)["credential"] for line in printed.splitlines()]

    def _ids(self) -> List[str]:
        """The ids of bob's keys, the first one that was made first."""
        keys = [json.loads(line) for line in self._operate("key", "list", "bob", "--json").splitlines()]
        secrets = {self._key(file).split(".")[1][:8]: number for number, file in enumerate(("laptop.key", "laptop-new.key"))}
        return sorted((key["id"] for key in keys), key=lambda key: secrets[key])

    def signing_keys(self) -> None:
        with self._server() as server:
            registry = Registry(server.address, "alice", PASSWORD)
            token = json.loads(registry.request("GET", "/token?service=roadstead&scope=registry:catalog:*").body)["token"]
            done = self._run("signing-key rotate")
            assert "signs from" in done.stdout, done.stdout
            assert len(done.stdout.splitlines()) >= 3, f"not two keys: {done.stdout}"
            answer = Registry(server.address).request("GET", "/v2/_catalog", Authorization=f"Bearer {token}")
            assert answer.status == 200, answer
            assert len(json.loads(Registry(server.address).request("GET", "/.well-known/jwks.json").body)["keys"]) >= 1

    def password(self) -> None:
        other = "another pass word"
        self._run("user passwd bob", {"user passwd bob": f"user passwd bob --password-stdin <<< '{other}'"})
        with self._server() as server:
            assert (self._token(server, "bob", PASSWORD), self._token(server, "bob", other)) == (401, 200)

    def from_file(self) -> None:
        """A file that the server reads, until nobody is left in it."""
        users, old = self.folder / "users", "an old pass word"
        for user in ("anna", "deploy"):
            run([roadstead(), "htpasswd", users, user], TIMEOUT, env=self.env, input=old)
        with Server("--htpasswd", users, data=self.data) as server:
            assert [self._token(server, user, old) for user in ("anna", "deploy", "alice")] == [200, 200, 401]
            self._run("user add anna", with_password("user add anna --group payments"))
            new = {"anna": PASSWORD, "deploy": self._key("deploy.key")}
            for user, secret in new.items():
                wait_until(lambda: self._token(server, user, secret) == 200, 2 * SECONDS, f"{user} has an account")
                assert self._token(server, user, old) == 401, f"the account does not hide the line of {user}"
            self._run("htpasswd users anna --delete")
            assert "anna" not in users.read_text() and "deploy" not in users.read_text(), users.read_text()
        assert {"anna", "deploy"} <= {*self._operate("user", "list").split(), *self._operate("robot", "list").split()}
        with self._server() as server:
            assert [self._token(server, user, secret) for user, secret in new.items()] == [200, 200]

    def proxy(self) -> None:
        port = free_port()
        block = steps(ACCOUNTS_PAGE, "--public-url")
        self.asked.append(block)
        command = filled(block, {ADDRESS: f"127.0.0.1:{port}"}).split()
        with Child([roadstead(), *command[1:], "--data", self.data], self.folder / "proxy.log", env=self.env) as child:
            registry = Registry(f"127.0.0.1:{port}")
            wait_until(lambda: not child.alive() or ready(port), 30, "the server is ready")
            challenge = registry.request("GET", "/v2/").headers["www-authenticate"]
        assert challenge.startswith('Bearer realm="https://registry.example.com/token",service="registry.example.com"'), challenge

    def nothing_else(self) -> None:
        """Every block was run but the one that needs docker, which the release repository has, and the one that all begin with."""
        rest = [block for block in commands(ACCOUNTS_PAGE) if block not in self.asked]
        left = [block for block in rest if not block.startswith(("docker login ", "export ROADSTEAD_DATA="))]
        assert not left, f"not tested: {left}"


def with_password(command: str) -> Dict[str, str]:
    """Replaces a command that asks for a password by the same one with PASSWORD."""
    return {command: f"{command} --password-stdin <<< '{PASSWORD}'"}


def ready(port: int) -> bool:
    try:
        return Registry(f"127.0.0.1:{port}").request("GET", "/readyz").status == 200
    except OSError:
        return False


def other_address(folder: Path) -> None:
    """The README's container listens on all addresses, with an account and no flag."""
    folder.mkdir()
    port, data = free_port(), folder / "data"
    command = [roadstead(), "serve", "--listen", f"0.0.0.0:{port}", "--data", data]
    done = run(command, TIMEOUT, env=home(folder), ok=(2,))
    first = steps(ACCOUNTS_PAGE, "user add alice --admin").split()
    assert first[:3] == ["roadstead", "user", "add"] and "roadstead user add NAME --admin" in done.stderr, done.stderr
    assert not data.exists(), "made before the refusal"
    run([roadstead(), *first[1:], "--password-stdin", "--data", data], TIMEOUT, env=home(folder), input=f"{PASSWORD}\n")
    with Child(command, folder / "log", env=home(folder)) as child:
        wait_until(lambda: not child.alive() or ready(port), 30, "the server is ready")
        assert child.alive(), child.log_tail()
        assert Registry(f"127.0.0.1:{port}").request("GET", "/v2/_catalog").status == 401


def policies_page(folder: Path) -> None:
    folder.mkdir()
    env = home(folder, ROADSTEAD_DATA=str(folder / "data"))
    run([roadstead(), "user", "add", "zoe", "--group", "payments", "--no-password"], TIMEOUT, env=env)
    (text,) = blocks(POLICIES_PAGE, "toml")
    (folder / "policy.toml").write_text(text)
    done = shell(steps(POLICIES_PAGE, "policy check"), folder, env)
    shown = (folder / "policy.toml").read_text()
    assert re.fullmatch(re.escape(text) + r"# roadstead policy version \d+\n", shown), "policy show prints something else"
    # What it has printed can be set again, and then has one such line, of the version after.
    number = int(shown.split()[-1])
    again = shell("roadstead policy set policy.toml\nroadstead policy show", folder, env)
    assert again.stdout.endswith(f"{text}# roadstead policy version {number + 1}\n"), again
    assert f"set version {number + 1} of the policy, made from version {number};" in again.stdout, again
    assert "no mistakes" in done.stdout and "warning" not in done.stderr, done
    assert re.search(r'^allowed: the rule "payments team".*; the rule "releases" \(line \d+\) freezes', done.stdout, re.MULTILINE), done


# --- the README ---


def five_minutes(folder: Path) -> Iterator[Result]:
    need_root()
    with Dockerd(folder / "d", docker_home(folder)) as docker:
        yield check("README: from nothing to two users, a robot and an immutable version", first_minutes, folder, docker)


def docker_home(folder: Path) -> Dict[str, str]:
    """A home for docker, with none of this machine's credentials."""
    return {name: value for name, value in home(folder).items() if value is not None and name != "PATH"}


def docker_env(folder: Path, docker: Dockerd, *programs: str) -> Dict[str, Optional[str]]:
    """An environment in which `docker` is the client of an engine, and `roadstead` and other programs are found."""
    path = path_with(roadstead(), Path(docker.client), *(Path(tool(program)) for program in programs))
    return home(folder, DOCKER_HOST=f"unix://{docker.socket}", PATH=path)


def first_minutes(folder: Path, docker: Dockerd) -> None:
    """The installation has a check of its own. Two images of this machine have the names of those that docker would fetch."""
    port = free_port()
    address, place, env = f"127.0.0.1:{port}", folder / "checkout", docker_env(folder, docker)
    place.mkdir()
    images = Images(str(cache_dir()), tool("busybox"))
    docker.docker("load", "-q", "-i", images.archive("app", "docker-archive", "docker.io/local/app:1"))
    docker.docker("tag", "local/app:1", "busybox")
    shell(f"tar -cf - -C {folder} {place.name} | docker import - alpine", folder, env)
    text = README.read_text()
    nothing_unrun(text)
    (policy,) = blocks(README, "toml")
    (place / "policy.toml").write_text(policy)
    serve = console(README, "roadstead serve\n").splitlines()[-1].split()
    with Child([roadstead(), *serve[1:], "--listen", address], folder / "log", env=env, cwd=place) as child:
        wait_until(lambda: not child.alive() or ready(port), 30, "the server is ready")
        asked = {**with_password("user add alice --admin"), **with_password("user add bob --group payments")}
        shell(filled(console(README, "roadstead robot add"), asked), place, env)
        assert (place / "roadstead-data").is_dir(), "the data is elsewhere"
        setting, pushing = console(README, "roadstead policy set").split("docker login", 1)
        shell(setting, place, env)
        stranger = Registry(address)
        wait_until(lambda: stranger.request("GET", "/v2/_catalog").status == 401, 2 * SECONDS, "the registry is closed")
        shell(filled("docker login" + pushing, {ADDRESS: address, "docker pull busybox\n": ""}), place, env)
        again = f"docker push {address}/payments/api:1.0.0\n"
        shell(again, place, env)
        refused, explained = console(README, "docker pull alpine").split("roadstead policy explain")
        assert refused.splitlines()[-1].startswith("docker push "), f"nothing after a refusal is run: {refused}"
        changes = {**with_password(f"docker login {ADDRESS} -u bob"), "docker pull alpine\n": "", ADDRESS: address}
        done = shell(filled(refused, changes), place, env, ok=(1,))
        shown = [line for line in text.splitlines() if line.startswith("denied: ")]
        assert shown[0] in done.stdout + done.stderr, done
        found = shell("roadstead policy explain" + explained, place, env).stdout
        assert found == shown[1] + "\n", found


def nothing_unrun(text: str) -> None:
    """`first_minutes` runs these blocks whole, but of the first one only the command that serves."""
    section = text.split("\n## Five minutes\n")[1].split("\n## ")[0]
    fences = re.findall(r"^```(.*)\n((?:.*\n)*?)```$", section, re.MULTILINE)
    whole = ("roadstead serve\n", "roadstead robot add", "roadstead policy set", "docker pull alpine")
    left = [block for language, block in fences if language != "toml" and not any(held in block for held in whole)]
    assert not left and len(fences) == len(whole) + 1, f"not tested: {left or fences}"
    assert re.fullmatch(r".* cargo install .*\nroadstead serve\n", console(README, whole[0])), "the first block has other commands"


# --- samples/release-repository ---


def release_repository(folder: Path) -> Iterator[Result]:
    need_root()
    with Dockerd(folder / "d", docker_home(folder)) as docker:
        yield from releases(folder / "disk", docker, Backend("disk+sqlite"))
        with Cloud() as cloud:
            yield from releases(folder / "cloud", docker, cloud.backend("s3+dynamodb"))


def releases(folder: Path, docker: Dockerd, backend: Backend) -> Iterator[Result]:
    """The README's steps, which go on from each other, on one set of stores."""
    folder.mkdir()
    sample = Releases(folder, docker, backend)
    name = f"release-repository on {backend.name}"
    with sample.serving():
        yield check(f"{name}: users, robots, a policy and a repository", sample.set_up)
        yield check(f"{name}: the robot pushes, and pushes the same again", sample.publish)
        yield check(f"{name}: the robot moves no version and no other tag", sample.moves_nothing)
        yield check(f"{name}: a repository that nobody has made is refused", sample.listed)
        yield check(f"{name}: a release manager moves what is no version", sample.manage)
        yield check(f"{name}: cosign signs twice and attests twice, with referrers", sample.sign)
        yield check(f"{name}: cosign signs twice and attests twice, with tags", sample.sign_with_tags)
        yield check(f"{name}: the robot that may only create signs with referrers, and moves no tag of signatures", sample.create_only)
        yield check(f"{name}: a signed index is promoted, and `latest` goes back", sample.promote)
    yield check(f"{name}: nothing is left", sample.clean_up)


class Releases:
    def __init__(self, folder: Path, docker: Dockerd, backend: Backend) -> None:
        self.folder, self.port = folder / "sample", free_port()
        self.address = f"127.0.0.1:{self.port}"
        shutil.copytree(RELEASES, self.folder)
        # The commands have no flags for the stores: each of these is an environment variable too.
        flags = backend.flags
        stores = {f"ROADSTEAD_{flag[2:].replace('-', '_').upper()}": value for flag, value in zip(flags[::2], flags[1::2])}
        self.in_folder = backend.data is None and not flags
        self.env = {**docker_env(folder, docker, "crane", "cosign"), **backend.environment(), **stores}
        self.log = folder / "log"

    def serving(self) -> Child:
        """The registry; its first check waits until it is ready."""
        serve = steps(RELEASES / "README.md", "roadstead serve").split()
        return Child([roadstead(), *serve[1:], "--listen", self.address], self.log, env=self.env, cwd=self.folder)

    def _run(self, holding: str, changes: Optional[Mapping[str, str]] = None, **more: object) -> Finished:
        block = filled(steps(RELEASES / "README.md", holding), changes or {})
        return shell(block.replace(ADDRESS, self.address), self.folder, self.env, **more)

    def _refused(self, holding: str, said: str) -> None:
        """Runs a block whose last command is refused with a text of the README."""
        assert f"{said}\n```" in (RELEASES / "README.md").read_text(), f"the README does not show {said!r}"
        done = self._run(holding, ok=(1,))
        assert said in done.stdout + done.stderr, done

    def _digest(self, tag: str) -> str:
        return shell(f"crane digest {self.address}/releases/app:{tag}", self.folder, self.env).stdout.strip()

    def set_up(self) -> None:
        wait_until(lambda: ready(self.port), 30, "the server is ready")
        self._run("user add rita", with_password("user add rita --group release-managers"))
        assert (self.folder / "ci.key").stat().st_mode & 0o077 == 0, "others can read the key"
        assert (self.folder / "roadstead-data").is_dir() == self.in_folder, "the data is elsewhere"
        wait_until(lambda: Registry(self.address).request("GET", "/v2/_catalog").status == 401, 2 * SECONDS, "the registry is closed")

    def publish(self) -> None:
        self._run("build 1.4.0")
        before = self._digest("1.4.0")
        (again,) = [block for block in blocks(RELEASES / "README.md") if block.startswith("docker push")]
        shell(again.replace(ADDRESS, self.address), self.folder, self.env)
        assert self._digest("1.4.0") == self._digest("latest") == before

    def moves_nothing(self) -> None:
        before = self._digest("1.4.0")
        only = "only a push of the digest that it names would be accepted"
        self._refused("another build", f"denied: the tag 1.4.0 is immutable: {only}")
        self._run("build 1.5.0")
        exists = f"denied: the tag latest exists, and the principal may only create tags: {only}"
        self._refused(f"docker tag {ADDRESS}/releases/app:1.5.0", exists)
        assert self._digest("1.4.0") == self._digest("latest") == before != self._digest("1.5.0")

    def listed(self) -> None:
        done = self._run("crane copy", ok=(1,))
        assert "NAME_UNKNOWN" in done.stderr or "404" in done.stderr, done
        names = json.loads(Registry(self.address, "rita", PASSWORD).request("GET", "/v2/_catalog").body)["repositories"]
        assert names == ["releases/app"], names

    def manage(self) -> None:
        self._run("-u rita", with_password(f"docker login {ADDRESS} -u rita"))
        assert self._digest("latest") == self._digest("1.5.0")
        self._run("1.6.0-rc.1")
        assert self._digest("1.6.0-rc.1") == self._digest("1.5.0")
        self._refused("app:1.5.0 1.4.0", "DENIED: the tag 1.4.0 is immutable: only a push of the digest that it names would be accepted")
        found = self._run("policy explain").stdout
        assert found.startswith("denied: ") and found in (RELEASES / "README.md").read_text(), found
        assert self._digest("1.4.0") != self._digest("1.5.0")

    def _referrers(self, tag: str) -> List[dict]:
        registry = Registry(self.address, "rita", PASSWORD)
        return json.loads(registry.request("GET", f"/v2/releases/app/referrers/{self._digest(tag)}").body)["manifests"]

    def _tags(self) -> List[str]:
        return shell(f"crane ls {self.address}/releases/app", self.folder, self.env).stdout.split()

    def sign(self) -> None:
        before = self._tags()
        done = self._run("LOCAL='--tlog-upload")
        assert attested(done.stdout) == [{"findings": 0}, {"passed": 120}], done.stdout
        assert len(self._referrers("1.4.0")) == 4 and self._tags() == before, self._referrers("1.4.0")

    def sign_with_tags(self) -> None:
        done = self._run("--new-bundle-format=false'")
        assert attested(done.stdout) == [{"findings": 0}, {"passed": 120}], done.stdout
        prefix = self._digest("1.5.0").replace(":", "-")
        assert {f"{prefix}.sig", f"{prefix}.att"} <= set(done.stdout.split()), done.stdout
        assert not self._referrers("1.5.0")

    def create_only(self) -> None:
        key = (self.folder / "ci.key").read_text().strip()
        shell(f"docker login {self.address} -u ci --password-stdin < ci.key", self.folder, self.env)
        env = {**self.env, "COSIGN_PASSWORD": ""}
        sign = "cosign sign -y --tlog-upload=false --use-signing-config=false"
        image = f"{self.address}/releases/app@{self._digest('1.5.0')}"
        shell(f"cosign generate-key-pair --output-key-prefix third && {sign} --key third.key {image}", self.folder, env)
        assert len(self._referrers("1.5.0")) == 1
        done = shell(f"{sign} --new-bundle-format=false --key third.key {image}", self.folder, env, ok=(1,))
        assert ".sig exists, and the principal may only create tags" in done.stderr and key not in done.stderr, done

    def promote(self) -> None:
        self._run("build 1.7.0")
        before = len(self._referrers("1.4.0"))
        done = self._run("tag promote")
        assert all(f"build 1.7.0 for {arch}\n" in done.stdout for arch in ("amd64", "arm64")), done.stdout
        assert len(self._referrers("1.7.0")) == 1 and len(self._referrers("1.4.0")) == before
        staged = shell(f"crane digest {self.address}/staging/app:1.7.0", self.folder, self.env).stdout.strip()
        (made,) = shell("roadstead tag history releases/app 1.7.0", self.folder, self.env).stdout.splitlines()
        assert made.split("\t")[1:] == [":operator from staging/app:1.7.0", "-", staged] and self._digest("1.7.0") == staged, made
        history = self._run("tag rollback").stdout
        assert self._digest("latest") == self._digest("1.4.0") in history, history

    def clean_up(self) -> None:
        if self.in_folder:
            self._run("docker logout")
            left = sorted(path.name for path in self.folder.iterdir())
            assert left == sorted(path.name for path in RELEASES.iterdir()), left


def attested(text: str) -> List[dict]:
    """The predicates of the attestations that `cosign verify-attestation` has printed."""
    envelopes = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    statements = [json.loads(base64.b64decode(envelope["payload"])) for envelope in envelopes]
    data = [statement["predicate"] for statement in statements]
    found = [one["Data"] if isinstance(one.get("Data"), dict) else json.loads(one["Data"]) if "Data" in one else one for one in data]
    return sorted(found, key=json.dumps)


FAMILIES = {
    "policies": policies,
    "accounts": pages,
    "README": five_minutes,
    "release-repository": release_repository,
}
