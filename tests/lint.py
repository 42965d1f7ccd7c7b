"""The part `lint`: formatting, clippy, documentation, dependency policy, and the test scripts themselves."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from typing import Dict, List, Sequence, Set

from harness import Context, HarnessError, Result, check, ensure, run, selftest
from harness.build import cargo, readable, try_cargo
from harness.cache import ROOT
from harness.modules import circles
from harness.sources import sources

# The platforms whose dependencies count as the core's: one desk, one server, one edge. Named here, so that the answer is the
# same on every machine.
PLATFORMS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "wasm32-unknown-unknown")
CORE = ("oci", "registry")
# What computes and nothing else, and the list of the crates that it may be built with.
LISTS = {CORE: ROOT / "tests" / "core-dependencies", ("auth",): ROOT / "tests" / "auth-dependencies"}

# What `shell` must not be built with, by its features: each pattern with its reason. The SDK of AWS sends requests with hyper, so that
# with `cloud` hyper is there; but nothing of this workspace below the servers may ask for it by itself.
SERVER = {"hyper": "a server is the binary's", "hyper-util": "a server is the binary's", "clap(_.*)?": "a command line is the binary's"}
SQLITE = {"rusqlite|libsqlite3-sys|store-embedded": "SQLite comes with the feature `embedded` alone"}
SDK = {"aws-.*|store-s3|store-dynamodb": "the SDK comes with the feature `cloud` alone"}
PERSON = {"aws-sdk-sso(oidc)?": "single sign-on comes with the feature `workstation` alone"}
RUNTIME = {"tokio(-.*)?|mio|socket2": "the Worker has another runtime", "getrandom|rustix": "the Worker has another system"}
SHELL_BANS: Dict[str, Dict[str, str]] = {
    "": {**SERVER, **SQLITE, **SDK, **RUNTIME},
    "native": {**SERVER, **SQLITE, **SDK},
    "embedded": {**SERVER, **SDK},
    "cloud": {**SQLITE, **PERSON, "clap(_.*)?": SERVER["clap(_.*)?"]},
    "embedded,workstation": {"clap(_.*)?": SERVER["clap(_.*)?"]},
}
SECURITY = ROOT / "docs" / "security.md"

OLDEST_PYTHON = (3, 9)


def main(_context: Context) -> List[Result]:
    return [
        check("python scripts compile", python_scripts),
        check("shell scripts parse", shell_scripts),
        *selftest.main(),
        check("rustfmt", rustfmt),
        check("dependencies of the core and of auth", listed_dependencies),
        check("shell dependencies", shell_dependencies),
        check("module circles", module_circles),
        check("security classes", security_classes),
        check("cargo deny", cargo_deny),
        check("clippy", clippy),
        check("clippy of shell, each set of features", clippy_of_shell),
        check("rustdoc", rustdoc),
    ]


def rustfmt() -> None:
    # It names files by their whole path: those of the checkout.
    words = ["fmt", "--manifest-path", str(ROOT / "Cargo.toml"), "--all", "--check", "--", "-l", "--color", "never"]
    finished = try_cargo(words, "cargo fmt", timeout=120)
    assert finished.returncode == 0, "not formatted (`cargo fmt --all` does it):\n" + readable(finished)


def clippy() -> None:
    words = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]
    cargo(words, "cargo clippy")


def clippy_of_shell() -> str:
    """`shell` with each set of features by itself: the workspace asks for all of them at once."""
    for features in SHELL_BANS:
        words = ["clippy", "--locked", "--package", "shell", "--features", features, "--", "-D", "warnings"]
        cargo(words, f"cargo clippy, shell with {features or 'no features'}")
    return f"{len(SHELL_BANS)} sets of features"


def rustdoc() -> None:
    words = ["doc", "--locked", "--workspace", "--no-deps"]
    cargo(words, "cargo doc", env={"RUSTDOCFLAGS": "-D warnings"})


def cargo_deny() -> None:
    """Licences, bans and sources by deny.toml. Advisories are left to a machine that can fetch their database."""
    deny = ensure("cargo-deny")
    # The check reads every dependency's manifest, those of other platforms too, which no build here has downloaded.
    cargo(["fetch", "--locked"], "cargo fetch", timeout=600)
    run([deny, "--offline", "check", "bans", "licenses", "sources"], timeout=300, cwd=sources(), env={"NO_COLOR": "1"})


def listed_dependencies() -> str:
    """The core depends on exactly the crates of tests/core-dependencies, each with its reason; `auth` also on those of its own list."""
    counts: List[str] = []
    below: Set[str] = set(CORE)
    for crates, path in LISTS.items():
        listed = _listed(path)
        used = {name: why for name, why in _closure(crates).items() if name not in below}
        problems = [f"not listed: {name} (by way of {_words(why)})" for name, why in sorted(used.items()) if name not in listed]
        problems += [f"listed and not used: {name}" for name in sorted(listed) if name not in used]
        assert not problems, f"{path.relative_to(ROOT)}:\n  " + "\n  ".join(problems)
        counts.append(f"{len(used)} crates of {_words(set(crates))}")
        below |= listed
    return ", ".join(counts)


def shell_dependencies() -> str:
    """`shell` is built with no HTTP server and no command line, and with SQLite, an SDK and a runtime only by its features."""
    problems: List[str] = []
    own = {path.parent.name for path in (ROOT / "functions").glob("*/Cargo.toml")}
    for features, bans in SHELL_BANS.items():
        # Without features it is for the Worker too; with them for hosts.
        platforms = PLATFORMS if not features else PLATFORMS[:2]
        used = _closure(("shell",), platforms, features)
        for pattern, reason in bans.items():
            problems += [
                f"features {features or 'none'}: {name} (by way of {_words(why)}): {reason}"
                for name, why in sorted(used.items())
                if re.fullmatch(pattern, name)
            ]
        problems += [
            f"features {features or 'none'}: {name} is asked for by {_words(used[name] & own)} itself"
            for name in ("hyper", "hyper-util")
            if used.get(name, set()) & own
        ]
    assert not problems, "functions/shell:\n  " + "\n  ".join(problems)
    return f"{len(SHELL_BANS)} sets of features"


def module_circles() -> str:
    """No two modules with the same parent depend on each other: a reader can begin with one of them."""
    crates = [folder for folder in sorted((ROOT / "functions").iterdir()) if (folder / "src" / "lib.rs").exists()]
    found = [circle for crate in crates for circle in circles(crate)]
    assert not found, "\n".join(found)
    return f"{len(crates)} crates"


def security_classes() -> str:
    """docs/security.md and the tests agree: each class names tests that exist, or says that it has no code yet."""
    tests: Set[str] = set()
    for source in sorted((ROOT / "functions").rglob("*.rs")):
        tests |= set(re.findall(r"\bfn (s\d\d_\w+)", source.read_text()))
    classes: Dict[str, str] = {}
    for line in SECURITY.read_text().splitlines():
        row = re.match(r"\| S(\d+) \|", line)
        if row:
            classes[f"s{int(row.group(1)):02}"] = line
    problems = [f"{test}: there is no such class" for test in sorted(tests) if test[:3] not in classes]
    for number, line in sorted(classes.items()):
        named = re.findall(r"`(s\d\d_\w+)`", line)
        problems += [f"{number}: there is no test {test}" for test in named if test not in tests]
        problems += [f"{number}: {test} is of another class" for test in named if test[:3] != number]
        if not named and "*Not yet*" not in line:
            problems.append(f"{number}: neither a test nor *Not yet*")
    assert len(classes) >= 34, f"only {len(classes)} classes were found"
    assert not problems, f"{SECURITY.relative_to(ROOT)}:\n  " + "\n  ".join(problems)
    return f"{len(classes)} classes, {len(tests)} tests"


def _listed(path: Path) -> Set[str]:
    """The names in a list of dependencies: one a line, each followed by its reason; `#` begins a comment."""
    names: Set[str] = set()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        name, _, reason = text.partition(" ")
        assert reason.strip(), f"{path.name}:{number}: {name} has no reason"
        assert name not in names, f"{path.name}:{number}: {name} is listed twice"
        names.add(name)
    return names


def _words(names: Set[str]) -> str:
    return ", ".join(sorted(names))


def _closure(crates: Sequence[str] = CORE, platforms: Sequence[str] = PLATFORMS, features: str = "") -> Dict[str, Set[str]]:
    """Every crate that `crates` are built with (normal dependencies, procedural macros included), with those that ask for it.

    With the features that they themselves ask for: what other crates of the workspace ask of the same libraries is not theirs.
    """
    found: Dict[str, Set[str]] = {}
    for platform in platforms:
        members = [word for crate in crates for word in ("--package", crate)]
        words = ["tree", "--locked", *members, "--edges", "normal", "--target", platform, "--prefix", "depth", "--no-dedupe"]
        words += ["--features", features] if features else []
        above: List[str] = []
        for line in cargo([*words, "--format", " {p}"], "cargo tree", timeout=300).stdout.split("\n"):
            depth, _, package = line.partition(" ")
            if not depth:
                continue
            name = package.split()[0]
            above[int(depth) :] = [name]
            if int(depth) > 0 and name not in crates:
                found.setdefault(name, set()).add(above[int(depth) - 1])
    return found


def python_scripts() -> str:
    """Every Python script parses in the grammar of the oldest Python that the README promises, and compiles."""
    scripts = [path for path in _scripts() if path.suffix == ".py" or _interpreter(path).startswith("python")]
    problems = []
    for path in scripts:
        source = path.read_text()
        try:
            ast.parse(source, str(path), feature_version=OLDEST_PYTHON)
            compile(source, str(path), "exec", dont_inherit=True)
        except SyntaxError as error:
            problems.append(f"{path.relative_to(ROOT)}:{error.lineno}: {error.msg}")
    assert not problems, "\n".join(problems)
    return f"{len(scripts)} scripts"


def shell_scripts() -> str:
    bash = shutil.which("bash")
    if bash is None:
        raise HarnessError("bash is not installed")
    scripts = [path for path in _scripts() if path.suffix == ".sh" or _interpreter(path) in ("bash", "sh")]
    for path in scripts:
        run([bash, "-n", path], timeout=30)
    return f"{len(scripts)} scripts"


def _scripts():
    """The files of the checkout that may be scripts: those outside build outputs and git's own folder, of a sane size."""
    for folder in (ROOT / ".ci", ROOT / "tests", ROOT / "samples", ROOT / "infra"):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix in ("", ".py", ".sh") and path.stat().st_size < 1 << 20:
                yield path


def _interpreter(path) -> str:
    """The program that a file's first line names (`python3`, `bash`), or nothing."""
    with open(path, "rb") as file:
        first = file.readline(200).decode(errors="replace")
    found = re.match(r"#!\s*(?:/usr/bin/env\s+)?(?:\S*/)?([\w.]+)", first)
    return found.group(1) if found else ""
