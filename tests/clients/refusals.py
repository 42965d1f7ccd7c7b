"""What clients print when the registry refuses a request: the reason, with the action, the repository and the rule.

The reason is in the body of the answer. So a client that asks by HEAD first, whose answers have no body, prints the status alone where the
first of its requests is refused. containerd before 2 prints bodies only with `--debug`.
"""

from __future__ import annotations

import base64
import json
import tarfile
from pathlib import Path
from typing import Callable, Iterator, List, NamedTuple, Sequence, Set

from common import Setting, client, need_root, tool
from engines import Containerd, Dockerd
from harness import Result, wait_until
from harness.backend import Backend
from harness.process import Finished
from layout import LAYER, Layout, Tree, architecture, noise, sha256
from verify import Registry, compare_layouts

TIMEOUT = 180
# The largest blob of repositories below `small`, in bytes.
LIMIT = 1024 * 1024
FOREIGN = LAYER.replace(".layer.", ".layer.nondistributable.")
POLICY = f"""\
syntax = 1

[[allow]]
name = "users"
who = ["users"]
repositories = ["archive/**", "listed/**", "own/**", "releases/**", "small/**"]
actions = ["pull", "push", "delete"]

[[allow]]
name = "everyone creates"
who = ["signed-in"]
repositories = ["created/**"]
actions = ["pull", "create"]

[[allow]]
name = "public images"
who = ["anyone"]
repositories = ["public/**"]
actions = ["pull"]

[[deny]]
name = "the archive is closed"
who = ["anyone"]
repositories = ["archive/**"]
actions = ["push"]

[[deny]]
name = "small images are kept"
who = ["anyone"]
repositories = ["small/**"]
actions = ["delete"]

[[immutable]]
name = "versions"
repositories = ["releases/**"]
tags = ["semver"]

[[repository]]
match = ["small/**"]
max-blob = "{LIMIT // 1024}KiB"

[[repository]]
match = ["own/**"]
foreign-layers = false

[[repository]]
match = ["listed/**"]
create = "listed"
"""
NOTHING_CHANGES = "only a push of the digest that it names would be accepted"


class Push(NamedTuple):
    """Pushes of images to one tag, in their order; the registry accepts all of them but the last one, of which it `says` why."""

    what: str
    name: str
    says: str
    images: Sequence[str]


PUSHES = (
    Push("a push that no rule allows", "public/app:1", "no rule of the policy allows you the action create in public/app", ["one"]),
    Push(
        "a push that a rule denies", "archive/app:1",
        'the rule "the archive is closed" of the policy denies the action create in archive/app', ["one"],
    ),
    Push(
        "a push to a repository that an administrator makes", "listed/app:1",
        "the repository listed/app does not exist, and a push does not create it: an administrator creates it with `roadstead repo create "
        "listed/app`",
        ["one"],
    ),
    # The same digest again is accepted, as the refusal says.
    Push("another image under a frozen tag", "releases/{client}:1.0.0", f"the tag 1.0.0 is immutable: {NOTHING_CHANGES}", ["one", "one", "other"]),
    Push(
        "another image under a tag that may only be created", "created/{client}:1",
        f"the tag 1 exists, and the principal may only create tags: {NOTHING_CHANGES}", ["one", "one", "other"],
    ),
)  # fmt: skip
LARGE = Push("a blob of one byte more than the largest", "small/{client}:1", f"the blob exceeds {LIMIT} bytes", ["largest", "too-large"])
ELSEWHERE = Push("a layer that is stored elsewhere", "own/{client}:1", "is stored elsewhere", ["one", "foreign"])
NO_PULL = "no rule of the policy allows you the action pull in hidden/app"
# Of a HEAD.
STATUS_ALONE = "403 Forbidden"
NARROW = "the scope of your key does not contain the action create in small/{client}-narrow"
SECRET = "a password of before"
ENDED, DISABLED = "the key has expired", "the account is disabled"


class Login(NamedTuple):
    """A name and a secret."""

    user: str
    secret: str


