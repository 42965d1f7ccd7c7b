"""The checks of infra/local: the systemd unit, nginx in front, the backup. Part of `samples`.

`Front` is nginx with the configuration of infra/local before a server; the samples that need TLS use it too.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional, Set

from recipes import (  # noqa: I001 - it makes the modules of tests/clients known
    LOCAL, PASSWORD, REGISTRY, TIMEOUT, USER, commands, filled, knowing, need_root, path_with, shell, steps, tool, tools, users,
)  # fmt: skip
from harness import Child, Result, Server, cache_dir, check, free_port, run, scratch, wait_until
from harness.build import roadstead
from harness.process import Finished
from common import UNAUTHORIZED, is_refusal
from images import Images
from over_tls import Authority, NamedDockerd, has_ipv6
from verify import Registry, compare_layouts, root_digest

UNIT = LOCAL / "roadstead.service"
DROP_IN = LOCAL / "tls.conf"
README = LOCAL / "README.md"
# Of `systemd-analyze security`, times ten: 100 is a service without any bound.
EXPOSURE = 15

MIB = 1 << 20
# A user id that owns nothing, as DynamicUser gives one.
UNPRIVILEGED = 64999


class Front:
    """nginx with infra/local/nginx.conf, TLS by the authority that infra/local/README.md makes; a context manager.

    `address` is how clients name it; `authority` is the certificate they need.
    """

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.port = folder, free_port()
        self.address = f"{REGISTRY}:{self.port}"
        folder.mkdir(parents=True)
        make_certificates = steps(README, "openssl req -x509").replace("rsa:3072", "rsa:2048")
        shell(make_certificates, folder, {"PATH": path_with(Path(tool("openssl")))})
        self.authority = folder / "ca.crt"
        self.access_log, self.error_log = folder / "access.log", folder / "error.log"
        ipv6 = f"listen [::1]:{self.port} ssl http2;" if has_ipv6() else ""
        site = filled(
            (LOCAL / "nginx.conf").read_text(),
            {
                "listen 443 ssl http2;": f"listen 127.0.0.1:{self.port} ssl http2;",
                "listen [::]:443 ssl http2;": ipv6,
                "server 127.0.0.1:5000;": f"server {server.address};",
                "/etc/nginx/tls/": f"{folder}/",
                "/var/log/nginx/roadstead.log": str(self.access_log),
            },
        )
        (folder / "site.conf").write_text(site)
        own = [f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/pid; error_log {self.error_log} info; {user}\n"
            f"events {{}}\nhttp {{ {' '.join(own)}\ninclude {folder}/site.conf; }}\n"
        )
        self._command = [tool("nginx"), "-e", str(self.error_log), "-c", str(folder / "nginx.conf"), "-p", str(folder)]
        self._child: Optional[Child] = None

    def __enter__(self) -> "Front":
        run([*self._command, "-t"], timeout=20)
        child = self._child = Child(self._command, self.folder / "log")
        wait_until(lambda: not child.alive() or accepts(self.port), 10, "nginx listens")
        assert child.alive(), f"nginx ended with {child.returncode}\n{child.log_tail()}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.stop()

    def connect(self, source: str = "127.0.0.1") -> http.client.HTTPSConnection:
        """A connection from an address of this machine that checks the certificate for the registry's name."""
        trust = ssl.create_default_context(cafile=str(self.authority))
        connection = http.client.HTTPSConnection(REGISTRY, timeout=TIMEOUT)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT, source_address=(source, 0))
        connection.sock = trust.wrap_socket(plain, server_hostname=REGISTRY)
        return connection


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- nginx ---


def tls(folder: Path) -> Iterator[Result]:
    """nginx is in front of a server with users. Every client trusts the private authority alone."""
    need_root()
    images = Images(str(cache_dir()), tool("busybox"))
    private = Server("--htpasswd", with_newcomers(users(folder)), *settings_of_proxy())
    with private as server, Front(folder / "front", server) as front:
        clients = TlsClients(folder, front, images)
        registry = Registry(server.address, USER, PASSWORD)
        yield check("nginx: a client without the authority's certificate refuses", clients.untrusted)
        yield check("nginx: crane pushes and pulls, on HTTP/2", clients.crane)
        yield check("nginx: crane gets its tokens through it", got_tokens, front, "go-containerregistry")
        yield check("nginx: skopeo pushes and pulls", clients.skopeo, registry)
        yield check("nginx: docker logs in, pushes, pulls and logs out", clients.docker, registry)
        yield check("nginx: 100 MB in chunks stream in and out without a file", stream, front, server)
        yield check("nginx: no token in the access log", no_token, front)
        yield check("nginx: users log in while another client guesses passwords", logins_while_others_guess, front, server)


