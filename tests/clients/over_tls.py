"""Clients over the server's own TLS, by a private authority that each of them is configured to trust, and the machine is not.

The registry has a name, since certificates are about names, and docker takes any certificate on 127.0.0.0/8: so the name is one of ::1
where this machine has that address. Only the commands themselves find the name: each runs in a mount namespace with an /etc/hosts of its own.
"""

from __future__ import annotations

import http.client
import itertools
import os
import shutil
import socket
import ssl
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Callable, Iterator, List, Mapping, Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import TIMEOUT, Setting, client, need_root, refused, tool  # noqa: E402
from containerd import Ctr  # noqa: E402
from docker import Docker  # noqa: E402
from engines import Containerd, Dockerd, Engine  # noqa: E402
from harness import HarnessError, Result, Server, run, wait_until  # noqa: E402
from harness.backend import Backend  # noqa: E402
from harness.process import Finished  # noqa: E402
from podman import Podman  # noqa: E402
from private import remembering  # noqa: E402
from recipes import REGISTRY, knowing  # noqa: E402
from skopeo import Skopeo  # noqa: E402
from verify import Registry  # noqa: E402
from verify import TIMEOUT as READ_TIMEOUT

# How often the certificate is renewed under the load of clients.
RENEWALS = 6
SECONDS_BETWEEN = 1.5


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class Authority:
    """A private authority in a folder, which also has the server's certificate and key. Clients know `ca.crt`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.certificate, self.key = folder / "registry.crt", folder / "registry.key"
        # What clients are given: skopeo and podman take every certificate of the folder for an authority's.
        self.trust = folder / "trust"
        self.trust.mkdir()
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "trust/ca.crt")
        (folder / "registry.ext").write_text(f"subjectAltName = DNS:{REGISTRY}\n")
        # Keys in the forms in which OpenSSL writes them: PKCS#1, SEC 1 with its parameters before it, PKCS#8.
        self._kinds = itertools.cycle((
            ("genrsa", "-traditional", "-out", "new.key", "2048"),
            ("ecparam", "-name", "prime256v1", "-genkey", "-out", "new.key"),
            ("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "new.key"),
        ))
        self.renew()

    def _openssl(self, *words: str) -> None:
        run([tool("openssl"), *words], timeout=TIMEOUT, cwd=self.folder)

    def renew(self) -> None:
        """A new certificate and a new key take the places of the old ones, one after the other."""
        self._openssl(*next(self._kinds))
        self._openssl("req", "-new", "-key", "new.key", "-subj", f"/CN={REGISTRY}", "-out", "new.csr")
        sign = ["-CA", "trust/ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "registry.ext"]
        self._openssl("x509", "-req", "-in", "new.csr", *sign, "-out", "new.crt")
        (self.folder / "new.key").chmod(0o600)
        os.replace(self.folder / "new.crt", self.certificate)
        os.replace(self.folder / "new.key", self.key)


class TlsServer(Server):
    """A server with a pair of an authority, at ::1 where that exists."""

    def __init__(self, authority: Authority, backend: Optional[Backend] = None) -> None:
        super().__init__("--tls-cert", authority.certificate, "--tls-key", authority.key, backend=backend)
        self.host = "::1" if has_ipv6() else "127.0.0.1"
        self._trust = ssl.create_default_context(cafile=str(authority.trust / "ca.crt"))

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        """A connection that checks the certificate for the registry's name."""
        plain = socket.create_connection((self.host, self.port), timeout=timeout)
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=timeout)
        connection.sock = self._trust.wrap_socket(plain, server_hostname=REGISTRY)
        return connection

    def _ready(self) -> bool:
        try:
            connection = self.connect(2)
            try:
                connection.request("GET", "/readyz")
                return connection.getresponse().status == 200
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return False


class TlsRegistry(Registry):
    """A server with TLS, as its clients name it."""

    def __init__(self, server: TlsServer, authority: Authority, log: Callable[[], str]) -> None:
        super().__init__(f"{REGISTRY}:{server.port}", log=log)
        self.server, self.authority = server, authority

    def connect(self) -> http.client.HTTPConnection:
        return self.server.connect(READ_TIMEOUT)


def start(stack: ExitStack, work: Path, log: Callable[[Server], str]) -> Registry:
    """A server that answers at its name to everybody: it listens on loopback, where other names are refused."""
    authority = Authority(work / "authority")
    server = TlsServer(authority)
    server.flags += ["--allow-host", REGISTRY]
    stack.enter_context(server)
    return TlsRegistry(server, authority, lambda: log(server))


def _registry(setting: Setting) -> TlsRegistry:
    assert isinstance(setting.registry, TlsRegistry)
    return setting.registry


