"""The part `samples`: every sample runs, every deployment, and the installation with cargo, as their READMEs say.

The commands and files are those of samples/ and infra/, with the example names replaced (`recipes`). The checks of infra/local are
in `infra_local`, those of infra/aws in `infra_aws`, those of accounts and policies in `access`, those of the API in `api_page`, those of
the commands for them in `commands` and `first_start`.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import signal
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence

from recipes import (  # noqa: I001 - it makes the modules of tests/clients known
    AWS_CLI, LAB, PASSWORD, REGISTRY, SAMPLES, TIMEOUT, USER, aws_cli, collected, filled, knowing, kubectl, need_root, path_with, shell,
    steps, tool, users,
)  # fmt: skip
from harness import Child, Context, Result, Server, at_once, cache_dir, check, free_port, run, scratch, wait_until
from harness.build import PROGRAMS, cargo, image, roadstead
from harness.cache import ROOT
from harness.process import Finished
from harness.tools import TABLE, Go
import access
import api_page
import commands
import first_start
import infra_aws
import infra_local
from engines import Containerd, Dockerd
from images import RUNS, Images
from infra_local import Front
from operating import ask, basic
from verify import Registry, compare_layouts, root_digest

PUSH = SAMPLES / "first-push" / "push.sh"
KUBERNETES = SAMPLES / "kubernetes"
CONTAINERD = SAMPLES / "containerd"
COMPOSE = SAMPLES / "compose"
S3_DYNAMODB = SAMPLES / "s3-dynamodb"

# How many families of checks run at once: each has servers, engines and folders of its own, and waits for them most of its time.
_AT_ONCE = 3


def main(context: Context) -> List[Result]:
    families = {
        "first-push": first_push,
        "kubernetes": kubernetes,
        "containerd": containerd,
        "docker by TLS": docker_by_tls,
        "nginx": infra_local.tls,
        "systemd": infra_local.service,
        "own TLS": infra_local.own_tls,
        "users": infra_local.accepted_users,
        "backup": infra_local.backup,
        "compose": compose,
        "s3-dynamodb": s3_dynamodb,
        "aws": partial(infra_aws.aws, full=context.full),
        **access.FAMILIES,
        "api": api_page.checks,
        **commands.FAMILIES,
        **first_start.FAMILIES,
    }
    if context.full:
        families["containerd 2"] = containerd_2
    found = [check("samples: the map names every folder", the_map)]
    # Once, and not by several threads that wait for each other.
    roadstead()
    image()
    # Short folder names: container engines keep sockets in them, whose names are bounded.
    with scratch("samples") as work:
        # It replaces the program that the others run.
        found += collected("install", install, work / "install")
        calls = [partial(collected, name, family, work / str(number)) for number, (name, family) in enumerate(families.items())]
        return found + [result for results in at_once(*calls, at_most=_AT_ONCE) for result in results]


def the_map() -> None:
    named = set(re.findall(r"\]\(([\w-]+)/", (SAMPLES / "README.md").read_text()))
    there = {path.name for path in SAMPLES.iterdir() if path.is_dir()}
    assert named == there, f"README.md names {sorted(named)}, there are {sorted(there)}"


# --- cargo install ---


def install(folder: Path) -> Iterator[Result]:
    yield check("install: the README's command, whose program says its version and commit", installed, folder / "installed")


def installed(root: Path) -> str:
    """All libraries are those that `roadstead` has, so that the program alone is compiled and linked again."""
    commands = re.findall(r"^\$ ROADSTEAD_COMMIT=\$\(([^)]+)\) cargo (install .+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 1, f"README.md has {len(commands)} commands that install"
    ask, words = commands[0]
    # Empty outside of a checkout, which counts as unknown.
    commit = run(ask.split(), timeout=20, cwd=ROOT, ok=None).stdout.strip()
    expected = run([roadstead(), "--version"], timeout=20).stdout
    try:
        cargo([*words.split(), "--root", str(root)], "cargo install", env={"ROADSTEAD_COMMIT": commit})
    finally:
        # The program with a commit has taken the place of the ordinary one, which this puts back.
        cargo(PROGRAMS, "linking roadstead")
    assert [path.name for path in (root / "bin").iterdir()] == ["roadstead"], "it installs something else"
    printed = run([root / "bin" / "roadstead", "--version"], timeout=20).stdout
    if commit:
        expected, count = re.subn(r"^commit: .*$", f"commit: {commit}", expected, flags=re.MULTILINE)
        assert count == 1, expected
    assert printed == expected, printed
    return " ".join(printed.splitlines()[:2])


def images() -> Images:
    return Images(str(cache_dir()), tool("busybox"))


# --- first-push ---


def first_push(folder: Path) -> Iterator[Result]:
    need_root()
    yield check("first-push: usage", push_usage)
    with Server() as server, Dockerd(folder / "d", home(folder)) as docker:
        pushes = FirstPush(docker, server)
        yield check("first-push: a tiny image, made without a network", pushes.tiny)
        yield check("first-push: an image of one's own", pushes.named)
        yield check("first-push: what it says when nothing answers, or there is no such image", pushes.failures)


def home(folder: Path) -> Dict[str, str]:
    """A home for a client, with none of this machine's credentials."""
    (folder / "home").mkdir(exist_ok=True)
    return {"HOME": str(folder / "home"), "DOCKER_CONFIG": str(folder / "home"), "XDG_RUNTIME_DIR": str(folder / "home")}


