"""What `tests/run` prints: each part as it ends, a table of all, and one closing line.

A part's checks are named one by one where they are few; of many only those that failed or were skipped are.
"""

from __future__ import annotations

import json
import textwrap
from typing import List, NamedTuple, Tuple

from .api import Part, Result

_NAMED_AT_MOST = 60
_DETAIL_LINES = 80
_FAILURES_SHOWN = 40


class Outcome(NamedTuple):
    """A part that has run."""

    part: Part
    results: List[Result]
    # Wall time, and CPU time of the processes that it started.
    seconds: float
    cpu_seconds: float

    def counts(self) -> Tuple[int, int, int]:
        """Passed, failed, skipped."""
        outcomes = [result.ok for result in self.results]
        return outcomes.count(True), outcomes.count(False), outcomes.count(None)

    def word(self) -> str:
        passed, failed, skipped = self.counts()
        if failed:
            return "FAILED"
        if passed:
            return "ok"
        return "not run" if skipped else "FAILED"


def part_text(outcome: Outcome) -> str:
    """What is printed when a part has run: its checks, the failed ones with their details and last."""
    few = len(outcome.results) <= _NAMED_AT_MOST
    lines = [_check_line(result) for result in outcome.results if result.ok is None or (few and result.ok)]
    failed = [result for result in outcome.results if result.ok is False]
    for place, result in enumerate(failed):
        lines.append(_check_line(result))
        # When very many fail it is for the same reason; their names are enough then.
        if result.detail and place < _FAILURES_SHOWN:
            lines.append(textwrap.indent(_shortened(result.detail), "        "))
    passed, wrong, skipped = outcome.counts()
    lines.append(f"  {outcome.part.name}: {outcome.word()}, {passed} passed, {wrong} failed, {skipped} skipped, {_cost(outcome)}")
    return "\n".join(lines)


def _cost(outcome: Outcome) -> str:
    return f"{outcome.seconds:.1f} s, {outcome.cpu_seconds:.1f} s of CPU"


def _check_line(result: Result) -> str:
    mark = {True: "ok  ", False: "FAIL", None: "skip"}[result.ok]
    seconds = f"  {result.seconds:.1f} s" if result.seconds >= 0.05 else ""
    # A passed check may tell a measurement, a skipped one its reason; one line of it fits here.
    note = result.detail.splitlines()[0].strip() if result.detail and result.ok is not False else ""
    return f"    {mark} {result.name}{seconds}{'  (' + note + ')' if note else ''}"


def _shortened(text: str) -> str:
    lines = text.splitlines()
    cut = len(lines) - _DETAIL_LINES
    # Both ends tell something: what was wrong stands first, what the server logged last.
    return text if cut <= 0 else "\n".join([*lines[: _DETAIL_LINES // 2], f"… {cut} lines …", *lines[-_DETAIL_LINES // 2 :]])


def table(outcomes: List[Outcome]) -> str:
    """The summary: part, result, wall time and CPU time in seconds, counts; and the sum of both times."""
    rows = [("part", "result", "seconds", "CPU", "passed", "failed", "skipped")]
    for outcome in outcomes:
        rows.append((outcome.part.name, outcome.word(), *_times([outcome]), *map(str, outcome.counts())))
    if len(outcomes) > 1:
        rows.append(("all", "", *_times(outcomes), "", "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _times(outcomes: List[Outcome]) -> Tuple[str, str]:
    return f"{sum(one.seconds for one in outcomes):.1f}", f"{sum(one.cpu_seconds for one in outcomes):.1f}"


def closing_line(outcomes: List[Outcome]) -> str:
    """`N passed, N failed, N skipped`, of every leaf check."""
    counts = [outcome.counts() for outcome in outcomes]
    passed, failed, skipped = (sum(count[place] for count in counts) for place in range(3))
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def as_json(outcomes: List[Outcome]) -> str:
    """Everything, for a program: a list of parts, each with its checks. `ok` is null for a skipped check."""
    parts = [
        {
            "part": outcome.part.name,
            "result": outcome.word(),
            "seconds": round(outcome.seconds, 3),
            "cpu_seconds": round(outcome.cpu_seconds, 3),
            "checks": [
                {"name": result.name, "ok": result.ok, "seconds": round(result.seconds, 3), "detail": result.detail}
                for result in outcome.results
            ],
        }
        for outcome in outcomes
    ]
    return json.dumps({"parts": parts, "summary": closing_line(outcomes)}, indent=2)
