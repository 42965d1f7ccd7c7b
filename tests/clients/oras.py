"""oras: artifacts of any type, and what refers to them."""

from __future__ import annotations

import json
import os
from typing import Iterator, List

from common import UNAUTHORIZED, Setting, client, refused, tool
from harness import Result
from harness.process import Finished
from layout import noise, sha256
from verify import compare_layouts, reachable, root_digest

KIND = "application/vnd.example.data"
BILL = "application/vnd.example.sbom"
SIGNATURE = "application/vnd.example.signature"


def results(setting: Setting) -> Iterator[Result]:
    checks = Oras(setting)
    if setting.registry.user is not None:
        yield setting.check("oras: login", checks.login)
    yield setting.check("oras: push an artifact", checks.push)
    yield setting.check("oras: pull it and compare the files", checks.pull)
    yield setting.check("oras: attach two referrers", checks.attach)
    yield setting.check("oras: discover", checks.discover)
    yield setting.check("oras: discover by artifact type", checks.discover_by_type)
    yield setting.check("oras: cp -r of an artifact with its referrers, there and back", checks.copy_graph)
    yield setting.check("oras: cp of an index between repositories", checks.copy_index)
    yield setting.check("oras: tag, resolve, repo ls, repo tags", checks.names)
    yield setting.check("oras: blob push, fetch, delete", checks.blobs)
    yield setting.check("oras: manifest push, fetch, delete", checks.manifests)


def login(setting: Setting) -> Iterator[Result]:
    checks = Oras(setting)
    yield setting.check("oras: push without login is refused", checks.refused_push)
    if setting.registry.public:
        yield setting.check("oras: copy of a public image without login", checks.pull_public)
        yield setting.check("oras: copy of a private image without login is refused", checks.refused_private)
    yield setting.check("oras: login with a wrong password is refused", checks.wrong_login)
    yield setting.check("oras: login", checks.login)
    yield setting.check("oras: push after login", checks.push)
    yield setting.check("oras: pull after login", checks.pull)
    yield setting.check("oras: pull after logout is refused", checks.logout)


def public(setting: Setting) -> Iterator[Result]:
    """Everyone may pull, and users of a file may push."""
    checks = Oras(setting)
    yield setting.check("oras: push without login is refused", checks.refused_push)
    yield setting.check("oras: login", checks.login)
    yield setting.check("oras: push after login", checks.push)
    yield setting.check("oras: logout", checks.leave)
    yield setting.check("oras: pull without login", checks.pull)