def push_usage() -> None:
    printed = run([PUSH, "--help"], timeout=20).stdout
    assert "Usage:" in printed and "Examples:" in printed, printed
    for wrong in (["--wrong"], ["one", "two"]):
        done = run([PUSH, *wrong], timeout=20, ok=(2,))
        assert "Usage:" in done.stderr and not done.stdout, done


def push(docker: Dockerd, registry: str, *words: str, ok: Optional[Sequence[int]] = (0,)) -> Finished:
    env = {**docker.env, "DOCKER_HOST": f"unix://{docker.socket}", "REGISTRY": registry}
    return run([PUSH, *words], timeout=TIMEOUT, env=env, ok=ok)


class FirstPush:
    def __init__(self, docker: Dockerd, server: Server) -> None:
        self.docker, self.server = docker, server

    def tiny(self) -> None:
        done = push(self.docker, self.server.address)
        found = re.search(r"The same image came back: (\S+)@(sha256:[0-9a-f]{64})$", done.stdout.strip())
        assert found, done.stdout
        target, digest = found.groups()
        assert target == f"{self.server.address}/first-push:1", target
        assert "Pull complete" in done.stdout, f"its layer did not come from the registry: {done.stdout}"
        Registry(self.server.address).verify("first-push", "1", expect=digest)
        # What came back is the file: docker's tar of it holds the text.
        container = self.docker.docker("create", target, "/none").stdout.strip()
        assert "Bytes at anchor." in self.docker.docker("cp", f"{container}:/hello.txt", "-").stdout
        push(self.docker, self.server.address)  # again, with the first one there

    def named(self) -> None:
        """The registry and digest of a name are left out, and no tag means `latest`."""
        archive = images().archive("app", "docker-archive", "docker.io/local/app:1")
        self.docker.docker("load", "-q", "-i", archive)
        for name, target in {
            "local/app:1": "local/app:1",
            "elsewhere.example:5000/team/app": "team/app:latest",
            "localhost/team/other:2": "team/other:2",
        }.items():
            if name != "local/app:1":
                self.docker.docker("tag", "local/app:1", name)
            done = push(self.docker, self.server.address, name)
            assert f"came back: {self.server.address}/{target}@sha256:" in done.stdout, done.stdout
            repository, tag = target.split(":")
            Registry(self.server.address).verify(repository, tag)
            # The image's own name is still there.
            self.docker.docker("image", "inspect", name)
        ran = self.docker.docker("run", "--rm", "--network", "none", f"{self.server.address}/team/app:latest")
        assert RUNS in ran.stdout, ran

    def failures(self) -> None:
        refused = push(self.docker, "127.0.0.1:1", ok=(1,))
        assert "nothing was pushed to 127.0.0.1:1" in refused.stderr, refused
        absent = push(self.docker, self.server.address, "no/such:image", ok=(1,))
        assert "no image no/such:image" in absent.stderr, absent