def _prefix(setting: Setting, folder: Path) -> List[str]:
    return knowing(folder, _registry(setting).server.host)


# --- docker ---


class NamedDockerd(Dockerd):
    """A daemon that finds the registry's name, with an /etc/docker of its own."""

    def __init__(self, folder: Path, env: Mapping[str, str], host: str = "127.0.0.1") -> None:
        """`host` is the address of the registry."""
        self.etc = folder / "etc"
        self.etc.mkdir(parents=True)
        self._prefix = knowing(folder, host, self.etc)
        super().__init__(folder, env)

    def command(self) -> Sequence[str]:
        words = list(super().command())
        # It starts its own containerd, in its own mount namespace: another one would not see the root of a container.
        at = words.index("--containerd")
        return [*self._prefix, *words[:at], *words[at + 2 :]]

    def __enter__(self) -> "NamedDockerd":
        Engine.__enter__(self)
        return self

    def __exit__(self, *_: object) -> None:
        Engine.__exit__(self)

    def trusts(self, authority: Path, address: str) -> None:
        """Makes the certificate of an authority known for the registry with this address."""
        trust = self.etc / "certs.d" / address
        trust.mkdir(parents=True)
        shutil.copy(authority, trust / "ca.crt")


def docker(setting: Setting) -> Iterator[Result]:
    need_root()
    registry = _registry(setting)
    first, second = (NamedDockerd(setting.folder(name), setting.home(name), registry.server.host) for name in ("da", "db"))
    with first as one, second as two:
        checks = Docker(setting, one, two, "docker")
        label = f"docker {one.version}"

        def untrusted() -> None:
            done = one.docker("pull", setting.reference("docker/app:1"), ok=None)
            assert done.returncode != 0 and "x509" in done.stderr, f"not refused for its certificate: {done}"

        if has_ipv6():
            yield setting.check(f"{label}: without the authority's certificate it refuses", untrusted)
        for daemon in (one, two):
            daemon.trusts(registry.authority.trust / "ca.crt", registry.address)
        yield setting.check(f"{label}: push", checks.push, "app")
        yield setting.check(f"{label}: pull and run with another daemon", checks.pull_and_run, "app")
        yield setting.check(f"{label}: push of 40 MB", checks.push, "medium")
        yield setting.check(f"{label}: pull and run of 40 MB", checks.pull_and_run, "medium")


# --- containerd ---


class NamedContainerd(Containerd):
    """A containerd whose daemon and client find the registry's name, and have its authority in a folder of hosts."""

    def __init__(self, setting: Setting) -> None:
        folder, registry = setting.folder("ctr"), _registry(setting)
        self._prefix = _prefix(setting, folder)
        self.hosts = folder / "hosts.d"
        named = self.hosts / registry.address
        named.mkdir(parents=True)
        shutil.copy(registry.authority.trust / "ca.crt", named)
        server = f"https://{registry.address}"
        capabilities = 'capabilities = ["pull", "resolve", "push"]'
        (named / "hosts.toml").write_text(f'server = "{server}"\nca = "ca.crt"\n[host."{server}"]\n  {capabilities}\n  ca = "ca.crt"\n')
        super().__init__(folder, setting.home("ctr"))

    def command(self) -> Sequence[str]:
        return [*self._prefix, *super().command()]

    def ctr(self, *words: object, timeout: float = TIMEOUT, ok: Optional[Sequence[int]] = (0,)) -> Finished:
        own: List[str] = []
        for word in map(str, words):
            own += ["--hosts-dir", str(self.hosts)] if word == "--plain-http" else [word]
        return run([*self._prefix, self.client, "-a", self.socket, *own], timeout=timeout, env=self.env, ok=ok)


def containerd(setting: Setting) -> Iterator[Result]:
    need_root()
    with NamedContainerd(setting) as daemon:
        checks = Ctr(setting, daemon, "ctr")
        label = f"containerd {daemon.version}"

        def untrusted() -> None:
            done = daemon.ctr("images", "pull", setting.reference("ctr/app:1"), ok=None)
            assert done.returncode != 0 and "certificate" in done.stderr, f"not refused for its certificate: {done}"

        yield setting.check(f"{label}: without the authority's certificate it refuses", untrusted)
        yield setting.check(f"{label}: push", checks.push, "app")
        yield setting.check(f"{label}: pull and compare", checks.pull, "app")
        yield setting.check(f"{label}: run", checks.runs, "app")
        yield setting.check(f"{label}: push an index of three platforms", checks.push, "multi")
        yield setting.check(f"{label}: pull every platform and compare", checks.pull, "multi")


