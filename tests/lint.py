"""The part `lint`: formatting, clippy, documentation, dependency policy, and the test scripts themselves."""

from __future__ import annotations

import ast
import re
import shutil
from typing import Dict, List, Set

from harness import Context, HarnessError, Result, check, ensure, run, selftest
from harness.build import cargo, readable, try_cargo
from harness.cache import ROOT

# The platforms whose dependencies count as the core's: one desk, one server, one edge. Named here, so that the answer is the
# same on every machine.
PLATFORMS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "wasm32-unknown-unknown")
CORE = ("oci", "registry")
CORE_LIST = ROOT / "tests" / "core-dependencies"
SECURITY = ROOT / "docs" / "security.md"

OLDEST_PYTHON = (3, 9)


def main(_context: Context) -> List[Result]:
    return [
        check("python scripts compile", python_scripts),
        check("shell scripts parse", shell_scripts),
        *selftest.main(),
        check("rustfmt", rustfmt),
        check("core dependencies", core_dependencies),
        check("security classes", security_classes),
        check("cargo deny", cargo_deny),
        check("clippy", clippy),
        check("rustdoc", rustdoc),
    ]


def rustfmt() -> None:
    finished = try_cargo(["fmt", "--all", "--check", "--", "-l", "--color", "never"], "cargo fmt", timeout=120)
    assert finished.returncode == 0, "not formatted (`cargo fmt --all` does it):\n" + readable(finished)


def clippy() -> None:
    words = ["clippy", "--release", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]
    cargo(words, "cargo clippy")


def rustdoc() -> None:
    words = ["doc", "--release", "--locked", "--workspace", "--no-deps"]
    cargo(words, "cargo doc", env={"RUSTDOCFLAGS": "-D warnings"})


def cargo_deny() -> None:
    """Licences, bans and sources by deny.toml. Advisories are left to a machine that can fetch their database."""
    deny = ensure("cargo-deny")
    # The check reads every dependency's manifest, those of other platforms too, which no build here has downloaded.
    cargo(["fetch", "--locked"], "cargo fetch", timeout=600)
    run([deny, "--offline", "check", "bans", "licenses", "sources"], timeout=300, cwd=ROOT, env={"NO_COLOR": "1"})


def core_dependencies() -> str:
    """`oci` and `registry` depend on exactly the crates of tests/core-dependencies, each with its reason."""
    listed = _listed()
    used = _closure()
    problems = [f"not listed: {name} (by way of {why})" for name, why in sorted(used.items()) if name not in listed]
    problems += [f"listed and not used: {name}" for name in sorted(listed) if name not in used]
    assert not problems, f"{CORE_LIST.relative_to(ROOT)}:\n  " + "\n  ".join(problems)
    return f"{len(used)} crates"


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


def _listed() -> Set[str]:
    """The names in tests/core-dependencies: one a line, each followed by its reason; `#` begins a comment."""
    names: Set[str] = set()
    for number, line in enumerate(CORE_LIST.read_text().splitlines(), 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        name, _, reason = text.partition(" ")
        assert reason.strip(), f"{CORE_LIST.name}:{number}: {name} has no reason"
        assert name not in names, f"{CORE_LIST.name}:{number}: {name} is listed twice"
        names.add(name)
    return names


def _closure() -> Dict[str, str]:
    """Every crate that the core is built with (normal dependencies, procedural macros included), with one that asks for it.

    With the features that the core itself asks for: what other crates of the workspace ask of the same libraries is not the core's.
    """
    found: Dict[str, str] = {}
    for platform in PLATFORMS:
        members = [word for crate in CORE for word in ("--package", crate)]
        words = ["tree", "--locked", *members, "--edges", "normal", "--target", platform, "--prefix", "depth", "--no-dedupe"]
        above: List[str] = []
        for line in cargo([*words, "--format", " {p}"], "cargo tree", timeout=300).stdout.split("\n"):
            depth, _, package = line.partition(" ")
            if not depth:
                continue
            name = package.split()[0]
            above[int(depth) :] = [name]
            if int(depth) > 0 and name not in CORE:
                found.setdefault(name, above[int(depth) - 1])
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
