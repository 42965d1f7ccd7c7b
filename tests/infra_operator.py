"""The operator's commands for accounts, the policy and tags, as the checks of infra/aws run them under the least policies."""

from __future__ import annotations

import json
from typing import Optional

from harness.backend import Backend


def changes_accounts(backend: Backend, user: str, password: str) -> None:
    """Changes a user who is there, and a robot from its beginning to its end; each command succeeds, or this raises."""
    robot = f"{user}-bot"

    def operate(text: str, input: Optional[str] = None) -> str:
        return backend.operate(*text.split(), input=input).stdout

    operate(f"user set {user} --add-group more")
    operate(f"user passwd {user} --password-stdin", f"{password}\n")
    operate(f"user disable {user}")
    operate(f"user enable {user}")
    operate("user list")
    operate(f"robot add {robot} --allow pull,create:rob/** --group bots --expires 90d")
    operate(f"robot set {robot} --add-group dev")
    operate(f"robot disable {robot}")
    operate(f"robot enable {robot}")
    operate("robot list")
    operate(f"robot show {robot}")
    operate("group list")
    (key,) = [json.loads(line)["id"] for line in operate(f"key list {robot} --json").splitlines()]
    operate(f"key rotate {robot} {key} --expires 30d --overlap 1h")
    operate(f"key remove {robot} {key}")
    operate(f"robot remove {robot}")


def releases(backend: Backend, user: str, repository: str) -> None:
    """Puts a policy in force and asks for it, and moves the tag 1 of a repository back and into another one."""
    backend.set_policy("syntax = 1\n")
    backend.operate("policy", "show")
    backend.operate("policy", "explain", user, "push", f"{repository}:1")
    backend.operate("repo", "create", f"{repository}-released")
    history = backend.operate("tag", "history", repository, "1", "--json").stdout
    digest = json.loads(history.splitlines()[0])["after"]
    backend.operate("tag", "rollback", repository, "1", digest)
    backend.operate("tag", "promote", f"{repository}:1", f"{repository}-released:1")
