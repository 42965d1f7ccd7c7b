"""skopeo: copies that keep every byte, copies that change the format, inspection, synchronisation and deletion."""

from __future__ import annotations

import json
import os
from typing import Iterator, Tuple, Union

from common import UNAUTHORIZED, Setting, client, refused, tool
from harness import Result
from harness.process import Finished
from private import remembering
from verify import compare_layouts, contents, reachable, root_digest


def results(setting: Setting) -> Iterator[Result]:
    checks = Skopeo(setting)
    if setting.registry.user is not None:
        yield setting.check("skopeo: login", checks.login)
    yield setting.check("skopeo: copy an image there and back", checks.there_and_back, "app")
    yield setting.check("skopeo: copy --all of an index there and back", checks.there_and_back, "multi")
    yield setting.check("skopeo: copy uncompressed and zstd layers there and back", checks.there_and_back, "mixed")
    yield setting.check("skopeo: copy that compresses on the way", checks.compressing)
    yield setting.check("skopeo: copy as docker's format", checks.as_docker)
    yield setting.check("skopeo: copy an index as docker's format", checks.index_as_docker)
    yield setting.check("skopeo: copy between repositories", checks.between)
    yield setting.check("skopeo: inspect", checks.inspect)
    yield setting.check("skopeo: list-tags", checks.list_tags)
    yield setting.check("skopeo: sync a repository to a folder and back", checks.sync)
    yield setting.check("skopeo: delete", checks.delete)


def login(setting: Setting) -> Iterator[Result]:
    checks = Skopeo(setting)
    yield setting.check("skopeo: copy without login is refused", checks.refused_push)
    if setting.registry.public:
        yield setting.check("skopeo: copy of a public image without login", checks.pull_public)
        yield setting.check("skopeo: copy of a private image without login is refused", checks.refused_private)
    yield setting.check("skopeo: login with a wrong password is refused", checks.wrong_login)
    yield setting.check("skopeo: login", checks.login)
    yield setting.check("skopeo: copy after login", checks.there_and_back, "app")
    yield setting.check("skopeo: copy with --creds", checks.with_credentials)
    yield setting.check("skopeo: pull after logout is refused", checks.refused_pull)


def public(setting: Setting) -> Iterator[Result]:
    checks = Skopeo(setting)
    yield setting.check("skopeo: copy without login is refused", checks.refused_push)
    yield setting.check("skopeo: copy with --creds", checks.with_credentials_alone)
    yield setting.check("skopeo: pull without login", checks.pull_without_login)


