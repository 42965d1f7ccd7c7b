"""What a part of `tests/run` is made of, and how it speaks of its outcome.

A *part* is one named step of the run (`lint`, `conformance`, `clients` …). Its function takes a `Context` and returns a
list of `Result`, one for each leaf check. Write a check as a plain function that asserts, and hand it to `check`:

    def pushes_and_pulls():
        run(["crane", "push", ...], timeout=60)
        assert pulled == pushed, "the pulled layer differs from the pushed one"

    results.append(check("crane: push and pull", pushes_and_pulls))

A check that this machine cannot run calls `skip("needs root")`. That is "not run" on a user's machine and a failure
where CI=true, because there every check is meant to run.
"""

from __future__ import annotations

import os
import time
import traceback
from dataclasses import dataclass, field
from typing import Callable, List, NoReturn, Optional, Tuple


@dataclass(frozen=True)
class Result:
    """The outcome of one leaf check.

    `ok` is True (passed), False (failed) or None (skipped: not counted as either). `detail` tells a reader who sees
    only this text what went wrong, or why it was skipped; it may hold several lines. `seconds` is wall time.
    """

    name: str
    ok: Optional[bool]
    seconds: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class Context:
    """What every part gets.

    `full` adds what is too long for every run, `kills` is how often the part of that name kills unless it decides itself, and the
    part `unit` tries `cases` cases of each property and tests only `crates` if there are any.
    """

    full: bool = False
    kills: Optional[int] = None
    cases: int = 10_000
    crates: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One named step of the run. `what` is its line in `tests/run --list`."""

    name: str
    what: str
    function: Callable[[Context], List[Result]] = field(repr=False)


class Skipped(Exception):
    """Raised by `skip`; the message is the reason."""


def skip(reason: str) -> NoReturn:
    """Ends the running check as not run, because this machine lacks what it needs.

    A failure where CI=true. Not for a check that fails: that is an assertion.
    """
    raise Skipped(reason)


def in_ci() -> bool:
    """Whether this is continuous integration, where every part must run."""
    return os.environ.get("CI", "").lower() == "true"


def not_run(name: str, reason: str, seconds: float = 0.0) -> Result:
    """The `Result` of something that this machine cannot run: skipped, or failed where CI=true."""
    return Result(name, False if in_ci() else None, seconds, f"not run: {reason}")


def check(name: str, function: Callable[..., object], *args: object, **kwargs: object) -> Result:
    """Runs one check and returns its `Result`; no exception but an interrupt passes.

    Passed unless it raises. An `AssertionError`, a `CommandFailed` or a `HarnessError` is shown by its message, any other exception
    with its traceback. A returned string becomes the detail of the passed check (a version, a measurement).
    """
    began = time.monotonic()
    try:
        value = function(*args, **kwargs)
    except Skipped as reason:
        return not_run(name, str(reason), time.monotonic() - began)
    except HarnessError as error:
        return Result(name, False, time.monotonic() - began, str(error))
    except AssertionError as error:
        # The line that asserted tells what the message leaves out.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(frame.filename)}:{frame.lineno}"
        return Result(name, False, time.monotonic() - began, f"{error or frame.line} ({where})")
    except Exception:  # a check must never end the run
        return Result(name, False, time.monotonic() - began, traceback.format_exc().rstrip())
    detail = value if isinstance(value, str) else ""
    return Result(name, True, time.monotonic() - began, detail)


class HarnessError(Exception):
    """Something that the harness itself could not do; the message is complete without a traceback."""
