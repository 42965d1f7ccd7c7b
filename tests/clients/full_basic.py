"""Libraries and plugins that send a name and a password: oras for Python, python-dxf, and jib, a plugin of Maven.

oras for Python sends them whatever the challenge is. python-dxf and jib do what the challenge says, so they are also checked with a
registry that asks for Basic.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, Iterator

from common import UNAUTHORIZED, Setting, client, is_refusal, need_root, tool
from harness import Result, cache_dir, run
from harness.backend import Backend
from harness.process import Finished
from layout import noise, sha256
from over_tls import Authority, TlsRegistry, TlsServer
from recipes import REGISTRY, knowing

# oras for Python answers a 401 to its token with the same token, also when the answer says `insufficient_scope`; so by Basic.
ORAS_PY = """
import sys, oras.client
host, target, config, folder, user, password = sys.argv[1:]
client = oras.client.OrasClient(hostname=host, insecure=True, auth_backend="basic")
client.login(hostname=host, username=user, password=password, config_path=config)
assert client.push(target=target, files=["file.bin"]).status_code == 201
print(client.pull(target=target, outdir=folder), client.get_tags(target))
"""
JIB = "com.google.cloud.tools:jib-maven-plugin:3.4.4"
POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>com.example</groupId>
  <artifactId>boat</artifactId>
  <version>1</version>
</project>
"""
MAIN = "public class Main { public static void main(String[] words) {} }\n"
# The first run fetches the plugin and what it needs.
MAVEN_TIMEOUT = 600


def oras_py(setting: Setting) -> Iterator[Result]:
    env, folder = setting.home("oras-py"), setting.folder("oras-py")
    python = Path(tool("oras-py")).parent / "bin" / "python"
    (folder / "file.bin").write_bytes(noise("oras-py", 100_000))
    registry = setting.registry

    def round_trip(password: str) -> Finished:
        target, config, back = setting.reference("oras-py/artifact:1"), folder / "config.json", folder / "back"
        words = [python, "-I", "-c", ORAS_PY, registry.address, target, config, back, registry.user, password]
        return client(words, env, cwd=folder, ok=None)

    def pushed() -> None:
        done = round_trip(registry.password or "")
        assert done.returncode == 0, done
        assert (folder / "back" / "file.bin").read_bytes() == (folder / "file.bin").read_bytes(), done
        assert sha256((folder / "file.bin").read_bytes()) in registry.verify(setting.repository("oras-py/artifact"), "1")

    yield setting.check("oras for Python: a wrong password is refused", lambda: is_refusal(round_trip("wrong"), *UNAUTHORIZED))
    yield setting.check("oras for Python: push and pull with the password", pushed)


def jib(setting: Setting) -> Iterator[Result]:
    """It pulls a base and pushes a build, each with a token of its own where the registry grants tokens."""
    env, project, registry = setting.home("jib"), setting.folder("jib"), setting.registry
    (project / "src" / "main" / "java").mkdir(parents=True)
    (project / "pom.xml").write_text(POM)
    (project / "src" / "main" / "java" / "Main.java").write_text(MAIN)
    base = setting.pushed("app", "jib/base:1")

    def build(password: str) -> Finished:
        more: Dict[str, object] = {
            "jib.from.image": base, "jib.to.image": setting.reference("jib/built:1"), "jib.container.mainClass": "Main",
            "jib.allowInsecureRegistries": "true", "sendCredentialsOverHttp": "true",
            "jib.applicationCache": setting.folder("jib-cache"), "jib.baseImageCache": setting.folder("jib-base"),
            "maven.compiler.source": "11", "maven.compiler.target": "11", "maven.repo.local": cache_dir() / "maven",
            **{f"jib.{side}.auth.username": registry.user for side in ("from", "to")},
            **{f"jib.{side}.auth.password": password for side in ("from", "to")},
        }  # fmt: skip
        words = [tool("mvn"), "-B", "-q", "compile", f"{JIB}:build", *(f"-D{name}={value}" for name, value in more.items())]
        return run(words, timeout=MAVEN_TIMEOUT, env=env, cwd=project, ok=None)

    def built() -> None:
        done = build(registry.password or "")
        assert done.returncode == 0, done
        repository = setting.repository("jib/built")
        found = registry.verify(repository, "1")
        layers = registry.configuration(setting.repository("jib/base"), "1")["rootfs"]["diff_ids"]
        assert registry.configuration(repository, "1")["rootfs"]["diff_ids"][: len(layers)] == layers, found

    yield setting.check("jib: a wrong password is refused", lambda: is_refusal(build("wrong"), *UNAUTHORIZED))
    yield setting.check("jib: build on a base of the registry and push", built)


