"""Container engines, each with folders, a socket and a process of its own: nothing of the machine's engines is touched.

`Containerd` and `Dockerd` are context managers. What they leave mounted below their folder is unmounted when they stop.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Dict, Mapping, Optional, Sequence

from common import TIMEOUT, settled, tool
from harness import Child, HarnessError, run
from harness.process import Finished, unmount_below

CONTAINERD = """version = {version}
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]

[grpc]
  address = "{socket}"

[plugins."io.containerd.metadata.v1.bolt"]
  content_sharing_policy = "isolated"
{more}
"""


class Engine:
    """A daemon in a folder of its own, stopped by its process id."""

    # Unix socket names are bounded at 108 bytes; sockets live in short folders of their own.
    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder, self.env = Path(folder), dict(env)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.socket = str(self.folder / "s")
        if len(self.socket) > 100:
            raise HarnessError(f"the temporary folder's name is too long for a socket: {self.socket}")
        self._child: Optional[Child] = None

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def up(self) -> bool:
        raise NotImplementedError

    def log(self) -> str:
        return self._child.log_tail(20) if self._child else ""

    def __enter__(self) -> "Engine":
        child = self._child = Child(self.command(), self.folder / "log", env=self.env)
        try:
            settled(lambda: not child.alive() or self.up(), 30, child.command[0])
            if not child.alive():
                raise HarnessError(f"{child.command[0]} ended with {child.returncode}\n{child.log_tail()}")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.stop(grace=20)
        unmount_below(self.folder)


class Containerd(Engine):
    """A containerd of any generation.

    `generation` starts the harness's names of its programs (`docker28/`; empty is Debian's own); `config` is added to
    its configuration file.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], generation: str = "", config: str = "") -> None:
        self.program, self.client = tool(f"{generation}containerd"), tool(f"{generation}ctr")
        super().__init__(folder, with_programs(env, generation))
        printed = run([self.program, "--version"], timeout=20).stdout
        found = re.search(r"\d+\.\d+\.\d+", printed)
        if found is None:
            raise HarnessError(f"containerd of an unknown version: {printed}")
        self.version = found.group(0)
        self.config = self.folder / "config.toml"
        self.config.write_text(
            CONTAINERD.format(
                version=2 if self.version.startswith("1.") else 3, folder=self.folder, socket=self.socket, more=config
            )
        )

    def command(self) -> Sequence[str]:
        return [self.program, "-c", str(self.config)]

    def up(self) -> bool:
        return self.ctr("version", ok=None, timeout=10).returncode == 0

    def ctr(self, *words: object, timeout: float = TIMEOUT, ok: Optional[Sequence[int]] = (0,)) -> Finished:
        return run([self.client, "-a", self.socket, *map(str, words)], timeout=timeout, env=self.env, ok=ok)


class Dockerd(Engine):
    """A dockerd of any generation with a containerd of its own, and the docker client that belongs to it.

    `generation` starts the harness's names of its programs; `snapshotter` selects the containerd image store.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], generation: str = "", snapshotter: bool = False) -> None:
        self.program, self.client = tool(f"{generation}dockerd"), tool(f"{generation}docker")
        super().__init__(folder, with_programs(env, generation))
        self.containerd = Containerd(self.folder / "c", env, generation)
        self.snapshotter = snapshotter
        self.version = re.findall(r"\d+\.\d+\.\d+", run([self.program, "--version"], timeout=20).stdout)[0]
        # A file of its own: the machine's /etc/docker/daemon.json must not reach this daemon.
        features = {"features": {"containerd-snapshotter": snapshotter}} if int(self.version.split(".")[0]) >= 24 else {}
        (self.folder / "daemon.json").write_text(json.dumps(features))

    def command(self) -> Sequence[str]:
        words = [
            self.program, "--iptables=false", "--ip6tables=false", "--bridge=none", "--data-root", f"{self.folder}/data",
            "--exec-root", f"{self.folder}/exec", "-p", f"{self.folder}/pid", "-H", f"unix://{self.socket}",
            "--config-file", f"{self.folder}/daemon.json", "--containerd", self.containerd.socket,
        ]
        return words if self.snapshotter else [*words, "--storage-driver=overlay2"]

    def up(self) -> bool:
        return self.docker("version", ok=None, timeout=10).returncode == 0

    def docker(
        self, *words: object, timeout: float = TIMEOUT, ok: Optional[Sequence[int]] = (0,), input: Optional[str] = None
    ) -> Finished:
        command = [self.client, "-H", f"unix://{self.socket}", *map(str, words)]
        return run(command, timeout=timeout, env=self.env, ok=ok, input=input)

    def __enter__(self) -> "Dockerd":
        self.containerd.__enter__()
        try:
            super().__enter__()
        except BaseException:
            self.containerd.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.containerd.__exit__()


def with_programs(env: Mapping[str, str], generation: str) -> Dict[str, str]:
    """The environment with a PATH that begins with this generation's programs, where daemons look for their helpers."""
    folders = [os.path.dirname(tool(generation + name)) for name in ("containerd", "dockerd")]
    return {**env, "PATH": os.pathsep.join([*folders, os.environ["PATH"]])}
