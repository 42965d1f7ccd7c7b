"""The part `unit`: `cargo test` of the whole workspace, each of its tests a check of its own.

Tests that need an object store or a table are marked as ignored, so that plain `cargo test` needs nothing; here they run, against
stand-ins on loopback. Those of the S3 store run twice, against two servers: what one of them lets pass the other may refuse. Where the
stand-ins cannot be had, the other tests run all the same. Tests that are ignored because they are long run with `--full` only.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import List, Mapping, Optional, Sequence

from harness import Cloud, Context, Result, Skipped, ensure, not_run
from harness.build import readable, try_cargo
from harness.cache import ROOT
from harness.long_tests import long_tests
from harness.progress import say
from harness.rust_tests import runs

_WORKSPACE = ("--workspace", "--no-fail-fast", "--", "--show-output")
# Of the whole workspace too, or everything would be built once more with other features.
_S3 = ("--workspace", "--test", "s3", "--no-fail-fast", "--", "--show-output", "--ignored")
_AGAIN = "cargo test, another S3"
# Of each race between the protocols of the table; without --full the tests choose fewer.
_SCHEDULES = 20_000


def main(context: Context) -> List[Result]:
    with suppress(Skipped):
        # For the tests of which system calls come before an answer; without it they say themselves that they did not run.
        ensure("strace")
    with ExitStack() as stack:
        try:
            cloud = stack.enter_context(Cloud())
        except Skipped as reason:
            # Then what needs them does not run, and the rest does.
            return [*_without_stand_ins(context), not_run(_AGAIN, str(reason))]
        skipped = () if context.full else tuple(word for name in _long_tests() for word in ("--skip", name))
        words = (*_WORKSPACE, "--include-ignored", *skipped)
        environment = _environment(cloud, cloud.versitygw.numeric_url)
        if context.full:
            environment = {**environment, "ROADSTEAD_SCHEDULES": str(_SCHEDULES)}
        results = _cargo_test("cargo test", words, environment)
        again = _cargo_test(_AGAIN, _S3, _environment(cloud, cloud.ministack.numeric_url))
    results += [Result(f"another S3: {result.name}", result.ok, result.seconds, result.detail) for result in again]
    return results


def _without_stand_ins(context: Context) -> List[Result]:
    results = _cargo_test("cargo test", _WORKSPACE, {})
    if not context.full:
        return results
    # Those that are ignored for their length, which the run before has passed over.
    long = _cargo_test("cargo test, long", (*_WORKSPACE, "--ignored", *_long_tests()), {})
    ran = {result.name for result in long}
    return [*(result for result in results if result.name not in ran), *long]


def _long_tests() -> List[str]:
    sources = sorted((ROOT / "functions").glob("**/*.rs"))
    return long_tests(source.read_text(encoding="utf-8") for source in sources)


def _environment(cloud: Cloud, s3: str) -> Mapping[str, str]:
    return {"ROADSTEAD_TEST_S3": s3, "ROADSTEAD_TEST_DYNAMODB": cloud.ministack.numeric_url, **cloud.credentials.environment()}


def _cargo_test(title: str, words: Sequence[str], own: Mapping[str, Optional[str]]) -> List[Result]:
    env = {
        # What a person has set to look for one failure, fewer schedules or one seed, would silently make less of the tests.
        **{name: None for name in os.environ if name.startswith(("ROADSTEAD_", "PROPTEST_", "AWS_"))},
        # A failed assertion tells enough; thirty lines of the test runner's own frames hide it.
        "RUST_BACKTRACE": "0",
        **own,
    }
    finished = try_cargo(["test", "--release", "--locked", *words], title, timeout=4200, env=env)
    reported = runs(finished)
    for one in reported:
        say(f"    {one.binary}\n{one.closing or 'ended before its tests did'}")
    results = [result for one in reported for result in one.results]
    if finished.returncode != 0 and all(result.ok is not False for result in results):
        # It did not build: no test's own line tells.
        results.append(Result(title, False, detail=f"exit code {finished.returncode}\n{readable(finished)}"))
    if not results:
        results.append(Result(title, False, detail="no test was run"))
    return results
