"""The part `image`: the container image of infra/image, from its build to a push through a container of it.

The image is built as its README says, but with the profile `release`, whose compiled libraries it shares; `--full` also
builds it with its own profile. Containers have the host's network, or none: what else an engine would set up for them, and with it the
published port of the READMEs, is not tested.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence

from recipes import (  # noqa: I001 - it makes the modules of tests/clients known
    LOCAL, PASSWORD, REGISTRY, TIMEOUT, USER, collected, console, filled, need_root, path_with, shell, steps, tool,
)  # fmt: skip
from harness import Child, Context, HarnessError, Result, Server, cache_dir, check, free_port, run, scratch, wait_until
from harness.aws import Credentials
from harness.build import built_image, image, roadstead
from harness.cache import ROOT
from harness.dns import NameServer
from harness.process import Finished
from conformance import suite
from engines import Dockerd
from images import Images
from infra_local import accepts, push_and_pull
from private import remembering
from verify import Registry, compare_layouts, root_digest

IMAGE = ROOT / "infra" / "image"
BUILDER = IMAGE / "build.py"
README = IMAGE / "README.md"
# The maximum size that the README of the image states, in bytes as a registry counts them.
MOST = 30_000_000
USER_ID = 65532
DATA = "/var/lib/roadstead"
# Every file of the image; the folders around them are all that there is beside.
FILES = ["bin/roadstead", "etc/ssl/certs/ca-certificates.crt"]


def main(context: Context) -> List[Result]:
    families = {"image": contents, "registry": distribution, "docker": docker, "podman": podman}
    if context.full:
        families["docker 28"] = docker_28
        families["dist"] = dist
    found: List[Result] = []
    # Short folder names: container engines keep sockets in them, whose names are bounded.
    with scratch("image") as work:
        for number, (name, family) in enumerate(families.items()):
            found += collected(name, family, work / str(number))
    return found


def version() -> str:
    return re.findall(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[0]


def name() -> str:
    return f"localhost/roadstead:{version()}"


def blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


def read(layout: Path, digest: str) -> dict:
    return json.loads(blob(layout, digest))


def build(*words: object, ok: Sequence[int] = (0,)) -> Finished:
    return run([BUILDER, *map(str, words)], TIMEOUT, ok=ok)


# --- what it is ---


def contents(folder: Path) -> Iterator[Result]:
    yield check("image: built from the libraries that are compiled already", built)
    yield check("image: the same program gives the same bytes", reproducible, folder)
    yield check(f"image: at most {MOST // 1_000_000} MB", small, folder)
    yield check("image: one program, one bundle of certificates, an unprivileged user", nothing_else, folder)
    yield check("image: the build refuses what would not run", refusals, folder)
    yield check("image: the READMEs name this version and existing files", readmes)


def built() -> str:
    found = image()
    assert set(found.compiled) <= {"serve-standalone"}, f"compiled once more: {found.compiled}"
    assert root_digest(str(found.layout)) in found.said, found.said
    return found.said.splitlines()[0]


def reproducible(folder: Path) -> None:
    """Builds the image again from the program inside, at another time and in another folder."""
    found = image()
    program = folder / "roadstead"
    program.write_bytes(unpacked(found.layout, folder)["bin/roadstead"])
    build("--binary", program, "--output", folder / "layout", "--archive", folder / "again.tar")
    assert root_digest(str(folder / "layout")) == root_digest(str(found.layout))
    assert (folder / "again.tar").read_bytes() == found.archive.read_bytes(), "the archives differ"
    environment = {"SOURCE_DATE_EPOCH": "1600000000"}
    run([BUILDER, "--binary", program, "--output", folder / "layout"], TIMEOUT, env=environment)
    assert root_digest(str(folder / "layout")) != root_digest(str(found.layout)), "the time of creation changed nothing"


def small(folder: Path) -> str:
    layout = image().layout
    size = sum(path.stat().st_size for path in (layout / "blobs").rglob("*") if path.is_file())
    assert size <= MOST, f"{size} bytes"
    assert f"at most\n{MOST // 1_000_000} MB" in README.read_text(), "README.md states another limit"
    on_disk = sum(map(len, unpacked(layout, folder).values()))
    return f"{size / 1e6:.1f} MB to fetch, {on_disk / 1e6:.1f} MB unpacked"


def unpacked(layout: Path, folder: Path) -> Dict[str, bytes]:
    """Returns the files of all layers by their names."""
    found: Dict[str, bytes] = {}
    for layer in read(layout, root_digest(str(layout)))["layers"]:
        with tarfile.open(layout / "blobs" / layer["digest"].replace(":", "/"), "r:gz") as tar:
            for entry in tar:
                owner = USER_ID if f"/{entry.name}" == DATA else 0
                assert (entry.uid, entry.gid) == (owner, owner), f"{entry.name} belongs to {entry.uid}:{entry.gid}"
                assert entry.isfile() or entry.isdir(), f"{entry.name} is neither a file nor a folder"
                file = tar.extractfile(entry)
                if file is not None:
                    found[entry.name] = file.read()
    return found


def nothing_else(folder: Path) -> str:
    layout = image().layout
    files = unpacked(layout, folder)
    assert sorted(files) == FILES, sorted(files)
    authorities = files["etc/ssl/certs/ca-certificates.crt"].count(b"-----BEGIN CERTIFICATE-----")
    assert authorities >= 50, f"{authorities} certificates"
    manifest = read(layout, root_digest(str(layout)))
    image_config = read(layout, manifest["config"]["digest"])
    settings = image_config["config"]
    assert settings["User"] == f"{USER_ID}:{USER_ID}", settings
    assert settings["Volumes"] == {DATA: {}} and settings["ExposedPorts"] == {"5000/tcp": {}}, settings
    # No user, no password and no permission for strangers is given by default.
    assert settings["Env"] == ["PATH=/bin", "ROADSTEAD_LISTEN=0.0.0.0:5000", f"ROADSTEAD_DATA={DATA}"], settings
    labels = settings["Labels"]
    assert labels["org.opencontainers.image.version"] == version(), labels
    head = run(["git", "rev-parse", "HEAD"], 20, cwd=ROOT, ok=None)
    if head.returncode == 0:
        assert labels["org.opencontainers.image.revision"].split("-")[0] == head.stdout.strip(), labels
    return f"{authorities} authorities"


def refusals(folder: Path) -> None:
    """The build refuses each of these with a reason that says what to do."""
    for words, reason in (
        (["--binary", roadstead()], "link it statically"),
        (["--binary", "/bin/sh", "--ca-bundle", "/dev/null"], "no certificate"),
        (["--binary", README], "not a 64-bit little-endian ELF program"),
        (["--binary", tool("busybox")], "another program"),
    ):
        done = build(*words, "--output", folder / "refused", ok=(1,))
        assert reason in done.stderr and "Traceback" not in done.stderr, done
    taken = folder / "taken"
    taken.mkdir()
    (taken / "letter").write_text("not an image\n")
    done = build("--binary", folder / "roadstead", "--output", taken, ok=(1,))
    assert "not an image layout" in done.stderr and (taken / "letter").is_file(), done


def readmes() -> None:
    for path in (README, ROOT / "README.md", ROOT / "samples" / "compose" / "compose.yaml"):
        named = set(re.findall(r"localhost/roadstead:[\w.-]+", path.read_text()))
        assert named == {name()}, f"{path.relative_to(ROOT)} names {sorted(named)}"


def dist(folder: Path) -> Iterator[Result]:
    """Runs the one command of the README, which uses the profile `dist`."""
    yield check("image: built with the profile dist", with_dist, folder)


def with_dist(folder: Path) -> str:
    found = built_image("dist", folder)
    files = unpacked(found.layout, folder)
    program = folder / "roadstead"
    program.write_bytes(files["bin/roadstead"])
    program.chmod(0o755)
    with Server() as server:
        # The program of the image speaks to a server of the other profile.
        output = run([program, "health", "--listen", server.address], 20).stdout
        assert output.strip() == "ready", output
    return found.said.splitlines()[0]


# --- through a registry ---


def distribution(folder: Path) -> Iterator[Result]:
    """Our own registry holds its own image."""
    with Server() as server:
        yield check("image: skopeo pushes and pulls it, every byte", by_skopeo, folder, server)
        yield check("image: crane pushes and pulls it, every byte", by_crane, folder, server)


def by_skopeo(folder: Path, server: Server) -> None:
    layout, back = image().layout, folder / "skopeo"
    target = f"docker://{server.address}/skopeo/roadstead:{version()}"
    skopeo = [*remembering(folder / "memory"), tool("skopeo"), "copy", "-q", "--preserve-digests"]
    run([*skopeo, "--dest-tls-verify=false", f"oci:{layout}", target], TIMEOUT, env={"HOME": str(folder)})
    Registry(server.address).verify("skopeo/roadstead", version(), expect=root_digest(str(layout)))
    run([*skopeo, "--src-tls-verify=false", target, f"oci:{back}:1"], TIMEOUT, env={"HOME": str(folder)})
    compare_layouts(str(layout), str(back))


def by_crane(folder: Path, server: Server) -> None:
    layout, back = image().layout, folder / "crane"
    target, env = f"{server.address}/crane/roadstead:{version()}", {"DOCKER_CONFIG": str(folder / "docker")}
    run([tool("crane"), "push", layout, target], TIMEOUT, env=env)
    run([tool("crane"), "pull", "--format", "oci", target, back], TIMEOUT, env=env)
    compare_layouts(str(layout), str(back))


# --- in containers ---


class Engine:
    """A container engine as the checks use it: `run` takes the words of docker's command line, which podman shares."""

    # What the engine needs beside a README's flags to start a container here.
    flags: List[str] = []

    def __init__(self, label: str, folder: Path) -> None:
        self.label, self.folder = label, folder

    def run(self, *words: object, ok: Optional[Sequence[int]] = (0,), input: Optional[str] = None) -> Finished:
        raise NotImplementedError

    def client(self) -> Dict[str, str]:
        """The environment in which `docker` is this engine's client, for the commands of a README."""
        raise NotImplementedError