class Oras:
    FILES = {"data.bin": noise("oras", 300_000), "größe.txt": "größe\n".encode()}

    def __init__(self, setting: Setting) -> None:
        self.setting, self.registry, self.env = setting, setting.registry, setting.home("oras")
        self.source = setting.folder("source")
        for name, data in self.FILES.items():
            (self.source / name).write_bytes(data)
        for name in ("bill", "signature"):
            (self.source / name).write_text(f"{name}\n")

    def oras(self, command: str, *words: object, **more: object) -> Finished:
        return client([tool("oras"), *command.split(), *words], self.env, cwd=self.source, **more)

    def reference(self, name: str) -> str:
        return self.setting.reference(f"oras/{name}")

    def push(self) -> None:
        words = ["--artifact-type", KIND, "--annotation", "note=größe", "--format", "json", self.reference("artifact:1")]
        done = self.oras("push --plain-http", *words, *[f"{name}:application/octet-stream" for name in self.FILES])
        printed = json.loads(done.stdout)
        repository = self.setting.repository("oras/artifact")
        found = self.registry.verify(repository, "1", expect=printed["digest"])
        assert {sha256(data) for data in self.FILES.values()} <= set(found), found

    def pull(self) -> None:
        folder = self.setting.folder("pulled")
        self.oras("pull --plain-http -o", folder, self.reference("artifact:1"))
        assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == self.FILES, os.listdir(folder)

    def attach(self) -> None:
        reference = self.reference("artifact:1")
        self.oras("attach --plain-http --artifact-type", BILL, "--annotation", "note=bill", reference, "bill:text/plain")
        self.oras("attach --plain-http --artifact-type", SIGNATURE, reference, "signature:text/plain")
        if self.setting.own:
            # The registry's own referrers API was used, so no tag stands in for it.
            repository = self.setting.repository("oras/artifact")
            assert self.registry.tags(repository) == ["1"], self.registry.tags(repository)

    def referrers(self, *words: str) -> List[dict]:
        done = self.oras("discover --plain-http --format json", *words, self.reference("artifact:1"))
        return json.loads(done.stdout)["referrers"]

    def discover(self) -> None:
        found = self.referrers()
        assert sorted(entry["artifactType"] for entry in found) == [BILL, SIGNATURE], found
        bill = next(entry for entry in found if entry["artifactType"] == BILL)
        assert bill["annotations"]["note"] == "bill", bill
        repository = self.setting.repository("oras/artifact")
        for entry in found:
            self.registry.verify(repository, entry["digest"])

    def discover_by_type(self) -> None:
        found = self.referrers("--artifact-type", SIGNATURE)
        assert [entry["artifactType"] for entry in found] == [SIGNATURE], found

    def copy_graph(self) -> None:
        layout = self.setting.images.artifact
        copy = self.oras("cp -r --from-oci-layout --to-plain-http", f"{layout}:1", self.reference("graph:1"))
        assert root_digest(layout) in copy.stdout, copy
        back = self.setting.folder("back") / "graph"
        self.oras("cp -r --from-plain-http --to-oci-layout", self.reference("graph:1"), f"{back}:1")
        compare_layouts(layout, str(back))
        with open(os.path.join(layout, "index.json"), "rb") as index:
            for root in json.load(index)["manifests"]:
                assert reachable(str(back), root["digest"]) == reachable(layout, root["digest"]), root

    def copy_index(self) -> None:
        layout = self.setting.images.multi
        source = self.setting.pushed("multi", "oras/multi:1")
        self.oras("cp --from-plain-http --to-plain-http", source, f"{self.reference('multi-copy:1')},2")
        for tag in ("1", "2"):
            found = self.registry.verify(self.setting.repository("oras/multi-copy"), tag)
            assert found == reachable(layout, root_digest(layout)), found

    def names(self) -> None:
        self.oras("tag --plain-http", self.reference("multi-copy:1"), "b", "A")
        tags = self.oras("repo tags --plain-http", self.reference("multi-copy")).stdout.split()
        assert sorted(tags) == ["1", "2", "A", "b"], tags
        digest = self.oras("resolve --plain-http", self.reference("multi-copy:A")).stdout.strip()
        assert digest == root_digest(self.setting.images.multi), digest
        space = self.setting.repository("oras/")
        repositories = self.oras("repo ls --plain-http", f"{self.setting.address}/{space.rstrip('/')}").stdout.split()
        assert {"artifact", "graph", "multi", "multi-copy"} <= set(repositories), repositories

    def blobs(self) -> None:
        data = noise("blob", 100_000)
        (self.source / "blob").write_bytes(data)
        reference = f"{self.reference('blobs')}@{sha256(data)}"
        self.oras("blob push --plain-http", reference, "blob")
        fetched = self.setting.folder("fetched") / "blob"
        self.oras("blob fetch --plain-http --output", fetched, reference)
        assert fetched.read_bytes() == data, "other bytes than pushed"
        self.oras("blob delete --plain-http --force", reference)
        repository = self.setting.repository("oras/blobs")
        assert self.registry.request("GET", f"/v2/{repository}/blobs/{sha256(data)}").status == 404, "still there"

    def manifests(self) -> None:
        repository = self.setting.repository("oras/graph")
        _, media_type, data = self.registry.manifest(repository, "1")
        (self.source / "manifest.json").write_bytes(data)
        self.oras("manifest push --plain-http --media-type", media_type, self.reference("graph:2"), "manifest.json")
        printed = self.oras("manifest fetch --plain-http", self.reference("graph:2")).stdout
        assert printed.encode() == data, "other bytes than pushed"
        reference = self.reference(f"artifact@{self.referrers('--artifact-type', SIGNATURE)[0]['digest']}")
        self.oras("manifest delete --plain-http --force", reference)
        refused([tool("oras"), "manifest", "fetch", "--plain-http", reference], self.env, "not found")
        assert [entry["artifactType"] for entry in self.referrers()] == [BILL], self.referrers()

    def refused_push(self) -> None:
        words = [tool("oras"), "push", "--plain-http", self.reference("refused:1"), "bill:text/plain"]
        refused(words, self.env, *UNAUTHORIZED, cwd=self.source)

    def pull_public(self) -> None:
        reference, back = self.setting.pushed("app", f"{self.registry.public}oras:1"), self.setting.folder("back") / "public"
        self.oras("cp --from-plain-http --to-oci-layout", reference, f"{back}:1")
        compare_layouts(self.setting.images.app, str(back))

    def refused_private(self) -> None:
        reference, back = self.setting.pushed("app", "oras/private:1"), self.setting.folder("back") / "private"
        words = [tool("oras"), "cp", "--from-plain-http", "--to-oci-layout", reference, f"{back}:1"]
        refused(words, self.env, *UNAUTHORIZED)

    def leave(self) -> None:
        self.oras("logout", self.setting.address)

    def logout(self) -> None:
        self.leave()
        words = [tool("oras"), "manifest", "fetch", "--plain-http", self.reference("artifact:1")]
        refused(words, self.env, *UNAUTHORIZED)

    def wrong_login(self) -> None:
        words = [tool("oras"), "login", "--plain-http", "-u", self.registry.user, "--password-stdin", self.setting.address]
        refused(words, self.env, "unauthorized", input="wrong")

    def login(self) -> None:
        words = ["-u", self.registry.user, "--password-stdin", self.setting.address]
        self.oras("login --plain-http", *words, input=self.registry.password)
