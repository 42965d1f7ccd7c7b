"""The checks of infra/aws: the commands of its README, its policies, its units and its Kubernetes objects. Part of `samples`.

ministack is the account: it refuses what a policy does not allow, in DynamoDB, in its S3 and inside of transactions. That a registry works
there with a policy shows that the policy is enough; that it does not without any one of the actions shows that each is needed.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence

from recipes import (  # noqa: I001 - it makes the modules of tests/clients known
    AWS, PASSWORD, REGISTRY, TIMEOUT, USER, aws_cli, filled, kubectl, path_with, shell, steps, tool, tools,
)  # fmt: skip
from harness import Child, Cloud, HarnessError, Result, Server, cache_dir, check, free_port, run, wait_until
from harness.aws import Credentials, DynamoDb, S3
from harness.backend import Backend
from harness.build import roadstead
from harness.process import Finished
from images import Images
from infra_local import EXPOSURE, UNIT, accepts, first_account, push_and_pull, settings, valid
from layout import MANIFEST, sha256
from over_tls import Authority
from verify import Registry, root_digest
import infra_operator

README = AWS / "README.md"
NAME, REGION = "registry-example", "eu-central-1"
# A second registry, in the region that has a rule of its own for new buckets.
OTHER, EAST = "registry-east", "us-east-1"
# The account of the files. The stand-in's is another.
ACCOUNT = "111122223333"
MIB = 1 << 20
# The administrator of the registry that the policies are tried with.
ADMIN = "root"
OTHER_PASSWORD = "another pass word"
JSON = "application/vnd.oci.empty.v1+json"


class Account:
    """What the README's commands find: the AWS CLI, `roadstead`, and ministack for all of AWS."""

    def __init__(self, folder: Path, cloud: Cloud) -> None:
        self.endpoint = cloud.ministack.url
        self.root = cloud.credentials._replace(region=REGION)
        self.folder = folder
        programs = [aws_cli(folder / "bin"), roadstead(), Path(tool("crane"))]
        self.env = {**self.environment(self.root), "PATH": path_with(*programs), "AWS_PAGER": "", "HOME": str(folder), "DOCKER_CONFIG": str(folder)}
        self.s3, self.dynamodb = S3(self.endpoint, self.root), DynamoDb(self.endpoint, self.root)
        self.number = json.loads(self.aws("sts", "get-caller-identity", "--output", "json").stdout)["Account"]
        self._users = 0

    def environment(self, credentials: Credentials) -> Dict[str, Optional[str]]:
        """Changes to an environment in which AWS tools find the account."""
        # The CLI of version 1 has a variable of its own for the region.
        own = {"AWS_DEFAULT_REGION": credentials.region, "AWS_ENDPOINT_URL": self.endpoint, "AWS_CA_BUNDLE": None}
        return {**credentials.environment(), **own}

    def readme(self, holding: str, changes: Mapping[str, str] = {}) -> Finished:
        """Runs a block of the README in its folder."""
        return shell(filled(steps(README, holding), changes), AWS, self.env)

    def aws(self, *words: object, ok: Optional[Sequence[int]] = (0,)) -> Finished:
        return run(["aws", *map(str, words)], TIMEOUT, env=self.env, ok=ok)

    def user(self, *policies: Mapping[str, object]) -> Credentials:
        """A new user who may do what these policies say and nothing else."""
        self._users += 1
        name = f"user-{self._users}"
        self.aws("iam", "create-user", "--user-name", name)
        for number, policy in enumerate(policies):
            document = self.folder / f"{name}-{number}.json"
            document.write_text(json.dumps(policy).replace(ACCOUNT, self.number))
            words = ["--user-name", name, "--policy-name", str(number), "--policy-document", f"file://{document}"]
            self.aws("iam", "put-user-policy", *words)
        key = json.loads(self.aws("iam", "create-access-key", "--user-name", name, "--output", "json").stdout)["AccessKey"]
        return Credentials(key["AccessKeyId"], key["SecretAccessKey"], REGION)

    def backend(self, who: Credentials) -> Backend:
        """The registry of the README, as one of the users."""
        words = ("--blobs", f"s3://{NAME}", "--metadata", f"dynamodb://{NAME}")
        return Backend("s3+dynamodb", None, words, self.environment(who), self.s3, NAME, self.dynamodb, NAME)


def aws(folder: Path, full: bool = False) -> Iterator[Result]:
    tools()
    with Cloud() as cloud:
        account = Account(folder, cloud)
        yield check("aws: the README's sed puts other names in every place", renamed, folder)
        yield check("aws: policies are for one bucket, one table and one key", narrow)
        yield check("aws: the README's commands make the bucket and the table", bucket_and_table, account)
        yield check("aws: new buckets and their region, as the README says", new_buckets, account)
        yield check("aws: the README's commands make the roles", roles, account)
        yield check("aws: the README's commands push the image that kubernetes.yaml runs", image, account)
        yield check("aws: restored by the README's commands, it has what it had at that time", restored, account)
        yield check("aws: serve.json is enough to serve", serves, account)
        yield check("aws: serve.json is not enough to list or to walk", serving_walks_not, account)
        yield check("aws: with operate.json every operator's command works", operates, account, folder=folder)
        yield check("aws: setup.json is enough to set up", sets_up, account)
        if full:
            yield check("aws: serve.json has no action that is not needed", needed, "serve.json", account, serves)
            operators = partial(operates, folder=folder)
            yield check("aws: operate.json has no action that is not needed", needed, "operate.json", account, operators)
            # Last, since it leaves tables that are half made.
            yield check("aws: setup.json has no action that is not needed", needed, "setup.json", account, sets_up)
        for drop_ins in DROP_INS:
            label = " and ".join(drop_ins)
            yield check(f"aws: the unit with {label} is valid", unit, folder, drop_ins)
            yield check(f"aws: the command of the unit with {label} and aws.env serves", as_the_unit_says, folder, cloud, drop_ins)
        yield check("aws: the timers' units are valid, and leave little exposed", timers, folder)
        yield check("aws: what the timers run: a collection, and a deep one", as_the_timers_say, cloud)
        yield check("aws: Kubernetes knows every field of what kubernetes.yaml runs", known_fields, folder)
        yield check("aws: what kubernetes.yaml runs: two servers, and a collection", as_kubernetes_runs, folder, cloud)