class DockerEngine(Engine):
    def __init__(self, folder: Path, daemon: Dockerd) -> None:
        super().__init__(f"docker {daemon.version}", folder)
        self._daemon = daemon

    def run(self, *words: object, ok: Optional[Sequence[int]] = (0,), input: Optional[str] = None) -> Finished:
        return self._daemon.docker(*words, ok=ok, input=input)

    def client(self) -> Dict[str, str]:
        return {**self._daemon.env, "DOCKER_HOST": f"unix://{self._daemon.socket}", "PATH": path_with(Path(self._daemon.client))}


class PodmanEngine(Engine):
    # Its own defaults exceed what this machine may allow.
    flags = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=1024:1024"]

    def __init__(self, folder: Path) -> None:
        super().__init__("podman", folder)
        store = folder / "p"
        self._env = home(folder)
        flags = ["--root", f"{store}/root", "--runroot", f"{store}/run", "--storage-driver", "overlay", "--tmpdir", f"{store}/tmp"]
        flags += ["--cgroup-manager=cgroupfs", "--events-backend=none", "--runtime", tool("runc")]
        # A command of the name that the READMEs use.
        self._command = folder / "bin" / "docker"
        self._command.parent.mkdir()
        self._command.write_text(f'#!/bin/sh\nexec {tool("podman")} {" ".join(flags)} "$@"\n')
        self._command.chmod(0o755)

    def run(self, *words: object, ok: Optional[Sequence[int]] = (0,), input: Optional[str] = None) -> Finished:
        return run([self._command, *map(str, words)], TIMEOUT, env=self._env, ok=ok, input=input)

    def client(self) -> Dict[str, str]:
        return {**self._env, "PATH": path_with(self._command)}


