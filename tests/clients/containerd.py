"""containerd by its own client `ctr`: what is imported is pushed byte for byte, pulled into another namespace, and run.

The daemon shares no content between namespaces, so a pull into a second one asks the registry for every byte.
"""

from __future__ import annotations

import secrets
import tarfile
from pathlib import Path
from typing import Iterator

from common import UNAUTHORIZED, Setting, is_refusal, need_root
from engines import Containerd
from harness import Result
from images import RUNS
from verify import compare_layouts, root_digest

TIMEOUT_LARGE = 300


def results(setting: Setting, generation: str = "", config: str = "", large: bool = False) -> Iterator[Result]:
    need_root()
    short = f"{generation.strip('/')}ctr"
    with Containerd(setting.folder(short), setting.home(short), generation, config) as daemon:
        registry = setting.registry
        checks = Ctr(setting, daemon, short, f"{registry.user}:{registry.password}" if registry.user is not None else "")
        label = f"containerd {daemon.version}"
        yield setting.check(f"{label}: push", checks.push, "app")
        yield setting.check(f"{label}: pull and compare", checks.pull, "app")
        yield setting.check(f"{label}: run", checks.runs, "app")
        yield setting.check(f"{label}: push an index of three platforms", checks.push, "multi")
        yield setting.check(f"{label}: pull every platform and compare", checks.pull, "multi")
        yield setting.check(f"{label}: run the machine's platform", checks.runs, "multi")
        yield setting.check(f"{label}: push uncompressed and zstd layers", checks.push, "mixed")
        yield setting.check(f"{label}: pull uncompressed and zstd layers", checks.pull, "mixed")
        yield setting.check(f"{label}: run uncompressed and zstd layers", checks.runs, "mixed")
        yield setting.check(f"{label}: pull by digest", checks.pull_by_digest)
        yield setting.check(f"{label}: pull of an absent tag", checks.pull_absent)
        if large:
            yield setting.check(f"{label}: push of 500 MB", checks.push, "large")
            yield setting.check(f"{label}: pull of 500 MB and compare", checks.pull, "large")


def login(setting: Setting, generation: str = "") -> Iterator[Result]:
    need_root()
    registry = setting.registry
    short = f"{generation.strip('/')}ctr"
    with Containerd(setting.folder(short), setting.home(short), generation) as daemon:
        label = f"containerd {daemon.version}"
        stranger = Ctr(setting, daemon, f"{short}-stranger")
        yield setting.check(f"{label}: push without login is refused", stranger.refused_push)
        if registry.public:
            yield setting.check(f"{label}: pull of a public image without login", stranger.pull_public)
            yield setting.check(f"{label}: pull of a private image without login is refused", stranger.refused_private)
        wrong = Ctr(setting, daemon, f"{short}-stranger", f"{registry.user}:wrong")
        yield setting.check(f"{label}: push with a wrong password is refused", wrong.refused_push)
        known = Ctr(setting, daemon, short, f"{registry.user}:{registry.password}")
        yield setting.check(f"{label}: push with --user", known.push, "app")
        yield setting.check(f"{label}: pull with --user", known.pull, "app")
        yield setting.check(f"{label}: the same pull without --user is refused", stranger.refused_pull, known)


def public(setting: Setting, generation: str = "") -> Iterator[Result]:
    """Everyone may pull, and users of a file may push."""
    need_root()
    registry = setting.registry
    short = f"{generation.strip('/')}ctr"
    with Containerd(setting.folder(short), setting.home(short), generation) as daemon:
        label = f"containerd {daemon.version}"
        stranger, known = Ctr(setting, daemon, short), Ctr(setting, daemon, short, f"{registry.user}:{registry.password}")
        yield setting.check(f"{label}: push without login is refused", stranger.refused_push)
        yield setting.check(f"{label}: push with --user", known.push, "app")
        yield setting.check(f"{label}: pull without --user", stranger.pull, "app")


