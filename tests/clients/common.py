"""The setting that a client check runs in, and how a family of checks is run.

A *setting* is one registry address and how to speak to it: a server without authentication, one with users, or several
servers behind one address. Each client family is a module with a generator `results(setting)`: it starts its daemons,
yields one result for each leaf check, and stops the daemons when it is exhausted.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import HarnessError, Result, check, ensure, run, skip  # noqa: E402
from harness.process import Finished, Words  # noqa: E402

from images import Images  # noqa: E402
from private import remembering  # noqa: E402
from verify import Registry  # noqa: E402

# The time limit of one client command, in seconds: a hang is a finding, not a reason to wait.
TIMEOUT = 120


@dataclass
class Setting:
    """Where the checks of one run go: a registry, the images, and a folder for everything that they write.

    `name` starts every check's name, and `space` every repository, so that runs can share a registry. `own` tells that
    it is this project's registry, of which the whole of the specification is asked. `small` leaves out the large images.
    """

    name: str
    registry: Registry
    images: Images
    work: Path
    space: str = ""
    own: bool = True
    small: bool = False

    @property
    def address(self) -> str:
        return self.registry.address

    def repository(self, name: str) -> str:
        return self.space + name

    def reference(self, name: str) -> str:
        """`host:port/repository:tag` for a `repository:tag`."""
        return f"{self.address}/{self.repository(name)}"

    def folder(self, name: str) -> Path:
        path = self.work / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def home(self, client: str) -> Dict[str, str]:
        """Environment for a client: a home of its own, and none of this machine's credentials, settings or proxies."""
        home = self.folder(f"home-{client}")
        own = {
            "HOME": home, "DOCKER_CONFIG": home / "docker", "REGISTRY_AUTH_FILE": home / "auth.json",
            "XDG_DATA_HOME": home / "data", "XDG_CONFIG_HOME": home / "config", "XDG_CACHE_HOME": home / "cache",
            "XDG_RUNTIME_DIR": home / "run", "TMPDIR": self.folder("tmp"),
        }
        own["XDG_RUNTIME_DIR"].mkdir(exist_ok=True)
        if not own["REGISTRY_AUTH_FILE"].exists():
            own["REGISTRY_AUTH_FILE"].write_text("{}")
        proxies = {name: "" for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")}
        return {**{name: str(path) for name, path in own.items()}, **proxies}

    def pushed(self, image: str, name: str) -> str:
        """Pushes a layout with skopeo, every platform of it, for a family that only pulls it; returns its reference."""
        reference, layout = self.reference(name), getattr(self.images, image)
        words = [*remembering(self.folder("memory")), tool("skopeo"), "copy", "-q", "--all", "--preserve-digests"]
        if self.registry.user is not None:
            words += ["--dest-creds", f"{self.registry.user}:{self.registry.password}"]
        words += ["--dest-tls-verify=false", f"oci:{layout}:1", f"docker://{reference}"]
        run(words, timeout=TIMEOUT, env=self.home("skopeo"))
        return reference

    def check(self, name: str, function: Callable[..., object], *args: object) -> Result:
        """Runs one leaf check; a failure's text ends with the end of the server's log."""
        result = check(f"{self.name}: {name}", function, *args)
        log = self.registry.log().strip() if result.ok is False else ""
        if log:
            text = "\n".join("    " + line for line in log.splitlines())
            result = Result(result.name, False, result.seconds, f"{result.detail}\n  server log:\n{text}")
        return result


Family = Callable[[Setting], Iterator[Result]]


def collect(setting: Setting, name: str, family: Family, report: Callable[[Result], None]) -> List[Result]:
    """The results of a family, each reported as it comes; what stops it between checks is a failed result of its own."""
    found: List[Result] = []

    def whole() -> None:
        for result in family(setting):
            found.append(result)
            report(result)

    outcome = setting.check(f"{name}: start and stop", whole)
    if outcome.ok is not True:
        spent = sum(result.seconds for result in found)
        found.append(Result(outcome.name, outcome.ok, outcome.seconds - spent, outcome.detail))
        report(found[-1])
    return found


def need_root() -> None:
    """Ends the check as not run where container engines cannot be started."""
    if os.geteuid() != 0:
        skip("needs root, to start a container engine")


def tool(name: str) -> str:
    """The path of an installed tool, by the harness's name for it."""
    return str(ensure(name))


def client(words: Words, env: Mapping[str, str], timeout: float = TIMEOUT, **more: object) -> Finished:
    """One client command with the environment that `Setting.home` made."""
    return run(words, timeout=timeout, env=env, **more)  # type: ignore[arg-type]


# What clients say who lack credentials, each in its own words.
UNAUTHORIZED = ("unauthorized", "authentication required", "authorization failed", "access denied", "credential")


def refused(words: Words, env: Mapping[str, str], *says: str, **more: object) -> None:
    """Asserts that a client command fails, and that what it says holds one of `says` in any case."""
    done = client(words, env, ok=None, **more)
    assert done.returncode != 0, f"succeeded, but had to be refused: {' '.join(map(str, words))}"
    is_refusal(done, *says)


def is_refusal(done: Finished, *says: str) -> None:
    """Asserts that a client command has failed, and that what it says holds one of `says` in any case."""
    text = done.stdout + done.stderr
    assert done.returncode != 0, f"succeeded, but had to be refused: {text[-600:]}"
    assert any(word.lower() in text.lower() for word in says), f"refused, but with none of {says}: {text[-600:]}"


def settled(read: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits for a daemon; a `HarnessError` names it when it is not there in time."""
    deadline = time.monotonic() + seconds
    while not read():
        if time.monotonic() > deadline:
            raise HarnessError(f"{what}: not up within {seconds:g} s")
        time.sleep(0.1)
