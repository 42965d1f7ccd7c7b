"""The part `kills`: processes die by SIGKILL while images are pushed, and nothing that was acknowledged is lost.

Three servers on one set of stores stand behind one address. Pushers send blobs and manifests and write down every answer; meanwhile a
random server is killed, and started again, over and over. Afterwards every acknowledged blob, manifest and tag is there and hashes, and
whatever else is visible was sent by a client and is whole. SIGKILL does not test syncs, since the system keeps what a process wrote.
The tests of `store-embedded` check syncs.

The pushers are a robot under a policy with immutable tags; half of them send its key, the others a token. Several of them push different
manifests to the same immutable tag, and delete such tags: whatever such a tag was once, it is to the end. They delete other tags and
manifests of their own, whose tags come back with no other manifest, and a robot that may only pull tries to push and to delete.

Afterwards the audit trail, the history and what was acknowledged are compared: every change has its event, and every event its change.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import itertools
import json
import os
import random
import threading
import time
from collections import Counter
from datetime import datetime
from typing import Dict, Iterator, List, NamedTuple, Optional, Set, Tuple
from urllib.parse import urlsplit

from harness import Cloud, Context, Fleet, Result, at_once, check, scratch
from harness.backend import Backend
from harness.build import roadstead
from harness.progress import step

PUSHERS = 4
REPOSITORIES = ("kills/a", "kills/b")
# Small ones for the many steps between requests, large ones for the steps within one: several parts of a multipart upload.
SIZES = (100, 20_000, 300_000, 6 << 20, 20 << 20)
WEIGHTS = (30, 30, 30, 6, 4)
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_POLICY = """\
syntax = 1

[[allow]]
name = "pushers"
who = ["robot:pusher"]
repositories = ["kills/**"]
actions = ["pull", "push", "delete"]

[[allow]]
name = "readers"
who = ["robot:reader"]
repositories = ["kills/**"]
actions = ["pull"]

[[deny]]
name = "readers never change anything"
who = ["robot:reader"]
repositories = ["**"]
actions = ["push", "delete"]

[[immutable]]
name = "releases"
repositories = ["kills/**"]
tags = ["semver"]

[[immutable]]
name = "deleted tags"
repositories = ["kills/**"]
tags = ["*-deleted"]
delete = true
"""
# One push of so many also tries to delete an immutable tag, deletes a tag or a manifest of its own, or is tried by who may only pull.
_DELETIONS = 5
_ROBOT = "robot:pusher"
_TIMEOUT = 60
# Maximum times in seconds: for one kill and the start after it, on average, and for a pusher to end.
_TIMEOUT_PER_KILL = 20
_TIMEOUT_OF_PUSHER = 600
# How often a pusher may try until one push goes through, when all servers are up again.
_TRIES = 5
# Few enough that a case has several pages.
_TAGS_PAGE = 20


def main(context: Context) -> List[Result]:
    # Once, and not by two threads that wait for each other.
    roadstead()
    kills = context.kills or (30 if context.full else 3)
    return at_once(
        lambda: check(f"disk+sqlite: {kills} kills", _on_disk, kills),
        lambda: check(f"s3+dynamodb: {kills} kills", _in_the_cloud, kills),
    )


def _on_disk(kills: int) -> str:
    with scratch("kills") as folder:
        return _case(Backend("disk+sqlite", folder / "data"), kills)


def _in_the_cloud(kills: int) -> str:
    with Cloud() as cloud:
        return _case(cloud.backend("s3+dynamodb"), kills)


class Target(NamedTuple):
    """Where requests go, and the credentials that they have."""

    address: str
    authorization: str


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    headers: Dict[str, str]
    body: bytes


class Image(NamedTuple):
    """What one push sends. `tag` is its own; `release` is an immutable tag to which other pushers send other images."""

    repository: str
    tag: str
    release: str
    blobs: Dict[str, bytes]
    manifest: bytes

    @property
    def digest(self) -> str:
        return _digest(self.manifest)


class Ledger:
    """What was sent, and what of it was acknowledged."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # A digest says what the bytes have to be.
        self.sent: Set[Tuple[str, str]] = set()
        self.blobs: Set[Tuple[str, str]] = set()
        self.manifests: Set[Tuple[str, str]] = set()
        # Tags are written once each, so that an acknowledged one names its manifest for ever.
        self.tags: Dict[Tuple[str, str], str] = {}
        self.sent_tags: Dict[Tuple[str, str], Set[str]] = {}
        # Tags and manifests that were pushed to be deleted, and whose deletion was acknowledged.
        self.deleted_tags: Set[Tuple[str, str]] = set()
        self.deleted_manifests: Set[Tuple[str, str]] = set()
        # What an immutable tag was when it was first acknowledged or read.
        self.releases: Dict[Tuple[str, str], str] = {}
        self.refused = 0
        self.failures = 0

    def stands(self, repository: str, tag: str, digest: str) -> None:
        """An immutable tag was acknowledged or read as `digest`: then it never was and never is another one."""
        with self.lock:
            before = self.releases.setdefault((repository, tag), digest)
        assert before == digest, f"the immutable tag {repository}:{tag} was {before} and is {digest}"


