"""curl, for all programs that send a password with every request and never ask for a token."""

from __future__ import annotations

import shutil
from typing import Iterator

from common import Setting, client
from harness import Result, skip
from layout import noise, sha256


def login(setting: Setting) -> Iterator[Result]:
    checks = Curl(setting)
    yield setting.check("curl: a request without a password is refused", checks.refused)
    yield setting.check("curl: a request with a wrong password is refused", checks.refused, "--user", f"{setting.registry.user}:wrong")
    yield setting.check("curl: push and pull with the password in every request", checks.push_and_pull)


class Curl:
    def __init__(self, setting: Setting) -> None:
        self.setting, self.env = setting, setting.home("curl")
        self.uploads = f"http://{setting.address}/v2/{setting.repository('curl/blob')}/blobs/uploads/"

    def curl(self, *words: object) -> str:
        """The status of the answer, whose body is in the file `body`."""
        program = shutil.which("curl") or skip("curl is not installed")
        command = [program, "--silent", "--show-error", "--output", self.setting.folder("curl") / "body", "--write-out", "%{http_code}"]
        return client([*command, *words], self.env).stdout

    def refused(self, *words: str) -> None:
        status = self.curl("--request", "POST", *words, self.uploads)
        assert status == "401", status

    def push_and_pull(self) -> None:
        blob, source = noise("curl", 10_000), self.setting.folder("curl") / "blob"
        source.write_bytes(blob)
        login = ["--user", f"{self.setting.registry.user}:{self.setting.registry.password}"]
        pushed = self.curl(*login, "--request", "POST", "--data-binary", f"@{source}", f"{self.uploads}?digest={sha256(blob)}")
        assert pushed == "201", pushed
        pulled = self.curl(*login, self.uploads.replace("uploads/", sha256(blob)))
        assert pulled == "200" and (self.setting.folder("curl") / "body").read_bytes() == blob, pulled
