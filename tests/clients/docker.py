"""Docker, one daemon that pushes and another that pulls and runs: Debian's own generation, and `generation` for others.

Docker's own image store unpacks and repacks layers, so what it pushes has digests of its own. It is judged by three
things: what the registry stores hashes to the digest that docker printed; every layer unpacks to the content that the image was made
with; and the other daemon's container finds its file system whole.
"""

from __future__ import annotations

import re
from typing import Iterator

from common import UNAUTHORIZED, Setting, is_refusal, need_root
from engines import Dockerd
from harness import Result
from images import RUNS
from verify import contents, root_digest

TIMEOUT_LARGE = 300


def results(setting: Setting, generation: str = "", snapshotter: bool = False) -> Iterator[Result]:
    """Every check of one docker generation. The large image is pushed by Debian's own docker only."""
    need_root()
    short = (generation.strip("/") or "docker") + ("c" if snapshotter else "")
    with Dockerd(setting.folder(f"{short}-a"), setting.home(short), generation, snapshotter) as one:
        with Dockerd(setting.folder(f"{short}-b"), setting.home(f"{short}-b"), generation, snapshotter) as two:
            checks = Docker(setting, one, two, short)
            label = f"docker {one.version}" + (" containerd store" if snapshotter else "")
            if setting.registry.user is not None:
                yield setting.check(f"{label}: login", checks.login)
            yield setting.check(f"{label}: push", checks.push, "app")
            yield setting.check(f"{label}: pull and run with another daemon", checks.pull_and_run, "app")
            yield setting.check(f"{label}: push again sends nothing", checks.push_again)
            yield setting.check(f"{label}: push to a second repository", checks.push_elsewhere)
            yield setting.check(f"{label}: pull by digest", checks.pull_by_digest)
            yield setting.check(f"{label}: pull of an index takes the platform", checks.pull_index)
            yield setting.check(f"{label}: pull of an absent tag", checks.pull_absent)
            if not generation:
                image, size = ("medium", "40 MB") if setting.small else ("large", "500 MB")
                yield setting.check(f"{label}: push of {size}", checks.push, image)
                yield setting.check(f"{label}: pull and run of {size}", checks.pull_and_run, image)


def login(setting: Setting, generation: str = "", snapshotter: bool = False) -> Iterator[Result]:
    """`docker login`, and what a daemon may do before and after it. Public images need no login."""
    need_root()
    short = (generation.strip("/") or "docker") + ("c" if snapshotter else "")
    with Dockerd(setting.folder(f"{short}-a"), setting.home(short), generation, snapshotter) as one:
        checks = Docker(setting, one, one, short)
        label = f"docker {one.version}" + (" containerd store" if snapshotter else "")
        yield setting.check(f"{label}: push without login is refused", checks.refused_push)
        if setting.registry.public:
            yield setting.check(f"{label}: pull and run of a public image without login", checks.pull_public)
            yield setting.check(f"{label}: pull of a private image without login is refused", checks.refused_pull)
        yield setting.check(f"{label}: login with a wrong password is refused", checks.wrong_login)
        yield setting.check(f"{label}: login", checks.login)
        yield setting.check(f"{label}: push after login", checks.push, "app")
        yield setting.check(f"{label}: pull after login, run", checks.pull_and_run, "app")
        yield setting.check(f"{label}: pull after logout is refused", checks.logout)


def public(setting: Setting, generation: str = "", snapshotter: bool = False) -> Iterator[Result]:
    """Everyone may pull, and users of a file may push: docker asks for a token without a login too."""
    need_root()
    short = (generation.strip("/") or "docker") + ("c" if snapshotter else "")
    with Dockerd(setting.folder(f"{short}-a"), setting.home(short), generation, snapshotter) as one:
        checks = Docker(setting, one, one, short)
        label = f"docker {one.version}" + (" containerd store" if snapshotter else "")
        yield setting.check(f"{label}: push without login is refused", checks.refused_push)
        yield setting.check(f"{label}: login", checks.login)
        yield setting.check(f"{label}: push after login", checks.push, "app")
        yield setting.check(f"{label}: logout", checks.leave)
        yield setting.check(f"{label}: pull without login, run", checks.pull_and_run, "app")