def _case(backend: Backend, kills: int) -> str:
    # Of the commands, only this one makes a registry.
    backend.operate("user", "add", "root", "--admin", "--no-password")
    pusher, reader = (_robot(backend, name) for name in ("pusher", "reader"))
    backend.set_policy(_POLICY)
    seed = int.from_bytes(os.urandom(4), "big")
    choose = random.Random(seed)
    ledger = Ledger()
    try:
        # A token lasts as long as all kills.
        with Fleet("--token-lifetime", "1h", backend=backend) as fleet, step(f"{kills} kills, seed {seed}"):
            target = Target(fleet.address, pusher)
            targets = (target, target._replace(authorization=_bearer(target)))
            stranger = Target(fleet.address, reader)
            ending = threading.Event()
            broken: List[BaseException] = []
            pushers = [
                threading.Thread(
                    target=_pusher,
                    args=(targets[number % 2], stranger, random.Random(seed + 1 + number), number, ledger, ending, broken),
                )
                for number in range(PUSHERS)
            ]
            for pusher in pushers:
                pusher.start()
            try:
                began = time.monotonic()
                for _ in range(kills):
                    assert time.monotonic() - began < _TIMEOUT_PER_KILL * kills, "killing takes too long"
                    time.sleep(choose.uniform(0.02, 0.6))
                    victim = choose.choice(fleet.servers)
                    victim.kill()
                    # The others go on alone for a while.
                    time.sleep(choose.uniform(0, 0.1))
                    victim.start()
            finally:
                ending.set()
                for pusher in pushers:
                    pusher.join(_TIMEOUT_OF_PUSHER)
            assert not any(pusher.is_alive() for pusher in pushers), "a pusher hangs"
            if broken:
                raise broken[0]
            # A kill ends at most one push of each pusher: that whose request is under way, or whose next one meets the claim of the dead
            # server on its upload. The push after that has uploads of its own, and the proxy passes over the server that is down.
            assert ledger.failures <= kills * PUSHERS, f"{ledger.failures} pushes failed for {kills} kills under {PUSHERS} pushers"
            summary = f"{_verify(target, ledger)}, {_verify_audit(fleet.backend, ledger)}"
            checked = fleet.backend.operate("fsck", "--json", ok=(0, 1))
            assert checked.returncode == 0, f"fsck found what does not agree:\n{checked.stdout[-4000:]}{checked.stderr[-2000:]}"
            return f"{summary}, {ledger.failures} pushes failed, seed {seed}"
    except AssertionError as error:
        raise AssertionError(f"{error} (seed {seed})") from error


def _robot(backend: Backend, name: str) -> str:
    """Adds a robot; the header with its key."""
    added = backend.operate("robot", "add", name, "--expires", "never", "--json").stdout
    return "Basic " + base64.b64encode(f"{name}:{json.loads(added)['key']}".encode()).decode()


def _bearer(target: Target) -> str:
    """The header with a token for all repositories."""
    scopes = "&".join(f"scope=repository:{repository}:pull,push,delete" for repository in REPOSITORIES)
    answer = _exchange(target, "GET", f"/token?{scopes}", b"", {})
    assert answer.status == 200, f"/token answered {answer.status}"
    return f"Bearer {json.loads(answer.body)['token']}"


