"""regctl: the client that sends a layer in chunks, deletes tags, and follows referrers."""

from __future__ import annotations

import json
import os
import time
from typing import Iterator, List

from common import UNAUTHORIZED, Setting, client, refused, tool
from harness import Result, RoundRobinProxy
from harness.process import Finished
from layout import noise, sha256
from verify import Registry, compare_layouts, reachable, root_digest

CHUNK = 1_000_000
BILL = "application/vnd.example.sbom"


def results(setting: Setting) -> Iterator[Result]:
    # Through a relay that counts: whether a layer went in chunks is not seen in what is stored.
    with RoundRobinProxy([setting.address]) as relay:
        registry = Registry(relay.address, setting.registry.user, setting.registry.password, setting.registry.log)
        checks = Regctl(Setting(setting.name, registry, setting.images, setting.work, setting.space, setting.own), relay)
        if registry.user is not None:
            yield setting.check("regctl: push without login is refused", checks.refused_push)
            yield setting.check("regctl: registry login", checks.login)
        yield setting.check("regctl: copy an index there and back", checks.there_and_back, "multi", "--force-recursive")
        yield setting.check("regctl: copy an artifact with its referrers", checks.referrers)
        yield setting.check("regctl: push in chunks", checks.chunks)
        yield setting.check("regctl: copy between repositories", checks.between)
        yield setting.check("regctl: artifact put, list, get", checks.artifacts)
        yield setting.check("regctl: tag ls, tag delete", checks.tags)
        yield setting.check("regctl: blob put, get, head, delete", checks.blobs)
        yield setting.check("regctl: index create, manifest delete", checks.index)


