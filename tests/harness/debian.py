"""Debian packages: installed into the system, or, where a newer generation is wanted, unpacked into the cache.

A system package keeps whatever version the machine's own release has: that release is the version that is tested. The
unpacked ones come from other suites of the mirror that the machine already uses; apt reads them with lists and caches of its
own, so the system's package state is never touched.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import List, NamedTuple, Tuple

from .api import skip
from .cache import cache_dir, install_folder, locked
from .process import run
from .progress import step

# Another apt may hold the system's lock; wait for it, in seconds.
_LOCK = ["-o", "DPkg::Lock::Timeout=300"]
_QUIET = {"DEBIAN_FRONTEND": "noninteractive"}


class System(NamedTuple):
    """Packages that are installed into the system together."""

    name: str
    packages: Tuple[str, ...]


class Unpacked(NamedTuple):
    """Packages of one suite that are unpacked together into a folder of the cache."""

    name: str
    suite: str
    packages: Tuple[str, ...]


def install(wanted: System) -> None:
    """Installs what is missing; does nothing, and needs no root, where all of it is there. Else calls `skip` where it cannot."""
    if not missing(wanted.packages):
        return
    _need_debian(f"to install {' '.join(wanted.packages)}")
    if os.geteuid() != 0:
        skip(f"only root can install {' '.join(missing(wanted.packages))}")
    with locked("apt"):
        absent = missing(wanted.packages)
        if not absent:
            return
        with step(f"installing Debian packages: {' '.join(absent)}"):
            command = ["apt-get", *_LOCK, "install", "-y", "-qq", "--no-install-recommends", *absent]
            # Lists that are absent or old are the usual reason for a failure; fetching them each time would cost more.
            if run(command, timeout=1200, env=_QUIET, ok=None).returncode != 0:
                run(["apt-get", *_LOCK, "update", "-qq"], timeout=600, env=_QUIET)
                run(command, timeout=1200, env=_QUIET)


def missing(packages: Tuple[str, ...]) -> List[str]:
    """Which of the packages are not installed; all of them where there is no dpkg."""
    if shutil.which("dpkg-query") is None:
        return list(packages)
    query = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages]
    lines = run(query, timeout=60, ok=None).stdout.splitlines()
    installed = {line.split()[0] for line in lines if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def unpack(wanted: Unpacked) -> Path:
    """The folder that the packages are unpacked in, as if it were the root. Calls `skip` where this is not Debian."""
    versions = f"{wanted.suite}: {' '.join(wanted.packages)}"

    def fill(folder: Path) -> None:
        _need_debian(f"to unpack {' '.join(wanted.packages)} of {wanted.suite}")
        apt = _lists(wanted.suite)
        with step(f"unpacking Debian packages of {wanted.suite}: {' '.join(wanted.packages)}"):
            download = folder / "download"
            download.mkdir()
            # As root apt drops to a user of its own, which may not enter this folder.
            run(["apt-get", *apt, "-o", "APT::Sandbox::User=root", "-qq", "download", *wanted.packages], timeout=900, cwd=download)
            names = []
            for package in sorted(download.glob("*.deb")):
                run(["dpkg-deb", "-x", package, folder], timeout=120)
                names.append(package.name)
            (folder / "versions").write_text("\n".join(names) + "\n")
            shutil.rmtree(download)

    return install_folder("deb", wanted.name, versions, fill)


def _lists(suite: str) -> List[str]:
    """The options with which apt sees one suite of the machine's own mirror and nothing else; its lists are fetched."""
    folder = cache_dir() / "apt" / suite
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    sources = folder / "sources.list"
    mirror, key = _mirror()
    signed = f" [signed-by={key}]" if key else ""
    sources.write_text(f"deb{signed} {mirror} {suite} main\n")
    options = [
        "-o", f"Dir::Etc::sourcelist={sources}",
        "-o", "Dir::Etc::sourceparts=/dev/null",
        "-o", f"Dir::State::lists={folder / 'lists'}",
        "-o", f"Dir::Cache={folder / 'cache'}",
    ]  # fmt: skip
    with locked(f"apt-{suite}"), step(f"reading the package lists of {suite}"):
        run(["apt-get", *options, "-o", "APT::Sandbox::User=root", "update", "-qq"], timeout=600)
    return options


def _mirror() -> Tuple[str, str]:
    """The first archive in the machine's own apt sources that is Debian's main one, and the key file that its entry names."""
    folder = Path("/etc/apt")
    for path in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]:
        if path.suffix not in (".list", ".sources") or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".sources":
            for paragraph in re.split(r"\n\s*\n", text):
                fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(\S[^\n]*)$", paragraph, re.MULTILINE))
                uri = fields.get("URIs", "").split()
                if uri and uri[0].rstrip("/").endswith("/debian"):
                    key = fields.get("Signed-By", "")
                    return uri[0], key if key.startswith("/") else ""
        else:
            for line in text.splitlines():
                found = re.match(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+/debian/?)\s", line)
                if found:
                    key = re.search(r"signed-by=(/\S+)", found.group(1) or "")
                    return found.group(2), key.group(1) if key else ""
    skip("the apt sources of this machine name no Debian archive")


def _need_debian(purpose: str) -> None:
    if shutil.which("apt-get") is None or not Path("/etc/debian_version").exists():
        skip(f"a Debian machine is needed {purpose}")
