"""What `cargo test` reports, read: each test of each binary as a result of its own."""

from __future__ import annotations

import re
from typing import Dict, List

from .api import HarnessError, Result, not_run
from .process import Finished, tail

_TEST = re.compile(r"^test (?P<name>.+?) \.\.\. (?P<outcome>ok|FAILED|ignored)\b(?:, (?P<reason>.*))?")
_BEGINS = re.compile(r"^running \d+ tests?$")
_CLOSING = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;")
# `Running tests/digest.rs (…/deps/digest-0123456789abcdef)`, `Doc-tests oci`
_RUNNING = re.compile(r"^\s*(?:Running (?P<source>.*) \(.*/(?P<program>[^/]+)-[0-9a-f]+\)|Doc-tests (?P<documented>\S+))$")
# What the tests printed stands behind their lines: of those that passed, where `--show-output` asks for it, then of those that failed.
_PRINTED = ("successes:", "failures:")
_SECTION = re.compile(r"^---- (?P<name>.+?) (?:stdout )?----$")
# By a line that begins so a test that passed tells that it could not do what it is there for; the reason follows.
_NOT_RUN = "not run: "


class Run:
    """What one test binary reported."""

    def __init__(self, binary: str) -> None:
        self.binary = binary
        self.closing = ""
        self.results: List[Result] = []
        self._lines: List[str] = []
        self._printed: List[str] = []

    def take(self, line: str) -> None:
        """The next line of its report. Behind the tests' own lines, what they printed may look like one."""
        if _CLOSING.match(line):
            self.closing = line
        elif self._printed or line in _PRINTED:
            self._printed.append(line)
        else:
            self._lines.append(line)

    def judged(self, stderr: str) -> "Run":
        """Itself with its results, after its lines have been held against its closing line."""
        tests = [test for test in map(_TEST.match, self._lines) if test]
        printed = _sections(self._printed)
        self.results = [self._result(test, printed.get(test["name"], "")) for test in tests]
        closing = _CLOSING.match(self.closing)
        if closing is None:
            detail = "\n".join(tail(stderr, 40))
            self.results.append(Result(f"{self.binary}: ends in good order", False, detail=detail))
        else:
            outcomes = [test["outcome"] for test in tests]
            counted = [int(count) for count in closing.groups()]
            read = [outcomes.count(word) for word in ("ok", "FAILED", "ignored")]
            if read != counted:
                raise HarnessError(f"{self.binary} counted {counted} (passed, failed, ignored), its lines read {read}")
        return self

    def _result(self, test: "re.Match[str]", printed: str) -> Result:
        name = f"{self.binary}: {test['name']}"
        if test["outcome"] == "FAILED":
            return Result(name, False, detail=printed)
        if test["outcome"] == "ignored":
            return not_run(name, test["reason"] or "ignored")
        if printed.startswith(_NOT_RUN):
            return not_run(name, printed.splitlines()[0][len(_NOT_RUN) :])
        return Result(name, True)


def runs(finished: Finished) -> List[Run]:
    """The run of every test binary."""
    names = _binaries(finished)
    begins = [line for line in finished.stdout.splitlines() if _BEGINS.match(line)]
    if len(names) != len(begins):
        # One ended before it said anything: which one is unknown here, and cargo's own text tells.
        names = ["test"] * len(begins)
    found: List[Run] = []
    for line in finished.stdout.splitlines():
        if _BEGINS.match(line):
            found.append(Run(names[len(found)]))
        elif found:
            found[-1].take(line)
    return [one.judged(finished.stderr) for one in found]


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


def _sections(lines: List[str]) -> Dict[str, str]:
    """What each test printed, by its name."""
    sections: Dict[str, List[str]] = {}
    name = ""
    for line in lines:
        begins = _SECTION.match(line)
        if begins or line in _PRINTED:
            name = begins["name"] if begins else ""
        elif name:
            sections.setdefault(name, []).append(line)
    return {name: "\n".join(told).strip() for name, told in sections.items()}
