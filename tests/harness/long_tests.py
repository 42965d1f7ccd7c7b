"""Tests that are ignored for their length, by name: nextest gets the names of those to run, or to leave out."""

from __future__ import annotations

import re
from typing import Iterable, List

from .api import HarnessError

# Other attributes may stand between.
_LONG = re.compile(r'#\[ignore = "long: tests/run --full"\]\s*(?:#\[[^\n]*\]\s*)*(?:async )?fn (\w+)')
_FUNCTION = re.compile(r"\bfn (\w+)")


def long_tests(sources: Iterable[str]) -> List[str]:
    """Their names. They are chosen by name alone, so another function of the same name is an error."""
    sources = list(sources)
    names = [name for source in sources for name in _LONG.findall(source)]
    functions = [name for source in sources for name in _FUNCTION.findall(source)]
    for name in names:
        if functions.count(name) != 1:
            raise HarnessError(f"{functions.count(name)} functions have the name of the long test {name}: rename the others")
    return names


def chosen(names: Iterable[str]) -> str:
    """The filter of nextest that chooses the tests of these names, whatever module they are in."""
    return f"test(/(^|::)({'|'.join(names)})$/)"
