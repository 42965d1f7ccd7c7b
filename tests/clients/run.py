"""Real clients, unmodified, against a registry: the `clients` part of the test run.

`main(context)` starts the servers and returns one result for each leaf check. By hand, against any registry:

    python3 tests/clients/run.py [--registry HOST:PORT [--user NAME:PASSWORD]] [--only FAMILY[,FAMILY]] [--group SETTING]… [--full] [--list]

The settings: one server that needs no login (every family), one with an account and a policy with public images (logins), one with a
policy that refuses most of what is asked (what clients print then), one with a htpasswd file from which everybody may pull, one with TLS
of its own, and three server processes over one data directory, each request to the next one in turn; then three processes over one
bucket and one table with an account, whose blobs are pulled from the bucket itself; and three over a bucket and a table that fail every
twentieth request. By hand, `--group SETTING` picks one of them.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import signal
import sys
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import containerd  # noqa: E402
import crane  # noqa: E402
import curl  # noqa: E402
import docker  # noqa: E402
import full_basic  # noqa: E402
import full_distribution  # noqa: E402
import full_docker  # noqa: E402
import full_helm  # noqa: E402
import full_oci_client  # noqa: E402
import full_regctl  # noqa: E402
import full_sign  # noqa: E402
import oras  # noqa: E402
import over_tls  # noqa: E402
import podman  # noqa: E402
import refusals  # noqa: E402
import skopeo  # noqa: E402
from common import TIMEOUT, Family, Setting, collect, tool  # noqa: E402
from harness import (  # noqa: E402
    Cloud, Context, FaultProxy, Fleet, HarnessError, Result, RoundRobinProxy, Server, at_once, cache_dir, check, run, scratch,
)  # fmt: skip
from harness.backend import Backend  # noqa: E402
from harness.build import roadstead  # noqa: E402
from harness.faults import KINDS  # noqa: E402
from harness.leaks import SEARCH  # noqa: E402
from harness.process import STORE_HOST, stop_all, tail, unmount_below  # noqa: E402
from harness.progress import say, step  # noqa: E402
from harness.sources import building  # noqa: E402
from images import Images  # noqa: E402
from layout import sha256  # noqa: E402
from verify import Registry  # noqa: E402

# How much of each server's log a failure shows.
LOG_LINES = 20
USER, PASSWORD = "harbour", "correct horse: battery staple"
SEARCH.knows(PASSWORD, USER)
POLICY = """\
syntax = 1

[[allow]]
name = "users"
who = ["users"]
repositories = ["**"]
actions = ["pull", "push", "delete"]