# --- the README ---


def renamed(folder: Path) -> str:
    """Nothing is left of the example names, and nothing else has changed."""
    place = folder / "renamed"
    shutil.copytree(AWS, place)
    command = steps(README, "sed -i 's/")
    shell(command, place, dict(os.environ))
    pairs = re.findall(r"s/([^/]+)/([^/]+)/g", command)
    assert [old for old, _ in pairs] == [NAME, REGION, ACCOUNT], pairs
    changed = 0
    for old in AWS.rglob("*"):
        if old.is_file():
            before, after = old.read_text(), (place / old.relative_to(AWS)).read_text()
            # The command itself is in the README, and names both sides of each pair.
            for mine, theirs in pairs:
                before = before.replace(mine, theirs)
            assert after == before, f"{old.name} is not what the command was to make of it"
            changed += old.read_text() != after
    files = ("serve.json", "operate.json", "setup.json", "kms.json", "table.json", "trust-irsa.json", "aws.env", "kubernetes.yaml")
    for name in files:
        (found,) = place.rglob(name)
        assert found.read_text() != next(AWS.rglob(name)).read_text(), f"{name} names nothing of the reader's"
    return f"{changed} files"


def narrow() -> None:
    """A wildcard for a region or an account also allows tables of the same name of another owner, or of another day."""
    wanted = {
        f"arn:aws:s3:::{NAME}",
        f"arn:aws:s3:::{NAME}/*",
        f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{NAME}",
        f"arn:aws:kms:{REGION}:{ACCOUNT}:key/00000000-0000-0000-0000-000000000000",
    }
    found = set()
    for file in (AWS / "policies").iterdir():
        for statement in json.loads(file.read_text())["Statement"]:
            resource = statement["Resource"]
            found |= set(resource if isinstance(resource, list) else [resource])
            assert not [action for action in statement["Action"] if "*" in action], f"{file.name}: {statement['Sid']}"
            for values in statement.get("Condition", {}).values():
                assert not [value for value in values.values() if "*" in value], f"{file.name}: {statement['Sid']}"
    assert found == wanted, found ^ wanted


