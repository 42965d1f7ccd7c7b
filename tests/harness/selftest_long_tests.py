"""Checks of how long tests are chosen: by names that choose nothing else."""

from __future__ import annotations

from typing import List

from .api import HarnessError, Result, check
from .long_tests import long_tests

_LONG = '#[ignore = "long: tests/run --full"]\n#[expect(lint)]\nasync fn many() {}\n'


def main() -> List[Result]:
    return [
        check("long tests: found by their mark", _finds),
        check("long tests: a name within another is refused", _refuses),
    ]


def _finds() -> None:
    found = long_tests([_LONG, '#[test]\nfn few() {}\n#[ignore = "needs a table"]\nfn other() {}\n'])
    assert found == ["many"], found


def _refuses() -> None:
    for other in ("fn too_many_files() {}", "fn many() {}"):
        try:
            long_tests([_LONG, other])
        except HarnessError:
            continue
        raise AssertionError(f"{other} would be left out too")
