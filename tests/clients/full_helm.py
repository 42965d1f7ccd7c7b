"""helm: a chart as an artifact."""

from __future__ import annotations

import re
from typing import Iterator

from common import UNAUTHORIZED, Setting, client, refused, tool
from harness import Result
from harness.process import Finished
from layout import sha256

CHART = """apiVersion: v2
name: boat
description: A chart of one object
version: {version}
appVersion: "1"
"""
TEMPLATE = """apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-boat
data:
  greeting: {{ .Values.greeting | quote }}
"""


def results(setting: Setting) -> Iterator[Result]:
    checks = Helm(setting)
    if setting.registry.user is not None:
        yield setting.check("helm: registry login", checks.login)
    yield setting.check("helm: push two versions of a chart", checks.push)
    yield setting.check("helm: pull and compare", checks.pull)
    yield setting.check("helm: the newest version is found", checks.newest)
    yield setting.check("helm: template from the registry", checks.template)
    yield setting.check("helm: pull of an absent version is refused", checks.absent)


def login(setting: Setting) -> Iterator[Result]:
    checks = Helm(setting)
    yield setting.check("helm: push without login is refused", checks.refused_push)
    if setting.registry.public:
        yield setting.check("helm: pull of a public chart without login", checks.pull_public)
        yield setting.check("helm: pull of a private chart without login is refused", checks.refused_private)
    yield setting.check("helm: login with a wrong password is refused", checks.wrong_login)
    yield setting.check("helm: registry login", checks.login)
    yield setting.check("helm: push after login", checks.push)
    yield setting.check("helm: pull after login and compare", checks.pull)
    yield setting.check("helm: pull after logout is refused", checks.logout)


def public(setting: Setting) -> Iterator[Result]:
    """Everyone may pull, and users of a file may push."""
    checks = Helm(setting)
    yield setting.check("helm: push without login is refused", checks.refused_push)
    yield setting.check("helm: registry login", checks.login)
    yield setting.check("helm: push after login", checks.push)
    yield setting.check("helm: registry logout", checks.leave)
    yield setting.check("helm: pull without login and compare", checks.pull)


class Helm:
    # A `+` is legal in a chart's version and not in a tag; helm writes `_` for it.
    VERSIONS = ("0.1.0", "0.2.0+build.7")

    def __init__(self, setting: Setting) -> None:
        self.setting, self.env, self.folder = setting, setting.home("helm"), setting.folder("charts")
        self.remote = f"oci://{setting.reference('helm')}"

    def helm(self, *words: object, **more: object) -> Finished:
        return client([tool("helm"), *words], self.env, cwd=self.folder, **more)

    def archive(self, version: str) -> str:
        return f"boat-{version}.tgz"

    def package(self, version: str) -> str:
        """Makes the chart in this version; its archive."""
        chart = self.folder / "boat"
        (chart / "templates").mkdir(parents=True, exist_ok=True)
        (chart / "templates" / "map.yaml").write_text(TEMPLATE)
        (chart / "values.yaml").write_text("greeting: hello\n")
        (chart / "Chart.yaml").write_text(CHART.format(version=version))
        self.helm("package", "boat")
        return self.archive(version)

    def push(self) -> None:
        for version in self.VERSIONS:
            self.package(version)
            done = self.helm("push", "--plain-http", self.archive(version), self.remote)
            printed = re.findall(r"sha256:[0-9a-f]{64}", done.stdout + done.stderr)
            assert printed, done
            tag = version.replace("+", "_")
            found = self.setting.registry.verify(self.setting.repository("helm/boat"), tag, expect=printed[-1])
            assert sha256((self.folder / self.archive(version)).read_bytes()) in found, found

    def pull(self) -> None:
        for version in self.VERSIONS:
            folder = self.setting.folder("pulled")
            self.helm("pull", "--plain-http", f"{self.remote}/boat", "--version", version, "-d", folder)
            assert (folder / self.archive(version)).read_bytes() == (self.folder / self.archive(version)).read_bytes()

    def refused_push(self) -> None:
        words = [tool("helm"), "push", "--plain-http", self.package("0.0.1"), self.remote]
        refused(words, self.env, *UNAUTHORIZED, cwd=self.folder)

    def published(self, name: str, version: str) -> str:
        """Where another user has pushed a version of the chart."""
        registry, remote, credentials = self.setting.registry, f"oci://{self.setting.reference(name)}", self.setting.home("helm-publisher")
        words = ["--plain-http", "-u", registry.user, "--password-stdin", registry.address]
        client([tool("helm"), "registry", "login", *words], credentials, input=registry.password)
        client([tool("helm"), "push", "--plain-http", self.folder / self.package(version), remote], credentials)
        return remote

    def refused_private(self) -> None:
        version = "0.0.3"
        words = ["pull", "--plain-http", f"{self.published('helm-private', version)}/boat", "--version", version]
        refused([tool("helm"), *words], self.env, *UNAUTHORIZED, cwd=self.setting.folder("private"))

    def pull_public(self) -> None:
        version = "0.0.2"
        remote = self.published(f"{self.setting.registry.public}helm", version)
        folder = self.setting.folder("public")
        self.helm("pull", "--plain-http", f"{remote}/boat", "--version", version, "-d", folder)
        assert (folder / self.archive(version)).read_bytes() == (self.folder / self.archive(version)).read_bytes()

    def wrong_login(self) -> None:
        words = [tool("helm"), "registry", "login", "--plain-http", "-u", self.setting.registry.user, "--password-stdin", self.setting.address]
        refused(words, self.env, "unauthorized", input="wrong")

    def login(self) -> None:
        registry = self.setting.registry
        words = ["--plain-http", "-u", registry.user, "--password-stdin", registry.address]
        self.helm("registry", "login", *words, input=registry.password)

    def leave(self) -> None:
        self.helm("registry", "logout", self.setting.address)

    def logout(self) -> None:
        self.leave()
        words = [tool("helm"), "pull", "--plain-http", f"{self.remote}/boat", "--version", self.VERSIONS[0]]
        refused(words, self.env, *UNAUTHORIZED, cwd=self.folder)

    def newest(self) -> None:
        done = self.helm("show", "chart", "--plain-http", f"{self.remote}/boat", "--version", ">=0.1.0")
        assert "version: 0.2.0+build.7" in done.stdout, done

    def template(self) -> None:
        done = self.helm("template", "harbour", "--plain-http", f"{self.remote}/boat", "--set", "greeting=ahoy")
        assert "name: harbour-boat" in done.stdout and 'greeting: "ahoy"' in done.stdout, done

    def absent(self) -> None:
        words = [tool("helm"), "pull", "--plain-http", f"{self.remote}/boat", "--version", "9.9.9"]
        refused(words, self.env, "not found", cwd=self.folder)
