"""Checks of the search for secrets: each kind is found wherever it was planted, and what servers write otherwise is not taken for one."""

from __future__ import annotations

import base64
import sqlite3
from typing import Dict, List, Optional

from .api import Result, check
from .leaks import Search
from .process import scratch

_KEY = "rsk_ci." + "3f9aK2dQ" + "a" * 49
_ACCESS_TOKEN = "eyJhbGciOiJFZERTQSIsImtpZCI6Im1zR3hSQzVmbmxPdFNDaFEiLCJ0eXAiOiJKV1QifQ." + "x" * 40 + "." + "y" * 86
_UPLOAD_TOKEN = "AQAAAAcAAAAAAAAD6VVVVVVVVVVVVVVVVVVVVVUB7VprLnlG4aPYVNHO_Kr_WtqLv-iiu_4tK5z5pFn6cwk"
_PASSWORD = 'correct "horse" battery'
_PLANTED: Dict[str, str] = {
    "a key": _KEY,
    "an access token": _ACCESS_TOKEN,
    "an upload token": f"/v2/a/blobs/uploads/{_UPLOAD_TOKEN}",
    "a presigned query": "http://store/b/k?X-Amz-Signature=0123456789abcdef",
    "credentials": "authorization: Bearer YWxpY2U6c2VjcmV0",
    "a secret of the tests": _PASSWORD,
}
_HASH = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$aGFzaGhhc2hoYXNo"
# As servers write it.
_LINES = """\
{"level":"INFO","message":"the first key that signs tokens was made","kid":"msGxRC5fnlOtSChQ","target":"auth::accounts::token_signers"}
{"level":"INFO","event":"token.issued","principal":"robot:ci","credential":"3f9aK2dQ","reference":"fJmiHxJWxVv9","detail":"repository:a:pull"}
{"method":"PUT","path":"/v2/a/blobs/uploads/…","status":201,"user":"robot:ci","agent":"docker/28.0.1 basic authentication","target":"access"}
{"level":"WARN","message":"clients get the challenge Basic realm=\\"roadstead\\", or Bearer realm=\\"https://registry.example.com/token\\""}
"""


def main() -> List[Result]:
    return [
        check("search for secrets: each kind in a log", in_logs),
        check("search for secrets: each kind in a table, where hashes of passwords may be", in_tables),
        check("search for secrets: a password in each form that clients send", in_every_form),
        check("search for secrets: what was appended to a log", appended),
        check("search for secrets: nothing where servers write what they should", nothing),
    ]


def _search() -> Search:
    search = Search()
    search.knows(_PASSWORD, "alice")
    search.knows("short")
    return search


def _found(search: Search) -> Optional[str]:
    """What the search tells, or None if it found nothing."""
    results = search.result()
    assert len(results) == 1, results
    return None if results[0].ok else results[0].detail


def in_logs() -> None:
    for what, text in {**_PLANTED, "the hash of a password": _HASH}.items():
        with scratch("leaks") as folder:
            (folder / "log").write_text(f"{_LINES}{text}\n{_LINES}")
            search = _search()
            search.log(folder / "log")
            found = _found(search)
            assert found is not None and found.startswith(f"{what} in the log {folder}"), f"{what}: {found}"
            assert _KEY not in found and _ACCESS_TOKEN not in found, f"the report holds it too: {found}"


def in_tables() -> None:
    for what, text in _PLANTED.items():
        with scratch("leaks") as folder:
            database = sqlite3.connect(folder / "metadata.db")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE rows (value TEXT)")
            database.execute("INSERT INTO rows VALUES (?)", [f"{{{text}}} and {_HASH}"])
            database.commit()
            search = _search()
            # The row is in the log of the database while it is open, and in its file afterwards.
            search.folder(folder)
            open_one = _found(search)
            database.close()
            search.folder(folder)
            for found in (open_one, _found(search)):
                assert found is not None and found.startswith(f"{what} in the table {folder}"), f"{what}: {found}"
        search = _search()
        search.items("registry", [{"PK": {"S": "a"}}, {"PK": {"S": "b"}, "doc": {"S": f"{text} {_HASH}"}}])
        found = _found(search)
        assert found is not None and found.startswith(f"{what} in the table registry"), f"{what}: {found}"
        search.export(f'{{"name":"alice"}}\n{{"password":"{_HASH}","note":"{text}"}}\n'.encode())
        found = _found(search)
        assert found is not None and found.startswith(f"{what} in an export"), f"{what}: {found}"


def in_every_form() -> None:
    basic = base64.b64encode(f"alice:{_PASSWORD}".encode()).decode()
    for text in (
        _PASSWORD,
        "correct%20%22horse%22%20battery",
        "correct+%22horse%22+battery",
        'correct \\"horse\\" battery',
        basic,
    ):
        search = _search()
        search.metrics(f"requests_total{{path={text}}} 1\n".encode())
        assert _found(search) is not None, text
        search.errors("user add", f"roadstead: {text} is not a name\n")
        assert _found(search) is not None, text


def appended() -> None:
    with scratch("leaks") as folder:
        log, search = folder / "log", _search()
        log.write_text(f"{_LINES}half a line {_KEY[:20]}")
        search.log(log)
        with open(log, "a") as more:
            more.write(f"{_KEY[20:]}\n{_LINES}")
        search.log(log)
        found = _found(search)
        assert found is not None and len(found.splitlines()) == 1, found
        log.write_text(_LINES)
        search.log(log)
        assert _found(search) is None, "it was told before"


def nothing() -> None:
    search = _search()
    assert search.result() == [], "nothing was searched"
    with scratch("leaks") as folder:
        (folder / "log").write_text(f"{_LINES}short\n")
        search.log(folder / "log")
        search.items("registry", [{"hash": {"S": _HASH}, "key": {"S": "aa3KzwXdPQkAJFQK0R88NU6Zr1UpO2gzaRyFBLatdZc"}}])
        assert _found(search) is None