def _pusher(
    target: Target,
    stranger: Target,
    choose: random.Random,
    number: int,
    ledger: Ledger,
    ending: threading.Event,
    broken: List[BaseException],
) -> None:
    # The other pushers choose the same releases, at about the same time.
    tags = ((f"p{number}-{count}", f"1.0.{count // 2}") for count in itertools.count(1))
    try:
        while not ending.is_set():
            _push(target, stranger, choose, _image(choose, *next(tags)), ledger)
        # All are up again: a registry that fails for ever after a kill must not pass.
        whole = any(_push(target, stranger, choose, _image(choose, *next(tags)), ledger) for _ in range(_TRIES))
        assert whole, f"{_TRIES} pushes after the last kill, and none went through"
    except BaseException as error:  # raised again in the main thread
        broken.append(error)


def _image(choose: random.Random, tag: str, release: str) -> Image:
    layers = [choose.randbytes(choose.choices(SIZES, WEIGHTS)[0]) for _ in range(choose.randint(1, 3))]
    config = json.dumps({"architecture": "amd64", "os": "linux", "tag": tag}).encode()
    blobs = {_digest(blob): blob for blob in [config, *layers]}
    described = [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": _digest(layer), "size": len(layer)} for layer in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _digest(config), "size": len(config)},
        "layers": described,
    }
    return Image(choose.choice(REPOSITORIES), tag, release, blobs, json.dumps(manifest).encode())


def _push(target: Target, stranger: Target, choose: random.Random, image: Image, ledger: Ledger) -> bool:
    """Pushes once; whether all of it went through. Any request may fail, because any server may die; then the push ends there, as a
    client's would."""
    try:
        for digest, blob in image.blobs.items():
            with ledger.lock:
                ledger.sent.add((image.repository, digest))
            _push_blob(target, choose, image.repository, digest, blob)
            with ledger.lock:
                ledger.blobs.add((image.repository, digest))
        with ledger.lock:
            ledger.sent.add((image.repository, image.digest))
            ledger.sent_tags[image.repository, image.tag] = {image.digest}
        path = f"/v2/{image.repository}/manifests/{image.tag}"
        _request(target, "PUT", path, 201, image.manifest, {"Content-Type": _MANIFEST})
        with ledger.lock:
            ledger.manifests.add((image.repository, image.digest))
            ledger.tags[image.repository, image.tag] = image.digest
        _release(target, image, ledger)
        if choose.randrange(_DELETIONS) == 0:
            _refused(target, "DELETE", image.repository, image.release, ledger)
        if choose.randrange(_DELETIONS) == 0:
            _push_and_delete(target, image, ledger, by_tag=choose.random() < 0.5)
        if choose.randrange(_DELETIONS) == 0:
            _may_only_pull(stranger, image)
        return True
    except (OSError, http.client.HTTPException, Unavailable):
        with ledger.lock:
            ledger.failures += 1
        return False


def _push_and_delete(target: Target, image: Image, ledger: Ledger, by_tag: bool) -> None:
    """Pushes a manifest with a tag of its own, and deletes the tag, or the manifest with the tag. The tag is frozen and may be deleted: a
    push of another manifest to it is refused."""
    repository, tag = image.repository, f"{image.tag}-deleted"
    manifest = json.dumps({**json.loads(image.manifest), "annotations": {"tag": tag}}).encode()
    digest = _digest(manifest)
    with ledger.lock:
        ledger.sent.add((repository, digest))
        ledger.sent_tags[repository, tag] = {digest}
    _request(target, "PUT", f"/v2/{repository}/manifests/{tag}", 201, manifest, {"Content-Type": _MANIFEST})
    _request(target, "DELETE", f"/v2/{repository}/manifests/{tag if by_tag else digest}", 202)
    with ledger.lock:
        if by_tag:
            ledger.manifests.add((repository, digest))
        else:
            ledger.deleted_manifests.add((repository, digest))
        ledger.deleted_tags.add((repository, tag))
    answer = _exchange(target, "PUT", f"/v2/{repository}/manifests/{tag}", image.manifest, {"Content-Type": _MANIFEST})
    asked = f"a push of another manifest to the deleted tag {repository}:{tag}"
    assert answer.status == 403, f"{asked}, was answered {answer.status}: {answer.body[:500]!r}"
    with ledger.lock:
        ledger.refused += 1


def _may_only_pull(stranger: Target, image: Image) -> None:
    """A robot that may only pull reads the image, and neither moves nor deletes its tag."""
    path = f"/v2/{image.repository}/manifests/{image.tag}"
    status, manifest = _get(stranger, path)
    if status >= 500:
        raise Unavailable(f"GET {path} answered {status}")
    assert (status, manifest) == (200, image.manifest), f"{path}: {status}"
    for method, body in (("PUT", b"{}"), ("DELETE", b"")):
        answer = _exchange(stranger, method, path, body, {"Content-Type": _MANIFEST})
        assert answer.status == 403, f"{method} {path} by who may only pull: {answer.status} {answer.body[:500]!r}"