class TlsClients:
    """Clients that find the registry by its name."""

    def __init__(self, folder: Path, front: Front, images: Images) -> None:
        self.folder, self.front, self.layout = folder, front, images.app
        self.prefix = knowing(folder)
        self.env = {"HOME": str(folder), "DOCKER_CONFIG": str(folder / "docker"), "XDG_RUNTIME_DIR": str(folder)}

    def run_crane(self, *words: object, trust: bool = True, **more: object) -> Finished:
        env = {**self.env, "SSL_CERT_FILE": str(self.front.authority)} if trust else self.env
        return run([*self.prefix, tool("crane"), *map(str, words)], timeout=TIMEOUT, env=env, **more)  # type: ignore[arg-type]

    def untrusted(self) -> None:
        done = self.run_crane("digest", f"{self.front.address}/a:1", trust=False, ok=None)
        assert done.returncode != 0 and "certificate" in done.stderr, f"not refused for its certificate: {done}"

    def crane(self) -> None:
        address, back = self.front.address, self.folder / "crane-back"
        self.run_crane("auth", "login", address, "-u", USER, "--password-stdin", input=PASSWORD)
        self.run_crane("push", self.layout, f"{address}/team/crane:1")
        self.run_crane("pull", "--format", "oci", f"{address}/team/crane:1", back)
        compare_layouts(self.layout, str(back))
        spoken = re.findall(r'"(?:PATCH|PUT) /v2/team/crane/\S+ (\S+)"', self.front.access_log.read_text())
        assert spoken and set(spoken) == {"HTTP/2.0"}, f"crane pushed with {spoken}"

    def skopeo(self, registry: Registry) -> None:
        trust, back = self.folder / "certs", self.folder / "skopeo-back"
        trust.mkdir()
        shutil.copy(self.front.authority, trust)
        reference, login = f"docker://{self.front.address}/team/skopeo:1", f"{USER}:{PASSWORD}"
        skopeo = [*self.prefix, tool("skopeo"), "copy", "-q", "--preserve-digests"]
        run([*skopeo, "--dest-cert-dir", trust, "--dest-creds", login, f"oci:{self.layout}:1", reference], TIMEOUT, env=self.env)
        registry.verify("team/skopeo", "1", expect=root_digest(self.layout))
        run([*skopeo, "--src-cert-dir", trust, "--src-creds", login, reference, f"oci:{back}:1"], TIMEOUT, env=self.env)
        compare_layouts(self.layout, str(back))

    def docker(self, registry: Registry) -> str:
        reference = f"{self.front.address}/team/docker:1"
        with NamedDockerd(self.folder / "d", {**self.env, "PATH": os.environ["PATH"], "DOCKER_CONFIG": str(self.folder / "login")}) as engine:
            engine.trusts(self.front.authority, self.front.address)
            engine.docker("import", "-", reference, input="")
            is_refusal(engine.docker("push", reference, ok=None), *UNAUTHORIZED)
            engine.docker("login", self.front.address, "-u", USER, "--password-stdin", input=PASSWORD)
            pushed = re.findall(r"digest: (sha256:[0-9a-f]{64})", engine.docker("push", reference).stdout)
            registry.verify("team/docker", "1", expect=pushed[0])
            engine.docker("rmi", reference)
            engine.docker("pull", reference)
            engine.docker("logout", self.front.address)
            engine.docker("rmi", reference)
            is_refusal(engine.docker("pull", reference, ok=None), *UNAUTHORIZED)
        return got_tokens(self.front, "docker/")


