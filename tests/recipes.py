"""This module helps the checks of `samples`, `infra_local`, `infra_aws` and `image` to run the texts of samples/ and infra/.

A text names example hosts and ports. `filled` replaces them by those of a test. It fails if one of them is absent, so that a test
cannot go on checking what a text no longer says. `steps` takes commands out of a README, and the tests run them as they are written.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Callable, Iterator, List, Mapping, Optional

from harness import Result, check, debian, ensure, run, skip, venv
from harness.build import roadstead
from harness.cache import ROOT
from harness.leaks import SEARCH
from harness.process import Finished

sys.path.insert(0, str(Path(__file__).resolve().parent / "clients"))

SAMPLES = ROOT / "samples"
LOCAL = ROOT / "infra" / "local"
AWS = ROOT / "infra" / "aws"

# The example names of the texts. The registry behind TLS is reached by its name, because names are what certificates are about.
REGISTRY = "registry.example.com"
LAB = "lab.example.com"
USER, PASSWORD = "alice", "pass word: anchor"
SEARCH.knows(PASSWORD, USER)

TIMEOUT = 120

TOOLS = debian.System("samples", ("rsync", "sqlite3", "strace", "systemd", "util-linux"))
# From a newer suite than Debian 12, whose own speaks for clusters of 2020. The suite is in the name because a machine may have a kubectl of
# another source, which apt would look for.
KUBECTL = debian.Unpacked("kubectl", "trixie", ("kubectl/trixie",))

AWS_CLI = venv.Venv("awscli", "1.46.3", "awscli", "awscli-constraints.txt", (3, 9))


def filled(text: str, changes: Mapping[str, str]) -> str:
    """The text with every example value replaced; an `AssertionError` when one of them is not in it."""
    for old, new in changes.items():
        assert old in text, f"{old!r} is not in the text any more:\n{text}"
        text = text.replace(old, new)
    return text


def commands(readme: Path) -> List[str]:
    """All blocks of commands in a README, also those in lists."""
    found = re.findall(r"^( *)```(?:sh|bash)\n(.*?)^\1```$", readme.read_text(), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in found]


def steps(readme: Path, holding: str) -> str:
    """The one block of commands in a README that holds a text."""
    found = [block for block in commands(readme) if holding in block]
    assert len(found) == 1, f"{readme.relative_to(ROOT)}: {len(found)} blocks of commands hold {holding!r}"
    return found[0]


def blocks(page: Path, language: str = "sh") -> List[str]:
    """All blocks of a page in a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def console(page: Path, holding: str) -> str:
    """The commands of the one block of a page that holds a text, and shows a terminal: `$ ` before each command, and output."""
    found = [block for block in blocks(page, "console") if holding in block]
    assert len(found) == 1, f"{page.relative_to(ROOT)}: {len(found)} blocks hold {holding!r}"
    commands: List[str] = []
    for line in found[0].splitlines():
        if line.startswith("$ "):
            commands.append(line[2:])
        elif commands and commands[-1].endswith("\\"):
            commands.append(line)
    return "".join(f"{line}\n" for line in commands)


def shell(script: str, cwd: Path, env: Mapping[str, str], **more: object) -> Finished:
    """Runs a script with bash, ending at the first command that fails."""
    return run(["bash", "-eu", "-o", "pipefail", "-c", script], timeout=TIMEOUT, cwd=cwd, env=env, **more)  # type: ignore[arg-type]


def users(folder: Path) -> Path:
    """A file of users with USER in it."""
    file = folder / "users"
    file.write_text(run([roadstead(), "htpasswd", USER], timeout=30, input=PASSWORD).stdout)
    file.chmod(0o600)
    return file


def knowing(folder: Path, address: str = "127.0.0.1", etc_docker: Optional[Path] = None) -> List[str]:
    """A prefix under which a command finds the example names at a loopback address, whatever this machine calls by them.

    With `etc_docker` that folder is also /etc/docker for the command. Both are mounts that only the command's own mount namespace has. The
    machine gets an empty /etc/docker where it has none.
    """
    need_root()
    hosts = folder / f"hosts-{address.replace(':', '-')}"
    hosts.write_text(f"127.0.0.1 localhost\n{address} {REGISTRY} {LAB}\n")
    script = 'mount --bind "$0" /etc/hosts'
    if etc_docker is not None:
        script += f' && mkdir -p /etc/docker && mount --bind "{etc_docker}" /etc/docker'
    script += ' && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(hosts)]


def need_root() -> None:
    """Skips the check without root, because it mounts folders or starts a container engine."""
    if os.geteuid() != 0:
        skip("needs root, to start container engines and to give names to loopback addresses")


def tools() -> None:
    """Installs the small tools of the system that the checks use."""
    debian.install(TOOLS)


def kubectl() -> Path:
    """kubectl, from the cache."""
    return debian.unpack(KUBECTL) / "usr/bin/kubectl"


def aws_cli(folder: Path) -> Path:
    """The AWS CLI under its own name, in a folder that gets it."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "aws"
    program.write_text(f'#!/bin/sh\nexec "{venv.install(AWS_CLI)}/bin/python" -m awscli "$@"\n')
    program.chmod(0o755)
    return program


def path_with(*programs: Path) -> str:
    """A PATH that begins with the folders of these programs."""
    return os.pathsep.join([*dict.fromkeys(str(program.parent) for program in programs), os.environ["PATH"]])


def tool(name: str) -> str:
    """The path of an installed tool, by the harness's name for it."""
    return str(ensure(name))


def collected(name: str, family: Callable[[Path], Iterator[Result]], folder: Path) -> List[Result]:
    """Returns the results of a family of checks. A failure between two checks is a result of its own."""
    folder.mkdir()
    found: List[Result] = []

    def whole() -> None:
        for result in family(folder):
            found.append(result)

    outcome = check(f"{name}: start and stop", whole)
    return found if outcome.ok is True else [*found, outcome]
