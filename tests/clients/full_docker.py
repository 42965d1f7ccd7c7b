"""Newer generations of docker with both of their image stores, BuildKit, and a containerd that fetches layers in parallel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Iterator

import containerd
import docker
from common import Setting, need_root, tool
from engines import Dockerd
from harness import Result, RoundRobinProxy
from images import RUNS
from verify import Registry

# Pieces of 1 MiB, four at a time: a layer of some megabytes becomes several range requests.
PARALLEL = """
[plugins.'io.containerd.transfer.v1.local']
  max_concurrent_downloads = 4
  concurrent_layer_fetch_buffer = 1048576
"""


def docker_26(setting: Setting) -> Iterator[Result]:
    yield from docker.results(setting, "docker26/")


def docker_26_containerd(setting: Setting) -> Iterator[Result]:
    yield from docker.results(setting, "docker26/", snapshotter=True)


def docker_28(setting: Setting) -> Iterator[Result]:
    yield from docker.results(setting, "docker28/")


def docker_28_containerd(setting: Setting) -> Iterator[Result]:
    yield from docker.results(setting, "docker28/", snapshotter=True)


def docker_26_login(setting: Setting) -> Iterator[Result]:
    yield from docker.login(setting, "docker26/")


def docker_26_containerd_login(setting: Setting) -> Iterator[Result]:
    yield from docker.login(setting, "docker26/", snapshotter=True)


def docker_28_login(setting: Setting) -> Iterator[Result]:
    yield from docker.login(setting, "docker28/")


def docker_28_containerd_login(setting: Setting) -> Iterator[Result]:
    yield from docker.login(setting, "docker28/", snapshotter=True)


def docker_26_public(setting: Setting) -> Iterator[Result]:
    yield from docker.public(setting, "docker26/")


def docker_26_containerd_public(setting: Setting) -> Iterator[Result]:
    yield from docker.public(setting, "docker26/", snapshotter=True)


def docker_28_public(setting: Setting) -> Iterator[Result]:
    yield from docker.public(setting, "docker28/")


def docker_28_containerd_public(setting: Setting) -> Iterator[Result]:
    yield from docker.public(setting, "docker28/", snapshotter=True)


def buildkit(setting: Setting) -> Iterator[Result]:
    """BuildKit, which pulls the base and pushes the result itself, with an attestation beside the image in an index."""
    need_root()
    env = setting.home("buildkit")
    plugins = Path(tool("docker28/buildx")).parent
    config = Path(env["DOCKER_CONFIG"])
    config.mkdir()
    (config / "config.json").write_text(json.dumps({"cliPluginsExtraDirs": [str(plugins)]}))
    with Dockerd(setting.folder("bk"), env, "docker28/", snapshotter=True) as daemon:

        def build() -> str:
            context = setting.folder("context")
            base = setting.pushed("multi", "buildkit/base:1")
            (context / "Dockerfile").write_text(f"FROM {base}\nCOPY added /data/added\nRUN cat /data/added > /data/copy\n")
            (context / "added").write_text("added\n")
            metadata = context / "metadata.json"
            target = setting.reference("buildkit/built:1")
            build = ["buildx", "build", "--network", "none", "--provenance=mode=max", "--push", "--metadata-file", metadata]
            daemon.docker(*build, "-t", target, context)
            digest = json.loads(metadata.read_text())["containerimage.digest"]
            repository = setting.repository("buildkit/built")
            setting.registry.verify(repository, "1", expect=digest)
            entries = json.loads(setting.registry.manifest(repository, "1")[2])["manifests"]
            kinds = [entry.get("annotations", {}).get("vnd.docker.reference.type", "image") for entry in entries]
            assert sorted(kinds) == ["attestation-manifest", "image"], entries
            return f"{len(entries)} manifests"

        def runs() -> None:
            target = setting.reference("buildkit/built:1")
            daemon.docker("rmi", "-f", target, ok=None)
            done = daemon.docker("run", "--rm", "--pull=always", "--network", "none", target)
            assert RUNS in done.stdout, f"the container says {done.stdout!r} {done.stderr!r}"

        def login() -> None:
            registry = setting.registry
            daemon.docker("login", "-u", registry.user, "--password-stdin", registry.address, input=registry.password)

        if setting.registry.user is not None:
            yield setting.check(f"docker {daemon.version} buildkit: login", login)
        yield setting.check(f"docker {daemon.version} buildkit: build on a pulled base and push with provenance", build)
        yield setting.check(f"docker {daemon.version} buildkit: pull and run what was built", runs)


def containerd_2_login(setting: Setting) -> Iterator[Result]:
    yield from containerd.login(setting, "docker28/")


def containerd_2_public(setting: Setting) -> Iterator[Result]:
    yield from containerd.public(setting, "docker28/")


def containerd_2(setting: Setting) -> Iterator[Result]:
    """Every check of containerd, through a relay that counts the requests for one layer."""
    need_root()
    with RoundRobinProxy([setting.address]) as relay:
        registry = Registry(relay.address, setting.registry.user, setting.registry.password, setting.registry.log)
        seen = Setting(setting.name, registry, setting.images, setting.work, setting.space, setting.own)
        yield from containerd.results(seen, "docker28/", PARALLEL, large=True)

        def in_pieces() -> str:
            gets = [request.target for request in relay.requests if request.method == "GET" and "/blobs/" in request.target]
            most = max(gets.count(target) for target in set(gets))
            # Six layers of a hundred MiB in pieces of one; a whole layer at once would be one request.
            assert most >= 50, f"the most asked-for layer was asked for {most} times"
            return f"{most} requests for one layer"

        yield setting.check("containerd 2: layers come in parallel pieces", in_pieces)