def stream(front: Front, server: Server) -> None:
    """The server has the first half of a body before the second half is sent: nothing on the way waits for the whole."""
    block, half = os.urandom(MIB), 50
    login = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
    digest = hashlib.sha256(block * (2 * half)).hexdigest()

    def stored() -> int:
        return sum(path.stat().st_size for path in (server.data / "blobs").rglob("*") if path.is_file())

    before = stored()

    def body() -> Iterator[bytes]:
        for _ in range(half):
            yield block
        # Some of it is on its way: in nginx, in sockets, in the server's own batches.
        wait_until(lambda: stored() - before > (half - 10) * MIB, 20, "the server stores what was sent so far")
        for _ in range(half):
            yield block

    connection = front.connect()
    try:
        location = asked(connection, "POST", "/v2/team/stream/blobs/uploads/", 202, headers=login)
        location = asked(connection, "PATCH", location, 202, body(), login)
        assert location.startswith("/v2/"), f"a Location that a front could break: {location}"
        asked(connection, "PUT", f"{location}{'&' if '?' in location else '?'}digest=sha256:{digest}", 201, headers=login)
        connection.request("GET", f"/v2/team/stream/blobs/sha256:{digest}", headers=login)
        answer = connection.getresponse()
        whole = hashlib.sha256()
        while piece := answer.read(MIB):
            whole.update(piece)
        assert answer.status == 200 and whole.hexdigest() == digest, f"{answer.status}, other bytes than were sent"
    finally:
        connection.close()
    found = [line for line in front.error_log.read_text().splitlines() if "temporary file" in line]
    assert not found, "nginx wrote a file: " + found[0]


def asked(
    connection: http.client.HTTPSConnection,
    method: str,
    target: str,
    expected: int,
    body: object = b"",
    headers: Optional[Dict[str, str]] = None,
) -> str:
    """Makes a request and returns the answer's Location. A body that is an iterator is sent chunked."""
    connection.request(method, target, body, headers or {}, encode_chunked=not isinstance(body, bytes))  # type: ignore[arg-type]
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == expected, f"{method} answered {answer.status}: {text[:500]!r}"
    return answer.getheader("location") or ""


def got_tokens(front: Front, agent: str) -> str:
    """A challenge sends clients to the URL that they have used, and a client has got tokens there. The server knows the URL from nginx."""
    connection = front.connect()
    try:
        connection.request("GET", "/v2/", headers={"Host": front.address})
        challenge = connection.getresponse().getheader("www-authenticate")
    finally:
        connection.close()
    assert challenge == f'Bearer realm="https://{front.address}/token",service="roadstead"', challenge
    lines = [line for line in front.access_log.read_text().splitlines() if agent in line]
    granted = [line for line in lines if re.search(r'"(?:GET|POST) /token\S* HTTP/[0-9.]+" 200 ', line)]
    assert granted, f"of {len(lines)} requests of {agent}, none got a token"
    return f"{len(granted)} of {len(lines)} requests"


def no_token(front: Front) -> str:
    lines = front.access_log.read_text().splitlines()
    uploads = [line for line in lines if "/blobs/uploads/" in line]
    shown = [line for line in uploads if not re.search(r'/blobs/uploads/(?:\.\.\.)? HTTP/[0-9.]+"', line)]
    assert uploads and not shown, f"{len(shown)} of {len(uploads)} lines show more: {shown[:1]}"
    return f"{len(uploads)} of {len(lines)} lines"


NEWCOMERS = ("newcomer-1", "newcomer-2")
GUESSERS = 20


def with_newcomers(file: Path) -> Path:
    """The same file with users whom no server has seen."""
    for name in NEWCOMERS:
        run([roadstead(), "htpasswd", file, name], timeout=30, input=PASSWORD)
    return file


def settings_of_proxy() -> List[str]:
    """What the unit says about the proxy on its own host."""
    return re.findall(r"--trusted-proxy \S+", UNIT.read_text())[0].split()