class NamedDockerd(Dockerd):
    """A daemon that finds the example names at an address, with an /etc/docker of its own."""

    def __init__(self, folder: Path, env: Dict[str, str], prefix: List[str]) -> None:
        super().__init__(folder, env)
        self._prefix = prefix

    def command(self) -> Sequence[str]:
        return [*self._prefix, *super().command()]


def docker_by_tls(folder: Path) -> Iterator[Result]:
    """docker takes any certificate on 127.0.0.0/8, so the registry has its name at ::1 where this machine has one."""
    need_root()
    etc = folder / "etc"
    etc.mkdir()
    prefix = knowing(folder, "::1" if infra_local.has_ipv6() else "127.0.0.1", etc)
    private = Server("--htpasswd", users(folder), *infra_local.settings_of_proxy())
    with private as server, Front(folder / "front", server) as front:
        with NamedDockerd(folder / "d", home(folder), prefix) as docker:
            checks = DockerByTls(front, docker, etc, Registry(server.address, USER, PASSWORD))
            if infra_local.has_ipv6():
                yield check("nginx: docker without the authority's certificate refuses", checks.untrusted)
            yield check("nginx: docker login, and with a wrong password not", checks.login)
            yield check("nginx: first-push by TLS, with users", checks.push)
            yield check("nginx: docker gets its tokens through it", infra_local.got_tokens, front, "docker/")


class DockerByTls:
    def __init__(self, front: Front, docker: Dockerd, etc: Path, registry: Registry) -> None:
        self.front, self.docker, self.etc, self.registry = front, docker, etc, registry

    def _login(self, password: str) -> Finished:
        return self.docker.docker("login", "-u", USER, "--password-stdin", self.front.address, input=password, ok=None)

    def untrusted(self) -> None:
        done = self._login(PASSWORD)
        assert done.returncode != 0 and "x509" in done.stderr, f"not refused for its certificate: {done}"

    def login(self) -> None:
        trust = self.etc / "certs.d" / self.front.address
        trust.mkdir(parents=True)
        shutil.copy(self.front.authority, trust / "ca.crt")
        wrong = self._login("wrong")
        assert wrong.returncode != 0 and "unauthorized" in wrong.stderr.lower(), wrong
        done = self._login(PASSWORD)
        assert "Login Succeeded" in done.stdout, done

    def push(self) -> None:
        archive = images().archive("app", "docker-archive", "docker.io/local/app:1")
        self.docker.docker("load", "-q", "-i", archive)
        done = push(self.docker, self.front.address, "local/app:1")
        self.registry.verify("local/app", "1", expect=done.stdout.strip().rsplit("@", 1)[1])


# --- kubernetes ---


def kubernetes(folder: Path) -> Iterator[Result]:
    with Server("--htpasswd", users(folder)) as server:
        checks = Kubernetes(folder, server)
        yield check("kubernetes: the commands that push the image", checks.push)
        yield check("kubernetes: the robot of the cluster", checks.make_robot)
        yield check("kubernetes: the pull secret", checks.make_secret)
        yield check("kubernetes: the Deployment, its image by digest", checks.make_deployment)
        yield check("kubernetes: every field of the Deployment is one that Kubernetes knows", checks.known_fields)
        yield check("kubernetes: the Deployment's image comes with the secret's credentials", checks.pull)
        yield check("kubernetes: the registry's own image runs with the Deployment's arguments", checks.runs)


