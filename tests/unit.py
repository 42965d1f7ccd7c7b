"""The part `unit`: `cargo test` of the whole workspace, each of its tests a check of its own.

Tests that need an object store or a table are marked as ignored, so that plain `cargo test` needs nothing; here they run, against
stand-ins on loopback. Those of the S3 store run twice, against two servers: what one of them lets pass the other may refuse.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import List

from harness import Cloud, Context, HarnessError, Result, Skipped, ensure
from harness.build import readable, try_cargo
from harness.process import Finished, tail
from harness.progress import say

_TEST = re.compile(r"^test (?P<name>.+?) \.\.\. (?P<outcome>ok|FAILED|ignored)\b(?:, (?P<reason>.*))?")
_BEGINS = re.compile(r"^running \d+ tests?$")
_CLOSING = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;")
# `Running tests/digest.rs (…/deps/digest-0123456789abcdef)`, `Doc-tests oci`
_RUNNING = re.compile(r"^\s*(?:Running (?P<source>.*) \(.*/(?P<program>[^/]+)-[0-9a-f]+\)|Doc-tests (?P<documented>\S+))$")
# What a failed test printed stands between these lines.
_SECTION = re.compile(r"^---- (?P<name>.+?) (?:stdout )?----$")


def main(_context: Context) -> List[Result]:
    with suppress(Skipped):
        # For the tests of which system calls come before an answer; without it they say themselves that they did not run.
        ensure("strace")
    with Cloud() as cloud:
        workspace = ["--workspace", "--no-fail-fast", "--", "--include-ignored"]
        results = _cargo_test("cargo test", workspace, cloud, cloud.versitygw.url)
        # Of the whole workspace too, or everything below would be built once more with other features.
        again = ["--workspace", "--test", "s3", "--no-fail-fast", "--", "--ignored"]
        for result in _cargo_test("cargo test, another S3", again, cloud, cloud.ministack.url):
            if result.ok is not None:
                results.append(Result(f"another S3: {result.name}", result.ok, result.seconds, result.detail))
    return results


def _cargo_test(title: str, words: List[str], cloud: Cloud, s3: str) -> List[Result]:
    env = {
        # A failed assertion tells enough; thirty lines of the test runner's own frames hide it.
        "RUST_BACKTRACE": "0",
        "ROADSTEAD_TEST_S3": s3,
        "ROADSTEAD_TEST_DYNAMODB": cloud.ministack.url,
        **cloud.credentials.environment(),
    }
    finished = try_cargo(["test", "--release", "--locked", *words], title, timeout=3000, env=env)
    runs = _runs(finished)
    for one in runs:
        say(f"    {one.binary}\n{one.closing or 'ended before its tests did'}")
    results = [result for one in runs for result in one.results]
    if finished.returncode != 0 and all(result.ok is not False for result in results):
        # It did not build: no test's own line tells.
        results.append(Result(title, False, detail=f"exit code {finished.returncode}\n{readable(finished)}"))
    return results


class _Run:
    """What one test binary reported."""

    def __init__(self, binary: str) -> None:
        self.binary = binary
        self.results: List[Result] = []
        self.closing = ""

    def judged(self, stderr: str) -> "_Run":
        """Itself, after its lines have been held against its closing line."""
        closing = _CLOSING.match(self.closing)
        if closing is None:
            detail = "\n".join(tail(stderr, 40))
            self.results.append(Result(f"{self.binary}: ends in good order", False, detail=detail))
        else:
            outcomes = [result.ok for result in self.results]
            counted = [int(count) for count in closing.groups()]
            read = [outcomes.count(True), outcomes.count(False), outcomes.count(None)]
            if read != counted:
                raise HarnessError(f"{self.binary} counted {counted} (passed, failed, ignored), its lines read {read}")
        return self


def _runs(finished: Finished) -> List[_Run]:
    """Every test binary's run, its tests by name."""
    names = _binaries(finished)
    begins = [line for line in finished.stdout.splitlines() if _BEGINS.match(line)]
    if len(names) != len(begins):
        # One ended before it said anything: which one is unknown here, and cargo's own text tells.
        names = ["test"] * len(begins)
    printed = _sections(finished.stdout)
    runs: List[_Run] = []
    for line in finished.stdout.splitlines():
        if _BEGINS.match(line):
            runs.append(_Run(names[len(runs)]))
        elif _CLOSING.match(line):
            runs[-1].closing = line
        elif test := _TEST.match(line):
            ok = {"ok": True, "FAILED": False, "ignored": None}[test["outcome"]]
            detail = printed.get(test["name"], "") if ok is False else test["reason"] or ""
            runs[-1].results.append(Result(f"{runs[-1].binary}: {test['name']}", ok, detail=detail))
    return [one.judged(finished.stderr) for one in runs]


def _binaries(finished: Finished) -> List[str]:
    """The test binaries in their order: cargo names them on one stream, while their tests report on the other.

    A folder `tests` may hold a file of the same name in several crates, so the crate, whose own tests run just before, goes first.
    """
    names: List[str] = []
    crate = ""
    for line in finished.stderr.splitlines():
        match = _RUNNING.match(line)
        if match is None:
            continue
        if match["documented"]:
            names.append(f"{match['documented']} documentation")
        elif match["source"].startswith("unittests"):
            crate = match["program"]
            names.append(crate)
        else:
            names.append(f"{crate} {match['program']}")
    return names


def _sections(text: str) -> "dict[str, str]":
    """What each failed test printed, by its name."""
    sections: "dict[str, str]" = {}
    name, lines = "", []
    for line in text.splitlines():
        begins = _SECTION.match(line)
        if begins or line == "failures:" or line.startswith("test result:"):
            if name:
                sections[name] = "\n".join(lines).strip()
            name, lines = (begins["name"] if begins else ""), []
        else:
            lines.append(line)
    return sections
