"""Commands and background processes.

Every child is the leader of a process group of its own, is stopped by its process id, and never reads the terminal. What is
still running when the run ends, or is interrupted, is stopped by `stop_all`.
"""

from __future__ import annotations

import errno
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, TypeVar, Union

from .api import HarnessError
from .leaks import SEARCH

Words = Sequence[Union[str, Path]]
T = TypeVar("T")

# Leaders of the groups that are alive, so that an interrupt leaves nothing behind.
_live: Dict[int, "subprocess.Popen[bytes]"] = {}

# Set while the run is interrupted: threads that go on would start the next command.
_interrupted = threading.Event()

_SHOWN_LINES = 60


class Interrupted(BaseException):
    """Raised in a thread that wants to start a process while the run is interrupted; no check takes it for a failure."""


class Finished(NamedTuple):
    """What a command left behind. The text is decoded as UTF-8; what is not UTF-8 is replaced."""

    returncode: int
    stdout: str
    stderr: str


class CommandFailed(HarnessError):
    """A command that ended with an unexpected code, or was stopped at its time limit. The message holds its output's end."""

    def __init__(self, command: Words, why: str, cwd: Optional[Path], finished: Finished) -> None:
        self.finished = finished
        lines = [f"{why}: {spell(command)}"]
        if cwd is not None:
            lines.append(f"  in {cwd}")
        for name, text in (("stdout", finished.stdout), ("stderr", finished.stderr)):
            if text.strip():
                lines.append(f"  {name}:")
                lines.extend("    " + line for line in tail(text))
        super().__init__("\n".join(lines))


def spell(command: Words) -> str:
    """The command as one would type it in a shell."""
    return " ".join(shlex.quote(str(word)) for word in command)


def tail(text: str, lines: int = _SHOWN_LINES) -> List[str]:
    """The last lines of a text, with a note of how many went before them."""
    every = text.rstrip().splitlines()
    cut = len(every) - lines
    return every if cut <= 0 else [f"… {cut} lines before"] + every[cut:]


def environment(changes: Optional[Mapping[str, Optional[str]]] = None) -> Dict[str, str]:
    """This process's environment with the changes made to it; a value of None removes the name."""
    merged = dict(os.environ)
    for name, value in (changes or {}).items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = str(value)
    return merged


def run(
    command: Words,
    timeout: float,
    env: Optional[Mapping[str, Optional[str]]] = None,
    cwd: Optional[Path] = None,
    input: Optional[Union[str, bytes]] = None,
    ok: Optional[Sequence[int]] = (0,),
) -> Finished:
    """Runs a command to its end and returns its captured output.

    `env` holds changes to the environment (None removes a name). `timeout` is in seconds: past it the whole group is killed and the
    command has failed. Raises `CommandFailed` when the exit code is not in `ok`; `ok=None` takes any code. Without `input`
    its standard input is empty.
    """
    words = [str(word) for word in command]
    _may_start()
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(env),
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise HarnessError(f"cannot start {spell(words)}: {error}") from error
    _live[process.pid] = process
    data = input.encode() if isinstance(input, str) else input
    try:
        stdout, stderr = process.communicate(data, timeout=timeout)
    except subprocess.TimeoutExpired:
        _kill_group(process.pid)
        try:
            stdout, stderr = process.communicate(timeout=5)
        except subprocess.TimeoutExpired as expired:
            # A grandchild in a group of its own still holds the pipe.
            stdout, stderr = expired.stdout or b"", expired.stderr or b""
            process.wait()
        raise CommandFailed(words, f"stopped after {timeout:g} s", cwd, _finished(process, stdout, stderr)) from None
    except BaseException:
        _kill_group(process.pid)
        process.wait()
        raise
    finally:
        if process.poll() is not None:
            _live.pop(process.pid, None)
    finished = _finished(process, stdout, stderr)
    if Path(words[0]).name == "roadstead":
        SEARCH.errors(" ".join(words[1:3]), finished.stderr)
    if ok is not None and finished.returncode not in ok:
        raise CommandFailed(words, f"exit code {finished.returncode}", cwd, finished)
    return finished


