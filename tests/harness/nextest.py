"""cargo-nextest: it runs the tests of every crate side by side, each in a process of its own, and reports them as JUnit.

`.config/nextest.toml` says how many of which kind run at once, so that a person who calls `cargo nextest run` gets the same.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree
from typing import List, Mapping, Optional, Sequence

from .api import Result, not_run
from .build import readable, try_cargo
from .cache import ROOT
from .process import scratch
from .tools import ensure

_SETTINGS = ROOT / ".config" / "nextest.toml"
# Most tests wait for a server, a disk or a clock most of their time.
_TESTS_PER_CPU = 4
# With this line a test that passed says that it could not do what it is there for; the reason follows. It is the first that the test
# prints. Before it stand lines of the test runner, and the test's own name if the runner has printed it already.
_NOT_RUN = re.compile(r"\A\s*running 1 test\n(?:test [^\n]* \.\.\. )?not run: ([^\n]*)")

Environment = Mapping[str, Optional[str]]


def build(packages: Sequence[str], env: Environment) -> Optional[Result]:
    """Compiles the tests of these packages. The result says why that failed, if it did."""
    finished = try_cargo(["nextest", "run", "--no-run", *packages], "building the tests", timeout=4200, env=_with_nextest(env))
    return None if finished.returncode == 0 else Result("the tests are built", False, detail=readable(finished))


def tests(title: str, words: Sequence[str], env: Environment) -> List[Result]:
    """The result of each test that `words`, the arguments of `cargo nextest run`, choose."""
    with scratch("nextest") as folder:
        # Left alone, nextest keeps a folder in the checkout, which a run leaves as it is.
        report = folder / "junit.xml"
        own = f"[store]\ndir = '{folder}'\n[profile.default.junit]\npath = '{report}'\nstore-success-output = true\n"
        settings = folder / "nextest.toml"
        settings.write_text(_SETTINGS.read_text(encoding="utf-8") + own, encoding="utf-8")
        threads = str(_TESTS_PER_CPU * (os.cpu_count() or 1))
        command = ["nextest", "run", "--config-file", str(settings), "--test-threads", threads, "--no-fail-fast", *words]
        finished = try_cargo(command, title, timeout=4200, env=_with_nextest(env))
        results = read(report.read_text(encoding="utf-8")) if report.is_file() else []
    if finished.returncode != 0 and all(result.ok is not False for result in results):
        # No test failed, so that something else did.
        results.append(Result(title, False, detail=f"exit code {finished.returncode}\n{readable(finished)}"))
    if not results:
        results.append(Result(title, False, detail="no test was run"))
    return results


def read(report: str) -> List[Result]:
    """Every test of a JUnit report of nextest, as `CRATE::BINARY: TEST`."""
    results: List[Result] = []
    for suite in ElementTree.fromstring(report).iter("testsuite"):
        for case in suite.iter("testcase"):
            name = f"{suite.get('name')}: {case.get('name')}"
            results.append(_result(name, case))
    return results


def _result(name: str, case: ElementTree.Element) -> Result:
    seconds = float(case.get("time") or 0)
    printed = case.findtext("system-out", "")
    failure = next((found for found in (case.find("failure"), case.find("error")) if found is not None), None)
    if failure is not None:
        output = (failure.get("type", ""), printed.strip(), case.findtext("system-err", "").strip())
        return Result(name, False, seconds, "\n".join(filter(None, output)))
    reason = _NOT_RUN.match(printed)
    return not_run(name, reason[1], seconds) if reason else Result(name, True, seconds)


def _with_nextest(env: Environment) -> Environment:
    """The environment in which cargo finds nextest."""
    folder = ensure("cargo-nextest").parent
    # A person's own settings could choose other tests.
    own = {name: None for name in os.environ if name.startswith("NEXTEST_")}
    return {**own, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **env}
