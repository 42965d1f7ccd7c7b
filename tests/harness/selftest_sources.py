"""Checks of the copy that cargo builds from: it is the checkout, and what did not change keeps its time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, List

from .api import Result, check
from .process import run, scratch
from .sources import update


def main() -> List[Result]:
    return [
        check("sources: the copy becomes what the checkout is", _follows),
        check("sources: what git ignores is left out", _leaves_out),
        check("sources: a file is newer exactly when its content is another", _keeps_times),
    ]


def _write(folder: Path, files: Dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def _read(folder: Path) -> Dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()}


def _follows() -> None:
    with scratch("sources") as work:
        checkout, copy = work / "checkout", work / "copy"
        _write(checkout, {"Cargo.toml": "1", "a/lib.rs": "2", "run": "3", ".git/HEAD": "no source", "target/built": "no source"})
        (checkout / "run").chmod(0o755)
        update(checkout, copy)
        assert _read(copy) == {"Cargo.toml": "1", "a/lib.rs": "2", "run": "3"}, _read(copy)
        assert os.access(copy / "run", os.X_OK) and not os.access(copy / "Cargo.toml", os.X_OK)
        # A file goes, one becomes a folder, a folder becomes a file, one changes, and one loses a permission.
        for name in ("a/lib.rs", "Cargo.toml"):
            (checkout / name).unlink()
        (checkout / "a").rmdir()
        (checkout / "run").chmod(0o644)
        _write(checkout, {"Cargo.toml/inner": "4", "a": "5", "run": "6"})
        update(checkout, copy)
        assert _read(copy) == {"Cargo.toml/inner": "4", "a": "5", "run": "6"}, _read(copy)
        assert not os.access(copy / "run", os.X_OK)
        # An empty folder in functions/ would be a crate without a manifest.
        _write(checkout, {"functions/crate/src/lib.rs": "7"})
        update(checkout, copy)
        (checkout / "functions/crate/src/lib.rs").unlink()
        update(checkout, copy)
        assert not (copy / "functions").exists()


def _leaves_out() -> None:
    with scratch("sources") as work:
        checkout, copy = work / "checkout", work / "copy"
        _write(checkout, {".gitignore": "/data\n", "kept": "1", "data/blob": "2", "inner/target/built": "3"})
        (checkout / "dangling").symlink_to("nothing")
        run(["git", "init", "-q"], timeout=20, cwd=checkout)
        update(checkout, copy)
        assert _read(copy) == {".gitignore": "/data\n", "kept": "1", "inner/target/built": "3"}, _read(copy)
        # Found by a test that was built from the copy.
        _write(copy, {"functions/crate/proptest-regressions/lib.txt": "4"})
        update(checkout, copy)
        assert "functions/crate/proptest-regressions/lib.txt" in _read(copy)


def _keeps_times() -> None:
    with scratch("sources") as work:
        checkout, copy = work / "checkout", work / "copy"
        _write(checkout, {"same.rs": "1", "other.rs": "1"})
        update(checkout, copy)
        for name in ("same.rs", "other.rs"):
            os.utime(copy / name, (1, 1))
        # The checkout is a fresh one: its files are new. Then a file becomes again what it was before the last build.
        _write(checkout, {"same.rs": "1", "other.rs": "2"})
        update(checkout, copy)
        assert (copy / "same.rs").stat().st_mtime == 1 and (copy / "other.rs").stat().st_mtime > 1
        os.utime(copy / "other.rs", (1, 1))
        _write(checkout, {"other.rs": "1"})
        update(checkout, copy)
        assert (copy / "same.rs").stat().st_mtime == 1 and (copy / "other.rs").stat().st_mtime > 1