# --- skopeo and podman ---


class TlsSkopeo(Skopeo):
    """The same commands, which check the certificate."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.prefix = _prefix(setting, setting.folder("skopeo"))

    def skopeo(self, *words: object, memory: str = "memory", **more: object) -> Finished:
        prefix = [*self.prefix, *remembering(self.setting.folder(memory))]
        return client([*prefix, tool("skopeo"), *_checking(self.setting, words)], self.env, **more)

    def untrusted(self) -> None:
        refused([*self.prefix, tool("skopeo"), "inspect", self.remote("app:1")], self.env, "certificate")


def skopeo(setting: Setting) -> Iterator[Result]:
    need_root()
    checks = TlsSkopeo(setting)
    yield setting.check("skopeo: without the authority's certificate it refuses", checks.untrusted)
    yield setting.check("skopeo: copy an image there and back", checks.there_and_back, "app")
    yield setting.check("skopeo: copy --all of an index there and back", checks.there_and_back, "multi")
    yield setting.check("skopeo: copy that compresses on the way", checks.compressing)
    yield setting.check("skopeo: no copy fails while the certificate is renewed again and again", renewals, setting, checks)


class TlsPodman(Podman):
    """The same commands, which check the certificate."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.prefix = _prefix(setting, setting.folder("podman"))

    def podman(self, store: Path, *words: object, more_env: Optional[dict] = None, **more: object) -> Finished:
        flags = ["--root", store / "root", "--runroot", store / "run", "--storage-driver", "overlay"]
        flags += ["--cgroup-manager=cgroupfs", "--events-backend=none", "--runtime", tool("runc"), "--tmpdir", store / "tmp"]
        prefix = [*self.prefix, *remembering(store / "memory")]
        command = [*prefix, tool("podman"), *flags, *_checking(self.setting, words)]
        return client(command, {**self.env, **(more_env or {})}, **more)

    def untrusted(self) -> None:
        done = self.podman(self.first, "pull", "-q", self.setting.reference("podman/app:1"), ok=None)
        assert done.returncode != 0 and "certificate" in done.stderr, f"not refused for its certificate: {done}"


def podman(setting: Setting) -> Iterator[Result]:
    need_root()
    checks = TlsPodman(setting)
    try:
        yield setting.check("podman: without the authority's certificate it refuses", checks.untrusted)
        yield setting.check("podman: push", checks.push, "app")
        yield setting.check("podman: pull and run", checks.pull_and_run, "app")
    finally:
        checks.stop()


def _checking(setting: Setting, words: Sequence[object]) -> List[object]:
    """A command's words with the authority's certificate where they say that none is checked."""
    trust = _registry(setting).authority.trust
    changed = {f"--{side}tls-verify=false": f"--{side}cert-dir={trust}" for side in ("", "src-", "dest-")}
    return [changed.get(str(word), word) for word in words]


def renewals(setting: Setting, checks: TlsSkopeo) -> str:
    """Copies there and back, of two at once, while the pair is renewed as certbot does it: without any signal to the server."""
    authority, server = _registry(setting).authority, _registry(setting).server
    ended, failed, copies = threading.Event(), [], []  # type: ignore[var-annotated]
    source = f"oci:{setting.images.app}:1"

    def copy(number: int) -> None:
        try:
            while not ended.is_set():
                remote = checks.remote(f"renewed-{number}:{len(copies)}")
                back = setting.folder(f"renewed-{number}") / str(len(copies))
                memory = f"memory-{number}"
                checks.skopeo("copy", "-q", "--dest-tls-verify=false", "--preserve-digests", source, remote, memory=memory)
                checks.skopeo("copy", "-q", "--src-tls-verify=false", "--preserve-digests", remote, f"oci:{back}:1", memory=memory)
                copies.append(back)
        except BaseException as error:  # raised again by the thread that waits
            failed.append(error)

    def served() -> bytes:
        connection = server.connect(READ_TIMEOUT)
        try:
            return connection.sock.getpeercert(binary_form=True)  # type: ignore[union-attr]
        finally:
            connection.close()

    threads = [threading.Thread(target=copy, args=[number], daemon=True) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(RENEWALS):
            before = served()
            authority.renew()
            wait_until(lambda: failed or served() != before, 20, "the new certificate is served")
            ended.wait(SECONDS_BETWEEN)
    finally:
        ended.set()
        for thread in threads:
            thread.join(TIMEOUT)
    if failed:
        raise HarnessError(f"a copy failed: {failed[0]}")
    assert len(copies) >= RENEWALS, f"only {len(copies)} copies"
    return f"{len(copies)} copies there and back during {RENEWALS} renewals"