def dxf(setting: Setting) -> Iterator[Result]:
    """It sends a password over TLS alone, so the registry is one of its own."""
    need_root()
    for challenge in ("bearer", "basic"):
        authority = Authority(setting.work / f"authority-{challenge}")
        backend = Backend("disk+sqlite", setting.work / f"data-{challenge}")
        backend.add_user(str(setting.registry.user), str(setting.registry.password))
        server = TlsServer(authority, backend)
        server.flags += ["--allow-host", REGISTRY]
        # The certificate is for this name, so the registry asks for tokens unless its operator does not want that.
        server.flags += ["--challenge", "basic"] if challenge == "basic" else []
        with server:
            registry = TlsRegistry(server, authority, server.log_tail)
            registry.user, registry.password = setting.registry.user, setting.registry.password
            own = Setting(setting.name, registry, setting.images, setting.folder(f"dxf-{challenge}"))
            checks = Dxf(own)
            yield own.check(f"python-dxf, {challenge}: a wrong password is refused", checks.wrong)
            yield own.check(f"python-dxf, {challenge}: push, pull and list with the password", checks.round_trip)

            def asked(challenge: str = challenge, server: TlsServer = server) -> None:
                tokens = [line for line in server.access_lines() if line["path"] == "/token" and line["status"] == 200]
                assert bool(tokens) == (challenge == "bearer"), tokens

            yield own.check(f"python-dxf, {challenge}: it has done what the challenge says", asked)


class Dxf:
    def __init__(self, setting: Setting) -> None:
        registry = setting.registry
        assert isinstance(registry, TlsRegistry)
        self.setting, self.registry = setting, registry
        self.folder = setting.folder("dxf")
        self.prefix = knowing(self.folder, registry.server.host)
        self.env = {
            **setting.home("dxf"), "DXF_HOST": registry.address, "DXF_USERNAME": str(registry.user), "DXF_PASSWORD": str(registry.password),
            "DXF_TLSVERIFY": str(registry.authority.trust / "ca.crt"),
        }  # fmt: skip

    def dxf(self, *words: object, env: Dict[str, str]) -> Finished:
        return client([*self.prefix, tool("python-dxf"), *words], env, cwd=self.folder, ok=None)

    def wrong(self) -> None:
        (self.folder / "blob").write_bytes(noise("dxf", 100_000))
        words = ["push-blob", "dxf/app", "blob", "@1"]
        is_refusal(self.dxf(*words, env={**self.env, "DXF_PASSWORD": "wrong"}), *UNAUTHORIZED)

    def round_trip(self) -> None:
        pushed = self.dxf("push-blob", "dxf/app", "blob", "@1", env=self.env)
        digest = sha256((self.folder / "blob").read_bytes())
        assert pushed.returncode == 0 and digest in pushed.stdout, pushed
        again = self.dxf("get-alias", "dxf/app", "1", env=self.env)
        assert again.returncode == 0 and digest in again.stdout, again
        size = self.dxf("blob-size", "dxf/app", digest, env=self.env)
        assert size.stdout.strip() == str(os.path.getsize(self.folder / "blob")), size
        listed = self.dxf("list-aliases", "dxf/app", env=self.env)
        assert listed.stdout.split() == ["1"], listed
        answer = self.registry.request("GET", f"/v2/dxf/app/blobs/{digest}")
        assert answer.status == 200 and sha256(answer.body) == digest, answer.status
