"""The part `conformance`: the official suite of the distribution specification against servers of this checkout.

Two profiles of the suite: `1.1`, the released specification, in which nothing may fail; and `dev`, the specification's main
branch with sparse images added, in which nothing may fail and nothing may be skipped. Every run has `dev` against three processes that ask
for a token, each request to the next one in turn, on SQLite and on S3 and DynamoDB. With `--full`, both run against one process; `dev` again
against three processes that ask for a password, and against every other pair of stores, with both stand-ins for S3. Where blobs are redirected, the suite does not look for the one header on them
that no object store can send.
"""

from __future__ import annotations

import time
import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from harness import Cloud, Context, Fleet, Result, RoundRobinProxy, Server, at_once, check, ensure, run, scratch
from harness.backend import Backend
from harness.build import roadstead
from harness.leaks import SEARCH
from harness.progress import step

# How many cases each profile has, those that it leaves out not counted: a suite that stopped early, or read no configuration, must
# not pass. The suite is pinned, so these only change with its version (tests/harness/tools.py).
CASES = {"1.1": 693, "dev": 830}

_USER, _PASSWORD = "suite", "correct horse battery staple"
_LOGIN = {"OCI_USERNAME": _USER, "OCI_PASSWORD": _PASSWORD}
SEARCH.knows(_PASSWORD, _USER)

# How many suites run at once: each has servers and stores of its own, and waits for them half of its time.
_AT_ONCE = 4


class Case(NamedTuple):
    """One run of the suite, and what its function is given after the list for the results."""

    title: str
    function: Callable[..., None]
    given: Tuple[object, ...] = ()


def main(context: Context) -> List[Result]:
    """Once on each table; `--full` has the rest."""
    cases = [Case("dev, three servers, with a token", three_servers_with_token)]
    if context.full:
        cases += [
            Case("1.1", released),
            Case("dev", development),
            Case("dev, three servers, with a password", three_servers),
        ]
    results = _run(*cases)
    # A check of its own: what becomes of the stand-ins leaves the results above as they are.
    results.append(check("dev, in the cloud: the stand-ins start and stop", in_the_cloud, results, context.full))
    return results


def in_the_cloud(results: List[Result], full: bool) -> None:
    with Cloud() as cloud:
        cases = [Case("dev, three servers, s3+dynamodb, proxied, with a token", fleet_with_token, (cloud.backend("s3+dynamodb"),))]
        if full:
            separate = cloud.backend("s3+dynamodb", local_table=True)
            cases += [
                Case("dev, three servers, s3+dynamodb, redirected", fleet, (separate,)),
                Case("dev, another s3", other, (cloud.backend("s3+dynamodb", s3=cloud.ministack),)),
                Case("dev, s3+sqlite", other, (cloud.backend("s3+sqlite", prefix="some/prefix"),)),
                Case("dev, disk+dynamodb", other, (cloud.backend("disk+dynamodb"),)),
            ]
        results += _run(*cases)


def _run(*cases: Case) -> List[Result]:
    """The results of the cases, in their order."""
    # Once, and not by several threads that wait for each other.
    ensure("conformance")
    roadstead()
    return [result for results in at_once(*(partial(_titled, case) for case in cases), at_most=_AT_ONCE) for result in results]


def _titled(case: Case) -> List[Result]:
    results: List[Result] = []
    # A server that does not start or stop, or a suite that does not run, is one failed check of its own.
    results.append(check("the suite and the server ran to their end", case.function, results, *case.given))
    return [Result(f"{case.title}: {result.name}", result.ok, result.seconds, result.detail) for result in results]


def fleet(results: List[Result], backend: Backend) -> None:
    """Three processes that share a bucket and a table, and nothing else."""
    with Fleet("--sparse", "allow", "--pull", "redirect", backend=backend) as servers:
        results.extend(suite(servers.address, "dev", {"OCI_API_BLOBS_DIGEST_HEADER": "false"}))
        _taken_in_turn(servers.round_robin)


def fleet_with_token(results: List[Result], backend: Backend) -> None:
    """A token that one process has signed is good at the others. The user's account is in the table alone."""
    backend.add_user(_USER, _PASSWORD)
    with Fleet("--sparse", "allow", "--pull", "proxy", backend=backend) as servers:
        results.extend(suite(servers.address, "dev", _LOGIN))
        _taken_in_turn(servers.round_robin)
        _by_token(*servers.servers)


