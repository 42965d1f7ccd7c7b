"""Checks of how nextest's report is read: what a test prints never passes for another's outcome."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Iterator, List, Optional

from .api import Result, check
from .nextest import read

_REPORT = """\
<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="6" skipped="0" failures="2" errors="0">
    <testsuite name="one" tests="2" skipped="0" errors="0" failures="1">
        <testcase name="quiet" classname="one" time="0.043">
            <system-out>
running 1 test
test quiet ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.00s

</system-out>
            <system-err></system-err>
        </testcase>
        <testcase name="same" classname="one" time="0.499">
            <failure message="panicked at one.rs:9:46" type="test failure with exit code 101">panicked at one.rs:9:46</failure>
            <system-out>
running 1 test
not run: this one failed
test same ... FAILED
</system-out>
            <system-err>panicked at one.rs:9:46: &lt;nothing&gt;
</system-err>
        </testcase>
    </testsuite>
    <testsuite name="one::disk" tests="4" skipped="0" errors="0" failures="1">
        <testcase name="same" classname="one::disk" time="0.005">
            <system-out>
running 1 test
not run: strace is missing
and more
test same ... ok
</system-out>
            <system-err></system-err>
        </testcase>
        <testcase name="alone" classname="one::disk" time="0.005">
            <system-out>
running 1 test
test alone ... not run: on one processor the name comes first
ok
</system-out>
            <system-err></system-err>
        </testcase>
        <testcase name="tells" classname="one::disk" time="0.005">
            <system-out>
running 1 test
test other ... FAILED
not run: in the middle
test tells ... ok
</system-out>
            <system-err></system-err>
        </testcase>
        <testcase name="hangs" classname="one::disk" time="600.0">
            <failure type="test timeout"/>
        </testcase>
    </testsuite>
</testsuites>
"""


def main() -> List[Result]:
    return [
        check("nextest: outcomes, and what was not run", reads_outcomes),
        check("nextest: what was not run fails in CI", fails_in_ci),
    ]


def reads_outcomes() -> None:
    with _ci(None):
        results = read(_REPORT)
    assert [(result.name, result.ok) for result in results] == [
        ("one: quiet", True),
        ("one: same", False),
        ("one::disk: same", None),
        ("one::disk: alone", None),
        ("one::disk: tells", True),
        ("one::disk: hangs", False),
    ], results
    details = [result.detail for result in results]
    assert details[1].startswith("test failure with exit code 101\nrunning 1 test\n") and details[1].endswith(": <nothing>"), details[1]
    assert details[2] == "not run: strace is missing" and details[3] == "not run: on one processor the name comes first", details
    assert details[5] == "test timeout" and results[5].seconds == 600, results[5]


def fails_in_ci() -> None:
    with _ci("true"):
        results = read(_REPORT)
    assert [result.ok for result in results] == [True, False, False, False, True, False], results


@contextmanager
def _ci(value: Optional[str]) -> Iterator[None]:
    """The variable by which a run knows that it is continuous integration, for a while."""
    before = os.environ.pop("CI", None)
    if value is not None:
        os.environ["CI"] = value
    try:
        yield
    finally:
        os.environ.pop("CI", None)
        if before is not None:
            os.environ["CI"] = before