class Docker:
    """The checks; `one` pushes and `two` pulls. `digests` is the digest that docker printed for each push."""

    def __init__(self, setting: Setting, one: Dockerd, two: Dockerd, short: str) -> None:
        self.setting, self.one, self.two, self.short = setting, one, two, short
        self.digests: dict = {}

    def name(self, image: str) -> str:
        return f"{self.short}/{image}:1"

    def load(self, image: str) -> str:
        """Loads an image into the first daemon and returns the name it is to be pushed under."""
        archive = self.setting.images.archive(image, "docker-archive", f"docker.io/local/{image}:1")
        self.one.docker("load", "-q", "-i", archive, timeout=TIMEOUT_LARGE)
        reference = self.setting.reference(self.name(image))
        self.one.docker("tag", f"local/{image}:1", reference)
        return reference

    def push(self, image: str) -> str:
        done = self.one.docker("push", self.load(image), timeout=TIMEOUT_LARGE)
        self.digests[image] = printed = pushed_digest(done.stdout)
        repository = self.setting.repository(self.name(image).rsplit(":", 1)[0])
        found = self.setting.registry.verify(repository, "1", expect=printed)
        config = self.setting.registry.configuration(repository, "1")
        assert config["rootfs"]["diff_ids"] == contents(getattr(self.setting.images, image)), "other contents than made"
        return f"{sum(found.values()) / 1e6:.0f} MB"

    def pull_and_run(self, image: str) -> None:
        reference = self.setting.reference(self.name(image))
        if self.one is self.two:
            self.one.docker("rmi", reference, f"local/{image}:1")
        done = self.two.docker("pull", reference, timeout=TIMEOUT_LARGE)
        assert self.digests[image] in done.stdout, f"pulled another digest than {self.digests[image]}: {done.stdout}"
        self.runs(reference)

    def runs(self, reference: str) -> None:
        done = self.two.docker("run", "--rm", "--network", "none", reference)
        assert RUNS in done.stdout, f"the container says {done.stdout!r} {done.stderr!r}"

    def push_again(self) -> None:
        done = self.one.docker("push", self.setting.reference(self.name("app")))
        assert pushed_digest(done.stdout) == self.digests["app"], done.stdout
        assert "Pushed" not in done.stdout, f"a layer was pushed again: {done.stdout}"

    def push_elsewhere(self) -> None:
        """What is in one repository is mounted into another."""
        reference = self.setting.reference(f"{self.short}/elsewhere:1")
        self.one.docker("tag", self.setting.reference(self.name("app")), reference)
        done = self.one.docker("push", reference)
        assert "Mounted from" in done.stdout or self.one.snapshotter, f"nothing was mounted: {done.stdout}"
        self.setting.registry.verify(self.setting.repository(f"{self.short}/elsewhere"), "1", expect=self.digests["app"])

    def pull_by_digest(self) -> None:
        repository = self.setting.reference(f"{self.short}/elsewhere")
        self.two.docker("pull", f"{repository}@{self.digests['app']}")
        self.runs(f"{repository}@{self.digests['app']}")

    def pull_index(self) -> None:
        reference = self.setting.pushed("multi", f"{self.short}/multi:1")
        done = self.two.docker("pull", reference)
        assert root_digest(self.setting.images.multi) in done.stdout, f"not the index's digest: {done.stdout}"
        self.runs(reference)

    def pull_absent(self) -> None:
        done = self.two.docker("pull", self.setting.reference(f"{self.short}/app:absent"), ok=None)
        assert done.returncode != 0 and "not found" in done.stderr, f"refused otherwise than as absent: {done}"

    def refused_push(self) -> None:
        done = self.one.docker("push", self.load("app"), ok=None)
        text = (done.stdout + done.stderr).lower()
        assert done.returncode != 0, "pushed without credentials"
        assert "retrying" not in text, f"docker has tried it again: {text}"
        assert any(word in text for word in ("no basic auth", "unauthorized", "authentication required")), text

    def wrong_login(self) -> None:
        user = self.setting.registry.user
        done = self.one.docker("login", "-u", user, "--password-stdin", self.setting.address, input="wrong", ok=None)
        assert done.returncode != 0 and "unauthorized" in done.stderr.lower(), f"not refused: {done}"

    def login(self) -> None:
        registry = self.setting.registry
        for daemon in dict.fromkeys((self.one, self.two)):
            done = daemon.docker("login", "-u", registry.user, "--password-stdin", registry.address, input=registry.password)
            assert "Login Succeeded" in done.stdout, done

    def leave(self) -> None:
        self.one.docker("logout", self.setting.address)

    def logout(self) -> None:
        self.leave()
        self.refused_pull()

    def refused_pull(self) -> None:
        done = self.one.docker("pull", self.setting.reference(f"{self.short}/app:1"), ok=None)
        is_refusal(done, "no basic auth", *UNAUTHORIZED)

    def pull_public(self) -> None:
        reference = self.setting.pushed("app", f"{self.setting.registry.public}{self.short}:1")
        done = self.one.docker("pull", reference)
        assert root_digest(self.setting.images.app) in done.stdout, f"pulled another digest: {done.stdout}"
        self.runs(reference)
        # Its layers are those of the private image.
        self.one.docker("rmi", reference)


def pushed_digest(text: str) -> str:
    """The manifest's digest that `docker push` tells in its last line."""
    found = re.findall(r"digest: (sha256:[0-9a-f]{64})", text)
    assert found, f"docker push printed no digest: {text[-800:]}"
    return found[-1]