def _release(target: Target, image: Image, ledger: Ledger) -> None:
    """Pushes an image to an immutable tag, which another image may have taken."""
    repository, tag = image.repository, image.release
    with ledger.lock:
        ledger.sent_tags.setdefault((repository, tag), set()).add(image.digest)
    answer = _exchange(target, "PUT", f"/v2/{repository}/manifests/{tag}", image.manifest, {"Content-Type": _MANIFEST})
    if answer.status == 201:
        ledger.stands(repository, tag, image.digest)
    else:
        _is_refusal(target, answer, repository, tag, ledger)


def _refused(
    target: Target, method: str, repository: str, tag: str, ledger: Ledger, manifest: bytes = b"", reference: Optional[str] = None
) -> None:
    """Tries to change an immutable tag that stands, by itself or by the `reference` of its manifest, which must not succeed."""
    path = f"/v2/{repository}/manifests/{reference or tag}"
    answer = _exchange(target, method, path, manifest, {"Content-Type": _MANIFEST} if manifest else {})
    _is_refusal(target, answer, repository, tag, ledger)


def _is_refusal(target: Target, answer: Answer, repository: str, tag: str, ledger: Ledger) -> None:
    """Asserts that an answer refuses the change of an immutable tag, and that the tag is what it was."""
    asked = f"an immutable tag, {repository}:{tag}"
    assert answer.status == 403, f"a change of {asked}, was answered {answer.status}: {answer.body[:500]!r}"
    assert json.loads(answer.body)["errors"][0]["code"] == "DENIED", answer.body
    with ledger.lock:
        ledger.refused += 1
    status, manifest = _get(target, f"/v2/{repository}/manifests/{tag}")
    if status >= 500:
        raise Unavailable(f"GET of {asked}, answered {status}")
    assert status == 200, f"{asked}, was refused because it stands, and GET answers {status}"
    ledger.stands(repository, tag, _digest(manifest))


def _push_blob(target: Target, choose: random.Random, repository: str, digest: str, blob: bytes) -> None:
    uploads = f"/v2/{repository}/blobs/uploads/"
    way = choose.choice(("patch", "put", "chunks", "at once"))
    if way == "at once":
        _request(target, "POST", f"{uploads}?digest={digest}", 201, blob)
        return
    location = _request(target, "POST", uploads, 202)["location"]
    rest = blob
    if way == "patch":
        location = _request(target, "PATCH", location, 202, _chunks(blob))["location"]
        rest = b""
    elif way == "chunks":
        cut = choose.randint(1, len(blob))
        headers = {"Content-Range": f"0-{cut - 1}"}
        location = _request(target, "PATCH", location, 202, blob[:cut], headers)["location"]
        rest = blob[cut:]
    _request(target, "PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", 201, rest)


def _chunks(blob: bytes) -> Iterator[bytes]:
    """A body of unknown length, as docker sends it."""
    for place in range(0, len(blob), 1 << 18):
        yield blob[place : place + (1 << 18)]


class Unavailable(Exception):
    """A server, or one that was killed since, could not do it."""


def _request(
    target: Target, method: str, path: str, expected: int, body: object = b"", headers: Optional[Dict[str, str]] = None
) -> Dict[str, str]:
    """Makes a request that is answered with the status `expected`; the headers of the answer."""
    answer = _exchange(target, method, path, body, headers or {})
    assert answer.status == expected, f"{method} {urlsplit(path).path} answered {answer.status}: {answer.body[:500]!r}"
    return answer.headers


def _exchange(target: Target, method: str, path: str, body: object, headers: Dict[str, str]) -> Answer:
    connection = http.client.HTTPConnection(target.address, timeout=_TIMEOUT)
    try:
        sent = {"Authorization": target.authorization, **headers}
        connection.request(method, path, body, sent, encode_chunked=not isinstance(body, bytes))  # type: ignore[arg-type]
        answer = connection.getresponse()
        text = answer.read()
        # A server that lived may have met the claim of one that did not: the same upload goes on a minute later, and a client that
        # does not wait for that begins another.
        if answer.status >= 500 or answer.status == 416:
            raise Unavailable(f"{method} {path} answered {answer.status}")
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)
    finally:
        connection.close()


