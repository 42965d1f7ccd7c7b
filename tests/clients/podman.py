"""podman and buildah over one storage folder; a second folder is the other machine, which pulls and runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, Iterator, Optional

from common import TIMEOUT, UNAUTHORIZED, Setting, client, is_refusal, need_root, tool
from harness import Result
from harness.process import Finished, unmount_below
from images import RUNS
from private import remembering
from verify import contents

# The settings with which podman fetches a layer in parts where the layer allows it.
PARTIAL = """[storage]
driver = "overlay"
graphroot = "{store}/root"
runroot = "{store}/run"
[storage.options]
pull_options = {{enable_partial_images = "true", use_hard_links = "false", ostree_repos = ""}}
"""


def results(setting: Setting) -> Iterator[Result]:
    need_root()
    checks = Podman(setting)
    try:
        if setting.registry.user is not None:
            yield setting.check("podman: login", checks.login, setting.registry.password, True)
        yield setting.check("podman: push", checks.push, "app")
        yield setting.check("podman: pull and run", checks.pull_and_run, "app")
        yield setting.check("podman: pull of an index takes the platform", checks.pull_pushed, "multi")
        yield setting.check("podman: pull and run uncompressed and zstd layers", checks.pull_pushed, "mixed")
        yield setting.check("podman: pull zstd:chunked layers in parts, and run", checks.pull_parts)
        yield setting.check("podman: make and push a manifest list", checks.manifest_list)
        yield setting.check("buildah: bud on a pulled base, push, run", checks.bud)
    finally:
        checks.stop()


def login(setting: Setting) -> Iterator[Result]:
    need_root()
    checks = Podman(setting)
    try:
        yield setting.check("podman: push without login is refused", checks.refused_push)
        if setting.registry.public:
            yield setting.check("podman: pull and run of a public image without login", checks.pull_public)
            yield setting.check("podman: pull of a private image without login is refused", checks.refused_pull)
        yield setting.check("buildah: pull without login is refused", checks.refused_base)
        yield setting.check("podman: login with a wrong password is refused", checks.login, "wrong", False)
        yield setting.check("podman: login", checks.login, setting.registry.password, True)
        yield setting.check("podman: push after login", checks.push, "app")
        yield setting.check("podman: pull after login, run", checks.pull_and_run, "app")
        yield setting.check("podman: pull after logout is refused", checks.logout)
        yield setting.check("buildah: login", checks.buildah_login)
        yield setting.check("buildah: bud on a pulled base, push, run after login", checks.bud)
    finally:
        checks.stop()


def public(setting: Setting) -> Iterator[Result]:
    """Everyone may pull, and users of a file may push."""
    need_root()
    checks = Podman(setting)
    try:
        yield setting.check("podman: push without login is refused", checks.refused_push)
        yield setting.check("podman: login", checks.login, setting.registry.password, True)
        yield setting.check("podman: push after login", checks.push, "app")
        yield setting.check("podman: logout", checks.leave)
        yield setting.check("podman: pull without login, run", checks.pull_and_run, "app")
    finally:
        checks.stop()


class Podman:
    """podman and buildah over one storage folder; a second folder is the other machine that pulls."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.registry = setting, setting.registry
        self.env = {**setting.home("podman"), "BUILDAH_ISOLATION": "chroot"}
        self.first, self.second = setting.folder("p1"), setting.folder("p2")
        self.digests: Dict[str, str] = {}

    def podman(self, store: Path, *words: object, more_env: Optional[Dict[str, str]] = None, **more: object) -> Finished:
        flags = ["--root", store / "root", "--runroot", store / "run", "--storage-driver", "overlay"]
        # Options on the command line would make podman drop what the settings file says of the storage.
        flags = [] if more_env else flags
        flags += ["--cgroup-manager=cgroupfs", "--events-backend=none", "--runtime", tool("runc")]
        prefix = remembering(store / "memory")
        command = [*prefix, tool("podman"), *flags, "--tmpdir", store / "tmp", *words]
        return client(command, {**self.env, **(more_env or {})}, **more)

    def buildah(self, *words: object, **more: object) -> Finished:
        store = self.first
        flags = ["--root", store / "root", "--runroot", store / "run", "--storage-driver", "overlay"]
        return client([*remembering(store / "memory"), tool("buildah"), *flags, *words], self.env, **more)

    def stop(self) -> None:
        unmount_below(self.setting.work)

    def push(self, image: str) -> None:
        """podman keeps no compressed layers: it packs them anew as it sends, so their content is what is compared."""
        archive = self.setting.images.archive(image, "oci-archive", f"docker.io/local/{image}:1")
        self.podman(self.first, "load", "-q", "-i", archive)
        digest_file = self.setting.folder("digests") / image
        reference = self.setting.reference(f"podman/{image}:1")
        words = ["push", "-q", "--tls-verify=false", "--digestfile", digest_file, f"docker.io/local/{image}:1", reference]
        self.podman(self.first, *words)
        self.digests[image] = digest_file.read_text().strip()
        repository = self.setting.repository(f"podman/{image}")
        self.registry.verify(repository, "1", expect=self.digests[image])
        layout = getattr(self.setting.images, image)
        assert self.registry.configuration(repository, "1")["rootfs"]["diff_ids"] == contents(layout), "other contents"

    def pull_and_run(self, name: str) -> None:
        reference = self.setting.reference(f"podman/{name}:1")
        self.podman(self.second, "pull", "-q", "--tls-verify=false", reference)
        if name in self.digests:
            done = self.podman(self.second, "image", "inspect", "--format", "{{.Digest}}", reference)
            printed = done.stdout.strip()
            assert printed == self.digests[name], f"pulled {printed}, pushed {self.digests[name]}"
        self.runs(reference)

    def runs(self, reference: str, store: Optional[Path] = None, env: Optional[Dict[str, str]] = None) -> None:
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        run = ["run", "--rm", "--pull=never", "--network=none", *limits, reference]
        done = self.podman(store or self.second, *run, more_env=env)
        assert RUNS in done.stdout, f"the container says {done.stdout!r} {done.stderr!r}"

    def pull_pushed(self, image: str) -> None:
        """Pulls and runs what skopeo pushed."""
        reference = self.setting.pushed(image, f"podman/{image}-pushed:1")
        self.podman(self.second, "pull", "-q", "--tls-verify=false", reference)
        self.runs(reference)

    def pull_parts(self) -> None:
        """Layers whose files are compressed one by one are fetched file by file: many ranges in one request."""
        name = "podman/chunked:1"
        archive = self.setting.images.archive("app", "docker-archive", "docker.io/local/app:1")
        push = ["copy", "-q", "--format", "oci", "--dest-compress", "--dest-compress-format", "zstd:chunked"]
        push += ["--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{self.setting.reference(name)}"]
        memory = self.setting.folder("no-memory")
        client([*remembering(memory), tool("skopeo"), *push], self.env)
        repository = self.setting.repository("podman/chunked")
        assert set(self.registry.compressions(repository, "1")) == {"tar+zstd"}, "skopeo did not pack as asked"
        store = self.setting.folder("p3")
        settings = store / "storage.conf"
        settings.write_text(PARTIAL.format(store=store))
        env = {"CONTAINERS_STORAGE_CONF": str(settings)}
        pull = ["--log-level=debug", "pull", "--tls-verify=false", self.setting.reference(name)]
        done = self.podman(store, *pull, more_env=env)
        parts = done.stderr.count("Retrieved partial blob")
        assert parts == 3, f"{parts} of 3 layers were fetched in parts: {done.stderr[-3000:]}"
        self.runs(self.setting.reference(name), store, env)

    def manifest_list(self) -> None:
        """A manifest list made of what the registry holds, and pushed with all its images to another repository."""
        source = f"docker://{self.setting.pushed('app', 'podman/app-oci:1')}"
        self.podman(self.first, "manifest", "create", "local/list:1")
        self.podman(self.first, "manifest", "add", "--tls-verify=false", "local/list:1", source)
        target = f"docker://{self.setting.reference('podman/list:1')}"
        self.podman(self.first, "manifest", "push", "--all", "--tls-verify=false", "local/list:1", target)
        repository = self.setting.repository("podman/list")
        self.registry.verify(repository, "1")
        entries = json.loads(self.registry.manifest(repository, "1")[2])["manifests"]
        assert len(entries) == 1, entries
        # podman may pack the layers anew; the image is the one whose configuration it is.
        config = self.registry.configuration(repository, entries[0]["digest"])
        assert config["rootfs"]["diff_ids"] == contents(self.setting.images.app), config

    def bud(self) -> None:
        """Builds on an image that the registry serves and pushes the result; base layers are there already."""
        context = self.setting.folder("context")
        base = self.setting.pushed("app", "buildah/base:1")
        (context / "Dockerfile").write_text(f"FROM {base}\nCOPY added /data/added\nRUN /bin/cat /data/added > /data/copy\n")
        (context / "added").write_text("added\n")
        self.buildah("bud", "--isolation", "chroot", "--tls-verify=false", "-t", "local/built:1", context)
        digest_file = self.setting.folder("digests") / "built"
        target = f"docker://{self.setting.reference('buildah/built:1')}"
        self.buildah("push", "-q", "--tls-verify=false", "--digestfile", digest_file, "local/built:1", target)
        self.registry.verify(self.setting.repository("buildah/built"), "1", expect=digest_file.read_text().strip())
        reference = self.setting.reference("buildah/built:1")
        self.podman(self.second, "pull", "-q", "--tls-verify=false", reference)
        self.runs(reference)

    def refused_push(self) -> None:
        archive = self.setting.images.archive("app", "oci-archive", "docker.io/local/app:1")
        self.podman(self.first, "load", "-q", "-i", archive)
        target = self.setting.reference("podman/refused:1")
        done = self.podman(self.first, "push", "-q", "--tls-verify=false", "docker.io/local/app:1", target, ok=None)
        assert done.returncode != 0 and "auth" in done.stderr.lower(), f"not refused: {done}"

    def refused_pull(self) -> None:
        reference = self.setting.pushed("app", "podman/private:1")
        done = self.podman(self.second, "pull", "-q", "--tls-verify=false", reference, ok=None)
        is_refusal(done, *UNAUTHORIZED)

    def refused_base(self) -> None:
        reference = self.setting.pushed("app", "buildah/base:1")
        is_refusal(self.buildah("pull", "-q", "--tls-verify=false", reference, ok=None), *UNAUTHORIZED)

    def buildah_login(self) -> None:
        words = ["login", "--tls-verify=false", "-u", self.registry.user, "-p", self.registry.password, self.setting.address]
        self.buildah(*words)

    def pull_public(self) -> None:
        reference, store = self.setting.pushed("app", f"{self.registry.public}podman:1"), self.setting.folder("p0")
        self.podman(store, "pull", "-q", "--tls-verify=false", reference)
        self.runs(reference, store)

    def leave(self) -> None:
        self.podman(self.first, "logout", self.setting.address)

    def logout(self) -> None:
        self.leave()
        done = self.podman(self.second, "pull", "-q", "--tls-verify=false", self.setting.reference("podman/app:1"), ok=None)
        is_refusal(done, *UNAUTHORIZED)

    def login(self, password: Optional[str], ok: bool) -> None:
        words = ["login", "--tls-verify=false", "-u", self.registry.user, "-p", password, self.setting.address]
        done = self.podman(self.first, *words, ok=None, timeout=TIMEOUT)
        assert (done.returncode == 0) == ok, done
        assert ok or "invalid username/password" in done.stderr, done