def bucket_and_table(account: Account) -> None:
    """`roadstead metadata init` makes by itself what table.json says, but for the protection, and leaves what is there."""
    account.aws("dynamodb", "list-tables")
    alone = {"--metadata dynamodb://registry-example": "--metadata dynamodb://by-itself"}
    commands = steps(README, "create-table").splitlines()
    account_only = "\n".join([commands[0], next(line for line in commands if line.startswith("roadstead metadata init"))])
    shell(filled(account_only, alone), AWS, account.env)
    account.readme("create-table")
    shell(account_only, AWS, account.env)
    described = [account.dynamodb.describe(name) or {} for name in (NAME, "by-itself")]
    parts = ("KeySchema", "AttributeDefinitions", "BillingModeSummary")
    theirs, ours = [{part: one.get(part) for part in parts} for one in described]
    theirs["BillingModeSummary"] = ours["BillingModeSummary"] = {
        one["BillingModeSummary"].get("BillingMode") for one in (theirs, ours)
    }
    assert theirs == ours, f"table.json makes {theirs}, init makes {ours}"
    assert described[0].get("DeletionProtectionEnabled") is True, described[0]
    recovery = account.dynamodb.call("DescribeContinuousBackups", {"TableName": NAME})["ContinuousBackupsDescription"]
    assert recovery["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED", recovery
    versions = account.aws("s3api", "get-bucket-versioning", "--bucket", NAME, "--output", "text").stdout
    assert "Enabled" in versions, versions
    rules = json.loads(account.aws("s3api", "get-bucket-lifecycle-configuration", "--bucket", NAME, "--output", "json").stdout)["Rules"]
    aborts = [rule["AbortIncompleteMultipartUpload"] for rule in rules if "AbortIncompleteMultipartUpload" in rule]
    assert [rule["DaysAfterInitiation"] for rule in aborts] == [7], rules
    # The table can go back 35 days; what was deleted in that time must still be there.
    kept = [rule["NoncurrentVersionExpiration"]["NoncurrentDays"] for rule in rules if "NoncurrentVersionExpiration" in rule]
    assert len(kept) == 1 and kept[0] > 35, rules
    # What marks an object as deleted may go; no object may.
    marks = {"ExpiredObjectDeleteMarker": True}
    deleting = [rule for rule in rules if rule.get("Expiration", marks) != marks or "Transitions" in rule]
    assert not deleting, f"a rule deletes what is in use: {deleting}"


def new_buckets(account: Account) -> None:
    """`aws s3 mb` is right in the one region too; the other command needs the region everywhere else."""

    def creates(region: str, *words: str) -> bool:
        name = f"new-{os.urandom(4).hex()}"
        return account.aws("s3api", "create-bucket", "--bucket", name, "--region", region, *words, ok=None).returncode == 0

    def placed(region: str) -> List[str]:
        return ["--create-bucket-configuration", f"LocationConstraint={region}"]

    account.aws("s3", "mb", f"s3://made-{os.urandom(4).hex()}", "--region", EAST)
    found = [creates(EAST), creates(EAST, *placed(EAST)), creates(REGION), creates(REGION, *placed(REGION))]
    assert found == [True, False, False, True], found


def image(account: Account) -> None:
    """The name is that of every container, and the registry of the account stands for ECR."""
    layout = Images(str(cache_dir()), tool("busybox")).app
    shutil.copytree(layout, account.folder / "roadstead-image")
    host = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
    pushed = re.findall(rf"crane push \S+ ({re.escape(host)}\S+)", steps(README, "crane push"))
    run_by = {line.split()[-1] for line in (AWS / "kubernetes.yaml").read_text().splitlines() if line.strip().startswith("image:")}
    assert set(pushed) == run_by, f"the README pushes {pushed}, kubernetes.yaml runs {sorted(run_by)}"
    assert '--output "$HOME/roadstead-image"' in steps(README, "infra/image/build.py")
    with Server() as server:
        account.readme("crane push", {host: server.address})
        Registry(server.address).verify("roadstead", "1", expect=root_digest(layout))


def roles(account: Account) -> None:
    words = ["ec2", "run-instances", "--image-id", "ami-12345678", "--instance-type", "t4g.small"]
    instance = json.loads(account.aws(*words, "--output", "json").stdout)["Instances"][0]["InstanceId"]
    account.readme("create-instance-profile", {"i-0123456789abcdef0": instance})
    mine = account.folder / "collect.json"
    changes = {"> trust-collect.json": f"> {mine}", "file://trust-collect.json": f"file://{mine}"}
    account.readme("trust-irsa.json > trust-collect.json", changes)
    for role, wanted in {"roadstead-host": ["operate", "serve"], "roadstead": ["serve"], "roadstead-operate": ["operate", "serve"]}.items():
        policies = json.loads(account.aws("iam", "list-role-policies", "--role-name", role, "--output", "json").stdout)
        assert sorted(policies["PolicyNames"]) == wanted, f"{role}: {policies}"
    trusted = json.loads(mine.read_text())["Statement"][0]["Condition"]["StringEquals"]
    assert [value for value in trusted.values() if value.endswith(":roadstead-collect")], trusted
    # Nothing that is not JSON of a policy is accepted.
    account.aws("iam", "create-policy", "--policy-name", "kms", "--policy-document", f"file://{AWS}/policies/kms.json")


# --- a restore ---


def restored(account: Account) -> str:
    """The account restores a table as it is when it is asked, and not as it was before: so it is asked at the time itself."""
    reader = Reader(account)
    reader.does("create-table")
    with Server(backend=reader.backend()) as server:
        pushed = Pushed(Registry(server.address), "team/app")
        first, second = pushed.image("1"), pushed.image("2")
        there, moment = set(reader.objects()), time.strftime("%Y-%m-%dT%H:%M", time.gmtime())
        reader.does("restore-table-to-point-in-time", {"WHEN=2026-11-30T12:00": f"WHEN={moment}"})
        later = pushed.image("later")
        pushed.ask("DELETE", f"/v2/team/app/manifests/{first['digest']}", 202)
        collect = ("collect", "--grace", "1s", "--json")
        # The two layers of the first image, and the config that came a second time with the second one.
        wait_until(lambda: reader.backend().operate(*collect) and len(there - set(reader.objects())) == 3, 60, "its objects are deleted")
    gone, new = there - set(reader.objects()), set(reader.objects()) - there
    reader.does(f"metadata init --metadata dynamodb://{OTHER}-restored")
    reader.does("list-object-versions", before=f"WHEN={moment}")
    assert gone <= set(reader.objects()), f"not brought back: {sorted(gone - set(reader.objects()))}"
    printed = reader.does("roadstead fsck", ok=(1,)).stdout
    orphans = re.findall(r"^orphan location=(\S+) ", printed, re.MULTILINE)
    # More than are new: what was pushed later and was deleted again has come back too.
    assert len(orphans) == len(printed.splitlines()) and new <= set(orphans) and there.isdisjoint(orphans), f"{printed}\nbefore: {sorted(there)}"
    reader.does("sed -i 's#dynamodb:")
    chosen = variables(reader.place / "aws.env")["ROADSTEAD_METADATA"]
    assert chosen == f"dynamodb://{OTHER}-restored" and f"ROADSTEAD_METADATA: {chosen}\n" in (reader.place / "kubernetes.yaml").read_text()
    table = f"{OTHER}-restored"
    described = reader.dynamodb.describe(table) or {}
    assert described.get("DeletionProtectionEnabled") is True, described
    expiry = reader.dynamodb.call("DescribeTimeToLive", {"TableName": table})["TimeToLiveDescription"]
    assert expiry["TimeToLiveStatus"] == "ENABLED", expiry
    reader.does("--no-deletion-protection-enabled")
    assert reader.dynamodb.describe(OTHER) is None, "the old table is still there"
    policies = [json.loads((reader.place / "policies" / name).read_text()) for name in ("serve.json", "operate.json")]
    backend = reader.backend(account.user(*policies), table)
    with Server(backend=backend) as server:
        registry = Registry(server.address)
        for _ in range(2):
            for tag, manifest in (("1", first), ("2", second)):
                digest, _, body = registry.manifest("team/app", tag)
                assert digest == manifest["digest"], tag
                for one in json.loads(body)["layers"]:
                    registry.blob("team/app", one)
            assert registry.request("GET", f"/v2/team/app/manifests/{later['digest']}").status == 404
            # What the restored table had planned to delete must not take what it refers to.
            backend.operate("collect", "--deep", "--json")
        Pushed(registry, "team/app").image("again")
    return f"{len(gone)} objects brought back, {len(new)} were pushed later"


class Reader:
    """A user who has made a copy of the folder with names of their own, and follows its README."""

    def __init__(self, account: Account) -> None:
        self.account, self.place = account, account.folder / "copy"
        root = account.root._replace(region=EAST)
        self.env = {**account.env, **account.environment(root)}
        self.s3, self.dynamodb = S3(account.endpoint, root), DynamoDb(account.endpoint, root)
        shutil.copytree(AWS, self.place)
        for file in self.place.rglob("*"):
            if file.is_file():
                file.write_text(file.read_text().replace(NAME, OTHER).replace(REGION, EAST))

    def does(self, holding: str, changes: Mapping[str, str] = {}, before: str = "", **more: object) -> Finished:
        """Runs the block of commands that holds a text, after a line of an earlier block that it relies on."""
        script = filled(steps(self.place / "README.md", holding), changes)
        return shell(f"{before}\n{script}", self.place, self.env, **more)

    def backend(self, who: Optional[Credentials] = None, table: str = OTHER) -> Backend:
        words = ("--blobs", f"s3://{OTHER}", "--metadata", f"dynamodb://{table}")
        env = self.account.environment((who or self.account.root)._replace(region=EAST))
        return Backend("s3+dynamodb", None, words, env, self.s3, OTHER, self.dynamodb, table)

    def objects(self) -> Dict[str, int]:
        return self.backend().objects()


# --- the policies ---


def policy(name: str, without: str = "") -> Dict[str, object]:
    """A policy of infra/aws, less one action."""
    document = json.loads((AWS / "policies" / name).read_text())
    for statement in document["Statement"]:
        named = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        # A statement must keep an action; no request needs this one.
        statement["Action"] = [action for action in named if action != without] or ["s3:GetObjectTorrent"]
    return document


def actions(name: str) -> List[str]:
    document = policy(name)
    return [action for statement in document["Statement"] for action in statement["Action"]]  # type: ignore[attr-defined]


def administered(account: Account) -> None:
    """Adds the administrator, unless there is one, by a user who may do everything."""
    backend = account.backend(account.root)
    if ADMIN not in backend.operate("user", "list").stdout.split():
        backend.operate("user", "add", ADMIN, "--admin", "--password-stdin", input=f"{PASSWORD}\n")


def serves(account: Account, without: str = "") -> None:
    """Every way to serve; whatever was refused is in the log, also where the client does not see the reason."""
    administered(account)
    with Server(backend=account.backend(account.user(policy("serve.json", without)))) as server:
        failure = None
        try:
            registry = Registry(server.address, ADMIN, PASSWORD)
            use(registry)
            administer(registry)
        except AssertionError as error:
            failure = error
        # With the process its log ends, and what it was still doing beside.
        server.stop()
        denied = [line for line in server.log.read_text(errors="replace").splitlines() if "AccessDenied" in line]
        assert not denied, f"refused: {denied[0]}"
        assert failure is None, f"{failure}\n{server.log_tail()}"


def serving_walks_not(account: Account) -> None:
    for words in (["fsck"], ["collect"], ["metadata", "export"]):
        done = account.backend(account.user(policy("serve.json"))).operate(*words, ok=None)
        assert done.returncode != 0 and "AccessDenied" in done.stderr, f"{words} is not refused: {done}"


def operates(account: Account, without: str = "", *, folder: Path) -> None:
    backend = account.backend(account.user(policy("serve.json"), policy("operate.json", without)))
    dump, copied = folder / "dump", folder / "copied"
    for path in (dump, dump.with_name("dump.progress")):
        path.unlink(missing_ok=True)
    shutil.rmtree(copied, ignore_errors=True)
    administered(account)
    with Server(backend=backend) as server:
        repository = f"kept-{os.urandom(4).hex()}"
        Pushed(Registry(server.address, ADMIN, PASSWORD), repository).image("1")
    user, rules = f"user-{os.urandom(4).hex()}", folder / "rules.toml"
    rules.write_text("syntax = 1\n")
    done = [backend.operate("user", "add", user, "--group", "dev", "--password-stdin", input=f"{OTHER_PASSWORD}\n")]
    if not without:
        infra_operator.changes_accounts(backend, user, OTHER_PASSWORD)
        infra_operator.releases(backend, user, repository)
    done += [
        backend.operate("key", "add", user, "--expires", "1d"),
        backend.operate("user", "show", user),
        backend.operate("policy", "set", rules),
        backend.operate("policy", "versions"),
        backend.operate("signing-key", "rotate"),
        backend.operate("signing-key", "list"),
        backend.operate("user", "remove", user),
        backend.operate("audit", "--since", "1h", "--json"),
        backend.operate("collect", "--grace", "1s", "--deep", "--json"),
        backend.operate("fsck", "--hash", "--json"),
        backend.operate("metadata", "export", "--output", dump),
        backend.operate("metadata", "import", "--force", dump),
        backend.operate("blobs", "copy", "--to", f"disk:{copied}"),
        backend.operate("blobs", "copy", "--to", f"s3://{NAME}/copy"),
    ]
    denied = [one.stderr for one in done if "AccessDenied" in one.stderr]
    assert not denied, denied[0]


def sets_up(account: Account, without: str = "") -> None:
    if account.dynamodb.describe(NAME):
        account.aws("dynamodb", "update-table", "--table-name", NAME, "--no-deletion-protection-enabled")
        account.aws("dynamodb", "delete-table", "--table-name", NAME)
        # No record has these any more, and fsck would report them.
        for one in account.s3.objects(NAME):
            account.s3.delete(NAME, one.key)
    who = account.user(policy("setup.json", without))
    done = account.backend(who).operate("metadata", "init")
    assert "AccessDenied" not in done.stderr, done
    again = account.backend(who).operate("metadata", "init")
    assert "AccessDenied" not in again.stderr, again


# What the stand-in does not ask for, and AWS does: S3 answers 403 and not 404 for an absent object to those who may not list.
NEEDED_ON_AWS = {"s3:ListBucket"}


def needed(name: str, account: Account, does: Callable[..., None]) -> str:
    """With a policy something works, and without any one of its actions it does not."""
    does(account)
    free = []
    for action in actions(name):
        if action in NEEDED_ON_AWS:
            continue
        try:
            does(account, action)
        except (AssertionError, HarnessError):
            pass
        else:
            free.append(action)
        if account.dynamodb.describe(NAME) is None:
            sets_up(account)
    assert not free, f"works without {', '.join(free)}"
    return f"{len(actions(name))} actions"


class Pushed:
    """Pushes into a repository, asserting each status."""

    def __init__(self, registry: Registry, repository: str) -> None:
        self.registry, self.repository = registry, repository

    def ask(self, method: str, path: str, status: int, body: Optional[bytes] = None, **headers: str):
        answer = self.registry.request(method, path, body, **headers)
        assert answer.status == status, f"{method} {path} is {answer.status}: {answer.body[:300]!r}"
        return answer

    def blob(self, *bodies: bytes) -> dict:
        """A blob by as many PATCHes, or by one PUT."""
        digest = sha256(b"".join(bodies))
        place = self.ask("POST", f"/v2/{self.repository}/blobs/uploads/", 202, b"").headers["location"]
        last = bodies[0] if len(bodies) == 1 else b""
        for body in bodies if len(bodies) > 1 else ():
            place = self.ask("PATCH", place, 202, body, Content_Type="application/octet-stream").headers["location"]
        self.ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", 201, last)
        return {"mediaType": "application/octet-stream", "digest": digest, "size": sum(map(len, bodies))}

    def cut(self, place: str, declared: int, sent: int) -> None:
        """A PATCH whose connection ends before its body does."""
        connection = http.client.HTTPConnection(self.registry.address, timeout=TIMEOUT)
        try:
            connection.putrequest("PATCH", place)
            connection.putheader("Content-Type", "application/octet-stream")
            connection.putheader("Content-Length", str(declared))
            connection.endheaders(os.urandom(sent))
        finally:
            connection.close()

    def manifest(self, reference: str, layers: Sequence[dict], **more: object) -> dict:
        config = {**self.blob(b"{}"), "mediaType": JSON}
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "text/plain", "config": config, "layers": layers, **more}
        body = json.dumps(document).encode()
        self.ask("PUT", f"/v2/{self.repository}/manifests/{reference}", 201, body, Content_Type=MANIFEST)
        return {"mediaType": MANIFEST, "digest": sha256(body), "size": len(body)}

    def image(self, tag: str) -> dict:
        """A small one, with one layer that is large enough to be stored in parts."""
        return self.manifest(tag, [self.blob(os.urandom(1000)), self.blob(os.urandom(6 * MIB))])