def _finished(process: "subprocess.Popen[bytes]", stdout: bytes, stderr: bytes) -> Finished:
    return Finished(process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


class Child:
    """A background process; leaving the `with` block stops it.

    Its standard output and error go to the file `log`, which is appended to.
    """

    def __init__(
        self,
        command: Words,
        log: Path,
        env: Optional[Mapping[str, Optional[str]]] = None,
        cwd: Optional[Path] = None,
    ) -> None:
        self.command = [str(word) for word in command]
        self.log = Path(log)
        _may_start()
        with open(self.log, "ab") as output:
            try:
                self._process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment(env),
                    cwd=cwd,
                    start_new_session=True,
                )
            except OSError as error:
                raise HarnessError(f"cannot start {spell(command)}: {error}") from error
        self.pid = self._process.pid
        _live[self.pid] = self._process

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def returncode(self) -> Optional[int]:
        """Its exit code (negative: the signal that ended it), or None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float) -> int:
        """Waits for it to end by itself and returns its exit code; `HarnessError` when it does not within `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise HarnessError(f"still running after {timeout:g} s: {spell(self.command)}") from None

    def signal(self, number: int) -> None:
        """Sends it a signal, unless it has ended."""
        if self.alive():
            os.kill(self.pid, number)

    def stop(self, grace: float = 15) -> int:
        """Asks it to end (SIGTERM), kills its group after `grace` seconds, and returns its exit code."""
        self.signal(signal.SIGTERM)
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            pass
        # What the leader started and left behind goes too.
        _kill_group(self.pid)
        code = self._process.wait()
        _live.pop(self.pid, None)
        if Path(self.command[0]).name == "roadstead":
            SEARCH.log(self.log)
        return code

    def log_tail(self, lines: int = _SHOWN_LINES) -> str:
        """The end of its log, for a failure's text."""
        return "\n".join(tail(self.log.read_text(errors="replace"), lines))

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def at_once(*functions: Callable[[], T], at_most: Optional[int] = None) -> List[T]:
    """What the functions return, each called in a thread of its own, `at_most` so many at a time. The first exception is raised again,
    after all have ended.

    When this thread is interrupted, every process that the run has started is stopped and none is started, so that the functions
    come to an end.
    """
    with ThreadPoolExecutor(max_workers=at_most or len(functions)) as pool:
        calls = [pool.submit(function) for function in functions]
        try:
            wait(calls)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            _interrupted.set()
            try:
                stop_all()
                # What a thread was just about to start.
                while wait(calls, timeout=0.5).not_done:
                    stop_all()
            finally:
                _interrupted.clear()
            raise
    return [call.result() for call in calls]


def _may_start() -> None:
    if _interrupted.is_set():
        raise Interrupted


def stop_all() -> None:
    """Stops every process that this run started and that still runs."""
    for process in list(_live.values()):
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + 5
    for pid, process in list(_live.items()):
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        _kill_group(pid)
        _live.pop(pid, None)


# Where stand-ins for object stores and tables listen, and what stands between them and a registry.
STORE_ADDRESS = "127.0.0.1"
# The host by which they are reached. Registries are asked at 127.0.0.1 and never redirect a pull to the host that they were asked at.
# A name, since what is built on go-containerregistry (crane, ko, kaniko) follows no redirect to a private or loopback address.
STORE_HOST = "localhost"


# The ports that `free_port` has returned: several threads ask for one, and each uses its own a little later.
_given: Set[int] = set()
_given_lock = threading.Lock()


def free_port() -> int:
    """A loopback TCP port that nothing listens on just now, each time another one. Another process may still take it first.

    It lies below the range from which the kernel gives ports to outgoing connections, which come and go by the thousand
    while tests run.
    """
    for _ in range(100):
        port = random.randrange(20000, 32000)
        with _given_lock:
            if port in _given or not all(_is_free(family, address, port) for family, address in _LOOPBACK):
                continue
            _given.add(port)
        return port
    raise HarnessError("no free port between 20000 and 32000")


_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def _is_free(family: int, address: str, port: int) -> bool:
    try:
        with socket.socket(family) as probe:
            probe.bind((address, port))
    except OSError as error:
        # A machine may have no such address.
        return error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


def wait_until(predicate: Callable[[], object], seconds: float, what: str, every: float = 0.02) -> None:
    """Polls until the predicate is true; `HarnessError` naming `what` when it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > deadline:
            raise HarnessError(f"not within {seconds:g} s: {what}")
        time.sleep(every)


@contextmanager
def scratch(prefix: str = "test") -> Iterator[Path]:
    """A temporary folder, gone afterwards together with whatever container engines mounted under it."""
    folder = Path(tempfile.mkdtemp(prefix=f"roadstead-{prefix}-")).resolve()
    try:
        yield folder
    finally:
        unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)


def unmount_below(folder: Path) -> None:
    """Detaches every mount below a folder, the deepest first."""
    try:
        table = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return
    # The fifth field is the mount point; spaces and the like are octal escapes there.
    points = [line.split()[4].encode().decode("unicode_escape") for line in table.splitlines()]
    below = [point for point in points if point.startswith(f"{folder}/")]
    for point in sorted(below, key=len, reverse=True):
        subprocess.run(["umount", "-l", point], stdin=subprocess.DEVNULL, capture_output=True, check=False)
