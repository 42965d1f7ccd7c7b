"""Newer generations of docker with both of their image stores, and a newer containerd that fetches a layer in parallel."""

from __future__ import annotations

from typing import Iterator

import containerd
import docker
from common import Setting, need_root
from harness import Result
from relay import Relay
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


def containerd_2(setting: Setting) -> Iterator[Result]:
    """Every check of containerd, through a relay that counts the requests for one layer."""
    need_root()
    with Relay([setting.address]) as relay:
        registry = Registry(relay.address, log=setting.registry.log)
        seen = Setting(setting.name, registry, setting.images, setting.work, setting.space, setting.own)
        yield from containerd.results(seen, "docker28/", PARALLEL, large=True)

        def in_pieces() -> str:
            gets = [request.target for request in relay.dealt if request.method == "GET" and "/blobs/" in request.target]
            most = max(gets.count(target) for target in set(gets))
            # Six layers of a hundred MiB in pieces of one; a whole layer at once would be one request.
            assert most >= 50, f"the most asked-for layer was asked for {most} times"
            return f"{most} requests for one layer"

        yield setting.check("containerd 2: layers come in parallel pieces", in_pieces)