class Regctl:
    def __init__(self, setting: Setting, relay: RoundRobinProxy) -> None:
        self.setting, self.registry, self.relay, self.env = setting, setting.registry, relay, setting.home("regctl")
        self.regctl("registry", "set", setting.address, "--tls", "disabled", "--skip-check")

    def regctl(self, *words: object, **more: object) -> Finished:
        return client([tool("regctl"), *words], self.env, **more)

    def reference(self, name: str) -> str:
        return self.setting.reference(f"regctl/{name}")

    def refused_push(self) -> None:
        words = [tool("regctl"), "image", "copy", f"ocidir://{self.setting.images.app}:1", self.reference("refused:1")]
        refused(words, self.env, *UNAUTHORIZED)

    def login(self) -> None:
        words = ["-u", self.registry.user, "--password-stdin", self.setting.address]
        self.regctl("registry", "login", self.setting.address, "-u", self.registry.user, "-p", self.registry.password)
        # It puts there what regctl copies.
        client([tool("oras"), "login", "--plain-http", *words], self.env, input=self.registry.password)

    def there_and_back(self, image: str, *flags: str) -> None:
        layout = getattr(self.setting.images, image)
        self.regctl("image", "copy", *flags, f"ocidir://{layout}:1", self.reference(f"{image}:1"))
        self.registry.verify(self.setting.repository(f"regctl/{image}"), "1", expect=root_digest(layout))
        back = self.setting.folder("back") / image
        self.regctl("image", "copy", *flags, self.reference(f"{image}:1"), f"ocidir://{back}:1")
        compare_layouts(layout, str(back))

    def referrers(self) -> None:
        """From one repository to another, with all that refers to it and to that; oras put it there."""
        layout = self.setting.images.artifact
        source, target = self.reference("artifact:1"), self.reference("artifact-copy:1")
        client([tool("oras"), "cp", "-r", "--from-oci-layout", "--to-plain-http", f"{layout}:1", source], self.env)
        self.regctl("image", "copy", "--referrers", source, target)
        with open(os.path.join(layout, "index.json"), "rb") as index:
            for root in json.load(index)["manifests"]:
                found = self.registry.verify(self.setting.repository("regctl/artifact-copy"), root["digest"])
                assert found == reachable(layout, root["digest"]), root
        tree = self.regctl("artifact", "tree", target).stdout
        assert tree.count("application/vnd.example.signature") == 2, tree

    def patches(self) -> int:
        return sum(request.method == "PATCH" for request in self.relay.requests)

    def chunks(self) -> str:
        """A blob above the bound goes as PATCH after PATCH, each with its Content-Range.

        Its bytes are new to the registry: regctl asks for an anonymous mount first, and would get what another
        repository has. It makes no chunk smaller than the registry's hint.
        """
        session = self.registry.request("POST", f"/v2/{self.setting.repository('regctl/chunked')}/blobs/uploads/")
        least = max(CHUNK, int(session.headers.get("oci-chunk-min-length", 0)))
        assert least <= 1 << 26, f"the registry wants chunks of {least} bytes at least"
        limits = ["--blob-chunk", CHUNK, "--blob-max", CHUNK]
        self.regctl("registry", "set", self.setting.address, "--skip-check", *limits)
        data = noise(str(time.time_ns()), 3 * least + 1)
        digest = sha256(data)
        before = self.patches()
        self.regctl("blob", "put", "--digest", digest, self.reference("chunked"), input=data)
        sent = self.patches() - before
        self.regctl("registry", "set", self.setting.address, "--skip-check", "--blob-chunk", 0, "--blob-max", 0)
        self.registry.blob(self.setting.repository("regctl/chunked"), {"mediaType": "", "digest": digest, "size": len(data)})
        assert sent >= 4, f"{sent} PATCH requests for {len(data)} bytes in chunks of {least}"
        return f"{sent} chunks"

    def between(self) -> None:
        self.regctl("image", "copy", self.reference("multi:1"), self.reference("other/multi:1"))
        layout = self.setting.images.multi
        found = self.registry.verify(self.setting.repository("regctl/other/multi"), "1")
        assert found == reachable(layout, root_digest(layout)), found

    def listed(self, *flags: str) -> List[dict]:
        words = ["artifact", "list", *flags, "--format", "{{json .}}", self.reference("multi:1")]
        return json.loads(self.regctl(*words).stdout)["descriptors"] or []

    def artifacts(self) -> None:
        data = "bill of materials\n"
        put = ["artifact", "put", "--artifact-type", BILL, "--subject", self.reference("multi:1"), "--annotation", "note=x"]
        self.regctl(*put, input=data)
        found = self.listed("--filter-artifact-type", BILL)
        assert [entry["artifactType"] for entry in found] == [BILL] and found[0]["annotations"]["note"] == "x", found
        assert self.listed("--filter-artifact-type", "application/other") == []
        got = self.regctl("artifact", "get", "--subject", self.reference("multi:1"), "--filter-artifact-type", BILL)
        assert got.stdout == data, got

    def tags(self) -> None:
        """The deleted tag is gone, and its manifest stays under the other one."""
        self.regctl("image", "copy", self.reference("multi:1"), self.reference("multi:b"))
        assert sorted(self.regctl("tag", "ls", self.reference("multi")).stdout.split())[:2] == ["1", "b"]
        self.regctl("tag", "delete", self.reference("multi:b"))
        assert "b" not in self.regctl("tag", "ls", self.reference("multi")).stdout.split()
        self.registry.verify(self.setting.repository("regctl/multi"), "1", expect=root_digest(self.setting.images.multi))

    def blobs(self) -> None:
        data = noise("regctl", 50_000).hex()
        digest = sha256(data.encode())
        assert self.regctl("blob", "put", self.reference("blobs"), input=data).stdout.strip() == digest
        assert self.regctl("blob", "get", self.reference("blobs"), digest).stdout == data, "other bytes than pushed"
        self.regctl("blob", "head", self.reference("blobs"), digest)
        self.regctl("blob", "delete", self.reference("blobs"), digest)
        refused([tool("regctl"), "blob", "head", self.reference("blobs"), digest], self.env, "not found")

    def index(self) -> None:
        platform = json.loads(self.regctl("manifest", "get", "--format", "{{json .}}", self.reference("multi:1")).stdout)
        names = ["{os}/{architecture}".format(**entry["platform"]) for entry in platform["manifests"][:2]]
        flags = [word for name in names for word in ("--platform", name)]
        self.regctl("index", "create", self.reference("created:1"), "--ref", self.reference("multi:1"), *flags)
        repository = self.setting.repository("regctl/created")
        digest, _, data = self.registry.manifest(repository, "1")
        assert len(json.loads(data)["manifests"]) == 2, data
        self.registry.verify(repository, "1")
        self.regctl("manifest", "delete", f"{self.reference('created')}@{digest}")
        assert self.registry.request("GET", f"/v2/{repository}/manifests/1").status == 404, "still there"