class Kubernetes:
    """The steps of samples/kubernetes/README.md, up to what needs a cluster."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server, self.layout = folder, server, images().app
        self.secret: dict = {}
        self.deployment: dict = {}
        self.key = folder / "cluster.key"
        self.env = {
            **home(folder), "KUBECONFIG": str(folder / "no-cluster"), "PATH": path_with(kubectl(), Path(tool("crane"))),
        }  # fmt: skip
        # Of the one who pushes; the cluster has the pull secret's.
        self.env["DOCKER_CONFIG"] = str(folder / "pusher")

    def _shell(self, holding: str, changes: Dict[str, str], **more: object) -> Finished:
        commands = filled(steps(KUBERNETES / "README.md", holding), {REGISTRY: self.server.address, **changes})
        return shell(commands, KUBERNETES, self.env, **more)

    def push(self) -> None:
        """The image is another one than the registry's own, which takes long to build."""
        shutil.copytree(self.layout, self.folder / "home" / "roadstead-image")
        self._shell("crane push", {}, input=f"{PASSWORD}\n")
        Registry(self.server.address, USER, PASSWORD).verify("team/app", "1", expect=root_digest(self.layout))

    def make_robot(self) -> None:
        command = filled(steps(KUBERNETES / "README.md", "robot add cluster"), {"> cluster.key": f"> {self.key}"})
        shell(command, KUBERNETES, {**self.env, "PATH": path_with(roadstead()), "ROADSTEAD_DATA": str(self.server.data)})
        # A server that has known no account for less than ten seconds does not look for one.
        key = self.key.read_text().strip()
        known = partial(ask, self.server, "GET", "/v2/", basic("cluster", key))
        wait_until(lambda: known().status == 200, 20, "the server knows the first account")

    def make_secret(self) -> None:
        changes = {"docker-registry roadstead": "docker-registry roadstead --dry-run=client -o json", "cat cluster.key": f"cat {self.key}"}
        self.secret = json.loads(self._shell("create secret", changes).stdout)
        assert self.secret["type"] == "kubernetes.io/dockerconfigjson", self.secret

    def make_deployment(self) -> None:
        # What a cluster would be given, read back instead.
        done = self._shell("crane digest", {"kubectl apply -f -": "kubectl annotate --local -f - read=back -o json"})
        self.deployment = json.loads(done.stdout)
        pinned = f"{self.server.address}/team/app:1@{root_digest(self.layout)}"
        assert self._containers()[0]["image"] == pinned, self._containers()

    def _containers(self) -> List[dict]:
        return self.deployment["spec"]["template"]["spec"]["containers"]

    def known_fields(self) -> None:
        """kubectl drops the fields that it does not know when it reads an object as what it is, and keeps them when it only annotates."""
        raw, typed = self._read("annotate", "a=b"), self._read("set", "image", "app=a/b")
        annotation = {("metadata", "annotations"), ("metadata", "annotations", "a")}
        unknown = sorted(fields(raw) - fields(typed) - annotation)
        assert not unknown, "unknown to Kubernetes: " + ", ".join(".".join(map(str, field)) for field in unknown)
        assert ("spec", "template", "spec", "containers", 0, "image") in fields(typed), typed

    def _read(self, *words: str) -> dict:
        kind = words[:1] if words[0] == "annotate" else words[:2]
        rest = words[len(kind) :]
        command = [kubectl(), *kind, "--local", "-f", KUBERNETES / "deployment.yaml", *rest, "-o", "json"]
        return json.loads(run(command, TIMEOUT, env=self.env).stdout)

    def pull(self) -> None:
        named = [secret["name"] for secret in self.deployment["spec"]["template"]["spec"]["imagePullSecrets"]]
        assert named == [self.secret["metadata"]["name"]], f"the Deployment names {named}"
        image = self._containers()[0]["image"]
        node = self.folder / "node"
        node.mkdir()
        (node / "config.json").write_bytes(base64.b64decode(self.secret["data"][".dockerconfigjson"]))
        stranger = run([tool("crane"), "digest", image], TIMEOUT, env=home(node), ok=None)
        assert stranger.returncode != 0, "pulled without credentials"
        run([tool("crane"), "pull", "--format", "oci", image, node / "crane"], TIMEOUT, env={"DOCKER_CONFIG": str(node)})
        compare_layouts(self.layout, str(node / "crane"))
        pushed = run([tool("crane"), "push", self.layout, f"{self.server.address}/team/app:2"], TIMEOUT, env={"DOCKER_CONFIG": str(node)}, ok=None)
        assert pushed.returncode != 0 and "DENIED" in pushed.stderr, f"the cluster may push: {pushed}"
        # skopeo takes no tag beside a digest.
        by_digest = f"docker://{image.replace(':1@', '@')}"
        skopeo = [tool("skopeo"), "copy", "-q", "--preserve-digests", "--src-tls-verify=false", "--authfile", node / "config.json"]
        run([*skopeo, by_digest, f"oci:{node}/skopeo:1"], TIMEOUT, env=home(node))
        compare_layouts(self.layout, str(node / "skopeo"))


    def runs(self) -> None:
        """Every folder that it writes to is a volume, and it answers."""
        (container,) = self._containers()
        (mounted,) = [mount["mountPath"] for mount in container["volumeMounts"]]
        port, data = free_port(), self.folder / "volume"
        changes = {f"--data={mounted}": f"--data={data}", "--listen=127.0.0.1:5000": f"--listen=127.0.0.1:{port}"}
        assert set(changes) <= set(container["args"]), container["args"]
        empty = self.folder / "root"
        empty.mkdir()
        with Child([roadstead(), *(changes.get(word, word) for word in container["args"])], self.folder / "log", cwd=empty) as child:
            wait_until(lambda: not child.alive() or infra_local.accepts(port), 20, "the server listens")
            assert child.alive(), f"the server ended with {child.returncode}\n{child.log_tail()}"
            assert Registry(f"127.0.0.1:{port}").request("GET", "/v2/").status == 200
        assert data.is_dir() and not list(empty.iterdir()), "it writes elsewhere"