def _verify(target: Target, ledger: Ledger) -> str:
    for repository, digest in ledger.sent:
        for kind, acknowledged in (("blobs", ledger.blobs), ("manifests", ledger.manifests)):
            status, found = _get(target, f"/v2/{repository}/{kind}/{digest}")
            if (repository, digest) in acknowledged:
                assert status == 200, f"{kind} {digest} of {repository} was acknowledged, and GET answers {status}"
            assert status in (200, 404), f"GET of {kind} {digest} of {repository} answers {status}"
            assert status == 404 or _digest(found) == digest, f"{kind} {digest} of {repository} is not what was sent"
    for repository, digest in ledger.deleted_manifests:
        status, _ = _get(target, f"/v2/{repository}/manifests/{digest}")
        assert status == 404, f"the manifest {digest} of {repository} was deleted, and GET answers {status}"
    for repository in REPOSITORIES:
        visible = set(_tags(target, repository))
        acknowledged = {tag for tagged, tag in [*ledger.tags, *ledger.releases] if tagged == repository}
        assert acknowledged <= visible, f"acknowledged, and not listed: {sorted(acknowledged - visible)}"
        deleted = {tag for tagged, tag in ledger.deleted_tags if tagged == repository}
        assert not deleted & visible, f"deleted, and listed: {sorted(deleted & visible)}"
        for tag in visible:
            digests = ledger.sent_tags.get((repository, tag))
            assert digests is not None, f"{repository}:{tag} is listed, and no client pushed it"
            status, manifest = _get(target, f"/v2/{repository}/manifests/{tag}")
            assert status == 200 and _digest(manifest) in digests, f"{repository}:{tag} does not resolve: {status}"
            if (repository, tag) in ledger.releases:
                ledger.stands(repository, tag, _digest(manifest))
            document = json.loads(manifest)
            for descriptor in [document["config"], *document["layers"]]:
                status, blob = _get(target, f"/v2/{repository}/blobs/{descriptor['digest']}")
                assert status == 200 and _digest(blob) == descriptor["digest"], f"{repository}:{tag} lost {descriptor['digest']}: {status}"
    assert ledger.tags and ledger.releases, "nothing was acknowledged"
    for (repository, tag), digest in list(ledger.releases.items()):
        path = f"/v2/{repository}/manifests/{tag}"
        _request(target, "PUT", path, 201, _get(target, path)[1], {"Content-Type": _MANIFEST})
        for other in [other for tagged, other in ledger.manifests if tagged == repository and other != digest][:1]:
            manifest = _get(target, f"/v2/{repository}/manifests/{other}")[1]
            _refused(target, "PUT", repository, tag, ledger, manifest)
        _refused(target, "DELETE", repository, tag, ledger)
        _refused(target, "DELETE", repository, tag, ledger, reference=digest)
    whole = f"{len(ledger.blobs)} blobs and {len(ledger.tags)} images were acknowledged and are whole"
    return f"{whole}, {len(ledger.releases)} immutable tags stand and {ledger.refused} changes of them were refused"


class TagChange(NamedTuple):
    """A change of a tag, as both the history and the audit trail have it."""

    repository: str
    tag: str
    before: Optional[str]
    after: Optional[str]
    principal: str
    at: int