class RefusingRegistry(Registry):
    """A registry with accounts that may do less than the client's own: one that is `disabled`, one whose key has `ended`, and one with a
    key that is for pulls alone, which is `narrow`."""

    def __init__(self, backend: Backend, address: str, user: str, password: str, log: Callable[[], str]) -> None:
        super().__init__(address, user, password, log)

        def made(*words: str) -> str:
            return backend.operate(*words).stdout.strip()

        backend.add_user("leaver", SECRET)
        backend.operate("user", "disable", "leaver")
        self.disabled = Login("leaver", SECRET)
        self.ended = Login("brief", made("robot", "add", "brief", "--allow", "pull:small/**", "--expires", "1s"))
        backend.operate("robot", "add", "reader", "--allow", "pull,push:small/**", "--expires", "1d")
        self.narrow = Login("reader", made("key", "add", "reader", "--scope", "pull:small/**", "--expires", "1d"))
        # As long as a server may know an account as it was, and longer than the key.
        wait_until(lambda: self._says(self.ended) == ENDED and self._says(self.disabled) == DISABLED, 30, "the login is refused")

    def _says(self, login: Login) -> str:
        credentials = base64.b64encode(f"{login.user}:{login.secret}".encode()).decode()
        answer = self.request("GET", "/token?service=roadstead", Authorization=f"Basic {credentials}")
        return json.loads(answer.body)["errors"][0]["message"] if answer.status == 401 else ""


def docker(setting: Setting) -> Iterator[Result]:
    yield from _docker(setting, "", False)


def docker_28(setting: Setting) -> Iterator[Result]:
    yield from _docker(setting, "docker28/", False)


def docker_28_containerd(setting: Setting) -> Iterator[Result]:
    yield from _docker(setting, "docker28/", True)


def _docker(setting: Setting, generation: str, snapshotter: bool) -> Iterator[Result]:
    need_root()
    short = (generation.strip("/") or "docker") + ("c" if snapshotter else "")
    with Dockerd(setting.folder(short), setting.home(short), generation, snapshotter) as daemon:
        checks = Docker(setting, daemon, short)
        yield setting.check(f"{checks.label}: login with a disabled account", checks.refused_login, _registry(setting).disabled, DISABLED)
        yield setting.check(f"{checks.label}: login with a key that has ended", checks.refused_login, _registry(setting).ended, ENDED)
        yield setting.check(f"{checks.label}: login", checks.login)
        pushes: List[Push] = list(PUSHES)
        if snapshotter:
            # The other store packs layers anew, and keeps none elsewhere.
            pushes += [LARGE, ELSEWHERE]
        else:
            pushes.append(LARGE._replace(what="a blob that is too large", images=["one", "too-large"]))
        yield from _refused(setting, checks, pushes, STATUS_ALONE if snapshotter else NO_PULL)
        yield setting.check(f"{checks.label}: a push with a key that is for pulls alone", checks.narrow)


def containerd(setting: Setting) -> Iterator[Result]:
    yield from _containerd(setting, "")


def containerd_2(setting: Setting) -> Iterator[Result]:
    yield from _containerd(setting, "docker28/")


def _containerd(setting: Setting, generation: str) -> Iterator[Result]:
    need_root()
    short = f"{generation.strip('/')}ctr"
    with Containerd(setting.folder(short), setting.home(short), generation) as daemon:
        checks = Ctr(setting, daemon, short)
        yield from _refused(setting, checks, [*PUSHES, LARGE, ELSEWHERE], STATUS_ALONE)
        if checks.old:
            yield setting.check(f"{checks.label}: without --debug the status alone", checks.status_alone)


def crane(setting: Setting) -> Iterator[Result]:
    checks = Crane(setting)
    yield setting.check("crane: a pull with a disabled account", checks.refused_login, _registry(setting).disabled, DISABLED)
    yield setting.check("crane: a pull with a key that has ended", checks.refused_login, _registry(setting).ended, ENDED)
    yield setting.check("crane: login", checks.login)
    yield from _refused(setting, checks, [*PUSHES, LARGE, ELSEWHERE], NO_PULL)
    yield setting.check("crane: deletion of a frozen tag", checks.delete)
    yield setting.check("crane: deletion that a rule denies", checks.denied_delete)
    yield setting.check("crane: a push with a key that is for pulls alone, and a pull", checks.narrow)


def oras(setting: Setting) -> Iterator[Result]:
    checks = Oras(setting)
    yield setting.check("oras: login with a disabled account", checks.refused_login, _registry(setting).disabled, DISABLED)
    yield setting.check("oras: login with a key that has ended", checks.refused_login, _registry(setting).ended, ENDED)
    yield setting.check("oras: login", checks.login)
    yield from _refused(setting, checks, [*PUSHES, LARGE, ELSEWHERE], NO_PULL)
    yield setting.check("oras: deletion of a frozen tag", checks.delete)
    yield setting.check("oras: a push with a key that is for pulls alone", checks.narrow)


