"""Checks of how long tests are chosen: by names that choose nothing else."""

from __future__ import annotations

from typing import List

from .api import HarnessError, Result, check
from .long_tests import chosen, long_tests

_LONG = '#[ignore = "long: tests/run --full"]\n#[expect(lint)]\nasync fn many() {}\n'


def main() -> List[Result]:
    return [
        check("long tests: found by their mark", _finds),
        check("long tests: a name that another function has too is refused", _refuses),
    ]


def _finds() -> None:
    found = long_tests([_LONG, '#[test]\nfn too_many() {}\n#[ignore = "needs a table"]\nfn other() {}\n'])
    assert found == ["many"], found
    assert chosen(["many", "more"]) == "test(/(^|::)(many|more)$/)"


def _refuses() -> None:
    try:
        long_tests([_LONG, "fn many() {}"])
    except HarnessError:
        return
    raise AssertionError("the other function would be left out too")