def _verify_audit(backend: Backend, ledger: Ledger) -> str:
    """Compares the audit trail with the history, with the manifests that exist, and with what was acknowledged."""
    events = [json.loads(line) for line in backend.operate("audit", "--json").stdout.splitlines()]
    by_operator = Counter(event["event"] for event in events if event["principal"] == ":operator")
    assert by_operator == {"account.created": 3, "policy.set": 1}, f"the changes before the servers began: {by_operator}"
    events = [event for event in events if event["principal"] != ":operator"]
    others = {(event["principal"], event["repository"]) for event in events} - {(_ROBOT, repository) for repository in REPOSITORIES}
    assert not others, f"who may not change anything has: {others}"
    records = [json.loads(line) for line in backend.operate("metadata", "export").stdout.splitlines()]
    history = [
        TagChange(line["repository"], line["tag"], line["before"], line["after"], line["who"], line["at"])
        for line in records
        if line.get("record") == "history"
    ]
    pushed = [change for event in events if event["event"] == "manifest.pushed" for change in _pushed_tags(event)]
    _same("tags that were set", [change for change in history if change.after is not None], pushed)
    deleted = [change for event in events for change in _deleted_tags(event)]
    manifests = Counter((event["repository"], event["reference"]) for event in events if event["event"] == "manifest.deleted")
    removed = [change for change in history if change.after is None]
    _same("tags that were deleted", removed, deleted)
    pushes = Counter((event["repository"], event["reference"]) for event in events if event["event"] == "manifest.pushed")
    existing = Counter((line["repository"], line["digest"]) for line in records if line.get("record") == "manifest")
    for key in {*pushes, *manifests, *existing}:
        counts = f"{key} was pushed {pushes[key]} times, was deleted {manifests[key]} times, and exists {existing[key]} times"
        # A manifest that is deleted here is never pushed again, and the push that only adds a tag has an event too.
        assert pushes[key] and manifests[key] + existing[key] == 1, f"the audit trail: {counts}"
    recorded = {(change.repository, change.tag, change.after) for change in pushed}
    lost = {(repository, tag, digest) for (repository, tag), digest in [*ledger.tags.items(), *ledger.releases.items()]} - recorded
    assert not lost, f"acknowledged, and not in the audit trail: {sorted(lost)}"
    lost = {*ledger.manifests} - {*pushes} | ledger.deleted_manifests - {*manifests}
    assert not lost, f"acknowledged, and not in the audit trail: {sorted(lost)}"
    lost = ledger.deleted_tags - {(change.repository, change.tag) for change in removed}
    assert not lost, f"deletions that were acknowledged, and are not in the audit trail: {sorted(lost)}"
    return f"{len(events)} events in the audit trail agree with {len(history)} changes of tags"


def _pushed_tags(event: Dict[str, str]) -> Iterator[TagChange]:
    for row in json.loads(event["detail"] or "[]"):
        at = _milliseconds(event["at"])
        yield TagChange(event["repository"], row["tag"], row.get("before"), event["after"], event["principal"], at)


def _deleted_tags(event: Dict[str, str]) -> Iterator[TagChange]:
    """A manifest takes its tags with it, and its event lists them."""
    if event["event"] not in ("tag.deleted", "manifest.deleted"):
        return
    tags = [row["tag"] for row in json.loads(event["detail"] or "[]")]
    if event["event"] == "tag.deleted" and not tags:
        tags = [event["reference"]]
    for tag in tags:
        yield TagChange(event["repository"], tag, event["before"], None, event["principal"], _milliseconds(event["at"]))


def _milliseconds(at: str) -> int:
    moment = datetime.strptime(at, "%Y-%m-%dT%H:%M:%S.%fZ" if "." in at else "%Y-%m-%dT%H:%M:%SZ")
    return round((moment - datetime(1970, 1, 1)).total_seconds() * 1000)


def _same(what: str, changes: List[TagChange], events: List[TagChange]) -> None:
    """Asserts that each change has one event, and each event one change."""
    without_event, without_change = Counter(changes) - Counter(events), Counter(events) - Counter(changes)
    assert not without_event, f"{what}, without an event: {list(without_event)[:5]}"
    assert not without_change, f"{what} by the audit trail, and not by the history: {list(without_change)[:5]}"


def _tags(target: Target, repository: str) -> List[str]:
    """All of them, page by page; after the last tag comes an empty page."""
    found: List[str] = []
    while True:
        after = f"&last={found[-1]}" if found else ""
        status, text = _get(target, f"/v2/{repository}/tags/list?n={_TAGS_PAGE}{after}")
        if status == 404 and not found:
            return found  # before its first manifest a repository has no list
        assert status == 200, f"the tags of {repository}: {status}"
        page = json.loads(text)["tags"]
        assert not set(page) & set(found), f"the tags of {repository} after {found[-1]}: {page}"
        if not page:
            return found
        found += page


def _get(target: Target, path: str) -> Tuple[int, bytes]:
    """The status and the body, behind a redirect if there is one. The store is asked without credentials."""
    address, headers = target.address, {"Authorization": target.authorization}
    for _ in range(3):
        connection = http.client.HTTPConnection(address, timeout=_TIMEOUT)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 307:
                return answer.status, content
            parts = urlsplit(answer.headers["Location"])
            address, path, headers = parts.netloc, f"{parts.path}?{parts.query}", {}
        finally:
            connection.close()
    raise AssertionError(f"{path} redirects in circles")


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
