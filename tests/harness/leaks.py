"""The search for secrets in what the servers of a run wrote: their logs, their metrics and their tables (S18).

Every `roadstead serve` that the harness starts hands over its metrics and its log when it ends; every command what it
wrote to standard error; every server and every stand-in its table; every `metadata export` what it wrote. The part `unit` hands over the
logs and tables of the servers that the tests of the crates start. At the end of a part `tests/run` adds one check, which fails if there is
a key, an access token, an upload token, a presigned query, a header with credentials or a password of the tests in any of it. A table keeps
hashes of passwords and keys, and the secrets that sign tokens, and never one of these.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Pattern, Set
from urllib.parse import quote, quote_plus

from .api import Result

# The texts of secrets that are recognized by their form.
_FORMS: Dict[str, Pattern[bytes]] = {
    # docs/accounts.md has the expression for scanners.
    "a key": re.compile(rb"rsk_[a-z0-9._-]{1,64}\.[0-9A-Za-z]{57}"),
    # The header of all access tokens begins with {"alg":"EdDSA","kid": in base64url.
    "an access token": re.compile(rb"eyJhbGciOiJFZERTQSIsImtpZCI6[0-9A-Za-z_.-]{100,}"),
    "an upload token": re.compile(rb"/blobs/uploads/[0-9A-Za-z_-]{60,}"),
    "a presigned query": re.compile(rb"X-Amz-(?:Signature|Credential|Security-Token)(?:=|%3[dD])[0-9A-Za-z%/+._-]+", re.IGNORECASE),
    # With a capital or a digit: "Basic authentication" is a word.
    "credentials": re.compile(rb"\b(?:[Bb]asic|[Bb]earer) (?=[0-9A-Za-z+/._~-]*[0-9A-Z])[0-9A-Za-z+/._~-]{12,}=*"),
    "the hash of a password": re.compile(rb"\$(?:argon2id|2[aby])\$[0-9A-Za-z$=,./+]{20,}"),
}
# What a table holds and a log does not.
_IN_TABLES = ("the hash of a password",)
# Shorter ones are words that stand in other texts.
_SHORTEST = 12
_SHOWN = 16


class _Found(NamedTuple):
    where: str
    what: str
    line: str


class Search:
    """What was searched since the last `result`, and what was found in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._secrets: Set[str] = set()
        # How much of a log was searched: a server that is started again appends to it.
        self._read: Dict[Path, int] = {}
        self._found: List[_Found] = []
        self._logs: Set[str] = set()
        self._tables: Set[str] = set()
        self._metrics = 0
        self._bytes = 0

    def knows(self, secret: str, user: str = "") -> None:
        """From now on this secret is looked for too: as it is, as a URL and a form have it, and as a header of `user` has it."""
        if len(secret) < _SHORTEST:
            return
        basic = base64.b64encode(f"{user}:{secret}".encode()).decode()
        with self._lock:
            self._secrets.update({secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], basic})

    def log(self, file: Path) -> None:
        """Searches what was appended to a log since the last time."""
        with self._lock:
            begin = self._read.get(file, 0)
        try:
            with open(file, "rb") as log:
                log.seek(begin)
                text = log.read()
        except FileNotFoundError:
            return  # the test has removed it
        # The next time begins with a whole line.
        end = text.rfind(b"\n") + 1
        with self._lock:
            self._read[file] = begin + end
            self._logs.add(str(file))
        self._text(f"the log {file}", text)

    def errors(self, command: str, text: str) -> None:
        """Searches what a command wrote to standard error. Standard output is where a new key is shown once."""
        self._text(f"the errors of {command}", text.encode())

    def metrics(self, text: bytes) -> None:
        """Searches metrics as a server serves them."""
        self._text("metrics", text)
        with self._lock:
            self._metrics += 1

    def folder(self, data: Path) -> None:
        """Searches the database of a data folder, with what is not in its main file yet."""
        files = [file for file in (data / "metadata.db", data / "metadata.db-wal") if file.is_file()]
        for file in files:
            self._text(f"the table {file}", file.read_bytes(), _IN_TABLES)
            with self._lock:
                self._tables.add(str(data))

    def export(self, text: bytes) -> None:
        """Searches what `metadata export` wrote, which has what a table has."""
        self._text("an export", text, _IN_TABLES)

    def items(self, table: str, items: Iterable[object]) -> None:
        """Searches the items of a table as they are on the wire."""
        text = "\n".join(json.dumps(item) for item in items)
        self._text(f"the table {table}", text.encode(), _IN_TABLES)
        with self._lock:
            self._tables.add(table)

    def result(self) -> List[Result]:
        """One check over all that was searched since the last call; none if there was no log and no table, and nothing was found."""
        with self._lock:
            found, self._found = self._found, []
            logs, self._logs = len(self._logs), set()
            tables, self._tables = len(self._tables), set()
            metrics, self._metrics = self._metrics, 0
            size, self._bytes = self._bytes, 0
            self._read.clear()
        if not logs and not tables and not found:
            return []
        lines = [f"{one.what} in {one.where}: {one.line}" for one in found[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"and {len(found) - _SHOWN} more")
        detail = "\n".join(lines) or f"{logs} logs, {tables} tables, metrics of {metrics} servers, {size >> 20} MiB"
        return [Result("no secret in logs, tables and metrics", not found, detail=detail)]

    def _text(self, where: str, text: bytes, allowed: Iterable[str] = ()) -> None:
        with self._lock:
            secrets = sorted(self._secrets)
            self._bytes += len(text)
        for what, form in _FORMS.items():
            if what not in allowed:
                self._add(where, what, text, (match.start() for match in form.finditer(text)))
        for secret in secrets:
            at = text.find(secret.encode())
            if at >= 0:
                self._add(where, "a secret of the tests", text, [at])

    def _add(self, where: str, what: str, text: bytes, places: Iterable[int]) -> None:
        for at in places:
            begin = max(text.rfind(b"\n", 0, at) + 1, at - 200)
            # The secret itself is not shown in full: what the run prints is kept.
            line = text[begin : at + 24].decode(errors="replace")
            with self._lock:
                self._found.append(_Found(where, what, "".join(letter if letter.isprintable() else "?" for letter in line) + "…"))


# Of this run.
SEARCH = Search()