def home(folder: Path) -> Dict[str, str]:
    """A home for a client, with none of this machine's credentials."""
    own = folder / "home"
    own.mkdir(exist_ok=True)
    (own / "auth.json").write_text("{}")
    return {"HOME": str(own), "DOCKER_CONFIG": str(own), "REGISTRY_AUTH_FILE": str(own / "auth.json"), "XDG_RUNTIME_DIR": str(own)}


def docker(folder: Path, generation: str = "") -> Iterator[Result]:
    need_root()
    with Dockerd(folder / "d", home(folder), generation) as daemon:
        yield from containers(Containers(DockerEngine(folder, daemon)), whole=not generation)


def docker_28(folder: Path) -> Iterator[Result]:
    yield from docker(folder, "docker28/")


def podman(folder: Path) -> Iterator[Result]:
    need_root()
    yield from containers(Containers(PodmanEngine(folder)), whole=False)


def containers(checks: "Containers", whole: bool) -> Iterator[Result]:
    """Yields the checks in their order, because each needs those before it. `whole` adds those that do not depend on the engine."""
    label = checks.engine.label
    try:
        yield check(f"image in {label}: loaded, with users, run as the README says", checks.start)
        yield check(f"image in {label}: refuses to start without users", checks.no_users)
        yield check(f"image in {label}: unprivileged, without capabilities, on a read-only root", checks.confined)
        yield check(f"image in {label}: healthy, by its own command", checks.healthy)
        yield check(f"image in {label}: /v2/, push and pull, with the password alone", checks.push_and_pull)
        yield check(f"image in {label}: stops in good order, and has its data when it starts again", checks.stop_and_start)
        if whole:
            yield check(f"image in {label}: an account first, then the server and a login, as the first page says", checks.account_first)
            yield check(f"image in {label}: --version", checks.version)
            yield from checks.conformance()
            yield from trust_and_names(checks.engine)
    finally:
        for container in ("registry", *checks.others):
            checks.engine.run("rm", "-f", container, ok=None)