def use(registry: Registry) -> None:
    """Every kind of request that reaches a store."""
    here = Pushed(registry, f"team/app-{os.urandom(4).hex()}")
    base, there = f"/v2/{here.repository}", Pushed(registry, f"{here.repository}-other")
    whole = here.blob(os.urandom(12 * MIB))
    pieces = here.blob(os.urandom(1000), os.urandom(6 * MIB + 1), os.urandom(10))
    place = here.ask("POST", f"{base}/blobs/uploads/", 202, b"").headers["location"]
    place = here.ask("PATCH", place, 202, os.urandom(9 * MIB), Content_Type="application/octet-stream").headers["location"]
    here.ask("GET", place, 204)
    here.ask("DELETE", place, 204)
    place = here.ask("POST", f"{base}/blobs/uploads/", 202, b"").headers["location"]
    for _ in range(2):
        here.cut(place, 30 * MIB, 20 * MIB)
        # The server may learn of the cut a moment later, and refuses another body until then.
        wait_until(lambda: registry.request("PATCH", place, b"", Content_Type="text/plain").status == 202, 20, "the body that was cut has ended")
    # What the cut bodies have left is collection's to find: nothing here searches for it.
    end = os.urandom(1000)
    here.ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={sha256(end)}", 201, end)
    first = here.manifest("1", [whole, pieces])
    second = here.manifest("1", [whole], annotations={"n": "2"})
    here.manifest("2", [whole], annotations={"n": "2"})
    large = here.manifest("large", [whole], annotations={str(number): "x" * 1000 for number in range(50)})
    here.manifest("signature", [pieces], subject=second)
    referrers = json.loads(here.ask("GET", f"{base}/referrers/{second['digest']}", 200).body)["manifests"]
    assert len(referrers) == 1, referrers
    here.ask("POST", f"/v2/{there.repository}/blobs/uploads/?mount={whole['digest']}&from={here.repository}", 201, b"")
    here.ask("POST", f"/v2/{there.repository}/blobs/uploads/?mount={pieces['digest']}", 201, b"")
    for tag in ("1", "2", "large"):
        registry.manifest(here.repository, tag)
        here.ask("HEAD", f"{base}/manifests/{tag}", 200)
    registry.manifest(here.repository, first["digest"])
    for one in (whole, pieces):
        registry.blob(here.repository, one)
        ranged = here.ask("GET", f"{base}/blobs/{one['digest']}", 206, Range="bytes=0-9,20-29")
        assert ranged.headers["content-type"].startswith("multipart/byteranges"), ranged.headers
    here.ask("GET", f"{base}/tags/list?n=2", 200)
    here.ask("GET", "/v2/_catalog?n=10", 200)
    here.ask("DELETE", f"{base}/manifests/2", 202)
    for one in (large, first):
        here.ask("DELETE", f"{base}/manifests/{one['digest']}", 202)
    there.ask("DELETE", f"/v2/{there.repository}/blobs/{whole['digest']}", 202)


