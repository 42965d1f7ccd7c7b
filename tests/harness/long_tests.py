"""Tests that are ignored for their length, by name: `cargo test` is told which of them to run, or to leave out."""

from __future__ import annotations

import re
from typing import Iterable, List

from .api import HarnessError

# Other attributes may stand between.
_LONG = re.compile(r'#\[ignore = "long: tests/run --full"\]\s*(?:#\[[^\n]*\]\s*)*(?:async )?fn (\w+)')
_FUNCTION = re.compile(r"\bfn (\w+)")


def long_tests(sources: Iterable[str]) -> List[str]:
    """Their names. The test runner takes a name for a part of one: a name that is in another function's would choose that too."""
    sources = list(sources)
    names = [name for source in sources for name in _LONG.findall(source)]
    functions = [name for source in sources for name in _FUNCTION.findall(source)]
    for name in names:
        meant = [function for function in functions if name in function]
        if len(meant) != 1:
            raise HarnessError(f"the name of the long test {name} is in {', '.join(meant)}: rename one of them")
    return names
