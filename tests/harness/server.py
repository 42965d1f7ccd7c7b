"""A roadstead of one's own: built once, started on a loopback port, watched, and stopped in good order."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Union

from .api import HarnessError
from .backend import Backend
from .build import roadstead
from .leaks import SEARCH
from .process import Child, free_port, unmount_below, wait_until


class Server:
    """A running `roadstead serve`; a context manager.

        with Server("--sparse", "allow") as server:
            run(["crane", "push", "--insecure", image, f"{server.address}/a:1"], timeout=60)

    Leaving the block sends SIGTERM and asserts that the process exits 0 within 15 s, unless the block itself failed.

    `flags` are passed to `roadstead serve` after `--listen` and those that choose the stores. Without `--metrics` among them the metrics are
    served here, so that they are searched for secrets at the end. `backend` holds its stores (see `Cloud`);
    without one they are a folder and SQLite in it. Without `data` that folder is temporary and is removed at the end. Without `port` one
    is chosen. `env` holds changes to its environment.
    """

    def __init__(
        self,
        *flags: Union[str, Path],
        data: Optional[Path] = None,
        port: Optional[int] = None,
        env: Optional[Mapping[str, Optional[str]]] = None,
        backend: Optional[Backend] = None,
    ) -> None:
        self.flags = [str(flag) for flag in flags]
        self._folder = Path(tempfile.mkdtemp(prefix="roadstead-server-"))
        self.backend = backend or Backend("disk+sqlite", Path(data) if data is not None else self._folder / "data")
        self.log = self._folder / "log"
        self.port = port or free_port()
        self._env = {**self.backend.environment(), **(env or {})}
        # A server with a certificate of its own answers to no plain request.
        self._shows_metrics = "--tls-cert" not in self.flags and ("--metrics" not in self.flags or "here" in self.flags)
        if self._shows_metrics:
            self._env["ROADSTEAD_METRICS"] = "here"
        self._child: Optional[Child] = None

    @property
    def data(self) -> Path:
        """The folder that `--data` names; `HarnessError` where all is in the cloud."""
        if self.backend.data is None:
            raise HarnessError(f"{self.backend.name} has no data folder")
        return self.backend.data

    @property
    def address(self) -> str:
        """Host and port, as an image name begins with them."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://{self.address}"

    @property
    def pid(self) -> int:
        """The process id."""
        return self._running().pid

    def start(self) -> "Server":
        """Starts the process and waits until `/readyz` answers 200, at most 30 s: other groups of tests take the processor too."""
        command = [roadstead(), "serve", "--listen", self.address, *self.backend.words(), *self.flags]
        self._child = child = Child(command, self.log, env=self._env)
        try:
            wait_until(lambda: not child.alive() or self._ready(), 30, "/readyz answers 200")
        except HarnessError as error:
            child.stop(grace=1)
            raise HarnessError(f"{error}\n{child.log_tail()}") from None
        if not child.alive():
            raise HarnessError(f"roadstead ended with {child.returncode} before it was ready\n{child.log_tail()}")
        return self

    def stop(self) -> None:
        """Sends SIGTERM; raises `HarnessError` unless the process exits 0 within 15 s."""
        child = self._running()
        if self._shows_metrics:
            SEARCH.metrics(self._get("/metrics"))
        code = child.stop(grace=15)
        self._child = None
        if code != 0:
            how = "did not end within 15 s of SIGTERM" if code == -signal.SIGKILL else f"exit code {code} after SIGTERM"
            raise HarnessError(f"roadstead: {how}\n{child.log_tail()}")

    def kill(self) -> None:
        """Ends the process as a power failure would (SIGKILL); `start` may follow on the same data and port."""
        child = self._running()
        child.signal(signal.SIGKILL)
        child.stop(grace=5)
        self._child = None

    def peak_memory(self) -> int:
        """The most resident memory that the process ever had, in bytes (VmHWM)."""
        return _peak_memory(self.pid)

    def log_tail(self) -> str:
        """The end of the server's log, for a failure's text."""
        return "\n".join(self.log.read_text(errors="replace").rstrip().splitlines()[-60:])

    def access_lines(self) -> List[Dict[str, Any]]:
        """What the server's log says of each request that it has answered, in their order."""
        lines = [json.loads(line) for line in self.log.read_text(errors="replace").splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("target") == "access"]

    def _running(self) -> Child:
        if self._child is None:
            raise HarnessError("this server is not running")
        return self._child

    def _get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def __enter__(self) -> "Server":
        try:
            return self.start()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if self._child is None:
                pass  # stopped or killed inside the block
            elif kind is None:
                self.stop()
            else:
                # The block's own failure is the one to tell.
                self._child.stop(grace=5)
        finally:
            if self.backend.data is not None:
                SEARCH.folder(self.backend.data)
            unmount_below(self._folder)
            shutil.rmtree(self._folder, ignore_errors=True)


def _peak_memory(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise HarnessError(f"process {pid} has no VmHWM")
    return int(found.group(1)) * 1024