def administer(registry: Registry) -> None:
    """Logins of every kind, and what reaches accounts, the policy, the audit trail and the keys that sign tokens."""
    name, api = f"user-{os.urandom(4).hex()}", Pushed(registry, "")

    def login(secret: str) -> int:
        return Registry(registry.address, name, secret).request("GET", "/token?service=roadstead").status

    def change(method: str, path: str, status: int, body: Mapping[str, object] = {}) -> dict:
        headers = {"Content_Type": "application/json", "If_Match": "*"}
        answer = api.ask(method, f"/api/v1/{path}", status, json.dumps(body).encode(), **headers)
        return json.loads(answer.body or b"{}")

    change("POST", "accounts", 201, {"name": name, "kind": "user", "groups": ["dev"], "password": OTHER_PASSWORD})
    key = change("POST", f"accounts/{name}/keys", 201, {"expires": "never"})
    found = [login(secret) for secret in ("a wrong pass word", OTHER_PASSWORD, key["key"])]
    assert found == [401, 200, 200], f"a wrong password, the right one and a key: {found}"
    granted = json.loads(api.ask("GET", "/token?service=roadstead&scope=registry:catalog:*", 200).body)
    api.ask("GET", "/v2/_catalog?n=1", 200, Authorization=f"Bearer {granted['token']}")
    change("PUT", "policy", 200, {"syntax": 1})
    change("POST", "signing-keys/rotate", 201)
    change("PATCH", f"accounts/{name}", 200, {"groups": []})
    # The day on which a key was used last is with it.
    keys = json.loads(api.ask("GET", f"/api/v1/accounts/{name}/keys", 200).body)["items"]
    assert [one["last_used"] is None for one in keys] == [False], keys
    change("DELETE", f"accounts/{name}", 204)
    for path in ("accounts", "policy", "policy/versions", "signing-keys"):
        api.ask("GET", f"/api/v1/{path}", 200)
    api.ask("GET", "/.well-known/jwks.json", 200)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3600))
    events, path = [], f"/api/v1/audit?n=1000&from={since}"
    after: Optional[str] = ""
    while after is not None:
        page = json.loads(api.ask("GET", f"{path}&after={after}" if after else path, 200).body)
        events += [event["event"] for event in page["items"] if event["reference"] == name]
        after = page["next"]
    assert events == ["account.created", "account.changed", "account.removed"], events