class Containers:
    """Starts one container by the commands of infra/image/README.md, and checks what it does."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.port, self.others = engine, free_port(), []
        self.address = f"127.0.0.1:{self.port}"

    def start(self) -> None:
        shutil.copy(image().archive, self.engine.folder / "roadstead.tar")
        network = ["--network", "host", "--env", f"ROADSTEAD_LISTEN={self.address}", *self.engine.flags]
        commands = filled(
            steps(README, "docker load"),
            {
                "docker run --rm -i ": f"docker run --rm -i --network none {' '.join(self.engine.flags)} ",
                "-p 127.0.0.1:5000:5000 ": f"{' '.join(network)} ",
                "user add alice": f"user add {USER}",
            },
        )
        shell(commands, self.engine.folder, self.engine.client(), input=f"{PASSWORD}\n")
        self.up()

    def up(self) -> None:
        wait_until(lambda: not self.running() or accepts(self.port), 30, "the container listens")
        assert self.running(), self.log()

    def state(self) -> dict:
        return json.loads(self.engine.run("inspect", "registry").stdout)[0]["State"]

    def running(self) -> bool:
        return self.state()["Running"]

    def log(self) -> str:
        done = self.engine.run("logs", "registry")
        return done.stdout + done.stderr

    def no_users(self) -> None:
        done = self.engine.run("run", "--rm", "--network", "none", "--read-only", *self.engine.flags, name(), ok=(2,))
        for remedy in ("--htpasswd", "--allow-anonymous"):
            assert remedy in done.stdout + done.stderr, done

    def confined(self) -> str:
        process = self.state()["Pid"]
        status = Path(f"/proc/{process}/status").read_text()
        facts = dict(re.findall(r"^(\w+):\s*(.*)$", status, re.MULTILINE))
        assert facts["Uid"].split() == [str(USER_ID)] * 4 and facts["Gid"].split() == [str(USER_ID)] * 4, facts
        assert int(facts["CapEff"], 16) == 0 and int(facts["CapBnd"], 16) == 0 and facts["NoNewPrivs"] == "1", facts
        mounts = [line.split() for line in Path(f"/proc/{process}/mountinfo").read_text().splitlines()]
        root = next(mount for mount in mounts if mount[4] == "/")
        assert "ro" in root[5].split(","), root
        return f"process {process}"

    def healthy(self) -> None:
        output = self.engine.run("exec", "registry", "roadstead", "health", "--push").stdout
        assert output.strip() == "ready", output

    def push_and_pull(self) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=TIMEOUT)
        connection.request("GET", "/v2/")
        answer = connection.getresponse()
        assert answer.status == 401 and answer.getheader("Docker-Distribution-API-Version") == "registry/2.0", answer.status
        connection.close()
        # A folder of its own for what the client pulls.
        push_and_pull(self.made("client"), self.address)

    def made(self, name: str) -> Path:
        folder = self.engine.folder / name
        folder.mkdir()
        return folder

    def stop_and_start(self) -> None:
        self.engine.run("stop", "-t", "20", "registry")
        assert self.state()["ExitCode"] == 0, f"exit code {self.state()['ExitCode']}\n{self.log()}"
        assert not accepts(self.port), "it still listens"
        self.engine.run("start", "registry")
        self.up()
        self.healthy()
        Registry(self.address, USER, PASSWORD).verify("team/app", "1")

    def account_first(self) -> None:
        """Runs the block of the README of the repository. No terminal asks for the password here."""
        self.others.append("accounts")
        port = free_port()
        flags, given = " ".join(self.engine.flags), f"--password-stdin <<< '{PASSWORD}'"
        commands = filled(
            console(ROOT / "README.md", "docker load"),
            {
                # The image is there.
                "infra/image/build.py --archive roadstead.tar\n": "",
                "docker run --rm -it ": f"docker run --rm -i --network none {flags} ",
                "user add alice --admin": f"user add {USER} --admin {given}",
                "--name registry ": "--name accounts ",
                "-v roadstead:": "-v accounts:",
                "-p 127.0.0.1:5000:5000 ": f"--network host --env ROADSTEAD_LISTEN=127.0.0.1:{port} {flags} ",
                "docker login 127.0.0.1:5000 -u alice": f"docker login 127.0.0.1:{port} -u {USER} {given}",
            },
        )
        start, login = commands.split("docker login", 1)
        shell(start, self.engine.folder, self.engine.client())
        wait_until(lambda: accepts(port), 30, "the container listens")
        shell(f"docker login{login}", self.engine.folder, self.engine.client())
        listed = self.engine.run("exec", "accounts", "roadstead", "user", "list").stdout
        assert USER in listed, listed
        assert Registry(f"127.0.0.1:{port}").request("GET", "/v2/_catalog").status == 401, "open to strangers"

    def version(self) -> str:
        output = self.engine.run("run", "--rm", "--network", "none", *self.engine.flags, name(), "--version").stdout
        found = re.match(rf"roadstead {re.escape(version())}\ncommit: (\S+)", output)
        assert found, output
        layout = image().layout
        labels = read(layout, read(layout, root_digest(str(layout)))["config"]["digest"])["config"]["Labels"]
        assert found.group(1) == labels.get("org.opencontainers.image.revision", "unknown"), (output, labels)
        return found.group(1)

    def conformance(self) -> List[Result]:
        """Runs the official suite against a container that all clients may use."""
        self.others.append("open")
        port = free_port()
        found: List[Result] = []

        def whole() -> None:
            words = ["run", "-d", "--name", "open", "--network", "host", "--read-only", *self.engine.flags]
            words += ["--env", f"ROADSTEAD_LISTEN=127.0.0.1:{port}", name(), "serve", "--sparse", "allow"]
            self.engine.run(*words)
            wait_until(lambda: accepts(port), 30, "the container listens")
            found.extend(suite(f"127.0.0.1:{port}", "dev"))

        found.append(check("the container and the suite ran to their end", whole))
        return [Result(f"image in {self.engine.label}: {one.name}", one.ok, one.seconds, one.detail) for one in found]


# --- names and certificates ---


def trust_and_names(engine: Engine) -> Iterator[Result]:
    """A container asks an object store behind TLS, whose host name only a name server knows."""
    with NameServer({REGISTRY: "127.0.0.1"}) as names:
        checks = Cloudy(engine, names)
        with checks.store():
            yield check(f"image in {engine.label}: names from a name server, TLS by the bundle of the image", checks.push)
            yield check(f"image in {engine.label}: another authority is not trusted", checks.untrusted)
            yield check(f"image in {engine.label}: names from /etc/hosts", checks.hosts)
            yield check(f"image in {engine.label}: the endpoints of AWS are looked up", checks.endpoints)


class Cloudy:
    """A container whose blobs are in an object store, behind TLS by an authority that only the test trusts."""

    def __init__(self, engine: Engine, names: NameServer) -> None:
        self.engine, self.names, self.folder = engine, names, engine.folder / "cloud"
        self.folder.mkdir()
        self.credentials, self.port = Credentials.random(), free_port()
        # What an engine writes for its containers, where it has a network for them.
        self.resolver = self.folder / "resolv.conf"
        self.resolver.write_text(f"nameserver {names.address}\nsearch example.net\noptions ndots:3 timeout:1\n")
        self.nowhere = self.folder / "nowhere.conf"
        self.nowhere.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")

    def store(self) -> Child:
        """Starts versitygw with TLS and the certificates that the commands of infra/local/README.md make."""
        make = steps(LOCAL / "README.md", "openssl req -x509").replace("rsa:3072", "rsa:2048")
        shell(make, self.folder, {"PATH": path_with(Path(tool("openssl")))})
        # A bucket is a folder.
        for name in ("objects", "objects/first", "objects/second", "sidecar"):
            (self.folder / name).mkdir()
        key, secret, region = self.credentials
        own = {"ROOT_ACCESS_KEY": key, "ROOT_SECRET_KEY": secret, "VGW_REGION": region}
        words = [tool("versitygw"), "--port", f"127.0.0.1:{self.port}", "--cert", self.folder / "registry.crt"]
        words += ["--key", self.folder / "registry.key", "--quiet", "posix", "--sidecar", self.folder / "sidecar", self.folder / "objects"]
        child = Child(words, self.folder / "log", own, cwd=self.folder)
        wait_until(lambda: not child.alive() or accepts(self.port), 20, "versitygw listens")
        assert child.alive(), child.log_tail()
        return child

    def words(self, bucket: str, *flags: object) -> List[object]:
        """Words that start a container of the image over the store, behind `flags` of the engine."""
        environment = [word for name, value in self.credentials.environment().items() for word in ("--env", f"{name}={value}")]
        network = ["--network", "host", "--read-only", *self.engine.flags, *environment, *map(str, flags), name()]
        return [*network, "serve", "--blobs", f"s3://{bucket}", "--s3-endpoint", f"https://{REGISTRY}:{self.port}", "--pull", "proxy"]

    def mounted(self, resolver: Path) -> List[str]:
        authority = self.folder / "ca.crt"
        return ["--volume", f"{resolver}:/etc/resolv.conf:ro", "--volume", f"{authority}:/etc/ssl/certs/ca-certificates.crt:ro"]

    def serves(self, bucket: str, *flags: object) -> None:
        port = free_port()
        address = f"127.0.0.1:{port}"
        self.engine.run("run", "-d", "--name", "cloud", "--env", f"ROADSTEAD_LISTEN={address}", *self.words(bucket, *flags))
        try:
            # Ready means: the bucket was found, by its name and over TLS.
            wait_until(self.ready, 30, "the container is ready")
            layout = Images(str(cache_dir()), tool("busybox")).app
            run([tool("crane"), "push", layout, f"{address}/cloud/app:1"], TIMEOUT, env=home(self.folder))
            Registry(address).verify("cloud/app", "1", expect=root_digest(layout))
        except HarnessError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
        finally:
            self.engine.run("rm", "-f", "cloud", ok=None)

    def ready(self) -> bool:
        return self.engine.run("exec", "cloud", "roadstead", "health", ok=None).returncode == 0

    def push(self) -> None:
        self.serves("first", *self.mounted(self.resolver))
        assert REGISTRY in self.names.asked, f"the name server was asked for {self.names.asked}"

    def hosts(self) -> None:
        """The container finds the object store by /etc/hosts: its resolver answers nothing."""
        self.serves("second", "--add-host", f"{REGISTRY}:127.0.0.1", *self.mounted(self.nowhere))

    def untrusted(self) -> None:
        """The container uses the bundle of the image, which has public authorities alone, so it must refuse the object store."""
        words = self.words("first", "--volume", f"{self.resolver}:/etc/resolv.conf:ro")
        self.engine.run("run", "-d", "--name", "cloud", "--env", f"ROADSTEAD_LISTEN=127.0.0.1:{free_port()}", *words)
        try:
            wait_until(lambda: "UnknownIssuer" in self.log(), 30, "the log says that the certificate's issuer is unknown")
            assert not self.ready(), "it trusts an authority that it cannot know"
        except HarnessError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
        finally:
            self.engine.run("rm", "-f", "cloud", ok=None)

    def log(self) -> str:
        done = self.engine.run("logs", "cloud", ok=None)
        return done.stdout + done.stderr

    def endpoints(self) -> None:
        """The program asks the name server for the endpoint of AWS. The name server says that there is no such name."""
        environment = [word for name, value in self.credentials.environment().items() for word in ("--env", f"{name}={value}")]
        words = ["run", "--rm", "--network", "host", "--read-only", *self.engine.flags, *environment, *self.mounted(self.resolver)]
        words += ["--env", "AWS_REGION=eu-west-1", name(), "metadata", "init", "--metadata", "dynamodb://registry"]
        done = self.engine.run(*words, ok=(1,))
        assert "dynamodb.eu-west-1.amazonaws.com" in self.names.asked, f"asked for {self.names.asked}: {done}"