def other(results: List[Result], backend: Backend) -> None:
    with Server("--sparse", "allow", "--pull", "proxy", backend=backend) as server:
        results.extend(suite(server.address, "dev"))


def released(results: List[Result]) -> None:
    """The released specification. Cases that this profile itself skips are named, and are no failure."""
    with Server() as server:
        results.extend(suite(server.address, "1.1", may_skip=True))


def development(results: List[Result]) -> None:
    with Server("--sparse", "allow") as server:
        results.extend(suite(server.address, "dev"))


def three_servers(results: List[Result]) -> None:
    """Any process answers any request: no upload, tag or link lives in one process's memory."""
    with scratch("password") as folder, Fleet("--sparse", "allow", "--challenge", "basic", "--htpasswd", _users(folder)) as servers:
        results.extend(suite(servers.address, "dev", _LOGIN))
        _taken_in_turn(servers.round_robin)


def _taken_in_turn(round_robin: RoundRobinProxy) -> None:
    counts = round_robin.counts()
    assert max(counts) - min(counts) <= 1 and min(counts) > 100, f"requests did not go to the servers in turn: {counts}"


def three_servers_with_token(results: List[Result]) -> None:
    with scratch("account") as folder:
        fleet_with_token(results, Backend("disk+sqlite", folder / "data"))


def _users(folder: Path) -> Path:
    """A file of the suite's user."""
    users = folder / "htpasswd"
    # The lowest cost: what is tested is who may do what, not how slow a password is to guess.
    line = run([ensure("htpasswd"), "-nbB", "-C", "4", _USER, _PASSWORD], timeout=30).stdout.strip()
    users.write_text(line + "\n")
    return users


def _by_token(*servers: Server) -> None:
    """The suite's user has got tokens, no request for one was refused, and each server has answered requests of that user."""
    granted = 0
    for server in servers:
        lines = server.access_lines()
        asked = [line for line in lines if line["path"] == "/token"]
        refused = [line for line in asked if (line["status"], line.get("user")) != (200, _USER)]
        assert not refused, f"requests for a token that were refused: {refused[:3]}"
        granted += len(asked)
        assert any(line.get("user") == _USER and line["path"].startswith("/v2/") for line in lines), "a server has not met the suite's user"
    assert granted, "the suite has asked for no token"


def suite(address: str, profile: str, env: Optional[Dict[str, str]] = None, *, may_skip: bool = False) -> List[Result]:
    """Runs the suite once and returns its leaf cases. Unless it `may_skip`, a skipped case is a failure."""
    program = ensure("conformance")
    with scratch("conformance") as folder:
        settings = {
            "OCI_REGISTRY": address,
            "OCI_TLS": "disabled",
            "OCI_VERSION": profile,
            "OCI_RESULTS_DIR": str(folder),
            "OCI_DATA_SPARSE": "true" if profile == "dev" else "false",
            **(env or {}),
        }
        began = time.monotonic()
        with step(f"the official suite, profile {profile}"):
            # It ends with 1 when any case failed; which ones, its report tells. In its folder it finds no configuration file.
            finished = run([program], timeout=600, env=settings, cwd=folder, ok=(0, 1))
        report = folder / "junit.xml"
        assert report.is_file(), f"the suite wrote no report:\n{finished.stdout}\n{finished.stderr}"
        results = _cases(report, may_skip)
    passed = sum(result.ok is True for result in results)
    failed = sum(result.ok is False for result in results)
    skipped = len(results) - passed - failed
    enough = passed + failed >= CASES[profile]
    summary = f"{passed} passed, {failed} failed, {skipped} skipped"
    results.append(Result("the suite ran all its cases", enough, time.monotonic() - began, summary))
    return results


def _cases(report: Path, may_skip: bool) -> List[Result]:
    """The leaf cases of a JUnit report. The suite's names are paths: a case's parents are in its name and have no case of their own."""
    results: List[Result] = []
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        status = case.get("status", "")
        # What the case found wrong, and the requests it made until then.
        output = [text.strip() for text in (case.findtext("system-out", ""), case.findtext("system-err", "")) if text.strip()]
        ok = True if status == "passed" else None if status == "skipped" and may_skip else False
        detail = {True: "", False: "\n".join([status, *output]), None: "the profile leaves it out"}[ok]
        results.append(Result(case.get("name", "?"), ok, float(case.get("time") or 0), detail))
    return results
