"""A Python program in a virtual environment of its own, every package of it at an exact version.

The program may ask for a newer Python than the tests themselves do: the newest that this machine has a name for is taken when the
tests' own is too old.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple, Tuple

from . import debian
from .api import HarnessError, skip
from .cache import install_folder
from .process import run
from .progress import step

# Debian leaves pip's seed out of its Python.
_DEBIAN = debian.System(name="venv", packages=("python3-venv",))

# What a person's own settings could do to an installation that is not theirs. Every Python below is isolated (-I) too: neither the
# environment nor the current folder has a say in what it imports.
_OWN = {"PIP_USER": None, "PIP_REQUIRE_VIRTUALENV": None, "PIP_TARGET": None, "PIP_PREFIX": None}

_TELLS = "import sys; print('.'.join(map(str, sys.version_info[:3])), sys.executable)"


class Venv(NamedTuple):
    """A package that is run as `python -I -m MODULE`.

    `constraints` is a file beside this one with one `NAME==VERSION` for everything that comes along. `python` is the oldest that it
    runs on.
    """

    package: str
    version: str
    module: str
    constraints: str
    python: Tuple[int, int]


def install(wanted: Venv) -> Path:
    """The folder with the program's environment; the program is the file in it that is named like its module. Calls `skip`
    where this machine cannot have it."""
    version, python = _python(wanted.package, wanted.python)
    constraints = Path(__file__).with_name(wanted.constraints)

    def fill(folder: Path) -> None:
        with step(f"installing {wanted.package} {wanted.version}"):
            run([python, "-I", "-m", "venv", folder], timeout=120, env=_OWN)
            own = folder / "bin" / "python"
            pip = [own, "-I", "-m", "pip", "install", "--quiet", "--constraint", constraints]
            run([*pip, f"{wanted.package}=={wanted.version}"], timeout=900, env=_OWN)
            _all_pinned(own, constraints)
        # pip's own script names the folder that it was written into, which is renamed when it is complete.
        program = folder / wanted.module
        program.write_text(f'#!/bin/sh\nexec "$(dirname "$(readlink -f "$0")")/bin/python" -I -m {wanted.module} "$@"\n')
        program.chmod(0o755)

    # A virtual environment belongs to the Python that it was made with.
    stamp = f"{wanted.package}=={wanted.version}\n{python} {version}\n{constraints.read_text()}"
    return install_folder("venv", wanted.package, stamp, fill)


class Wheel(NamedTuple):
    """A program that is no Python, and that a package of exactly this version brings compiled, for `bin/`."""

    package: str
    version: str


def install_wheel(wanted: Wheel) -> Path:
    """The folder with the program in its `bin/`. Calls `skip` where this machine cannot have it."""
    _, python = _python(wanted.package, (3, 8))

    def fill(folder: Path) -> None:
        with step(f"installing {wanted.package} {wanted.version}"):
            run([python, "-I", "-m", "venv", folder], timeout=120, env=_OWN)
            pip = [folder / "bin" / "python", "-I", "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
            run([*pip, f"{wanted.package}=={wanted.version}"], timeout=300, env=_OWN)

    return install_folder("venv", wanted.package, f"{wanted.package}=={wanted.version}", fill)


def _python(package: str, oldest: Tuple[int, int]) -> Tuple[str, str]:
    """The version and the path of a Python that is new enough and can make virtual environments."""
    for name in (sys.executable, *(f"python3.{minor}" for minor in range(15, oldest[1] - 1, -1)), "python3"):
        path = shutil.which(name or "")
        if path is None:
            continue
        # A name may be a switch that knows of no such version; then it fails.
        finished = run([path, "-I", "-c", _TELLS], timeout=30, env=_OWN, ok=None)
        if finished.returncode != 0:
            continue
        version, executable = finished.stdout.strip().split(" ", 1)
        if tuple(map(int, version.split(".")[:2])) < oldest:
            continue
        if run([executable, "-I", "-c", "import ensurepip, venv"], timeout=30, env=_OWN, ok=None).returncode != 0:
            debian.install(_DEBIAN)
        return version, executable
    skip(f"{package} needs Python {oldest[0]}.{oldest[1]} or newer")


def _all_pinned(python: Path, constraints: Path) -> None:
    """`HarnessError` when something came along whose version is not in the constraints: next year it would be another."""
    installed = run([python, "-I", "-m", "pip", "freeze"], timeout=60, env=_OWN).stdout.split()
    pinned = {_plain(line) for line in constraints.read_text().splitlines()}
    free = [line for line in installed if _plain(line) not in pinned]
    if free:
        raise HarnessError(f"not in {constraints.name}: {' '.join(free)}")


def _plain(line: str) -> str:
    """`Name_x==1` and `name-x==1` are the same package."""
    return re.sub(r"[-_.]+", "-", line.split("==")[0].strip()).lower() + "==" + line.partition("==")[2].strip()