[[allow]]
name = "public images"
who = ["anyone"]
repositories = ["public/**"]
actions = ["pull"]
"""


class Group(NamedTuple):
    """Families that run against the same kind of registry."""

    setting: str
    families: Dict[str, Family]


ALWAYS = Group(
    "clients",
    {
        "docker": docker.results,
        "containerd": containerd.results,
        "skopeo": skopeo.results,
        "podman": podman.results,
        "crane": crane.results,
        "oras": oras.results,
    },
)
FULL = Group(
    "clients",
    {
        "docker-26": full_docker.docker_26,
        "docker-26-containerd": full_docker.docker_26_containerd,
        "docker-28": full_docker.docker_28,
        "docker-28-containerd": full_docker.docker_28_containerd,
        "buildkit": full_docker.buildkit,
        "containerd-2": full_docker.containerd_2,
        "regctl": full_regctl.results,
        "cosign": full_sign.cosign,
        "notation": full_sign.notation,
        "helm": full_helm.results,
        "oci-client": full_oci_client.results,
    },
)
LOGINS = Group("login", {
        "docker": docker.login,
        "containerd": containerd.login,
        "skopeo": skopeo.login,
        "podman": podman.login,
        "crane": crane.login,
        "oras": oras.login,
        "curl": curl.login,
    })
FULL_LOGINS = Group("login", {
        "docker-26": full_docker.docker_26_login,
        "docker-26-containerd": full_docker.docker_26_containerd_login,
        "docker-28": full_docker.docker_28_login,
        "docker-28-containerd": full_docker.docker_28_containerd_login,
        "containerd-2": full_docker.containerd_2_login,
        "buildkit": full_docker.buildkit,
        "regctl": full_regctl.results,
        "cosign": full_sign.cosign,
        "notation": full_sign.notation,
        "oci-client": full_oci_client.results,
        "helm": full_helm.login,
        "oras-py": full_basic.oras_py,
        "python-dxf": full_basic.dxf,
        "jib": full_basic.jib,
        "distribution": full_distribution.login,
    })
# A registry that asks for Basic, as it does where it cannot name the URL of its tokens.
FULL_BASIC = Group("login by Basic", {**LOGINS.families, "oras-py": full_basic.oras_py, "jib": full_basic.jib})
REFUSALS = Group("refusals", {
        "docker": refusals.docker,
        "containerd": refusals.containerd,
        "crane": refusals.crane,
        "oras": refusals.oras,
    })
FULL_REFUSALS = Group("refusals", {
        "docker-28": refusals.docker_28,
        "docker-28-containerd": refusals.docker_28_containerd,
        "containerd-2": refusals.containerd_2,
    })
# skopeo, podman and buildah send empty credentials where they were asked for some and have none.
PUBLIC = Group("public", {"docker": docker.public, "skopeo": skopeo.public, "crane": crane.public})
FULL_PUBLIC = Group("public", {
        "docker-26": full_docker.docker_26_public,
        "docker-26-containerd": full_docker.docker_26_containerd_public,
        "docker-28": full_docker.docker_28_public,
        "docker-28-containerd": full_docker.docker_28_containerd_public,
        "containerd": containerd.public,
        "containerd-2": full_docker.containerd_2_public,
        "podman": podman.public,
        "oras": oras.public,
        "helm": full_helm.public,
    })
# Those that send their credentials along with a redirect to the same host, or are built on what does.
_SENDERS = {name: LOGINS.families[name] for name in ("docker", "containerd", "crane")}
REDIRECTED = Group("login, redirected", _SENDERS)
OWN_HOST = Group("login, bucket at the registry's host", _SENDERS)
SEVERAL = Group("three servers", ALWAYS.families)
TLS = Group("tls", {
        "docker": over_tls.docker,
        "containerd": over_tls.containerd,
        "skopeo": over_tls.skopeo,
        "podman": over_tls.podman,
    })
# The same four clients whose ways to push and pull differ most, by token; the rest by --full.
FOUR = {name: ALWAYS.families[name] for name in ("docker", "containerd", "skopeo", "crane")}
CLOUD = Group("cloud", FOUR)
FAULTY = Group("faults", FOUR)
FULL_CLOUD = Group("cloud", {**ALWAYS.families, **FULL.families})
# Programs that send the password with each request, whatever the challenge says.
_BY_PASSWORD = ("curl/", "python-requests/")
# What --full adds to which group.
_MORE = ((ALWAYS, FULL), (LOGINS, FULL_LOGINS), (REFUSALS, FULL_REFUSALS), (PUBLIC, FULL_PUBLIC), (CLOUD, FULL_CLOUD))
# The clients of every run; all others belong to --full, unless they are asked for.
EVERY_RUN = ("docker", "containerd", "crane", "curl")
# How many groups run at once: each has servers, engines and folders of its own, and waits for them most of its time.
_AT_ONCE = 3
# Of the requests to the bucket and to the table.
FAULTS = 0.05


def main(context: Context) -> List[Result]:
    """The `clients` part of the test run."""
    return results(context.full, (), (), lambda result: None)


def results(full: bool, only: Sequence[str], only_groups: Sequence[str], report: Callable[[Result], None]) -> List[Result]:
    """Every client check, against servers that are started here; `only` picks families by name, and `only_groups` groups."""
    with scratch("clients") as work:
        images = Images(str(cache_dir()), tool("busybox"))
        # Once, and not by several threads that wait for each other.
        roadstead()
        # Short folder names: container engines keep sockets in them, whose names are bounded.
        starts = (
            (ALWAYS, _one),
            (LOGINS, _accounts),
            (FULL_BASIC, _basic),
            (REFUSALS, _refusing),
            (PUBLIC, _public),
            (TLS, _tls),
            (SEVERAL, _three),
            (CLOUD, _cloud),
            (FAULTY, _faulty),
            (REDIRECTED, _redirected),
            (OWN_HOST, _own_host),
        )
        groups: List[Callable[[], List[Result]]] = []
        for number, (group, start) in enumerate(starts):
            if (group is FULL_BASIC and not full) or (only_groups and group.setting not in only_groups):
                continue
            families = dict(group.families)
            for always, more in _MORE:
                if full and group is always:
                    families.update(more.families)
            if full and group in (REDIRECTED, OWN_HOST):
                families["containerd-2"] = full_docker.containerd_2_login
            wanted = only or (families if full else EVERY_RUN)
            chosen = {name: family for name, family in families.items() if name in wanted}
            if chosen:
                # Layers of 100 MB belong to --full.
                groups.append(partial(_group, group.setting, chosen, start, images, work / str(number), report, not full))
        return [result for results in at_once(*groups, at_most=_AT_ONCE) for result in results]


def _group(
    name: str,
    families: Dict[str, Family],
    start: Callable[[ExitStack, Path], Registry],
    images: Images,
    work: Path,
    report: Callable[[Result], None],
    small: bool,
) -> List[Result]:
    found: List[Result] = []
    work.mkdir()

    def whole() -> None:
        with ExitStack() as stack:
            registry = start(stack, work)
            for number, (family, function) in enumerate(families.items()):
                with step(f"{name}: {family}"), _removed(work / str(number)) as folder:
                    found.extend(collect(Setting(name, registry, images, folder, small=small), family, function, report))

    outcome = check(f"{name}: servers start and stop", whole)
    if outcome.ok is not True:
        report(outcome)
        found.append(outcome)
    return found


@contextmanager
def _removed(folder: Path) -> Iterator[Path]:
    """A folder that is gone afterwards, with what is mounted below it: images of half a gigabyte add up."""
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _log(server: Server) -> str:
    return "\n".join(tail(server.log_tail(), LOG_LINES))


def _one(stack: ExitStack, _: Path) -> Registry:
    server = stack.enter_context(Server())
    return Registry(server.address, log=lambda: _log(server))


def _with_users(stack: ExitStack, work: Path, *flags: str, backend: Optional[Backend] = None) -> Server:
    file = work / "htpasswd"
    run([tool("htpasswd"), "-i", "-c", "-B", "-C", "5", str(file), USER], timeout=20, input=PASSWORD)
    return stack.enter_context(Server("--htpasswd", file, *flags, backend=backend))


def _accounts(stack: ExitStack, work: Path) -> Registry:
    server, relay = _with_account(stack, work, POLICY)
    return Registry(relay.address, USER, PASSWORD, log=lambda: _log(server), public="public/")


def _basic(stack: ExitStack, work: Path) -> Registry:
    backend = Backend("disk+sqlite", work / "data")
    backend.add_user(USER, PASSWORD)
    server = stack.enter_context(Server("--challenge", "basic", backend=backend))

    def whole() -> None:
        """After all families: no client has got a token, or missed one."""
        tokens = [line for line in server.access_lines() if line["path"] == "/token"]
        assert not tokens, f"tokens were asked for: {tokens[:3]}"

    stack.callback(whole)
    return Registry(server.address, USER, PASSWORD, log=lambda: _log(server))


def _refusing(stack: ExitStack, work: Path) -> Registry:
    server, relay = _with_account(stack, work, refusals.POLICY)
    return refusals.RefusingRegistry(server.backend, relay.address, USER, PASSWORD, lambda: _log(server))


def _with_account(stack: ExitStack, work: Path, policy: str) -> Tuple[Server, RoundRobinProxy]:
    """A server with an account and a policy, and the relay by which clients reach it."""
    backend = Backend("disk+sqlite", work / "data")
    backend.add_user(USER, PASSWORD)
    backend.set_policy(policy)
    server = stack.enter_context(Server(backend=backend))
    relay = stack.enter_context(RoundRobinProxy([server.address]))
    stack.callback(_by_token, [server], relay)
    return server, relay


def _by_token(servers: Sequence[Server], relay: RoundRobinProxy) -> None:
    """After all families: every program that was logged in has pushed and pulled with tokens alone, but for those that send the password
    each time. The access log says who was logged in, and the relay before the servers with what."""
    entries = [line for server in servers for line in server.access_lines()]
    lines = [line for line in entries if line.get("user") == USER and line["status"] < 300 and "agent" in line]
    programs = {line["agent"].split(" ")[0] for line in lines if line["path"].startswith("/v2/")}
    assert programs, f"no program has logged in, by {len(entries)} lines of the access log"
    schemes: Dict[str, Set[str]] = {program: set() for program in programs if not program.startswith(_BY_PASSWORD)}
    for request in list(relay.requests):
        if request.target.startswith("/v2/") and request.scheme:
            schemes.get(request.agent.split(" ")[0], set()).add(request.scheme)
    say(f"    logged in by token: {', '.join(sorted(schemes))}")
    others = {program: found for program, found in schemes.items() if found != {"bearer"}}
    assert not others, f"logged in with other credentials than tokens: {others}"


def _public(stack: ExitStack, work: Path) -> Registry:
    server = _with_users(stack, work, "--allow-anonymous", "pull")
    return Registry(server.address, USER, PASSWORD, log=lambda: _log(server))


def _tls(stack: ExitStack, work: Path) -> Registry:
    return over_tls.start(stack, work, _log)


def _three(stack: ExitStack, _: Path) -> Registry:
    return _of(stack.enter_context(Fleet()))


def _of(fleet: Fleet, user: Optional[str] = None, password: Optional[str] = None) -> Registry:
    return Registry(fleet.address, user, password, log=lambda: "\n".join(map(_log, fleet.servers)))


def _cloud(stack: ExitStack, _: Path) -> Registry:
    """With an account in the table. Neither its password nor a token goes to the bucket, from which blobs are pulled."""
    cloud = stack.enter_context(Cloud())
    s3 = stack.enter_context(FaultProxy(cloud.versitygw.address, probability=0))
    backend = cloud.backend("s3+dynamodb", s3_proxy=s3.url)
    backend.add_user(USER, PASSWORD)
    fleet = stack.enter_context(Fleet("--pull", "redirect", backend=backend))

    def whole() -> None:
        schemes = _signed_alone(s3)
        assert schemes.get("", 0) > 0, f"no blob was pulled from the bucket: {schemes}"
        _by_token(fleet.servers, fleet.round_robin)

    stack.callback(whole)
    return _of(fleet, USER, PASSWORD)


def _signed_alone(s3: FaultProxy) -> Dict[str, int]:
    """The schemes of the Authorization headers that met the bucket, and how often each did: those of the registry's own signed requests, and
    none, since a presigned URL needs nothing."""
    schemes = s3.schemes()
    assert set(schemes) <= {"AWS4-HMAC-SHA256", ""} and schemes, f"sent to the bucket: {schemes}"
    return schemes


def _faulty(stack: ExitStack, work: Path) -> Registry:
    """What the stores get wrong the registry makes good: no client sees it, whether it asks for tokens or for content. So blobs go through
    the registry, both ways."""
    cloud = stack.enter_context(Cloud())
    s3 = stack.enter_context(FaultProxy(cloud.versitygw.address, probability=FAULTS))
    dynamodb = stack.enter_context(FaultProxy(cloud.ministack.address, probability=FAULTS))
    backend = cloud.backend("s3+dynamodb", s3_proxy=s3.url, dynamodb_proxy=dynamodb.url)
    cloud.direct(backend).add_user(USER, PASSWORD)
    fleet = stack.enter_context(Fleet("--pull", "proxy", backend=backend))
    registry = _of(fleet, USER, PASSWORD)

    def whole() -> None:
        """After all families: whatever a tag names is there, and hashes; and so does all else, when nothing is between."""
        _by_token(fleet.servers, fleet.round_robin)
        _every_kind((s3, dynamodb), registry, work)
        _lost_answers(s3, registry)
        verified = sum(len(registry.verify(repository, tag)) for repository in registry.repositories() for tag in registry.tags(repository))
        assert verified, "no tag names anything"
        direct = cloud.direct(backend)
        checked = direct.operate("fsck", "--hash", "--json", timeout=600, ok=(0, 1))
        assert checked.returncode == 0, f"fsck found what does not agree:\n{checked.stdout[-4000:]}{checked.stderr[-2000:]}"
        summary = json.loads(checked.stdout.splitlines()[-1])["summary"]
        assert summary["blobs"] and summary["tags"] and not summary["findings"], summary

    stack.callback(whole)
    return registry


def _redirected(stack: ExitStack, work: Path) -> Registry:
    return _over_bucket(stack, work, STORE_HOST, {307})


def _own_host(stack: ExitStack, work: Path) -> Registry:
    # As the registry is asked for; the port does not make another host.
    return _over_bucket(stack, work, "127.0.0.1", {200, 206})


def _over_bucket(stack: ExitStack, work: Path, host: str, pulled: Set[int]) -> Registry:
    """A registry whose bucket is reached at `host`, where blobs are pulled with the statuses `pulled`."""
    cloud = stack.enter_context(Cloud())
    s3 = stack.enter_context(FaultProxy(cloud.versitygw.address, probability=0))
    backend = cloud.backend("s3+sqlite", s3_proxy=f"http://{host}:{s3.port}")
    server = _with_users(stack, work, "--pull", "redirect", backend=backend)
    relay = stack.enter_context(RoundRobinProxy([server.address]))

    def whole() -> None:
        """After all families: neither a password nor a token has met the bucket, and every client pulled as it was to, by token."""
        schemes = _signed_alone(s3)
        _by_token([server], relay)
        ways = _pulls(server)
        say(f"    pulls of blobs: {ways}")
        assert ways and all(set(statuses) <= pulled for statuses in ways.values()), f"{ways}, and not {pulled}"
        assert (schemes.get("", 0) > 0) == (307 in pulled), f"sent to the bucket: {schemes}"

    stack.callback(whole)
    return Registry(relay.address, USER, PASSWORD, log=lambda: _log(server))


def _pulls(server: Server) -> Dict[str, Dict[int, int]]:
    """How blobs were pulled by users, by program: the statuses of the answers, and how many each."""
    ways: Dict[str, Dict[int, int]] = {}
    for line in server.log.read_text(errors="replace").splitlines():
        # The checks' own reads name no program.
        entry = json.loads(line) if line.startswith("{") else {}
        pull = entry.get("method") == "GET" and "/blobs/sha256:" in entry.get("path", "")
        if pull and entry.get("user") == USER and "agent" in entry:
            statuses = ways.setdefault(entry["agent"].split(" ")[0], {})
            statuses[entry["status"]] = statuses.get(entry["status"], 0) + 1
    return ways


def _every_kind(proxies: Sequence[FaultProxy], registry: Registry, work: Path) -> None:
    """What chance left out happens on purpose to one push each: some kinds belong to operations of which a run has few."""

    def injected() -> Dict[str, int]:
        counts = [proxy.total_injected() for proxy in proxies]
        return {kind: sum(count.get(kind, 0) for count in counts) for kind in KINDS}

    assert all(proxy.injected() for proxy in proxies), "no fault was met by chance"
    by_chance = injected()
    login = [tool("crane"), "auth", "login", registry.address, "-u", registry.user, "--password-stdin"]
    run(login, timeout=TIMEOUT, env={"DOCKER_CONFIG": str(work)}, input=registry.password)
    # Of a layer that goes in several parts.
    image = Images(str(cache_dir()), tool("busybox")).medium
    for kind in [kind for kind, count in by_chance.items() if not count]:
        for proxy in proxies:
            proxy.inject(1, kinds=[kind], limit=1)
        words = [tool("crane"), "--insecure", "push", image, f"{registry.address}/on-purpose/{kind}:1"]
        run(words, timeout=TIMEOUT, env={"DOCKER_CONFIG": str(work)})
    for proxy in proxies:
        proxy.inject(FAULTS)
    say("    faults: " + ", ".join(f"{kind} {count or 'on purpose'}" for kind, count in by_chance.items()))
    never = [kind for kind, count in injected().items() if not count]
    assert not never, f"no request ever met: {', '.join(never)}"


def _lost_answers(s3: FaultProxy, registry: Registry) -> None:
    """A blob of one object is pushed though no answer of the store arrives: versitygw refuses the object, which is there by then, before it
    has read the body, and closes the connection. A sender of so many bytes gets a reset instead of the answer, every time."""
    for kind in ("error-after", "reset-after"):
        s3.inject(1, kinds=[kind], operations=["PutObject"], limit=1)
        blob = secrets.token_bytes(1_000_000)
        answer = registry.request("POST", f"/v2/lost/answers/blobs/uploads/?digest={sha256(blob)}", blob)
        assert answer.status == 201, f"{kind}: {answer.status} {answer.body[:300]!r}"
    s3.inject(FAULTS)


def _elsewhere(arguments: argparse.Namespace, report: Callable[[Result], None]) -> List[Result]:
    """The families against a registry that runs already; repositories get names that it has not seen."""
    user, _, password = (arguments.user or "").partition(":")
    registry = Registry(arguments.registry, user or None, password or None)
    families = dict(LOGINS.families if user else {**ALWAYS.families, **(FULL.families if arguments.full else {})})
    found: List[Result] = []
    with scratch("clients") as work:
        images = Images(str(cache_dir()), tool("busybox"))
        for number, (name, function) in enumerate(families.items()):
            if not arguments.only or name in arguments.only:
                with _removed(work / str(number)) as folder:
                    setting = Setting("clients", registry, images, folder, f"t{int(time.time()):x}/", own=arguments.own)
                    found += collect(setting, name, function, report)
    return found


def command_line(words: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--registry", metavar="HOST:PORT", help="a registry that runs already, plain http")
    parser.add_argument("--own", action="store_true", help="--registry is roadstead: ask the whole specification of it")
    parser.add_argument("--user", metavar="NAME:PASSWORD", help="run the logins against --registry")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="families, by name")
    parser.add_argument("--group", action="append", metavar="SETTING", default=[], help="a group by the name of its setting; may be repeated")
    parser.add_argument("--full", action="store_true", help="also what is too long for every run")
    parser.add_argument("--list", action="store_true", help="the families by name")
    arguments = parser.parse_args(words)
    if arguments.list:
        in_full = (FULL_BASIC, *(more for _, more in _MORE))
        always = (ALWAYS, LOGINS, REFUSALS, PUBLIC, TLS, SEVERAL, CLOUD, FAULTY, REDIRECTED, OWN_HOST)
        for group in sorted((*always, *in_full), key=lambda group: group.setting):
            print(f"{group.setting + (' --full' if group in in_full else ''):36} {' '.join(group.families)}")
        return 0
    began = time.monotonic()
    if arguments.registry:
        found = _elsewhere(arguments, _report)
    else:
        with building():
            found = results(arguments.full, arguments.only, arguments.group, _report)
    failed = sum(result.ok is False for result in found)
    print(f"{len(found)} checks, {failed} failed, {time.monotonic() - began:.0f} s")
    return 1 if failed or not found else 0


def _report(result: Result) -> None:
    word = {True: "ok", False: "FAILED", None: "skipped"}[result.ok]
    print(f"{word:7} {result.seconds:6.1f} s  {result.name}", flush=True)
    if result.detail:
        print("\n".join("        " + line for line in result.detail.splitlines()), flush=True)


def _interrupted(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # Daemons and mounts are to go however the run ends.
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        sys.exit(command_line())
    except HarnessError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        stop_all()
