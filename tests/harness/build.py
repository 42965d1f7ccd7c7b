"""Cargo, as every part calls it: one target folder, the profile `dev` for tests and lints, `release` for programs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import List, Mapping, NamedTuple, Optional, Sequence

from .api import HarnessError, skip
from .cache import target_dir
from .process import Finished, run, spell
from .progress import step
from .sources import sources

# Lines by which cargo tells that it is busy; a failure's text is readable without them.
_NOISE = ("Blocking", "Building", "Checking", "Compiling", "Documenting", "Downloaded", "Downloading", "Fresh", "Locking", "Updating")
_SHOWN_LINES = 300
# The programs, as users build them. The tests are built by another profile (Cargo.toml) and with features that are for tests alone.
PROGRAMS = ("build", "--release", "--locked", "--package", "serve-standalone", "--package", "bench")

# A run compiles a crate once: what cargo would keep to compile it again faster takes time to write, and gigabytes.
_NOT_INCREMENTAL = {"CARGO_INCREMENTAL": "0"}

_built = False
_image: Optional["BuiltImage"] = None
_failure: Optional[HarnessError] = None


def cargo(words: Sequence[str], what: str, timeout: float = 2400, env: Optional[Mapping[str, Optional[str]]] = None) -> Finished:
    """Runs cargo in `sources()`, showing `what` meanwhile. A failure raises `HarnessError` with the output that matters.

    Calls `skip` where there is no cargo.
    """
    finished = try_cargo(words, what, timeout, env)
    if finished.returncode != 0:
        raise HarnessError(f"exit code {finished.returncode}: {spell(['cargo', *words])}\n{readable(finished)}")
    return finished


def try_cargo(words: Sequence[str], what: str, timeout: float = 2400, env: Optional[Mapping[str, Optional[str]]] = None) -> Finished:
    """As `cargo`, for a caller that judges the exit code itself."""
    if shutil.which("cargo") is None:
        skip("Rust (cargo) is not installed")
    changes = {"CARGO_TARGET_DIR": str(target_dir()), "CARGO_TERM_COLOR": "never", **_NOT_INCREMENTAL, **(env or {})}
    with step(what):
        return run(["cargo", *words], timeout=timeout, env=changes, cwd=sources(), ok=None)


def readable(finished: Finished) -> str:
    """Cargo's output without the lines that only tell that it is busy; at most 300 lines."""
    lines = [line for line in (finished.stderr + finished.stdout).splitlines() if not line.strip().startswith(_NOISE)]
    rest = len(lines) - _SHOWN_LINES
    return "\n".join(lines if rest <= 0 else [*lines[:_SHOWN_LINES], f"… {rest} lines more"])


def binary(name: str) -> Path:
    """The path of a binary of the workspace, built from this checkout once a run. A failed build is not tried again."""
    global _built, _failure
    if _failure is not None:
        raise _failure
    if not _built:
        try:
            cargo(PROGRAMS, "building roadstead")
        except HarnessError as error:
            _failure = error
            raise
        _built = True
    return target_dir() / "release" / name


def roadstead() -> Path:
    """The path of the `roadstead` binary of this checkout; see `binary`."""
    return binary("roadstead")


class BuiltImage(NamedTuple):
    """The container image: its OCI layout, its archive, what the build said, and the crates that were compiled for it."""

    layout: Path
    archive: Path
    said: str
    compiled: List[str]


def image() -> BuiltImage:
    """The container image of this checkout, built once a run from what `binary` has compiled: its program is only linked again."""
    global _image
    if _image is None:
        binary("roadstead")
        _image = built_image("release", target_dir() / "image")
        # The program without shared libraries has taken the place of the ordinary one, which this puts back.
        cargo(PROGRAMS, "linking roadstead")
    return _image


def built_image(profile: str, folder: Path) -> BuiltImage:
    """The container image, built with a profile of cargo into a folder."""
    layout, archive = folder / "layout", folder / "roadstead.tar"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sources() / "infra" / "image" / "build.py", "--profile", profile, "--output", layout, "--archive", archive]
    env = {"CARGO_TARGET_DIR": str(target_dir()), "CARGO_TERM_COLOR": "never", "SOURCE_DATE_EPOCH": None}
    with step(f"building the image, profile {profile}"):
        finished = run(command, timeout=2400, env=env)
    lines = [line.split() for line in finished.stderr.splitlines()]
    return BuiltImage(layout, archive, finished.stdout, [words[1] for words in lines if words[:1] == ["Compiling"]])
