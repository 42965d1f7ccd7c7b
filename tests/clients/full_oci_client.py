"""The Rust library `oci-client`, which sends every layer in chunks: a small program of it, pushing and pulling."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Dict, Iterator

from common import UNAUTHORIZED, Setting, client, refused
from harness import Result, RoundRobinProxy, cache_dir, run, skip
from layout import noise
from verify import Registry

SOURCE = Path(__file__).resolve().parent / "oci-client"
CHUNK = 4 * 1024 * 1024
SIZES = (1, CHUNK, 10_000_000)


def results(setting: Setting) -> Iterator[Result]:
    with RoundRobinProxy([setting.address]) as relay:
        user, password = setting.registry.user, setting.registry.password
        env = setting.home("oci-client")
        login: Dict[str, str] = {"OCI_CLIENT_USER": user, "OCI_CLIENT_PASSWORD": str(password)} if user is not None else {}

        def refused_push() -> None:
            layer = setting.folder("layers") / "refused"
            layer.write_bytes(noise("oci-client", 100))
            image = f"{relay.address}/{setting.repository('oci-client/refused')}:1"
            refused([program(), image, layer], env, *UNAUTHORIZED)

        def round_trip() -> str:
            folder = setting.folder("layers")
            for size in SIZES:
                (folder / str(size)).write_bytes(noise(f"oci-client-{size}", size))
            files = [folder / str(size) for size in SIZES]
            repository = setting.repository("oci-client/app")
            done = client([program(), f"{relay.address}/{repository}:1", *files], {**env, **login})
            Registry(relay.address, user, password).verify(repository, "1", expect=done.stdout.strip())
            sent = sum(request.method == "PATCH" for request in relay.requests)
            # One chunk for the configuration too.
            least = 1 + sum(-(-size // CHUNK) for size in SIZES)
            assert sent >= least, f"{sent} PATCH requests, but the layers make {least} chunks"
            return f"{sent} chunks"

        if login:
            yield setting.check("oci-client: push without a password is refused", refused_push)
        yield setting.check("oci-client: push in chunks, pull, compare", round_trip)


def program() -> Path:
    """The program, built in the cache: its build must leave nothing in the checkout."""
    if shutil.which("cargo") is None:
        skip("Rust (cargo) is not installed")
    target = cache_dir() / "target-oci-client"
    build = ["cargo", "build", "--release", "--locked", "--manifest-path", SOURCE / "Cargo.toml"]
    run(build, timeout=1800, env={"CARGO_TARGET_DIR": str(target), "RUSTFLAGS": None}, cwd=target.parent)
    return target / "release" / "oci-client-round-trip"