def logins_while_others_guess(front: Front, server: Server) -> str:
    """Guesses come from another address than the users. Both are nginx to the registry, which must use the address that nginx reports."""
    ended, answered, failed = threading.Event(), [], []  # type: ignore[var-annotated]

    def status(source: str, user: str, password: str) -> int:
        connection = front.connect(source)
        try:
            login = base64.b64encode(f"{user}:{password}".encode()).decode()
            connection.request("GET", "/v2/", headers={"Authorization": f"Basic {login}"})
            return connection.getresponse().status
        finally:
            connection.close()

    def guess(number: int) -> None:
        try:
            while not ended.is_set():
                code = status("127.0.0.2", NEWCOMERS[number % 2], os.urandom(8).hex())
                # 429: after some wrong passwords, that address has to wait.
                assert code in (401, 429, 503), f"a guess was answered by {code}"
                answered.append(code)
        except BaseException as error:  # raised again by the thread that waits
            failed.append(error)

    threads = [threading.Thread(target=guess, args=[number], daemon=True) for number in range(GUESSERS)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: failed or len(answered) >= 5, 60, "guesses are answered")
        for user in (USER, *NEWCOMERS):
            assert status("127.0.0.1", user, PASSWORD) == 200, user
    finally:
        ended.set()
        for thread in threads:
            thread.join(TIMEOUT)
    assert not failed, failed[0]
    # In one queue with all who guess, a newcomer would have waited for all of them.
    passed = max(guesses_before(server, user) for user in NEWCOMERS)
    assert passed <= 2 * (os.cpu_count() or 1) + 2, f"{passed} guesses were checked before a newcomer's password"
    return f"at most {passed} guesses were checked before a newcomer's password"


def guesses_before(server: Server, user: str) -> int:
    """How many wrong passwords were answered while a user's first right one waited, as the registry's log says."""
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if '"access"' in line]
    ends = [(datetime.fromisoformat(line["timestamp"].replace("Z", "+00:00")), line) for line in lines]
    until, first = next((end, line) for end, line in ends if line.get("user") == user and line.get("status") == 200)
    since = until - timedelta(milliseconds=first["ms"])
    return sum(since < end < until for end, line in ends if line.get("status") == 401)


# --- the unit ---


def service(folder: Path) -> Iterator[Result]:
    """The systemd unit cannot be started here. So systemd checks it, and the test runs its command line."""
    tools()
    text = UNIT.read_text()
    unit = folder / "roadstead.service"
    # systemd looks whether the program is there.
    unit.write_text(filled(text, {"/usr/local/bin/roadstead": str(roadstead())}))
    yield check("systemd: the unit is valid", valid, unit)
    yield check("systemd: the unit leaves little exposed", exposure, unit)
    yield check("systemd: stopping waits for the drain", stop_timeout, text)
    yield check("systemd: its command line serves as an unprivileged user, and makes no call that is filtered", as_the_unit_says, text)


def valid(unit: Path) -> None:
    found = _complaints(unit)
    assert not found, "\n".join(found)
    # Nor does it pass because nothing was examined.
    with scratch("unit") as folder:
        broken = folder / unit.name
        broken.write_text(unit.read_text() + "\n[Service]\nNoSuchSetting=1\n")
        assert any("NoSuchSetting" in line for line in _complaints(broken)), "a wrong setting passes"


def _complaints(unit: Path) -> List[str]:
    """What systemd says about a unit. Other units of this machine may be at fault too, and are not asked about."""
    done = run(["systemd-analyze", "verify", unit], timeout=60, ok=None)
    return [line for line in (done.stdout + done.stderr).splitlines() if "roadstead" in line]


def exposure(unit: Path) -> str:
    done = run(["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", unit], timeout=60)
    return done.stdout.strip().splitlines()[-1].encode("ascii", "ignore").decode().strip()


def stop_timeout(text: str) -> None:
    drain = microseconds(re.findall(r"--drain-timeout (\S+)", text)[0])
    stop = microseconds(settings(text)["TimeoutStopSec"][0])
    # The server gives threads that wait for the disk two seconds after the drain.
    assert stop >= drain + 5_000_000, f"systemd kills {stop / 1e6:.0f} s after it asked, the server may take {drain / 1e6:.0f} s"


def microseconds(span: str) -> int:
    output = run(["systemd-analyze", "timespan", span], timeout=20, env={"LC_ALL": "C"}).stdout
    return int(re.findall(r"s: (\d+)$", output, re.MULTILINE)[0])


