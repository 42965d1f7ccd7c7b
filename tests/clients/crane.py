"""crane: what it pushes and pulls keeps its bytes, copies mount, deletes leave the rest."""

from __future__ import annotations

import json
import tarfile
from typing import Iterator

from common import UNAUTHORIZED, Setting, client, refused, tool
from harness import Result
from harness.process import Finished
from images import RUNS
from verify import compare_layouts, reachable, root_digest


def results(setting: Setting) -> Iterator[Result]:
    checks = Crane(setting)
    if setting.registry.user is not None:
        yield setting.check("crane: auth login", checks.login)
    for image, what in (("app", "an image"), ("multi", "an index"), ("mixed", "uncompressed and zstd layers")):
        yield setting.check(f"crane: push {what}", checks.push, image)
        yield setting.check(f"crane: pull {what} and compare", checks.pull, image)
    yield setting.check("crane: validate an image", checks.validate, "app")
    yield setting.check("crane: validate an index", checks.validate, "multi")
    yield setting.check("crane: copy to another repository mounts", checks.copy)
    yield setting.check("crane: push a docker archive", checks.push_archive)
    yield setting.check("crane: tag, ls, digest, catalog", checks.names)
    yield setting.check("crane: append a layer and export", checks.append)
    yield setting.check("crane: delete", checks.delete)


def login(setting: Setting) -> Iterator[Result]:
    checks = Crane(setting)
    yield setting.check("crane: push without login is refused", checks.refused_push)
    if setting.registry.public:
        yield setting.check("crane: pull of a public image without login", checks.pull_public)
        yield setting.check("crane: pull of a private image without login is refused", checks.refused_private)
    yield setting.check("crane: push with a wrong password is refused", checks.wrong_login)
    yield setting.check("crane: auth login", checks.login)
    yield setting.check("crane: push after login", checks.push, "app")
    yield setting.check("crane: pull after login", checks.pull, "app")
    yield setting.check("crane: pull after logout is refused", checks.refused_pull)


def public(setting: Setting) -> Iterator[Result]:
    checks = Crane(setting)
    yield setting.check("crane: push without login is refused", checks.refused_push)
    yield setting.check("crane: auth login", checks.login)
    yield setting.check("crane: push after login", checks.push, "app")
    yield setting.check("crane: auth logout", checks.logout)
    yield setting.check("crane: pull without login", checks.pull, "app")