def _registry(setting: Setting) -> RefusingRegistry:
    assert isinstance(setting.registry, RefusingRegistry)
    return setting.registry


class Client:
    """A client that pushes one of its images to a name, and pulls; a refusal is a result."""

    label: str

    def __init__(self, setting: Setting, short: str) -> None:
        self.setting, self.short = setting, short

    def push(self, image: str, reference: str) -> Finished:
        raise NotImplementedError

    def pull(self, reference: str) -> Finished:
        raise NotImplementedError

    def layout(self, image: str) -> str:
        """The layout of an image; they are small, and nobody runs them."""
        folder = self.setting.folder("layouts") / image
        if not folder.exists():
            layers = {"one": b"one\n", "other": b"other\n", "foreign": b"foreign\n"}
            tree = Tree()
            # A tar may end with any number of zeros.
            tree.file("data", layers.get(image) or noise("layer", LIMIT - 100_000))
            data = tree.bytes() if image in layers else tree.bytes().ljust(LIMIT, b"\0")
            data += b"\0" if image == "too-large" else b""
            layout = Layout(str(folder))
            elsewhere = {"urls": ["http://127.0.0.1:9/layer"]} if image == "foreign" else {}
            descriptor = layout.blob(data, FOREIGN if elsewhere else LAYER, **elsewhere)
            layout.root(layout.image([(descriptor, sha256(data))], architecture()), "1")
            # The name by which containerd and docker know what they load.
            layout.roots[0]["annotations"]["io.containerd.image.name"] = f"docker.io/local/{image}:1"
            layout.finish()
        return str(folder)

    def archive(self, image: str) -> Path:
        """The layout in one file."""
        path = self.setting.folder("layouts") / f"{image}.tar"
        if not path.exists():
            with tarfile.open(path, "w") as tar:
                tar.add(self.layout(image), ".")
        return path

    def pushes(self, push: Push) -> None:
        reference = self.setting.reference(push.name.format(client=self.short))
        for image in push.images[:-1]:
            done = self.push(image, reference)
            assert done.returncode == 0, f"{image} is not accepted: {done}"
        says(self.push(push.images[-1], reference), push.says)

    def narrow_push(self) -> None:
        """A push by a client that is logged in with the narrow key."""
        says(self.push("one", self.setting.reference(f"small/{self.short}-narrow:1")), NARROW.format(client=self.short))

    def pulls(self, reason: str) -> None:
        says(self.pull(self.setting.reference("hidden/app:1")), reason)


def _refused(setting: Setting, checks: Client, pushes: Sequence[Push], no_pull: str) -> Iterator[Result]:
    for push in pushes:
        yield setting.check(f"{checks.label}: {push.what}", checks.pushes, push)
    yield setting.check(f"{checks.label}: a pull that no rule allows", checks.pulls, no_pull)


def says(done: Finished, reason: str) -> None:
    """Asserts that a command has failed, and that it prints the reason, with or without escapes before quotes."""
    text = (done.stdout + done.stderr).replace("\\", "")
    assert done.returncode != 0, f"not refused: {text[-600:]}"
    assert reason in text, f"refused, but it does not say {reason!r}: {text[-900:]}"


class Docker(Client):
    def __init__(self, setting: Setting, daemon: Dockerd, short: str) -> None:
        super().__init__(setting, short)
        self.daemon = daemon
        self.imported: Set[str] = set()
        self.label = f"docker {daemon.version}" + (" containerd store" if daemon.snapshotter else "")

    def login(self) -> None:
        registry = self.setting.registry
        self.daemon.docker("login", "-u", registry.user, "--password-stdin", registry.address, input=registry.password)

    def refused_login(self, login: Login, reason: str) -> None:
        words = ["login", "-u", login.user, "--password-stdin", self.setting.address]
        says(self.daemon.docker(*words, input=login.secret, ok=None), reason)

    def narrow(self) -> None:
        login = _registry(self.setting).narrow
        self.daemon.docker("login", "-u", login.user, "--password-stdin", self.setting.address, input=login.secret)
        self.narrow_push()

    def push(self, image: str, reference: str) -> Finished:
        if self.daemon.snapshotter:
            self.daemon.docker("load", "-q", "-i", self.archive(image))
        elif image not in self.imported:
            # Each import of the same file makes another image, with its own time.
            self.daemon.docker("import", self.tar(image), f"local/{image}:1")
            self.imported.add(image)
        self.daemon.docker("tag", f"local/{image}:1", reference)
        return self.daemon.docker("push", reference, ok=None, timeout=TIMEOUT)

    def tar(self, image: str) -> Path:
        path = self.setting.folder("tars") / image
        tree = Tree()
        tree.file("data", noise(image, 2 * LIMIT if image == "too-large" else 100))
        path.write_bytes(tree.bytes())
        return path

    def pull(self, reference: str) -> Finished:
        return self.daemon.docker("pull", reference, ok=None)


