"""A registry that runs as several processes on the same stores, behind one address."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import List, Optional, Union

from .api import HarnessError
from .backend import Backend
from .round_robin import RoundRobinProxy
from .server import Server


class Fleet:
    """Some servers over one backend and a round-robin proxy in front of them; a context manager.

        with Fleet("--sparse", "allow", backend=cloud.backend("s3+dynamodb")) as fleet:
            run(["crane", "push", "--insecure", image, f"{fleet.address}/a:1"], timeout=60)

    `servers` may be killed and started again one by one (`fleet.servers[1].kill()`, then `.start()`); the proxy passes over those that are
    down. Without a backend they share a temporary data directory.
    """

    def __init__(self, *flags: Union[str, Path], count: int = 3, backend: Optional[Backend] = None) -> None:
        self.flags = flags
        self.count = count
        self._folder = Path(tempfile.mkdtemp(prefix="roadstead-fleet-"))
        self.backend = backend or Backend("disk+sqlite", self._folder / "data")
        self.servers: List[Server] = []
        self._round_robin: Optional[RoundRobinProxy] = None
        self._stack = ExitStack()

    @property
    def round_robin(self) -> RoundRobinProxy:
        """The proxy in front of the servers."""
        if self._round_robin is None:
            raise HarnessError("this fleet is not running")
        return self._round_robin

    @property
    def address(self) -> str:
        """Host and port of the round-robin proxy."""
        return self.round_robin.address

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return self.round_robin.url

    def log_tail(self) -> str:
        """The ends of all logs, for a failure's text."""
        return "\n".join(server.log_tail() for server in self.servers)

    def __enter__(self) -> "Fleet":
        try:
            self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            for _ in range(self.count):
                self.servers.append(self._stack.enter_context(Server(*self.flags, backend=self.backend)))
            self._round_robin = self._stack.enter_context(RoundRobinProxy([server.address for server in self.servers]))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *details: object) -> Optional[bool]:
        return self._stack.__exit__(*details)  # type: ignore[arg-type]
