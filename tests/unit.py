"""The part `unit`: the tests of every crate, each a check of its own.

Tests that need an object store or a table are marked as ignored, so that plain `cargo test` needs nothing; here they run, against
stand-ins on loopback. Those of the S3 store run twice, against two servers: what one of them accepts the other may refuse. Where the
stand-ins cannot be had, the other tests run all the same. Tests that are ignored because they are long run with `--full` only.

The servers that tests start write their logs to a folder, where the search for secrets of `harness.leaks` reads them.

Properties are tried with `--cases` cases each; those that are expensive say in their source how many fewer they try. All random choices of a run
follow from one number, which the text of each failure has.
"""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Dict, List, Optional, Sequence

from harness import Cloud, Context, Result, Skipped, at_once, ensure, nextest, not_run, scratch
from harness.build import readable, try_cargo
from harness.cloud import Ministack
from harness.leaks import SEARCH
from harness.long_tests import chosen, long_tests
from harness.sources import sources

_S3_TESTS = "binary_id(store-s3::s3)"
_S3_CRATE = "store-s3"
_AGAIN = "another S3"
_EXAMPLES = "the examples in documentation"
# Of each race between the protocols of the table; without --full the tests choose fewer.
_SCHEDULES = 20_000


def main(context: Context) -> List[Result]:
    with suppress(Skipped):
        # For the tests of which system calls come before an answer; without it they say themselves that they did not run.
        ensure("strace")
    with scratch("unit-servers") as servers:
        try:
            return _tests(context, {**_environment(context.cases), "ROADSTEAD_TEST_WRITTEN": str(servers)})
        finally:
            for written in servers.iterdir():
                SEARCH.log(written / "log")
                SEARCH.folder(written)


def _tests(context: Context, plain: nextest.Environment) -> List[Result]:
    packages = _packages(context.crates)
    failed = nextest.build(packages, plain)
    if failed is not None:
        return [failed]
    if not _needs_stand_ins(context.crates):
        return _without_stand_ins(context, packages, plain)
    again = not context.crates or _S3_CRATE in context.crates
    with ExitStack() as stack:
        try:
            cloud = stack.enter_context(Cloud())
            # It runs on one CPU, and the table's tests keep that busy.
            other = stack.enter_context(Ministack(cloud.credentials))
        except Skipped as reason:
            without = _without_stand_ins(context, packages, plain)
            return [*without, not_run("the tests that need stand-ins for S3 and DynamoDB", str(reason))]
        every = {**plain, "ROADSTEAD_TEST_DYNAMODB": cloud.ministack.numeric_url, **cloud.credentials.environment()}
        first = {**every, "ROADSTEAD_TEST_S3": cloud.versitygw.numeric_url}
        if context.full:
            first["ROADSTEAD_SCHEDULES"] = str(_SCHEDULES)
        filters = () if context.full else ("-E", f"not {chosen(_long_tests())}")
        results, others, documented = at_once(
            lambda: nextest.tests("the tests", [*packages, "--run-ignored", "all", *filters], first),
            lambda: _on_another_s3(packages, {**every, "ROADSTEAD_TEST_S3": other.numeric_url}) if again else [],
            lambda: [_documentation(packages, plain)],
        )
    return [*(_with_seed(result, plain) for result in results), *others, *documented]


def _with_seed(result: Result, env: nextest.Environment) -> Result:
    """The result of a property that failed, with what repeats its random choices."""
    if result.ok is not False or "minimal failing input" not in result.detail:
        return result
    again = " ".join(f"{name}={value}" for name, value in env.items() if name.startswith("PROPTEST_") and value)
    return replace(result, detail=f"again with {again}\n{result.detail}")


def _packages(crates: Sequence[str]) -> List[str]:
    """The crates as arguments of cargo. All are compiled together, because one alone would ask its dependencies for fewer features."""
    chosen_ones = [word for crate in crates for word in ("--package", crate)]
    return ["--locked", *(chosen_ones or ["--workspace"])]


def _needs_stand_ins(crates: Sequence[str]) -> bool:
    """Whether a test of these crates is marked as ignored for want of a server."""
    files = [path for crate in crates for path in (sources() / "functions" / crate).rglob("*.rs")]
    return not crates or any("#[ignore = \"needs" in path.read_text(encoding="utf-8") for path in files)


def _on_another_s3(packages: Sequence[str], env: nextest.Environment) -> List[Result]:
    results = nextest.tests(_AGAIN, [*packages, "--run-ignored", "only", "-E", _S3_TESTS], env)
    return [Result(f"{_AGAIN}: {result.name}", result.ok, result.seconds, result.detail) for result in results]


def _without_stand_ins(context: Context, packages: Sequence[str], env: nextest.Environment) -> List[Result]:
    results, documented = at_once(
        lambda: nextest.tests("the tests", packages, env),
        lambda: [_documentation(packages, env)],
    )
    results += documented
    if context.full:
        long = [*packages, "--run-ignored", "only", "-E", chosen(_long_tests())]
        results += nextest.tests("the long tests", long, env)
    return [_with_seed(result, env) for result in results]


def _documentation(packages: Sequence[str], env: nextest.Environment) -> Result:
    """The examples in documentation, which only cargo itself runs."""
    finished = try_cargo(["test", "--doc", "--no-fail-fast", *packages], _EXAMPLES, timeout=1200, env=env)
    ok = finished.returncode == 0
    return Result(_EXAMPLES, ok, detail="" if ok else readable(finished))


def _long_tests() -> List[str]:
    files = sorted((sources() / "functions").glob("**/*.rs"))
    return long_tests(file.read_text(encoding="utf-8") for file in files)


def _environment(cases: int) -> Dict[str, Optional[str]]:
    """Changes to the environment for all tests, which try so many cases of each property."""
    return {
        # What a person has set to look for one failure, fewer schedules or one seed, would silently make less of the tests.
        **{name: None for name in os.environ if name.startswith(("ROADSTEAD_", "PROPTEST_", "AWS_"))},
        # A failed assertion tells enough; thirty lines of the test runner's own frames hide it.
        "RUST_BACKTRACE": "0",
        "PROPTEST_CASES": str(cases),
        "PROPTEST_RNG_SEED": str(secrets.randbits(64)),
    }
