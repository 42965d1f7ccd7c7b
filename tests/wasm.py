"""The part `wasm`: the protocol core builds unchanged for wasm32-unknown-unknown, and so do `auth`, the contract suite and `shell`
without features.

What holds this up is that `auth`, `contract`, `oci`, `registry`, and `shell` without features, have no runtime, file system, network, clock or
randomness of their own, and no code that is there for one target only.
"""

from __future__ import annotations

import re
from typing import List

from harness import Context, Result, check
from harness.build import cargo
from harness.cache import ROOT, cache_dir
from harness.wasm_toolchain import TARGET, environment

# A predicate may be spread over lines; the two short names of systems are ordinary words elsewhere.
_ON_TARGET = re.compile(r"target_(arch|endian|env|family|os|pointer_width|vendor)\b|\bcfg\w*!?\(.*\b(unix|windows)\b")

CORE = ("auth", "contract", "oci", "registry", "shell")


def main(_context: Context) -> List[Result]:
    return [check("no code for one target only", one_source), check(f"auth, contract, oci, registry and shell for {TARGET}", builds)]


def one_source() -> None:
    """No `cfg` on the target: what is compiled here is what is compiled there."""
    sources = [path for crate in CORE for path in sorted((ROOT / "functions" / crate).rglob("*.rs"))]
    assert sources, "the crates have no source"
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if _ON_TARGET.search(line)
    ]
    assert not found, "cfg on the target:\n" + "\n".join(found)


def builds() -> None:
    # Another compiler than the host's may be at work here: its outputs lie apart.
    env = {**environment(), "CARGO_TARGET_DIR": str(cache_dir() / "target-wasm")}
    packages = [word for crate in CORE for word in ("-p", crate)]
    cargo(["build", "--locked", "--target", TARGET, *packages], f"building what the edge shares for {TARGET}", env=env)