class Crane:
    def __init__(self, setting: Setting) -> None:
        self.setting, self.registry, self.env = setting, setting.registry, setting.home("crane")

    def crane(self, *words: object, **more: object) -> Finished:
        return client([tool("crane"), "--insecure", *words], self.env, **more)

    def layout(self, image: str) -> str:
        return getattr(self.setting.images, image)

    def reference(self, name: str) -> str:
        return self.setting.reference(f"crane/{name}")

    def push(self, image: str) -> None:
        self.crane("push", self.layout(image), self.reference(f"{image}:1"))
        repository = self.setting.repository(f"crane/{image}")
        self.registry.verify(repository, "1", expect=root_digest(self.layout(image)))

    def logout(self) -> None:
        self.crane("auth", "logout", self.setting.address)

    def refused_pull(self) -> None:
        self.logout()
        self.refused(self.reference("app:1"))

    def refused_private(self) -> None:
        self.refused(self.setting.pushed("app", "crane/private:1"))

    def refused(self, reference: str) -> None:
        folder = self.setting.folder("back") / "refused"
        refused([tool("crane"), "--insecure", "pull", reference, folder], self.env, *UNAUTHORIZED)

    def pull_public(self) -> None:
        reference, folder = self.setting.pushed("app", f"{self.registry.public}crane:1"), self.setting.folder("back") / "public"
        self.crane("pull", "--format", "oci", reference, folder)
        compare_layouts(self.layout("app"), str(folder))

    def pull(self, image: str) -> None:
        folder = self.setting.folder("back") / image
        self.crane("pull", "--format", "oci", self.reference(f"{image}:1"), folder)
        compare_layouts(self.layout(image), str(folder))

    def validate(self, image: str) -> None:
        done = self.crane("validate", "--remote", self.reference(f"{image}:1"))
        assert "PASS" in done.stdout + done.stderr, done

    def copy(self) -> None:
        """Every blob that the target lacks comes by a mount: no upload is opened for one."""
        done = self.crane("copy", "--verbose", self.reference("multi:1"), self.reference("copied/multi:1"))
        layout = self.layout("multi")
        found = self.registry.verify(self.setting.repository("crane/copied/multi"), "1")
        assert found == reachable(layout, root_digest(layout)), found
        assert "mounted blob" in done.stderr, f"nothing was mounted: {done.stderr[-1500:]}"
        assert "pushed blob" not in done.stderr, f"a blob was uploaded again: {done.stderr[-1500:]}"

    def push_archive(self) -> None:
        archive = self.setting.images.archive("app", "docker-archive", "docker.io/local/app:1")
        self.crane("push", archive, self.reference("archive:1"))
        repository = self.setting.repository("crane/archive")
        found = self.registry.verify(repository, "1")
        assert len(found) == 5, f"a manifest, a configuration and three layers, not {sorted(found)}"

    def names(self) -> None:
        for tag in ("b", "A", "1.10"):
            self.crane("tag", self.reference("app:1"), tag)
        printed = self.crane("ls", self.reference("app")).stdout.split()
        assert sorted(printed) == ["1", "1.10", "A", "b"], printed
        assert self.crane("digest", self.reference("app:b")).stdout.strip() == root_digest(self.layout("app"))
        assert self.setting.repository("crane/app") in self.crane("catalog", self.setting.address).stdout.split()

    def append(self) -> None:
        """A new layer over a base that the registry holds, in one repository."""
        folder = self.setting.folder("append")
        (folder / "appended").write_text("appended\n")
        with tarfile.open(folder / "layer.tar", "w") as tar:
            tar.add(folder / "appended", "data/appended")
        self.crane("append", "-b", self.reference("app:1"), "-f", folder / "layer.tar", "-t", self.reference("app:appended"))
        self.registry.verify(self.setting.repository("crane/app"), "appended")
        self.crane("export", self.reference("app:appended"), folder / "export.tar")
        with tarfile.open(folder / "export.tar") as tar:
            names = tar.getnames()
            script = tar.extractfile("check.sh")
            assert script is not None and RUNS.encode() in script.read()
        assert "data/appended" in names and "data/removed" not in names, names

    def delete(self) -> None:
        repository = self.setting.repository("crane/delete")
        self.crane("copy", self.reference("app:1"), self.reference("delete:1"))
        self.crane("copy", self.reference("mixed:1"), self.reference("delete:2"))
        digest = self.crane("digest", self.reference("delete:1")).stdout.strip()
        self.crane("delete", f"{self.setting.address}/{repository}@{digest}")
        assert self.registry.request("GET", f"/v2/{repository}/manifests/{digest}").status == 404, "still there"
        refused([tool("crane"), "--insecure", "digest", self.reference("delete:1")], self.env, "404")
        assert self.crane("ls", self.reference("delete")).stdout.split() == ["2"]
        self.registry.verify(repository, "2", expect=root_digest(self.layout("mixed")))
        if self.setting.own:
            # Deleting a tag alone leaves the manifest; older registries know no such thing.
            self.crane("delete", self.reference("delete:2"))
            assert self.registry.request("GET", f"/v2/{repository}/manifests/2").status == 404, "the tag is still there"
            self.registry.verify(repository, root_digest(self.layout("mixed")))

    def refused_push(self) -> None:
        words = [tool("crane"), "--insecure", "push", self.layout("app"), self.reference("refused:1")]
        refused(words, self.env, "unauthorized")

    def wrong_login(self) -> None:
        # `crane auth login` only writes a file; the registry is asked by the first command after it.
        self.crane("auth", "login", self.setting.address, "-u", self.registry.user, "-p", "wrong")
        self.refused_push()

    def login(self) -> None:
        self.crane("auth", "login", self.setting.address, "-u", self.registry.user, "-p", self.registry.password)
        catalog = json.loads(self.registry.request("GET", "/v2/_catalog").body)["repositories"]
        printed = self.crane("catalog", self.setting.address).stdout.split()
        assert set(catalog) <= set(printed), f"{catalog} with the password, {printed} after login"
