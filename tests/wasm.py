"""The part `wasm`: the protocol core builds unchanged for wasm32-unknown-unknown, and so do `auth`, the contract suite and `shell`
without features.

What holds this up is that `auth`, `contract`, `oci`, `registry`, and `shell` without features, have no runtime, file system, network, clock or
randomness of their own, and no code that is there for one target only.
"""

from __future__ import annotations

import json
import re
import shutil
from typing import List

from harness import Context, Result, check, run, skip
from harness.build import cargo
from harness.cache import ROOT, cache_dir
from harness.wasm_toolchain import TARGET, environment

# A predicate may be spread over lines; the two short names of systems are ordinary words elsewhere.
_ON_TARGET = re.compile(r"target_(arch|endian|env|family|os|pointer_width|vendor)\b|\bcfg\w*!?\(.*\b(unix|windows)\b")

CORE = ("auth", "contract", "oci", "registry", "shell")

_TARGET_DIR = cache_dir() / "target-wasm"
_PROGRAM = "verify-token"
# The program imports nothing. The first call includes the compilation of what it needs; the median of the others does not.
_NODE = """
const bytes = require("fs").readFileSync(process.argv[1]);
const timed = (work) => { const begin = performance.now(); return [work(), performance.now() - begin]; };
const [program, compiled] = timed(() => new WebAssembly.Instance(new WebAssembly.Module(bytes), {}));
const runs = Array.from({length: 101}, () => timed(() => program.exports.main(0, 0)));
const next = runs.slice(1).map(([, time]) => time).sort((a, b) => a - b)[50];
const compressed = require("zlib").gzipSync(bytes).length;
console.log(JSON.stringify({codes: runs.map(([code]) => code), first: runs[0][1], next, compiled, compressed}));
"""


def main(context: Context) -> List[Result]:
    results = [check("no code for one target only", one_source), check(f"auth, contract, oci, registry and shell for {TARGET}", builds)]
    if context.full:
        results.append(check("a token is verified in WebAssembly", verifies))
    return results


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
    packages = [word for crate in CORE for word in ("-p", crate)]
    _cargo(["build", *packages], f"building what the edge shares for {TARGET}")


def verifies() -> str:
    """Runs the crate `verify-token` in Node. Returns its size, and how long the verifications took."""
    if shutil.which("node") is None:
        skip("Node is not installed")
    _cargo(["build", "-p", _PROGRAM, "--profile", "dist"], f"building the verification of tokens for {TARGET}")
    program = _TARGET_DIR / TARGET / "dist" / f"{_PROGRAM}.wasm"
    measured = json.loads(run(["node", "-e", _NODE, str(program)], timeout=60).stdout)
    assert measured["codes"] == [0] * len(measured["codes"]), measured
    size = program.stat().st_size
    return (
        f"{size / 1000:.0f} KB, {measured['compressed'] / 1000:.0f} KB by gzip; issued and verified first in {measured['first']:.1f} ms"
        f" after {measured['compiled']:.1f} ms of compilation, then in {measured['next']:.2f} ms"
    )


def _cargo(words: List[str], what: str) -> None:
    # Another compiler than the host's may be at work here: its outputs lie apart.
    env = {**environment(), "CARGO_TARGET_DIR": str(_TARGET_DIR)}
    cargo([*words, "--locked", "--target", TARGET], what, env=env)