# --- the unit ---


# The drop-ins that README.md installs, alone and together.
DROP_INS = (("aws.conf",), ("aws.conf", "tls.conf"))


def unit(folder: Path, drop_ins: Sequence[str]) -> None:
    """The unit of infra/local with the drop-ins, as systemd reads them together."""
    place = folder / f"units-{len(drop_ins)}"
    (place / "roadstead.service.d").mkdir(parents=True)
    # systemd looks whether the program is there.
    program = {"/usr/local/bin/roadstead": str(roadstead())}
    (place / "roadstead.service").write_text(filled(UNIT.read_text(), program))
    for name in drop_ins:
        assert name in steps(README, f"install -D -m 0644 {name} "), f"README.md does not install {name}"
        (place / "roadstead.service.d" / name).write_text(filled((AWS / name).read_text(), program))
    valid(place / "roadstead.service")


def combined(drop_ins: Sequence[str]) -> Dict[str, List[str]]:
    """The settings of the unit of infra/local with the drop-ins. systemd reads them by name; an empty value removes earlier ones."""
    found: Dict[str, List[str]] = {}
    for text in [UNIT.read_text(), *((AWS / name).read_text() for name in sorted(drop_ins))]:
        for name, values in settings(text).items():
            for value in values:
                found[name] = [*found.get(name, []), value] if value else []
    return found


def variables(file: Path) -> Dict[str, str]:
    """The variables of an environment file."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def service_environment(cloud: Cloud, variables: Mapping[str, str]) -> Dict[str, Optional[str]]:
    """The environment that infra/aws gives a server, with the stand-ins' addresses and a bucket and table of their own."""
    own = cloud.backend("s3+dynamodb")
    assert variables["ROADSTEAD_BLOBS"] == f"s3://{NAME}" and variables["ROADSTEAD_METADATA"] == f"dynamodb://{NAME}", variables
    stores = {"ROADSTEAD_BLOBS": f"s3://{own.bucket}", "ROADSTEAD_METADATA": f"dynamodb://{own.table}"}
    ends = {"AWS_ENDPOINT_URL_S3": cloud.versitygw.url, "AWS_ENDPOINT_URL_DYNAMODB": cloud.ministack.url}
    known = {**variables, **stores, "AWS_REGION": cloud.credentials.region}
    # Who owns a bucket is a word of AWS's that a stand-in does not know.
    known.pop("ROADSTEAD_S3_EXPECTED_BUCKET_OWNER", None)
    return {**own.environment(), **known, **ends}