class Ctr:
    """The checks. `user` is given to ctr's `--user`."""

    def __init__(self, setting: Setting, daemon: Containerd, short: str, user: str = "") -> None:
        self.setting, self.daemon, self.short = setting, daemon, short
        self.login = ["--user", user] if user else []

    def reference(self, image: str) -> str:
        return self.setting.reference(f"{self.short}/{image}:1")

    def layout(self, image: str) -> str:
        return getattr(self.setting.images, image)

    def load(self, image: str) -> str:
        """Imports an image into the pushing namespace under the name that it is to be pushed with."""
        archive = self.setting.images.archive(image, "oci-archive", f"docker.io/local/{image}:1")
        self.daemon.ctr("images", "import", "--no-unpack", "--all-platforms", archive, timeout=TIMEOUT_LARGE)
        self.daemon.ctr("images", "tag", "--force", f"docker.io/local/{image}:1", self.reference(image))
        return self.reference(image)

    def push(self, image: str) -> str:
        reference = self.load(image)
        self.daemon.ctr("images", "push", "--plain-http", *self.login, reference, timeout=TIMEOUT_LARGE)
        repository = self.setting.repository(f"{self.short}/{image}")
        found = self.setting.registry.verify(repository, "1", expect=root_digest(self.layout(image)))
        return f"{sum(found.values()) / 1e6:.0f} MB"

    def pull(self, image: str) -> None:
        """Pulls into another namespace and compares, blob for blob, with the layout that was pushed.

        A namespace for each image: newer generations do not fetch a layer whose snapshot they have already.
        """
        reference = self.reference(image)
        # Every platform only of an index: of a plain image it would unpack it for platforms that it is not for.
        every = ["--all-platforms"] if image == "multi" else []
        pull = ["images", "pull", "--plain-http", *every, *self.login, reference]
        self.daemon.ctr("-n", f"{image}-2", *pull, timeout=TIMEOUT_LARGE)
        archive = self.setting.folder(f"{self.short}-export") / f"{image}.tar"
        # ctr 2 exports through the daemon's transfer service, which at times loses the end of the archive
        # (containerd's pull request 12968); `--local` reads the content itself, as ctr 1 does.
        local = [] if self.daemon.version.startswith("1.") else ["--local"]
        self.daemon.ctr("-n", f"{image}-2", "images", "export", *local, *every, archive, reference, timeout=TIMEOUT_LARGE)
        compare_layouts(self.layout(image), unpacked(archive))

    def runs(self, image: str) -> None:
        reference = self.reference(image)
        # The names of running containers are those of the machine: other groups use the same namespace at the same time.
        name = f"{self.short}-{image}-{secrets.token_hex(4)}"
        done = self.daemon.ctr("-n", f"{image}-2", "run", "--rm", reference, name)
        assert RUNS in done.stdout, f"the container says {done.stdout!r} {done.stderr!r}"

    def pull_by_digest(self) -> None:
        reference = f"{self.setting.reference(f'{self.short}/app')}@{root_digest(self.layout('app'))}"
        self.daemon.ctr("-n", "third", "images", "pull", "--plain-http", *self.login, reference)

    def pull_absent(self) -> None:
        reference = self.setting.reference(f"{self.short}/app:absent")
        done = self.daemon.ctr("-n", "third", "images", "pull", "--plain-http", *self.login, reference, ok=None)
        assert done.returncode != 0 and "not found" in done.stderr, f"refused otherwise than as absent: {done}"

    def pull_public(self) -> None:
        reference = self.setting.pushed("app", f"{self.setting.registry.public}{self.short}:1")
        self.daemon.ctr("-n", "public", "images", "pull", "--plain-http", reference)

    def refused_pull(self, known: "Ctr") -> None:
        self.refused(known.reference("app"))

    def refused_private(self) -> None:
        self.refused(self.setting.pushed("app", f"{self.short}/private:1"))

    def refused(self, reference: str) -> None:
        done = self.daemon.ctr("-n", "stranger", "images", "pull", "--plain-http", reference, ok=None)
        is_refusal(done, "401", *UNAUTHORIZED)

    def refused_push(self) -> None:
        done = self.daemon.ctr("images", "push", "--plain-http", *self.login, self.load("app"), ok=None)
        text = (done.stdout + done.stderr).lower()
        assert done.returncode != 0, "pushed without right credentials"
        assert any(word in text for word in ("401", "unauthorized", "authorization failed")), text[-600:]


def unpacked(archive: Path) -> str:
    """The folder that an OCI archive was unpacked to."""
    folder = archive.with_suffix("")
    with tarfile.open(archive) as tar:
        for member in tar:
            assert not member.name.startswith(("/", "..")), f"{archive} holds {member.name}"
            tar.extract(member, folder)
    return str(folder)