def fields(value: object, place: tuple = ()) -> set:
    """The places of an object's fields."""
    found = {place} if place else set()
    if isinstance(value, dict):
        for name, inner in value.items():
            found |= fields(inner, (*place, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            found |= fields(inner, (*place, number))
    return found


# --- containerd ---


class NamedContainerd(Containerd):
    """A containerd whose daemon and client find the example names on this machine."""

    def __init__(self, folder: Path, env: Dict[str, str], prefix: List[str], generation: str) -> None:
        super().__init__(folder, env, generation)
        self._prefix = prefix

    def command(self) -> Sequence[str]:
        return [*self._prefix, *super().command()]

    def ctr(self, *words: object, timeout: float = TIMEOUT, ok: Optional[Sequence[int]] = (0,)) -> Finished:
        return run([*self._prefix, self.client, "-a", self.socket, *map(str, words)], timeout=timeout, env=self.env, ok=ok)


def containerd(folder: Path, generation: str = "") -> Iterator[Result]:
    need_root()
    # The lab's name leads to this machine, as a page's own name could: it must be allowed.
    lab, private = Server("--allow-host", LAB), Server("--htpasswd", users(folder))
    with lab as open_server, private as server, Front(folder / "front", server) as front:
        with NamedContainerd(folder / "c", home(folder), knowing(folder), generation) as daemon:
            pulls = CtrPulls(folder, daemon)
            label = f"containerd {daemon.version}"
            pulls.push(Registry(open_server.address), Registry(server.address, USER, PASSWORD))
            yield check(f"{label}: certs.d, plain http in a lab", pulls.lab, open_server.port)
            yield check(f"{label}: certs.d, TLS with a private authority", pulls.tls, front)


def containerd_2(folder: Path) -> Iterator[Result]:
    yield from containerd(folder, "docker28/")


class CtrPulls:
    """Pulls with the files of samples/containerd, placed as its README says, and without them."""

    def __init__(self, folder: Path, daemon: NamedContainerd) -> None:
        self.folder, self.daemon, self.layout = folder, daemon, images().app

    def push(self, *registries: Registry) -> None:
        for registry in registries:
            login = ["--dest-creds", f"{registry.user}:{registry.password}"] if registry.user else []
            skopeo = [tool("skopeo"), "copy", "-q", "--preserve-digests", "--dest-tls-verify=false", *login]
            run([*skopeo, f"oci:{self.layout}:1", f"docker://{registry.address}/team/app:1"], TIMEOUT, env=home(self.folder))

    def lab(self, port: int) -> None:
        placed = self._placed("lab", {f"{LAB}:5000": f"{LAB}:{port}", f"{LAB}_5000_": f"{LAB}_{port}_", "`_5000_` for `:5000`": "…"})
        self._pull(placed, f"{LAB}:{port}/team/app:1", "server gave HTTP response to HTTPS client")

    def tls(self, front: Front) -> None:
        placed = self._placed("registry", {REGISTRY: front.address})
        # The README's own commands, for the authority's certificate.
        changes = {"/etc/containerd/certs.d": str(self.folder / "etc"), REGISTRY: front.address}
        commands = filled(steps(CONTAINERD / "README.md", "cp ca.crt"), changes)
        shutil.copy(front.authority, placed.parent / "ca.crt")
        shell(commands, placed.parent, {})
        self._pull(self.folder / "etc", f"{front.address}/team/app:1", "certificate", "--user", f"{USER}:{PASSWORD}")

    def _placed(self, first: str, changes: Dict[str, str]) -> Path:
        """A copy of one folder of certs.d with the example names replaced, in its name and in its file."""
        (source,) = (CONTAINERD / "certs.d").glob(f"{first}*")
        name = source.name
        text = (source / "hosts.toml").read_text()
        for old, new in changes.items():
            assert old in name + text, f"{old!r} is not in {source}"
            name, text = name.replace(old, new), text.replace(old, new)
        placed = self.folder / first / "certs.d"
        (placed / name).mkdir(parents=True)
        (placed / name / "hosts.toml").write_text(text)
        return placed

    def _pull(self, hosts: Path, reference: str, without: str, *login: str) -> None:
        bare = self.daemon.ctr("images", "pull", *login, reference, ok=None)
        assert bare.returncode != 0 and without in bare.stderr, f"pulled without the files, or failed otherwise: {bare}"
        absent = self.daemon.ctr("images", "pull", "--hosts-dir", hosts, *login, reference.replace(":1", ":absent"), ok=None)
        # 1.6 asks the server again without the authority; the README says so.
        says = "StatusNotFound" if self.daemon.version.startswith("1.6.") else "not found"
        assert absent.returncode != 0 and says in absent.stderr, f"refused otherwise than as absent: {absent}"
        self.daemon.ctr("images", "pull", "--hosts-dir", hosts, *login, reference)
        printed = self.daemon.ctr("images", "list", f"name=={reference}").stdout
        assert root_digest(self.layout) in printed, f"another image: {printed}"
        ran = self.daemon.ctr("run", "--rm", reference, f"run-{secrets.token_hex(4)}-{hosts.parent.name}")
        assert RUNS in ran.stdout, f"the container says {ran.stdout!r} {ran.stderr!r}"


# --- compose ---


def compose(folder: Path) -> Iterator[Result]:
    """docker compose over the sample, with the host's network in place of the published port, which needs one of docker's own."""
    need_root()
    with Dockerd(folder / "d", home(folder)) as docker:
        docker.docker("load", "-q", "-i", image().archive)
        sample = Compose(folder, docker)
        try:
            yield check("compose: up by the README's commands, until it is healthy", sample.up)
            yield check("compose: what the file says, the container has", sample.settings)
            yield check("compose: push and pull with the password alone, and with one that was added later", sample.push)
            yield check("compose: down ends in good order and keeps the data", sample.down)
        finally:
            sample.compose("down", "--volumes", ok=None)


class Compose:
    def __init__(self, folder: Path, docker: Dockerd) -> None:
        self.docker, self.port = docker, free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.folder = folder / "sample"
        shutil.copytree(COMPOSE, self.folder)
        self.override = self.folder / "override.yaml"
        self.override.write_text(
            "services:\n  registry:\n    network_mode: host\n    ports: !reset []\n"
            f"    environment:\n      ROADSTEAD_LISTEN: {self.address}\n"
        )
        # `docker compose` is docker's way to call this program.
        program = folder / "bin" / "docker"
        program.parent.mkdir()
        program.write_text(
            f'#!/bin/sh\n[ "$1" = compose ] || exec "{docker.client}" "$@"\nshift\n'
            f'exec "{tool("docker-compose")}" --file compose.yaml --file override.yaml "$@"\n'
        )
        program.chmod(0o755)
        self.env = {**docker.env, "DOCKER_HOST": f"unix://{docker.socket}", "PATH": path_with(program)}

    def compose(self, *words: str, ok: Optional[Sequence[int]] = (0,)) -> Finished:
        return run(["docker", "compose", *words], TIMEOUT, env=self.env, cwd=self.folder, ok=ok)

    def up(self) -> None:
        commands = filled(steps(COMPOSE / "README.md", "user add alice"), {"user add alice": f"user add {USER}"})
        shell(commands, self.folder, self.env, input=f"{PASSWORD}\n")
        assert infra_local.accepts(self.port)

    def _inspect(self) -> dict:
        container = self.compose("ps", "--all", "--quiet").stdout.strip()
        return json.loads(self.docker.docker("inspect", container).stdout)[0]

    def settings(self) -> None:
        found = self._inspect()
        host, state = found["HostConfig"], found["State"]
        assert state["Health"]["Status"] == "healthy", state
        assert found["Config"]["Healthcheck"]["Test"] == ["CMD", "roadstead", "health"], found["Config"]
        assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and host["SecurityOpt"] == ["no-new-privileges:true"], host
        assert found["Config"]["User"] == "65532:65532" and found["Config"]["StopTimeout"] == 330, found["Config"]
        # The published port, as the file says it without this test's own network.
        whole = run([tool("docker-compose"), "--file", COMPOSE / "compose.yaml", "config", "--format", "json"], TIMEOUT, env=self.env)
        (port,) = json.loads(whole.stdout)["services"]["registry"]["ports"]
        assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "5000", 5000), port

    def push(self) -> None:
        (self.folder / "client").mkdir()
        infra_local.push_and_pull(self.folder / "client", self.address)
        container = self.compose("ps", "--quiet").stdout.strip()
        words = ["exec", "-i", container, "roadstead", "user", "add", "bob", "--password-stdin"]
        assert "exec registry roadstead user add bob" in (COMPOSE / "README.md").read_text()
        self.docker.docker(*words, input="other pass words")
        later = Registry(self.address, "bob", "other pass words")
        wait_until(lambda: later.request("GET", "/v2/").status == 200, 20, "the added user is known")

    def down(self) -> None:
        """Stopped within less than the grace, which is minutes."""
        self.compose("stop")
        state = self._inspect()["State"]
        assert state["ExitCode"] == 0, state
        self.compose("down")
        assert not infra_local.accepts(self.port)
        self.compose("up", "--detach", "--wait")
        Registry(self.address, USER, PASSWORD).verify("team/app", "1")


# --- s3-dynamodb ---


def s3_dynamodb(folder: Path) -> Iterator[Result]:
    yield check("s3-dynamodb: usage", up_usage)
    yield check("s3-dynamodb: the README installs the versions that are tested", versions)
    sample = S3DynamoDb(folder)
    yield check("s3-dynamodb: what one registry takes the other has, and its layers come from the S3 server", sample.both)
    yield check("s3-dynamodb: a second start with the same folder has what the first one had", sample.again)
    yield check("s3-dynamodb: in another region, without a folder", sample.elsewhere)


def up_usage() -> None:
    printed = run([S3_DYNAMODB / "up.sh", "--help"], timeout=20).stdout
    assert "Usage:" in printed and "Examples:" in printed, printed
    done = run([S3_DYNAMODB / "up.sh", "--wrong"], timeout=20, ok=(2,))
    assert "Usage:" in done.stderr and not done.stdout, done
    # The interpreter is found by its path, the programs by the PATH.
    absent = run(["/bin/sh", S3_DYNAMODB / "up.sh"], timeout=20, ok=(1,), env={"PATH": "/nowhere"})
    assert "roadstead is not in the PATH" in absent.stderr, absent


def versions() -> None:
    commands = steps(S3_DYNAMODB / "README.md", "go install")
    known = {name: TABLE[name][0] for name in ("versitygw", "crane", "ministack")}
    wanted = [f"{one.package}@{one.version}" if isinstance(one, Go) else f"{one.package}=={one.version}" for one in known.values()]
    wanted.append(f"{AWS_CLI.package}=={AWS_CLI.version}")
    absent = [one for one in wanted if one not in commands]
    assert not absent, f"not in the README: {absent}"


class S3DynamoDb:
    """up.sh at ports of its own, and the commands that README.md gives for it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ports = folder, [free_port() for _ in range(4)]
        s3, dynamodb, *registries = self.ports
        self.s3, self.starts = s3, 0
        self.registries = {"127.0.0.1:5000": f"127.0.0.1:{registries[0]}", "127.0.0.1:5001": f"127.0.0.1:{registries[1]}"}
        self.example = {"localhost:7070": f"localhost:{s3}", "127.0.0.1:4566": f"127.0.0.1:{dynamodb}"}
        # As pip installs it: one process, which a script can stop.
        ministack = folder / "bin" / "ministack"
        ministack.parent.mkdir()
        ministack.write_text(f'#!/bin/sh\nexec "{Path(tool("ministack")).parent}/bin/python" -m ministack "$@"\n')
        ministack.chmod(0o755)
        path = path_with(roadstead(), Path(tool("versitygw")), ministack, Path(tool("crane")), aws_cli(folder / "bin"))
        own = {name: None for name in os.environ if name.startswith(("AWS_", "ROADSTEAD_"))}
        chosen = {"SETTINGS": str(folder / "registry.env"), "PORTS": f"{registries[0]} {registries[1]}", "TMPDIR": str(folder)}
        self.env: Dict[str, Optional[str]] = {**own, **home(folder), **chosen, "PATH": path}

    @contextmanager
    def _up(self, *words: object, **changes: str) -> Iterator[Child]:
        (self.folder / "registry.env").write_text(filled((S3_DYNAMODB / "registry.env").read_text(), {**self.example, **changes}))
        self.starts += 1
        with Child([S3_DYNAMODB / "up.sh", *map(str, words)], self.folder / f"log-{self.starts}", self.env) as child:
            wait_until(lambda: not child.alive() or "Ctrl-C" in child.log_tail(), 60, "up.sh has started everything")
            assert child.alive(), f"up.sh ended with {child.returncode}\n{child.log_tail()}"
            yield child
            # The script alone is asked to end, as Ctrl-C in a terminal or a supervisor would.
            os.kill(child.pid, signal.SIGTERM)
            assert child.wait(30) == 143, f"exit code {child.returncode}\n{child.log_tail()}"
        left = [port for port in self.ports if infra_local.accepts(port)]
        assert not left, f"still listening: {left}"

    def _push_and_pull(self) -> str:
        return shell(filled(steps(S3_DYNAMODB / "README.md", "crane append"), self.registries), S3_DYNAMODB, self.env).stdout

    def _look(self, child: Child) -> str:
        """The README's look into the stores, with the line of keys that up.sh prints."""
        (keys,) = [line for line in child.log_tail().splitlines() if line.startswith("export AWS_ACCESS_KEY_ID=")]
        commands = filled(steps(S3_DYNAMODB / "README.md", "roadstead repo list"), {"./registry.env": str(self.folder / "registry.env")})
        return shell(f"{keys}\n{commands}", S3_DYNAMODB, self.env).stdout

    def both(self) -> None:
        with self._up(self.folder / "kept") as child:
            said = self._push_and_pull()
            assert re.search(rf"^307 http://localhost:{self.s3}/registry/\S+X-Amz-Signature=", said, re.MULTILINE), said
            for address in self.registries.values():
                Registry(address).verify("team/app", "1")
            stored = run(["find", self.folder / "kept" / "objects" / "registry", "-type", "f"], timeout=20).stdout.split()
            seen = self._look(child)
            assert stored and seen.startswith("team/app\n"), seen
            missing = [path for path in stored if Path(path).name not in seen]
            assert not missing, f"not in the listing of the bucket: {missing}\n{seen}"
            assert re.search(r'"Count": [1-9]', seen), f"no items in the table: {seen}"

    def again(self) -> None:
        with self._up(self.folder / "kept"):
            for address in self.registries.values():
                Registry(address).verify("team/app", "1")

    def elsewhere(self) -> None:
        with self._up(**{"us-east-1": "eu-central-1"}) as child:
            said = self._push_and_pull()
            assert "eu-central-1" in said and "307" in said, said
            assert self._look(child).startswith("team/app\n")