class Ctr(Client):
    def __init__(self, setting: Setting, daemon: Containerd, short: str) -> None:
        super().__init__(setting, short)
        self.daemon, self.label = daemon, f"containerd {daemon.version}"
        self.old = daemon.version.startswith("1.")
        self.user = ["--user", f"{setting.registry.user}:{setting.registry.password}"]

    def push(self, image: str, reference: str, debug: bool = True) -> Finished:
        self.daemon.ctr("images", "import", "--no-unpack", "--all-platforms", self.archive(image))
        self.daemon.ctr("images", "tag", "--force", f"docker.io/local/{image}:1", reference)
        flags = ["--debug"] if self.old and debug else []
        return self.daemon.ctr(*flags, "images", "push", "--plain-http", *self.user, reference, ok=None)

    def pull(self, reference: str) -> Finished:
        return self.daemon.ctr("images", "pull", "--plain-http", *self.user, reference, ok=None)

    def status_alone(self) -> None:
        says(self.push("one", self.setting.reference("public/app:1"), debug=False), STATUS_ALONE)


class Crane(Client):
    label = "crane"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, "crane")
        self.env = setting.home("crane")

    def crane(self, *words: object, **more: object) -> Finished:
        return client([tool("crane"), "--insecure", *words], self.env, **more)

    def login(self) -> None:
        registry = self.setting.registry
        assert registry.user is not None and registry.password is not None
        self.login_as(Login(registry.user, registry.password))

    def login_as(self, login: Login) -> None:
        # It only writes a file; the registry is asked by the first command after it.
        self.crane("auth", "login", self.setting.address, "-u", login.user, "--password-stdin", input=login.secret)

    def refused_login(self, login: Login, reason: str) -> None:
        self.login_as(login)
        says(self.pull(self.setting.reference("small/app:1")), reason)

    def narrow(self) -> None:
        self.login_as(_registry(self.setting).narrow)
        self.narrow_push()
        back = self.setting.folder("back") / "narrow"
        self.crane("pull", "--format", "oci", self.setting.reference("small/crane:1"), back)
        compare_layouts(self.layout("largest"), str(back))

    def push(self, image: str, reference: str) -> Finished:
        return self.crane("push", self.layout(image), reference, ok=None)

    def pull(self, reference: str) -> Finished:
        return self.crane("pull", "--format", "oci", reference, self.setting.folder("back") / "crane", ok=None)

    def delete(self) -> None:
        done = self.crane("delete", self.setting.reference("releases/crane:1.0.0"), ok=None)
        says(done, "the tag 1.0.0 is immutable")

    def denied_delete(self) -> None:
        done = self.crane("delete", self.setting.reference("small/crane:1"), ok=None)
        says(done, 'the rule "small images are kept" of the policy denies the action delete in small/crane')


class Oras(Client):
    label = "oras"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, "oras")
        self.env = setting.home("oras")

    def oras(self, command: str, *words: object, **more: object) -> Finished:
        return client([tool("oras"), *command.split(), *words], self.env, **more)

    def login(self) -> None:
        registry = self.setting.registry
        self.oras("login --plain-http", "-u", registry.user, "--password-stdin", registry.address, input=registry.password)

    def refused_login(self, login: Login, reason: str) -> None:
        words = ["-u", login.user, "--password-stdin", self.setting.address]
        says(self.oras("login --plain-http", *words, input=login.secret, ok=None), reason)

    def narrow(self) -> None:
        login = _registry(self.setting).narrow
        self.oras("login --plain-http", "-u", login.user, "--password-stdin", self.setting.address, input=login.secret)
        self.narrow_push()

    def delete(self) -> None:
        done = self.oras("manifest delete --plain-http --force", self.setting.reference("releases/oras:1.0.0"), ok=None)
        says(done, f"the tag 1.0.0 is immutable: {NOTHING_CHANGES}")

    def push(self, image: str, reference: str) -> Finished:
        return self.oras("cp --from-oci-layout --to-plain-http", f"{self.layout(image)}:1", reference, ok=None)

    def pull(self, reference: str) -> Finished:
        return self.oras("pull --plain-http -o", self.setting.folder("back") / "oras", reference, ok=None)