def without_blobs(env: Mapping[str, Optional[str]]) -> Dict[str, Optional[str]]:
    """The environment of an administrator's own machine, from which only the table can be reached."""
    return {name: None if name.startswith(("ROADSTEAD_BLOBS", "ROADSTEAD_S3")) else value for name, value in env.items()}


def as_the_unit_says(folder: Path, cloud: Cloud, drop_ins: Sequence[str]) -> None:
    place = folder / f"host-{len(drop_ins)}"
    place.mkdir()
    port = free_port()
    with_tls = "tls.conf" in drop_ins
    says = combined(drop_ins)
    assert says["StateDirectory"] == [] and says["EnvironmentFile"] == ["/etc/roadstead/aws.env"], says
    (line,) = says["ExecStart"]
    assert "STATE_DIRECTORY" not in line, "the service has no such folder"
    changes = {"/usr/local/bin/roadstead": str(roadstead())}
    if with_tls:
        authority = Authority(folder / "authority")
        changes.update({
            "0.0.0.0:443": f"127.0.0.1:{port}",
            "/etc/roadstead-tls/tls.crt": str(authority.certificate),
            "/etc/roadstead-tls/tls.key": str(authority.key),
        })
    else:
        changes["127.0.0.1:5000"] = f"127.0.0.1:{port}"
    env = service_environment(cloud, variables(AWS / "aws.env"))
    first_account(README, {f"dynamodb://{NAME}": str(env["ROADSTEAD_METADATA"])}, without_blobs(env))
    with Child(["bash", "-c", f"cd {place} && exec {filled(line, changes)}"], place / "log", env) as child:
        wait_until(lambda: not child.alive() or accepts(port), 20, "the server listens")
        assert child.alive(), f"the server ended with {child.returncode}\n{child.log_tail()}"
        if with_tls:
            words = [roadstead(), "health", "--tls", "--listen", f"127.0.0.1:{port}"]
            wait_until(lambda: run(words, 20, ok=None).stdout == "ready\n", 20, "the server is ready")
        else:
            push_and_pull(place, f"127.0.0.1:{port}")
    left = {path.name for path in place.iterdir()} - {"log", "back", "docker"}
    assert not left, f"the server has left files on the host: {left}"


# --- the timers ---

COLLECTIONS = ("roadstead-collect", "roadstead-collect-deep")


def timers(folder: Path) -> str:
    """Both services are the same but for what they run, and their times are far apart."""
    place = folder / "timers"
    place.mkdir()
    said = {}
    for name in COLLECTIONS:
        (place / f"{name}.timer").write_text((AWS / f"{name}.timer").read_text())
        # systemd looks whether the program is there.
        text = filled((AWS / f"{name}.service").read_text(), {"/usr/local/bin/roadstead": str(roadstead())})
        (place / f"{name}.service").write_text(text)
        said[name] = {key: value for key, value in settings(text).items() if key not in ("Description", "ExecStart")}
        assert f"{name}.service" in steps(README, "enable --now") and f"{name}.timer" in steps(README, "enable --now"), name
    assert said[COLLECTIONS[0]] == said[COLLECTIONS[1]], "they run as the same"
    units = [path.name for path in sorted(place.iterdir())]
    done = run(["systemd-analyze", "verify", *units], timeout=60, cwd=place, ok=None)
    about = [line for line in (done.stdout + done.stderr).splitlines() if "roadstead" in line]
    assert not about, "\n".join(about)
    hours = []
    for name in COLLECTIONS:
        timer = settings((AWS / f"{name}.timer").read_text())
        assert timer["WantedBy"] == ["timers.target"], timer
        (calendar,) = timer["OnCalendar"]
        run(["systemd-analyze", "calendar", calendar], timeout=20)
        hours.append(int(re.findall(r" (\d\d):\d\d:\d\d$", calendar)[0]))
    assert abs(hours[0] - hours[1]) >= 6, "of two passes at once one leaves the metadata to the other"
    words = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", place / f"{COLLECTIONS[0]}.service"]
    return run(words, timeout=60).stdout.strip().splitlines()[-1].encode("ascii", "ignore").decode().strip()


def as_the_timers_say(cloud: Cloud) -> None:
    """A registry that serves has what it had, after both."""
    env = service_environment(cloud, variables(AWS / "aws.env"))
    for name in COLLECTIONS:
        service = settings((AWS / f"{name}.service").read_text())
        assert service["EnvironmentFile"] == ["/etc/roadstead/aws.env"], service
        line = filled(service["ExecStart"][0], {"/usr/local/bin/roadstead": str(roadstead())})
        report = json.loads(run(line.split(), TIMEOUT, env=env).stdout.strip().splitlines()[-1])
        assert report["complete"] and report["deep"] == name.endswith("-deep"), report


# --- Kubernetes ---


