"""Checks of how the report of `cargo test` is read: what a test prints never passes for another's outcome."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Iterator, List, Optional

from .api import HarnessError, Result, check
from .process import Finished
from .rust_tests import runs

_STDERR = """\
   Compiling one v0.0.0
     Running unittests src/lib.rs (target/release/deps/one-0123456789abcdef)
     Running tests/disk.rs (target/release/deps/disk-0123456789abcdef)
   Doc-tests one
"""

# As the test runner prints it when asked to show the output of tests that passed too.
_STDOUT = """\

running 3 tests
test quiet ... ok
test same ... FAILED
test slow ... ignored, needs a table

successes:

successes:
    quiet

failures:

---- same stdout ----
not run: this one failed


failures:
    same

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s


running 3 tests
test same ... ok
test talks - should panic ... ok
test tells ... ok

successes:

---- same stdout ----
not run: strace is missing
and more

---- tells stdout ----
test other ... FAILED
not run: in the middle


successes:
    same
    tells

test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s


running 0 tests

test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

"""


def main() -> List[Result]:
    return [
        check("cargo test: outcomes, and what was not run", reads_outcomes),
        check("cargo test: what was not run fails in CI", fails_in_ci),
        check("cargo test: a report that does not add up is refused", refuses),
    ]


def reads_outcomes() -> None:
    with _ci(None):
        first, second, documented = runs(Finished(101, _STDOUT, _STDERR))
    assert [run.binary for run in (first, second, documented)] == ["one", "one disk", "one documentation"]
    assert [(result.name, result.ok, result.detail) for result in first.results] == [
        ("one: quiet", True, ""),
        ("one: same", False, "not run: this one failed"),
        ("one: slow", None, "not run: needs a table"),
    ]
    assert [(result.name, result.ok, result.detail) for result in second.results] == [
        ("one disk: same", None, "not run: strace is missing"),
        ("one disk: talks - should panic", True, ""),
        ("one disk: tells", True, ""),
    ]
    assert documented.results == [] and documented.closing.startswith("test result: ok. 0 passed")


def fails_in_ci() -> None:
    with _ci("true"):
        first, second, _ = runs(Finished(101, _STDOUT, _STDERR))
    assert [result.ok for result in first.results + second.results] == [True, False, False, False, True, True]


def refuses() -> None:
    try:
        runs(Finished(101, _STDOUT.replace("test quiet ... ok\n", ""), _STDERR))
    except HarnessError as error:
        assert "counted [1, 1, 1] (passed, failed, ignored), its lines read [0, 1, 1]" in str(error), error
    else:
        raise AssertionError("a test without a line was not missed")
    ended = _STDOUT.partition("successes:")[0]
    [only] = runs(Finished(101, ended, _STDERR.partition("     Running tests")[0]))
    assert [(result.name, result.ok) for result in only.results][-1] == ("one: ends in good order", False)


@contextmanager
def _ci(value: Optional[str]) -> Iterator[None]:
    """The variable by which a run is told that it is continuous integration, for a while."""
    before = os.environ.pop("CI", None)
    if value is not None:
        os.environ["CI"] = value
    try:
        yield
    finally:
        os.environ.pop("CI", None)
        if before is not None:
            os.environ["CI"] = before
