"""The checks of a registry's first start: who may do what before there is an account, and how the first one is made.

Part of `samples`. That a registry on loopback is open until its first account, on three servers, is a check of `commands`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional

from recipes import PASSWORD, TIMEOUT  # noqa: I001 - it makes the modules of tests/clients known
from operating import EMPTY, ask, basic, push, within_ten_seconds
from harness import Child, Cloud, Result, Server, check, free_port, run, wait_until
from harness.backend import Backend
from harness.build import roadstead
from harness.leaks import SEARCH
from verify import Registry

SECRET = "0123456789abcdef0123456789abcdef-of-this-test"
BOOTSTRAP_VARIABLE = "ROADSTEAD_BOOTSTRAP_SECRET"
NEW_PASSWORD = "a long new password"
SEARCH.knows(SECRET, "bootstrap")


def first_start(folder: Path) -> Iterator[Result]:
    yield from on(folder / "disk", lambda name: Backend("disk+sqlite", folder / name))
    with Cloud() as cloud:
        yield from on(folder / "cloud", lambda _: cloud.backend("s3+dynamodb"))


def on(folder: Path, backend: Callable[[str], Backend]) -> Iterator[Result]:
    folder.mkdir()
    public, other = backend("public"), backend("bootstrap")
    name = f"first start on {public.name}"
    needs = "a public address needs an account, by the command that the refusal shows"
    yield check(f"{name}: {needs}", public_address, folder, public)
    makes = "the bootstrap secret makes accounts until there is an administrator, and nothing else"
    yield check(f"{name}: {makes}", bootstrap, folder, other)
    all_may = "--allow-anonymous all ends with the first account, and does not start beside one"
    yield check(f"{name}: {all_may}", open_to_all, backend("open"))


def refused_start(backend: Backend, *flags: str, env: Optional[Dict[str, str]] = None, code: int = 2) -> str:
    """A start that fails, and what it says."""
    command = [roadstead(), "serve", *flags, *backend.words()]
    return run(command, TIMEOUT, env={**backend.environment(), **(env or {})}, ok=(code,)).stderr


def started(child: Child, port: int) -> Registry:
    def ready() -> bool:
        try:
            return Registry(f"127.0.0.1:{port}").request("GET", "/readyz").status == 200
        except OSError:
            return False

    wait_until(lambda: not child.alive() or ready(), 30, "the server is ready")
    assert child.alive(), child.log_tail()
    return Registry(f"127.0.0.1:{port}")


def public_address(folder: Path, backend: Backend) -> None:
    port = free_port()
    said = refused_start(backend, "--listen", f"0.0.0.0:{port}")
    (command,) = re.findall(r"roadstead (user add NAME --admin --password-stdin)", said)
    assert "docker" not in said and (backend.data is None or not backend.data.exists()), said
    backend.operate(*command.replace("NAME", "root").split(), input=f"{PASSWORD}\n")
    # There is no other key that could sign until this one does.
    assert "signs now" in backend.operate("signing-key", "rotate").stdout
    command = [roadstead(), "serve", "--listen", f"0.0.0.0:{port}", *backend.words()]
    with Child(command, folder / "public.log", env=backend.environment()) as child:
        registry = started(child, port)
        assert registry.request("GET", "/v2/").status == 401
        for path in ("/v2/", "/token?service=roadstead"):
            assert registry.request("GET", path, Authorization=basic("root", PASSWORD)).status == 200, path
        for user, password in (("admin", "admin"), ("root", "root"), ("root", ""), ("", ""), ("bootstrap", ""), ("admin", "password")):
            for path in ("/v2/_catalog", "/api/v1/whoami"):
                found = registry.request("GET", path, Authorization=basic(user, password)).status
                assert found in (401, 429), f"{user}:{password} {path}: {found}"


def bootstrap(folder: Path, backend: Backend) -> None:
    port = free_port()
    listen = ("--listen", f"0.0.0.0:{port}")
    said = refused_start(backend, *listen, env={BOOTSTRAP_VARIABLE: SECRET[:31]}, code=1)
    assert BOOTSTRAP_VARIABLE in said and "32 bytes" in said and SECRET[:31] not in said, said
    file = folder / "secret"
    file.write_text(f"{SECRET}\n")
    logs = [folder / "variable.log", folder / "file.log"]
    command = [roadstead(), "serve", *listen, *backend.words()]
    with Child(command, logs[0], env={**backend.environment(), BOOTSTRAP_VARIABLE: SECRET}) as child:
        registry = started(child, port)
        only_makes_accounts(registry, "bootstrap", SECRET)
        assert create(registry, "ann", "dev", SECRET[:-1]) == 401, "another secret"
        assert create(registry, "ann", "dev", SECRET) == 201
        only_makes_accounts(registry, "bootstrap", SECRET)
    with Child([*command, "--bootstrap-secret-file", file], logs[1], env=backend.environment()) as child:
        registry = started(child, port)
        assert create(registry, "root", "admins", SECRET) == 201
        assert create(registry, "eve", "admins", SECRET) == 401, "there is an administrator"
        me = registry.request("GET", "/api/v1/whoami", Authorization=basic("root", NEW_PASSWORD))
        assert me.status == 200 and json.loads(me.body)["groups"] == ["admins"], me
        backend.operate("user", "remove", "root", "--force")
        assert create(registry, "eve", "admins", SECRET) == 401, "there was an administrator"
        only_makes_accounts(registry, "bootstrap", SECRET)
    assert backend.operate("user", "list").stdout == "ann\n"
    # The logs, and the data: a folder beside this one, or a bucket and a table.
    paths = [*folder.rglob("*"), *(backend.data.rglob("*") if backend.data is not None else ())]
    kept = [path for path in paths if path.is_file() and path != file and SECRET.encode() in path.read_bytes()]
    assert not kept and SECRET not in str(backend.dynamodb and backend.items()), f"the secret is in {kept or 'the table'}"


def create(registry: Registry, name: str, group: str, secret: str) -> int:
    body = json.dumps({"name": name, "kind": "user", "groups": [group], "password": NEW_PASSWORD}).encode()
    headers = {"Authorization": basic("bootstrap", secret), "Content_Type": "application/json"}
    return registry.request("POST", "/api/v1/accounts", body, **headers).status


def only_makes_accounts(registry: Registry, user: str, secret: str) -> None:
    for method, path in (
        ("GET", "/v2/"), ("GET", "/v2/_catalog"), ("POST", "/v2/a/blobs/uploads/"),
        ("GET", "/token?service=roadstead&scope=repository:a:pull"),
        ("GET", "/api/v1/whoami"), ("GET", "/api/v1/accounts"), ("GET", "/api/v1/accounts/ann"), ("DELETE", "/api/v1/accounts/ann"),
        ("GET", "/api/v1/policy"), ("PUT", "/api/v1/policy"), ("GET", "/api/v1/audit"), ("GET", "/api/v1/signing-keys"),
        ("POST", "/api/v1/signing-keys/rotate"), ("POST", "/api/v1/accounts/ann/keys"),
    ):  # fmt: skip
        body = None if method in ("GET", "DELETE") else EMPTY
        headers = {"Authorization": basic(user, secret), "Content_Type": "application/json", "If_Match": "*"}
        found = registry.request(method, path, body, **headers).status
        assert found == 401, f"{method} {path}: {found}"


def open_to_all(backend: Backend) -> None:
    with Server("--allow-anonymous", "all", backend=backend) as server:
        push(server, "app", "v", "1")
        backend.operate("user", "add", "root", "--admin", "--no-password")
        within_ten_seconds("closed", [server], lambda one: ask(one, "GET", "/v2/app/manifests/v").status == 401)
        assert ask(server, "POST", "/v2/app/blobs/uploads/").status == 401
    said = refused_start(backend, "--listen", f"127.0.0.1:{free_port()}", "--allow-anonymous", "all")
    assert "contradicts" in said, said
    with Server(backend=backend) as server:
        assert ask(server, "GET", "/v2/app/manifests/v").status == 401


FAMILIES = {"first start": first_start}
