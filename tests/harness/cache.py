"""The folder that outlives a run, and how something gets into it once.

Layout: `go/`, `deb/`, `cargo/`, `wasm/` (installed tools), `sources/` (what is built), `target/` and `target-wasm/` (build outputs),
`stamps/`, `locks/`.
Removing any of it, or all, costs time and nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator

from .progress import say

# How many bytes of build outputs are kept; one checkout's are about a fifth of it.
_BUILD_BOUND = 12 << 30

# The root of the checkout.
ROOT = Path(__file__).resolve().parents[2]


def cache_dir() -> Path:
    """The cache folder: $ROADSTEAD_TEST_CACHE, else `roadstead` in $XDG_CACHE_HOME, else in ~/.cache. Created if missing."""
    chosen = os.environ.get("ROADSTEAD_TEST_CACHE")
    if chosen:
        folder = Path(chosen).absolute()
    else:
        base = os.environ.get("XDG_CACHE_HOME")
        folder = (Path(base) if base else Path.home() / ".cache") / "roadstead"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def target_dir() -> Path:
    """Where cargo builds: $CARGO_TARGET_DIR, else in the cache, so that a fresh checkout starts warm."""
    chosen = os.environ.get("CARGO_TARGET_DIR")
    return Path(chosen).absolute() if chosen else cache_dir() / "target"


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Holds one lock of the cache; a second run waits here. The kernel drops it if this process dies."""
    folder = cache_dir() / "locks"
    folder.mkdir(exist_ok=True)
    with open(folder / _plain(name), "w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def build_folder_in_use() -> Iterator[None]:
    """Holds the cache's build outputs for one run, after emptying them if they have grown past their bound. A second run waits here."""
    locks = cache_dir() / "locks"
    locks.mkdir(exist_ok=True)
    with open(locks / "target", "w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run to end (CARGO_TARGET_DIR=target tests/run does not wait)")
            fcntl.flock(handle, fcntl.LOCK_EX)
        folders = [cache_dir() / name for name in ("target", "target-wasm")]
        if sum(map(_size, folders)) > _BUILD_BOUND:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
        yield


def _size(folder: Path) -> int:
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                pass  # a build that goes on meanwhile
    return total


def install_folder(kind: str, name: str, versions: str, install: Callable[[Path], None]) -> Path:
    """The folder `kind/name` of the cache, as `install` filled it for exactly these `versions`.

    `install` gets an empty folder and is run only when the stamp is missing or speaks of other versions. It works in a
    neighbouring folder that is renamed at the end, so that a run that was cut short never leaves half a tool behind.
    """
    folder = cache_dir() / kind / _plain(name)
    stamp = cache_dir() / "stamps" / f"{kind}-{_plain(name)}"
    with locked(f"{kind}-{name}"):
        if folder.is_dir() and stamp.is_file() and stamp.read_text() == versions:
            return folder
        fresh = folder.with_name(folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        install(fresh)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
        stamp.parent.mkdir(exist_ok=True)
        stamp.write_text(versions)
    return folder


def _plain(name: str) -> str:
    """A file name for any text: readable, and distinct for distinct texts."""
    plain = re.sub(r"[^A-Za-z0-9@._-]+", "-", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
