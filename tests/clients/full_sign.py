"""cosign and notation: signatures beside the image, made and verified without any service but the registry."""

from __future__ import annotations

import json
import os
from typing import Iterator, List

from common import UNAUTHORIZED, Setting, client, refused, tool
from harness import Result
from harness.process import Finished
from verify import root_digest

POLICY = {
    "version": "1.0",
    "trustPolicies": [
        {
            "name": "test", "registryScopes": ["*"], "signatureVerification": {"level": "strict"},
            "trustStores": ["ca:roadstead-test"], "trustedIdentities": ["*"],
        }
    ],
}
# notation saves a login with a helper alone, and never in a file of its own.
HELPER = "docker-credential-of-this-test"
SAVING = """\
#!/bin/sh
login="$(dirname "$0")/login.json"
case "$1" in
store) cat > "$login" ;;
get) cat > /dev/null && cat "$login" 2> /dev/null || { echo "credentials not found in native keychain" && exit 1; } ;;
erase) cat > /dev/null && rm -f "$login" ;;
esac
"""


def cosign(setting: Setting) -> Iterator[Result]:
    checks = Cosign(setting)
    if setting.registry.user is not None:
        yield setting.check("cosign: sign without login is refused", checks.refused_sign)
        yield setting.check("cosign: login", checks.login)
    yield setting.check("cosign: sign", checks.sign)
    yield setting.check("cosign: verify", checks.verify)
    yield setting.check("cosign: verify with another key is refused", checks.verify_other)
    yield setting.check("cosign: attest, verify the attestation", checks.attest)
    yield setting.check("cosign: copy an image with its signatures", checks.copy)


def notation(setting: Setting) -> Iterator[Result]:
    checks = Notation(setting)
    if setting.registry.user is not None:
        yield setting.check("notation: list without login is refused", checks.refused_list)
        yield setting.check("notation: login with a wrong password is refused", checks.wrong_login)
        yield setting.check("notation: login", checks.login)
    yield setting.check("notation: sign", checks.sign)
    yield setting.check("notation: list, inspect", checks.inspect)
    yield setting.check("notation: verify", checks.verify)
    yield setting.check("notation: verify of what is not signed is refused", checks.verify_unsigned)


class Cosign:
    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.folder = setting.folder("keys")
        self.env = {**setting.home("cosign"), "COSIGN_PASSWORD": ""}
        for name in ("own", "other"):
            client([tool("cosign"), "generate-key-pair", "--output-key-prefix", name], self.env, cwd=self.folder)
        setting.pushed("app", "cosign/app:1")
        self.subject = f"{setting.reference('cosign/app')}@{root_digest(setting.images.app)}"

    def cosign(self, *words: object, **more: object) -> Finished:
        command, *rest = words
        return client([tool("cosign"), command, "--allow-http-registry", *rest], self.env, cwd=self.folder, **more)

    def refused_sign(self) -> None:
        refused([tool("cosign"), "sign", "--allow-http-registry", *self.signing()], self.env, *UNAUTHORIZED, cwd=self.folder)

    def login(self) -> None:
        registry = self.setting.registry
        words = ["login", registry.address, "-u", registry.user, "--password-stdin"]
        client([tool("cosign"), *words], self.env, input=registry.password)

    def signing(self) -> List[str]:
        return ["-y", "--key", "own.key", "--tlog-upload=false", "--use-signing-config=false", self.subject]

    def sign(self) -> None:
        self.cosign("sign", *self.signing())

    def verify(self) -> None:
        done = self.cosign("verify", "--key", "own.pub", "--insecure-ignore-tlog", self.subject)
        assert root_digest(self.setting.images.app) in done.stdout, done

    def verify_other(self) -> None:
        words = [tool("cosign"), "verify", "--allow-http-registry", "--key", "other.pub", "--insecure-ignore-tlog"]
        refused([*words, self.subject], self.env, "signature", cwd=self.folder)

    def attest(self) -> None:
        (self.folder / "predicate.json").write_text(json.dumps({"built": "by roadstead's tests"}))
        flags = ["--predicate", "predicate.json", "--type", "custom", "--tlog-upload=false", "--use-signing-config=false"]
        self.cosign("attest", "-y", "--key", "own.key", *flags, self.subject)
        flags = ["--key", "own.pub", "--type", "custom", "--insecure-ignore-tlog"]
        done = self.cosign("verify-attestation", *flags, self.subject)
        assert "payload" in done.stdout, done

    def copy(self) -> None:
        target = self.setting.reference("cosign/copied:1")
        self.cosign("copy", "--force", self.setting.reference("cosign/app:1"), target)
        self.setting.registry.verify(self.setting.repository("cosign/copied"), "1", root_digest(self.setting.images.app))


class Notation:
    def __init__(self, setting: Setting) -> None:
        folder = setting.folder("helper")
        self.setting = setting
        self.env = {**setting.home("notation"), "PATH": os.pathsep.join([str(folder), os.environ["PATH"]])}
        if setting.registry.user is not None:
            helper, config = folder / HELPER, setting.folder("home-notation") / "docker"
            helper.write_text(SAVING)
            helper.chmod(0o755)
            config.mkdir(exist_ok=True)
            (config / "config.json").write_text(json.dumps({"credsStore": HELPER.replace("docker-credential-", "")}))
        self.subject = self.referenced("app")
        self.notation("cert", "generate-test", "--default", "roadstead-test")
        policy = setting.folder("home-notation") / "policy.json"
        policy.write_text(json.dumps(POLICY))
        self.notation("policy", "import", "--force", policy)

    def referenced(self, image: str) -> str:
        self.setting.pushed(image, f"notation/{image}:1")
        return f"{self.setting.reference(f'notation/{image}')}@{root_digest(getattr(self.setting.images, image))}"

    def notation(self, *words: object, **more: object) -> Finished:
        return client([tool("notation"), *words], self.env, **more)

    def refused_list(self) -> None:
        refused([tool("notation"), "list", "--insecure-registry", self.subject], self.env, *UNAUTHORIZED)

    def wrong_login(self) -> None:
        refused([tool("notation"), *self.logging_in()], self.env, *UNAUTHORIZED, input="wrong")

    def login(self) -> None:
        self.notation(*self.logging_in(), input=self.setting.registry.password)

    def logging_in(self) -> List[str]:
        registry = self.setting.registry
        return ["login", "--insecure-registry", "-u", str(registry.user), "--password-stdin", registry.address]

    def sign(self) -> None:
        self.notation("sign", "--insecure-registry", self.subject)

    def inspect(self) -> None:
        listed = self.notation("list", "--insecure-registry", self.subject).stdout
        assert listed.count("sha256:") == 2, listed
        printed = json.loads(self.notation("inspect", "--insecure-registry", "--output", "json", self.subject).stdout)
        assert len(printed["Signatures"]) == 1, f"{printed}"

    def verify(self) -> None:
        done = self.notation("verify", "--insecure-registry", self.subject)
        assert "Successfully verified" in done.stdout + done.stderr, done

    def verify_unsigned(self) -> None:
        words = [tool("notation"), "verify", "--insecure-registry", self.referenced("mixed")]
        refused(words, self.env, "no signature is associated")