class Skopeo:
    def __init__(self, setting: Setting) -> None:
        self.setting, self.env, self.registry = setting, setting.home("skopeo"), setting.registry

    def skopeo(self, *words: object, memory: str = "memory", **more: object) -> Finished:
        return client([*remembering(self.setting.folder(memory)), tool("skopeo"), *words], self.env, **more)

    def refused(self, says: Union[str, Tuple[str, ...]], *words: object) -> None:
        says = (says,) if isinstance(says, str) else says
        refused([*remembering(self.setting.folder("memory")), tool("skopeo"), *words], self.env, *says)

    def remote(self, name: str) -> str:
        return f"docker://{self.setting.reference('skopeo/' + name)}"

    def push(self, image: str, name: str, *flags: str, memory: str = "memory") -> None:
        words = ["copy", "-q", "--dest-tls-verify=false", *flags, f"oci:{getattr(self.setting.images, image)}:1"]
        self.skopeo(*words, self.remote(name), memory=memory)

    def there_and_back(self, image: str) -> None:
        layout = getattr(self.setting.images, image)
        self.push(image, f"{image}:1", "--all", "--preserve-digests")
        self.registry.verify(self.setting.repository(f"skopeo/{image}"), "1", expect=root_digest(layout))
        back = self.setting.folder("back") / image
        words = ["copy", "-q", "--src-tls-verify=false", "--all", "--preserve-digests"]
        self.skopeo(*words, self.remote(f"{image}:1"), f"oci:{back}:1")
        compare_layouts(layout, str(back))

    def compressing(self) -> None:
        """A layer that skopeo compresses while it sends has no known length: a chunked upload.

        Its memory is an empty one, or it would find that the registry has the layer as it is.
        """
        self.push("mixed", "compressed:1", memory="no-memory")
        repository = self.setting.repository("skopeo/compressed")
        self.registry.verify(repository, "1")
        kinds = self.registry.compressions(repository, "1")
        assert kinds[1] == "tar+gzip", f"nothing was compressed on the way: {kinds}"

    def as_docker(self) -> None:
        self.push("app", "schema2:1", "--format", "v2s2")
        repository = self.setting.repository("skopeo/schema2")
        _, media_type, _ = self.registry.manifest(repository, "1")
        assert media_type == "application/vnd.docker.distribution.manifest.v2+json", media_type
        self.registry.verify(repository, "1")
        assert self.registry.configuration(repository, "1")["rootfs"]["diff_ids"] == contents(self.setting.images.app)

    def index_as_docker(self) -> None:
        self.push("multi", "schema2-list:1", "--all", "--format", "v2s2")
        repository = self.setting.repository("skopeo/schema2-list")
        _, media_type, data = self.registry.manifest(repository, "1")
        assert media_type == "application/vnd.docker.distribution.manifest.list.v2+json", media_type
        assert len(json.loads(data)["manifests"]) == 3, data
        self.registry.verify(repository, "1")

    def between(self) -> None:
        flags = ("--src-tls-verify=false", "--dest-tls-verify=false", "--all")
        self.skopeo("copy", "-q", *flags, self.remote("multi:1"), self.remote("other/multi:1"))
        found = self.registry.verify(self.setting.repository("skopeo/other/multi"), "1")
        layout = self.setting.images.multi
        assert found == reachable(layout, root_digest(layout)), found

    def inspect(self) -> None:
        printed = json.loads(self.skopeo("inspect", "--tls-verify=false", self.remote("app:1")).stdout)
        assert printed["Digest"] == root_digest(self.setting.images.app), printed
        assert printed["RepoTags"] == ["1"] and printed["Labels"] == {"by": "roadstead"}, printed
        raw = self.skopeo("inspect", "--raw", "--tls-verify=false", self.remote("multi:1")).stdout
        assert raw.encode() == self.registry.manifest(self.setting.repository("skopeo/multi"), "1")[2], raw

    def list_tags(self) -> None:
        for tag in ("b", "a", "A", "1.10", "1.9"):
            self.push("app", f"tags:{tag}")
        printed = json.loads(self.skopeo("list-tags", "--tls-verify=false", self.remote("tags")).stdout)
        assert sorted(printed["Tags"]) == ["1.10", "1.9", "A", "a", "b"], printed

    def sync(self) -> None:
        folder = self.setting.folder("sync")
        source = self.setting.reference("skopeo/tags")
        self.skopeo("sync", "--src-tls-verify=false", "--src", "docker", "--dest", "dir", source, folder)
        assert len(os.listdir(folder)) == 5, os.listdir(folder)
        target = self.setting.reference("skopeo/synced")
        self.skopeo("sync", "--dest-tls-verify=false", "--src", "dir", "--dest", "docker", folder, target)
        repository = self.setting.repository("skopeo/synced/tags")
        for tag in ("1.9", "A"):
            self.registry.verify(repository, tag, expect=root_digest(self.setting.images.app))

    def delete(self) -> None:
        self.push("app", "delete:1")
        self.push("mixed", "delete:2", "--preserve-digests")
        self.skopeo("delete", "--tls-verify=false", self.remote("delete:1"))
        repository = self.setting.repository("skopeo/delete")
        assert self.registry.request("GET", f"/v2/{repository}/manifests/1").status == 404, "still there"
        assert self.registry.tags(repository) == ["2"], self.registry.tags(repository)
        # What the two images share stays for the other.
        self.registry.verify(repository, "2", expect=root_digest(self.setting.images.mixed))
        self.refused("manifest unknown", "inspect", "--tls-verify=false", self.remote("delete:1"))

    def refused_push(self) -> None:
        words = ["copy", "-q", "--dest-tls-verify=false", f"oci:{self.setting.images.app}:1", self.remote("refused:1")]
        self.refused("auth", *words)
        assert self.registry.request("GET", f"/v2/{self.setting.repository('skopeo/refused')}/tags/list").status == 404

    def wrong_login(self) -> None:
        words = ["login", "--tls-verify=false", "-u", self.registry.user, "-p", "wrong", self.setting.address]
        self.refused("invalid username/password", *words)

    def login(self) -> None:
        registry = self.registry
        self.skopeo("login", "--tls-verify=false", "-u", registry.user, "-p", registry.password, registry.address)

    def with_credentials(self) -> None:
        self.skopeo("logout", self.setting.address)
        self.with_credentials_alone()

    def pull_without_login(self) -> None:
        back = self.setting.folder("back") / "app"
        self.skopeo("copy", "-q", "--src-tls-verify=false", "--all", self.remote("creds:1"), f"oci:{back}:1")
        compare_layouts(self.setting.images.app, str(back))

    def pull_public(self) -> None:
        reference, back = self.setting.pushed("app", f"{self.registry.public}skopeo:1"), self.setting.folder("back") / "public"
        self.skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{reference}", f"oci:{back}:1")
        compare_layouts(self.setting.images.app, str(back))

    def refused_private(self) -> None:
        reference = self.setting.pushed("app", "skopeo/private:1")
        self.refused(UNAUTHORIZED, "inspect", "--tls-verify=false", f"docker://{reference}")

    def refused_pull(self) -> None:
        self.refused(UNAUTHORIZED, "inspect", "--tls-verify=false", self.remote("app:1"))

    def with_credentials_alone(self) -> None:
        self.push("app", "creds:1", "--dest-creds", f"{self.registry.user}:{self.registry.password}")
        self.registry.verify(self.setting.repository("skopeo/creds"), "1", expect=root_digest(self.setting.images.app))
