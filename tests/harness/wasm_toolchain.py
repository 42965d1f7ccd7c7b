"""A Rust toolchain that builds for wasm32-unknown-unknown.

The ordinary way is `rustup target add`. Where there is no rustup, or it cannot fetch, Debian holds the parts: a compiler
with the WebAssembly back end (rustc-web), the standard library's source (rust-web-src) and the linker (lld). The standard library is
compiled from that source once, and laid out in the cache as a system root beside which `rustc` finds it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Dict

from . import debian
from .api import HarnessError, skip
from .cache import ROOT, install_folder
from .process import run
from .progress import step

TARGET = "wasm32-unknown-unknown"

_DEBIAN = debian.System(name="wasm", packages=("rustc-web", "rust-web-src", "lld-22"))
_LINKER = "wasm-ld-22"

# A package whose only purpose is to have the standard library built. Bit code and unwinding are of no use to a target that is
# only compiled for, never run, here.
_MANIFEST = """\
[package]
name = "standard-library"
version = "0.0.0"
edition = "2021"

[lib]
path = "lib.rs"

[profile.release]
panic = "abort"
"""


def environment() -> Dict[str, str]:
    """The changes to the environment with which cargo builds for `TARGET`; installs what is missing. Calls `skip` where it cannot."""
    if shutil.which("cargo") is None:
        skip("Rust (cargo) is not installed")
    if _by_rustup():
        return {}
    folder = _by_debian()
    return {"RUSTC": str(folder / "bin" / "rustc"), "RUSTUP_TOOLCHAIN": "", "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def _by_rustup() -> bool:
    """Whether the toolchain of the checkout has the target, or rustup could add it."""
    if shutil.which("rustup") is None:
        return False
    listed = run(["rustup", "target", "list", "--installed"], timeout=60, cwd=ROOT, ok=None)
    if TARGET in listed.stdout.split():
        return True
    with step(f"rustup target add {TARGET}"):
        try:
            return run(["rustup", "target", "add", TARGET], timeout=120, cwd=ROOT, ok=None).returncode == 0
        except HarnessError:
            return False  # it hung: no way out of this machine


def _by_debian() -> Path:
    debian.install(_DEBIAN)
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *_DEBIAN.packages]
    return install_folder("wasm", "toolchain", run(query, timeout=60).stdout, _lay_out)


def _lay_out(folder: Path) -> None:
    """Compiles the standard library and arranges it the way rustc looks for it under `--sysroot`."""
    host = _host()
    system = Path("/usr/lib/rustlib")
    cargo = run(["rustup", "which", "cargo"], timeout=60).stdout.strip() if shutil.which("rustup") else shutil.which("cargo")
    libraries = folder / "lib" / "rustlib" / TARGET / "lib"
    libraries.mkdir(parents=True)
    (folder / "bin").mkdir()
    with tempfile.TemporaryDirectory(prefix="roadstead-wasm-") as name, step(f"compiling the standard library for {TARGET}"):
        work = Path(name)
        (work / "Cargo.toml").write_text(_MANIFEST)
        (work / "lib.rs").write_text("")
        run(
            [str(cargo), "build", "--release", "--quiet", "-Zbuild-std=std,panic_abort,proc_macro", "--target", TARGET],
            timeout=1200,
            cwd=work,
            # Building the standard library is an unstable flag, which a stable cargo takes only with this variable; it is set
            # for this one command and never for our own crates.
            env={
                "CARGO_TARGET_DIR": str(work / "target"),
                "RUSTC": "/usr/bin/rustc",
                "RUSTC_BOOTSTRAP": "1",
                "RUSTFLAGS": "-Cembed-bitcode=yes",
                "RUSTUP_TOOLCHAIN": "",
            },
        )
        for library in (work / "target" / TARGET / "release" / "deps").glob("*.rlib"):
            if not library.name.startswith("libstandard_library"):
                shutil.copy2(library, libraries)
    # Build scripts and procedural macros are compiled for the host, with Debian's own standard library.
    (folder / "lib" / "rustlib" / host).symlink_to(system / host)
    # install_folder renames the folder when it is complete: the script finds its root from where it lies itself.
    rustc = folder / "bin" / "rustc"
    rustc.write_text('#!/bin/sh\nexec /usr/bin/rustc --sysroot "$(dirname "$(dirname "$(readlink -f "$0")")")" "$@"\n')
    rustc.chmod(0o755)
    (folder / "bin" / "rust-lld").symlink_to(shutil.which(_LINKER) or f"/usr/bin/{_LINKER}")


def _host() -> str:
    for line in run(["/usr/bin/rustc", "-vV"], timeout=60).stdout.splitlines():
        if line.startswith("host: "):
            return line[len("host: ") :]
    raise HarnessError("rustc -vV names no host")
