"""cosign and notation: signatures beside the image, made and verified without any service but the registry."""

from __future__ import annotations

import json
from typing import Iterator

from common import Setting, client, refused, tool
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


def cosign(setting: Setting) -> Iterator[Result]:
    checks = Cosign(setting)
    yield setting.check("cosign: sign", checks.sign)
    yield setting.check("cosign: verify", checks.verify)
    yield setting.check("cosign: verify with another key is refused", checks.verify_other)
    yield setting.check("cosign: attest, verify the attestation", checks.attest)
    yield setting.check("cosign: copy an image with its signatures", checks.copy)


def notation(setting: Setting) -> Iterator[Result]:
    checks = Notation(setting)
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

    def sign(self) -> None:
        self.cosign("sign", "-y", "--key", "own.key", "--tlog-upload=false", "--use-signing-config=false", self.subject)

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
        self.setting, self.env = setting, setting.home("notation")
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
