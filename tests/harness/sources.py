"""The copy of the checkout that cargo builds from.

Cargo compares times: what is newer than its build is compiled again, and what is older is taken for unchanged, even in another checkout. In a
fresh checkout every file is new. In this copy, which outlives the run, a file is written only when its content is another: exactly what
changed is compiled again, wherever the checkout is.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Set

from .api import HarnessError
from .cache import ROOT, build_folder_in_use, cache_dir
from .process import run

# Where git does not list the files: the history, and what a person builds and runs there.
_LEFT_OUT = (".git", "target", "roadstead-data", "__pycache__")
# Cases that a random test has found to fail, written beside its source: the next run begins with them.
_FOUND_CASES = "proptest-regressions"

_sources = ROOT


def sources() -> Path:
    """The folder that cargo builds from: within `building` the copy, otherwise the checkout itself."""
    return _sources


@contextmanager
def building() -> Iterator[None]:
    """Holds the cache's build outputs, brings the copy up to date, and makes it the folder to build from.

    Where $CARGO_TARGET_DIR names a folder of build outputs, which cargo guards itself, the checkout stays the folder to build from: a
    person's own calls of cargo share both.
    """
    global _sources
    if os.environ.get("CARGO_TARGET_DIR"):
        yield
        return
    with build_folder_in_use():
        folder = cache_dir() / "sources"
        update(ROOT, folder)
        # A file that tells git where the history is, as a work tree has it.
        history = ROOT / ".git"
        found = history.read_text(encoding="utf-8") if history.is_file() else f"gitdir: {history}\n"
        (folder / ".git").write_text(found, encoding="utf-8")
        _sources = folder
        try:
            yield
        finally:
            _sources = ROOT


def update(checkout: Path, copy: Path) -> None:
    """Makes the files of the copy those of the checkout; one whose content is the same already stays as it is."""
    wanted = _listed(checkout)
    for name in _walked(copy) - wanted:
        if _FOUND_CASES not in name:
            (copy / name).unlink()
    for name in sorted(wanted):
        source, target = checkout / name, copy / name
        if not _same(source, target):
            if target.is_dir():
                shutil.rmtree(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            # With its permissions, and not with its time.
            shutil.copy(source, target)
    # Cargo takes every folder in functions/ for a crate.
    for parent, _, _ in os.walk(copy, topdown=False):
        if not os.listdir(parent):
            os.rmdir(parent)


def _listed(checkout: Path) -> Set[str]:
    """The names of the files of a checkout that git knows or does not ignore; of all files where there is no git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        printed = run(command, timeout=60, cwd=checkout).stdout
    except HarnessError:
        return _walked(checkout)
    return {name for name in printed.split("\0") if name and (checkout / name).is_file()}


def _walked(root: Path) -> Set[str]:
    """The names of the files below a folder, from there."""
    found: Set[str] = set()
    for parent, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        paths = (os.path.join(parent, name) for name in files if name not in _LEFT_OUT)
        found.update(os.path.relpath(path, root) for path in paths if os.path.isfile(path))
    return found


def _same(one: Path, other: Path) -> bool:
    """Whether both are files with the same content and the same permissions."""
    return other.is_file() and one.stat().st_mode == other.stat().st_mode and one.read_bytes() == other.read_bytes()