def objects(folder: Path, *words: str) -> List[dict]:
    """The objects of kubernetes.yaml, as a command of kubectl prints them."""
    env = {"KUBECONFIG": str(folder / "no-cluster"), "HOME": str(folder)}
    text = run([kubectl(), *words, "--local", "-f", AWS / "kubernetes.yaml", "-o", "json"], TIMEOUT, env=env, ok=None).stdout
    found, decoder = [], json.JSONDecoder()
    while text.strip():
        value, end = decoder.raw_decode(text.strip())
        found += value["items"] if value["kind"] == "List" else [value]
        text = text.strip()[end:]
    return found


def known_fields(folder: Path) -> str:
    """kubectl drops what it does not know when it reads an object as what it is, and keeps it when it only annotates."""
    from samples import fields

    def named(*words: str) -> Dict[tuple, dict]:
        return {(one["kind"], one["metadata"]["name"]): one for one in objects(folder, *words)}

    raw = named("annotate", "a=b")
    kinds = {"ServiceAccount", "ConfigMap", "Deployment", "PodDisruptionBudget", "Service", "CronJob"}
    assert {kind for kind, _ in raw} == kinds, sorted(raw)
    typed = named("set", "image", "*=a/b")
    annotation = {("metadata", "annotations"), ("metadata", "annotations", "a")}
    running = [which for which in raw if which[0] in ("Deployment", "CronJob")]
    for which in running:
        unknown = sorted(fields(raw[which]) - fields(typed[which]) - annotation, key=str)
        assert not unknown, f"{which}: unknown to Kubernetes: " + ", ".join(".".join(map(str, field)) for field in unknown)
    return f"kubectl reads {', '.join(' '.join(which) for which in sorted(running))}"


def collections(found: List[dict]) -> Dict[str, List[str]]:
    """What each CronJob runs, and that they differ in nothing but that and when."""
    jobs = {one["metadata"]["name"]: one["spec"] for one in found if one["kind"] == "CronJob"}
    nightly, deep = jobs["roadstead-collect"], jobs["roadstead-collect-deep"]
    assert len(jobs) == 2, sorted(jobs)
    (hour, day, month), (deep_hour, deep_day, deep_month) = (job["schedule"].split()[1:4] for job in (nightly, deep))
    assert (day, month) == ("*", "*") and deep_day.isdigit() and deep_month == "*", "each night, and once in each month"
    assert abs(int(hour) - int(deep_hour)) >= 6, "of two passes at once one leaves the metadata to the other"
    commands = {}
    for name, job in jobs.items():
        (container,) = job["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert "command" not in container, "where the program is, the image says"
        commands[name] = container.pop("args")
        job.pop("schedule")
    assert nightly == deep, "they run as the same"
    assert [word for word in commands["roadstead-collect-deep"] if word != "--deep"] == commands["roadstead-collect"], commands
    assert "--deep" in commands["roadstead-collect-deep"] and "--deep" not in commands["roadstead-collect"], commands
    return commands


def as_kubernetes_runs(folder: Path, cloud: Cloud) -> None:
    found = objects(folder, "annotate", "a=b")
    kinds = {one["kind"]: one for one in found}
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    job = kinds["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert {pod["serviceAccountName"], job["serviceAccountName"]} == {
        one["metadata"]["name"] for one in found if one["kind"] == "ServiceAccount"
    }
    assert kinds["Service"]["spec"]["selector"] == kinds["Deployment"]["spec"]["selector"]["matchLabels"]
    container = pod["containers"][0]
    drain = next(int(word[len("--drain-timeout=") : -1]) for word in container["args"] if word.startswith("--drain-timeout="))
    assert pod["terminationGracePeriodSeconds"] > drain * 60, "Kubernetes kills before the drain ends"
    env = service_environment(cloud, kinds["ConfigMap"]["data"])
    place = folder / "pod"
    place.mkdir()
    first_account(README, {f"dynamodb://{NAME}": str(env["ROADSTEAD_METADATA"])}, without_blobs(env))
    ports, children = [free_port() for _ in range(kinds["Deployment"]["spec"]["replicas"])], []
    metrics = free_port()
    try:
        for number, port in enumerate(ports):
            changes = {
                "--listen=0.0.0.0:5000": f"--listen=127.0.0.1:{port}",
                f"--public-url=https://{REGISTRY}": f"--public-url=http://127.0.0.1:{port}",
                "--metrics=0.0.0.0:9090": f"--metrics=127.0.0.1:{metrics if number == 0 else free_port()}",
            }
            assert "command" not in container and set(changes) <= set(container["args"]), container
            words = [changes.get(word, word) for word in container["args"]]
            children.append(Child([roadstead(), *words], place / f"log-{number}", env))
        for port, child in zip(ports, children):
            probe = Registry(f"127.0.0.1:{port}")
            for kind in ("readinessProbe", "livenessProbe"):
                path = container[kind]["httpGet"]["path"]
                wait_until(lambda: not child.alive() or (accepts(port) and probe.request("GET", path).status == 200), 20, f"{path} answers")
                assert child.alive(), f"the server ended with {child.returncode}\n{child.log_tail()}"
        assert b"# TYPE" in Registry(f"127.0.0.1:{metrics}").request("GET", "/metrics").body
        push_and_pull(place, f"127.0.0.1:{ports[0]}")
        Registry(f"127.0.0.1:{ports[1]}", USER, PASSWORD).verify("team/app", "1")
        for name, words in collections(found).items():
            report = json.loads(run([roadstead(), *words], TIMEOUT, env=env).stdout.strip().splitlines()[-1])
            assert report["complete"] and report["deep"] == name.endswith("-deep"), report
        Registry(f"127.0.0.1:{ports[1]}", USER, PASSWORD).verify("team/app", "1")
    finally:
        for child in children:
            child.stop()