def settings(text: str) -> Dict[str, List[str]]:
    """A unit's settings, each with its values in their order."""
    found: Dict[str, List[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        name, equals, value = line.partition("=")
        if equals and not name.startswith(("#", ";")):
            found.setdefault(name.strip(), []).append(value.strip())
    return found


def as_the_unit_says(text: str) -> str:
    """Runs the unit's command line under strace, pushes and pulls with a password, and stops it as systemd does."""
    need_root()
    # A folder that this user can enter: this run's own is root's alone.
    with scratch("unit") as folder:
        folder.chmod(0o711)
        program, state = folder / "roadstead", folder / "state"
        shutil.copy(roadstead(), program)
        state.mkdir(mode=0o700)
        first_account(README, {"/var/lib/roadstead": str(state)})
        give(state)
        port = free_port()
        line = filled(settings(text)["ExecStart"][0], {"/usr/local/bin/roadstead": str(program), "127.0.0.1:5000": f"127.0.0.1:{port}"})
        trace = state / "calls"
        command = ["setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
        command += ["strace", "-f", "-qq", "-o", trace, "bash", "-c", f"umask 0077; exec {line}"]
        own = {name: None for name in os.environ if name.startswith("ROADSTEAD_")}
        with Child(command, folder / "log", {**own, "STATE_DIRECTORY": str(state)}) as child:
            wait_until(lambda: not child.alive() or accepts(port), 20, "the server listens")
            assert child.alive(), f"the server ended with {child.returncode}\n{child.log_tail()}"
            push_and_pull(folder, f"127.0.0.1:{port}")
            server = next(int(line.split()[0]) for line in trace.read_text().splitlines() if "execve" in line)
            os.kill(server, signal.SIGTERM)
            assert child.wait(20) == 0, f"exit code {child.returncode} after SIGTERM\n{child.log_tail()}"
        assert (state / "metadata.db").is_file(), "the data is not in the state directory"
        made, families = calls(trace, str(program))
        filtered = made - allowed(settings(text)["SystemCallFilter"])
        assert not filtered, f"the filter refuses calls that the server makes: {' '.join(sorted(filtered))}"
        refused = families - set(settings(text)["RestrictAddressFamilies"][0].split())
        assert not refused, f"RestrictAddressFamilies refuses {' '.join(sorted(refused))}"
        return f"{len(made)} kinds of calls"


def first_account(readme: Path, changes: Mapping[str, str], env: Optional[Mapping[str, Optional[str]]] = None) -> None:
    """The README's command for the first account, without its question for the password."""
    (line,) = re.findall(r"^roadstead (user add .*?)(?: +#.*)?$", "".join(commands(readme)), re.MULTILINE)
    words = filled(line, {"alice": USER, **changes}).split()
    run([roadstead(), *words, "--password-stdin"], timeout=30, env=env, input=PASSWORD)


def give(folder: Path) -> None:
    """Gives the data to the service's user, as systemd does at the start."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, UNPRIVILEGED, UNPRIVILEGED)


def push_and_pull(folder: Path, address: str) -> None:
    """Pushes and pulls an image with USER's password. Without a password the registry refuses."""
    layout, back, env = Images(str(cache_dir()), tool("busybox")).app, folder / "back", {"DOCKER_CONFIG": str(folder / "docker")}
    stranger = run([tool("crane"), "digest", f"{address}/a:1"], TIMEOUT, env=env, ok=None)
    assert stranger.returncode != 0 and "UNAUTHORIZED" in stranger.stderr.upper(), f"not refused without a password: {stranger}"
    run([tool("crane"), "auth", "login", address, "-u", USER, "--password-stdin"], TIMEOUT, env=env, input=PASSWORD)
    run([tool("crane"), "push", layout, f"{address}/team/app:1"], TIMEOUT, env=env)
    run([tool("crane"), "pull", "--format", "oci", f"{address}/team/app:1", back], TIMEOUT, env=env)
    compare_layouts(layout, str(back))


def calls(trace: Path, program: str) -> tuple:
    """The system calls in a trace from the start of a program on, and the address families of its sockets."""
    made: Set[str] = set()
    families: Set[str] = set()
    started = False
    for line in trace.read_text(errors="replace").splitlines():
        found = re.match(r"\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed)", line)
        # What the shell did before it became the program is not the program's.
        started = started or f'execve("{program}"' in line
        if found and started:
            made.add(found.group(1))
            families.update(re.findall(r"\bsocket\((AF_\w+)", line))
    assert {"execve", "accept4", "socket"} <= made, f"this is not the trace of a server: {sorted(made)}"
    return made, families


def allowed(filters: List[str]) -> Set[str]:
    """The system calls that the lines of SystemCallFilter leave, with systemd's own sets."""
    kept: Set[str] = set()
    for value in filters:
        names = value.lstrip("~").split()
        group = set().union(*(members(name) for name in names))
        kept = kept - group if value.startswith("~") else kept | group
    return kept


def members(name: str) -> Set[str]:
    if not name.startswith("@"):
        return {name}
    lines = run(["systemd-analyze", "syscall-filter", name, "--no-pager"], timeout=20).stdout.splitlines()[1:]
    listed = [line.split("#")[0].strip() for line in lines]
    return set().union(*(members(line) for line in listed if line))


# --- TLS by the server itself ---


def own_tls(folder: Path) -> Iterator[Result]:
    """The drop-in and the hook of certbot, as README.md combines them."""
    tools()
    yield check("own TLS: the unit with tls.conf is valid", valid_with_tls, folder)
    yield check("own TLS: what the hook of certbot gives to the server is served, and what it renews", renewed, folder)


def valid_with_tls(folder: Path) -> None:
    unit, own = folder / "roadstead.service", {"/usr/local/bin/roadstead": str(roadstead())}
    unit.write_text(filled(UNIT.read_text(), own))
    more = folder / "roadstead.service.d"
    more.mkdir()
    (more / "tls.conf").write_text(filled(DROP_IN.read_text(), own))
    valid(unit)


def renewed(outer: Path) -> None:
    """Runs the command line of tls.conf as a user who reads the key by its group alone."""
    need_root()
    with scratch("own-tls") as folder:
        folder.chmod(0o711)
        program, state, files = (folder / name for name in ("roadstead", "state", "tls"))
        shutil.copy(roadstead(), program)
        state.mkdir(mode=0o700)
        first_account(README, {"/var/lib/roadstead": str(state)})
        give(state)
        authority = Authority(folder / "authority")
        lineage = folder / "lineage"
        lineage.mkdir()
        group, port = UNPRIVILEGED + 1, free_port()

        def deploy() -> None:
            """As certbot does: its folder has other names."""
            shutil.copy(authority.certificate, lineage / "fullchain.pem")
            shutil.copy(authority.key, lineage / "privkey.pem")
            run([LOCAL / "renewed.sh", files, group], timeout=20, env={"RENEWED_LINEAGE": str(lineage)})

        deploy()
        changes = {"/usr/local/bin/roadstead": str(program), "0.0.0.0:443": f"127.0.0.1:{port}", "/etc/roadstead-tls": str(files)}
        line = filled(settings(DROP_IN.read_text())["ExecStart"][1], changes)
        command = ["setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", f"--groups={group}", "--no-new-privs", "--bounding-set=-all"]
        command += ["bash", "-c", f"umask 0077; exec {line}"]
        own = {name: None for name in os.environ if name.startswith("ROADSTEAD_")}
        trust = ssl.create_default_context(cafile=str(authority.trust / "ca.crt"))

        def shown() -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as plain:
                with trust.wrap_socket(plain, server_hostname=REGISTRY) as secured:
                    return secured.getpeercert(binary_form=True) or b""

        def answer(target: str, **headers: str) -> http.client.HTTPResponse:
            connection = http.client.HTTPSConnection(REGISTRY, port, timeout=TIMEOUT)
            plain = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
            connection.sock = trust.wrap_socket(plain, server_hostname=REGISTRY)
            try:
                connection.request("GET", target, headers=headers)
                return connection.getresponse()
            finally:
                connection.close()

        with Child(command, folder / "log", {**own, "STATE_DIRECTORY": str(state)}) as child:
            wait_until(lambda: not child.alive() or accepts(port), 20, "the server listens")
            assert child.alive(), f"the server ended with {child.returncode}\n{child.log_tail()}"
            assert "every user of this host" not in child.log_tail(), child.log_tail()
            before = shown()
            asked = run([program, "health", "--tls", "--listen", f"0.0.0.0:{port}"], timeout=20)
            assert asked.stdout == "ready\n", asked
            # The certificate says where tokens are, without a flag.
            challenge = answer("/v2/").getheader("www-authenticate")
            assert challenge == f'Bearer realm="https://{REGISTRY}:{port}/token",service="roadstead"', challenge
            login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            assert answer("/token?service=roadstead", Authorization=f"Basic {login}").status == 200
            assert "passwords with every request" not in child.log_tail(), child.log_tail()
            authority.renew()
            deploy()
            wait_until(lambda: shown() != before, 20, "the renewed certificate is served")
            child.signal(signal.SIGTERM)
            assert child.wait(20) == 0, f"exit code {child.returncode} after SIGTERM\n{child.log_tail()}"


# --- users ---


def accepted_users(folder: Path) -> Iterator[Result]:
    """A server that takes users from a file, as the README says."""
    yield check("users: `htpasswd -B` writes what the server takes", htpasswd_of_apache, folder)
    yield check("users: the flags that README.md and the unit name exist", flags_exist)


def htpasswd_of_apache(folder: Path) -> None:
    file = folder / "apache"
    run([tool("htpasswd"), "-B", "-i", "-c", file, USER], timeout=20, input=PASSWORD)
    with Server("--htpasswd", file) as server:
        push_and_pull(folder, server.address)


def flags_exist() -> str:
    output = run([roadstead(), "serve", "--help"], timeout=20).stdout
    # The first words of all flags: README.md shows flags of other programs too.
    flag = r"(?<![\w-])--(?:listen|data|htpasswd|log|allow|drain|upload|max|keep|idle|sparse|sync|tls)[a-z-]*"
    named = {found for path in (README, UNIT, DROP_IN, LOCAL / "nginx.conf") for found in re.findall(flag, path.read_text())}
    absent = [flag for flag in named if not re.search(rf"{re.escape(flag)}\b", output)]
    assert named and not absent, f"`roadstead serve --help` does not know {absent}"
    return " ".join(sorted(named))


# --- the backup ---


def backup(folder: Path) -> Iterator[Result]:
    """A backup is made twice while tags are pushed without a pause; a server that gets it back must miss nothing."""
    tools()
    yield check("backup: made during pushes, it has every name with its bytes", backup_while_pushing, folder)
    yield check("backup: the server that it was made of loses nothing by it", harmless, folder)
    yield check("backup: what was deleted since is in it, until the README's command deletes it there", orphans, folder)


def backup_while_pushing(folder: Path) -> str:
    copy = folder / "copy"
    command = filled(steps(README, "backup.sh /var"), {"/srv/backup/roadstead": str(copy)})
    with Server() as server:
        command = filled(command, {"/var/lib/roadstead": str(server.data)})
        pusher = Pusher(server)
        pusher.start()
        try:
            for least in (20, 100):
                wait_until(lambda: pusher.failure or len(pusher.done) >= least, 60, f"{least} pushes")
                before = len(pusher.done)
                shell(command, LOCAL, {})
            after = len(pusher.done)
        finally:
            pusher.end()
        assert pusher.failure is None, f"a push failed: {pusher.failure}"
        assert after > before, "nothing was pushed while the backup ran, so nothing was proved"
        acknowledged = set(pusher.done[:before])
        # It ends with a log beside its database, which must not come together with the database that is restored.
        server.kill()
        restore = [line for line in steps(README, "systemctl stop roadstead").splitlines() if not line.startswith("systemctl")]
        shell(filled("\n".join(restore), {"/srv/backup/roadstead": str(copy), "/var/lib/private/roadstead": str(server.data)}), folder, {})
        server.start()
        registry = Registry(server.address)
        tags = registry.tags(Pusher.repository)
        assert acknowledged <= set(tags), f"{len(acknowledged - set(tags))} tags that were there before the backup began are not in it"
        for tag in tags:
            registry.verify(Pusher.repository, tag)
        # It is a whole registry again: what is pushed now is stored.
        assert (server.data.with_name(server.data.name + ".lost") / "metadata.db").is_file(), "the lost data was not kept"
        Pusher(server).push("after")
        registry.verify(Pusher.repository, "after")
    return f"{len(tags)} of {len(pusher.done)} tags, {after - before} pushed meanwhile"


def harmless(folder: Path) -> None:
    """Another program that opens and closes the database must not take its log away from the server, which would show after a crash."""
    with Server() as server:
        pusher = Pusher(server)
        for number in range(3):
            pusher.push(f"t{number}")
            run([LOCAL / "backup.sh", server.data, folder / "harmless"], TIMEOUT)
        pusher.push("last")
        server.kill()
        server.start()
        registry = Registry(server.address)
        found = registry.tags(Pusher.repository)
        assert found == sorted(pusher.done), f"acknowledged {sorted(pusher.done)}, there are {found}"
        registry.verify(Pusher.repository, "last")


def orphans(folder: Path) -> str:
    """The blobs of deleted images stay in a backup, and `fsck` has nothing to say when the command has run."""
    copy = folder / "orphans"
    # An upload that is not past its end has a record, which names the object too.
    with Server("--upload-lifetime", "1s") as server:
        pusher = Pusher(server)
        for tag in ("kept", "deleted"):
            pusher.push(tag)
        run([LOCAL / "backup.sh", server.data, copy], TIMEOUT)
        registry = Registry(server.address)
        digest, _, _ = registry.manifest(Pusher.repository, "deleted")
        assert registry.request("DELETE", f"/v2/{Pusher.repository}/manifests/{digest}").status == 202
        blobs = server.data / "blobs"
        layers = {name for name in files(blobs) if (blobs / name).stat().st_size == Pusher.layer}
        collect, fsck = [roadstead(), "collect", "--grace", "1s", "--data", server.data], [roadstead(), "fsck", "--data", copy]

        def is_orphan() -> bool:
            run(collect, TIMEOUT)
            run([LOCAL / "backup.sh", server.data, copy], TIMEOUT)
            output = run(fsck, TIMEOUT, ok=(0, 1)).stdout
            return any(f"orphan location={Path(name).name} " in output for name in layers - files(blobs))

        wait_until(is_orphan, 60, "the blob of the deleted image is an orphan in the backup")
        # The README's other command for this folder reports and changes nothing.
        script = filled(steps(README, "collect --dry-run"), {"/var/lib/roadstead": str(server.data)})
        shell(script, folder, {"PATH": path_with(roadstead())})
        kept = layers & files(blobs)
    assert layers <= files(copy / "blobs"), "the backup has lost a blob"
    assert len(kept) == 1, "not one image of two was deleted"
    commands = filled(steps(README, "^orphan"), {"/var/lib/private/roadstead": str(copy)})
    # A person's shell, in which a command before the last may fail: `fsck` does when it finds something.
    run(["bash", "-eu", "-c", commands], TIMEOUT, env={"PATH": path_with(roadstead())})
    assert layers & files(copy / "blobs") == kept, "the orphan is still there, or more is gone"
    return run(fsck, TIMEOUT).stderr.strip()


def files(folder: Path) -> Set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class Pusher(threading.Thread):
    """Pushes small images, each with bytes of its own, one after the other; `done` are the tags that were acknowledged."""

    repository = "backup/app"
    # Bytes.
    layer = 2000
    # The page of a tag list holds this many; no more are needed.
    most = 1000

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._registry = Registry(server.address)
        self._ended = threading.Event()
        self.done: List[str] = []
        self.failure: Optional[BaseException] = None

    def run(self) -> None:
        try:
            while not self._ended.is_set() and len(self.done) < self.most - 1:
                self.push(f"t{len(self.done)}")
        except BaseException as error:  # raised again by the thread that waits
            self.failure = error

    def end(self) -> None:
        self._ended.set()
        self.join(TIMEOUT)

    def push(self, tag: str) -> None:
        config, layer = self._blob(b"{}"), self._blob(os.urandom(self.layer))
        kind = "application/vnd.oci.image.manifest.v1+json"
        config["mediaType"] = "application/vnd.oci.empty.v1+json"
        document = {"schemaVersion": 2, "mediaType": kind, "artifactType": "text/plain", "config": config, "layers": [layer]}
        body = json.dumps(document).encode()
        answer = self._registry.request("PUT", f"/v2/{self.repository}/manifests/{tag}", body, Content_Type=kind)
        assert answer.status == 201, f"PUT manifest: {answer.status} {answer.body[:300]!r}"
        self.done.append(tag)

    def _blob(self, data: bytes) -> dict:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        answer = self._registry.request("POST", f"/v2/{self.repository}/blobs/uploads/?digest={digest}", data)
        assert answer.status == 201, f"POST blob: {answer.status} {answer.body[:300]!r}"
        return {"mediaType": "application/octet-stream", "digest": digest, "size": len(data)}
