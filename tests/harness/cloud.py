"""Stand-ins for a cloud, on a loopback address of their own: versitygw for S3, ministack for DynamoDB and as a second S3.

versitygw enforces what S3 enforces: signatures, the least size of a part, the order of parts, checksums. It keeps its objects in a folder,
so that they outlive its process. ministack answers DynamoDB's conditions, transactions and paging; everything is in its memory and ends
with it. It knows keys but not their secrets; its S3 takes parts of any size in any order and does not compare a body with its checksum. So
the tests of blob storage use it only in addition to versitygw. Neither ever conflicts, throttles or answers late: `fault_proxy` does that.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Union

from .api import HarnessError
from .aws import Credentials, DynamoDb, S3
from .backend import Backend
from .leaks import SEARCH
from .process import STORE_ADDRESS, STORE_HOST, Child, free_port, wait_until
from .tools import ensure

# Every way to choose the two stores.
STORES = ("disk+sqlite", "s3+sqlite", "disk+dynamodb", "s3+dynamodb")

_START_SECONDS = 30.0
# Between the choice of a port and its use another process may take it.
_ATTEMPTS = 3


class _StandIn:
    """A server process with a folder of its own; a context manager. It may be killed and started again at the same port."""

    name = ""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        # Chosen by `start`, and kept so that clients find it again after `kill`.
        self.port = 0
        # Made on entering.
        self._folder = Path()
        self._child: Optional[Child] = None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{STORE_HOST}:{self.port}"

    @property
    def url(self) -> str:
        """The endpoint, without a slash at its end."""
        return f"http://{self.address}"

    @property
    def numeric_url(self) -> str:
        """The same by its address: for clients that ask registries at `localhost`."""
        return f"http://{STORE_ADDRESS}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id."""
        if self._child is None:
            raise HarnessError(f"{self.name} is not running")
        return self._child.pid

    def start(self) -> None:
        """Starts it and waits until it answers a signed request; at the port that it had before, if any."""
        again = self.port != 0
        for attempt in range(1, _ATTEMPTS + 1):
            self.port = self.port if again else free_port()
            child = Child(self._command(), self._folder / "log", env=self._environment(), cwd=self._folder)
            try:
                wait_until(lambda: not child.alive() or self._answers(), _START_SECONDS, f"{self.name} answers")
            except HarnessError as error:
                child.stop(grace=1)
                raise HarnessError(f"{error}\n{child.log_tail()}") from None
            if child.alive():
                self._child = child
                return
            if attempt == _ATTEMPTS:
                raise HarnessError(f"{self.name} ended with {child.returncode} before it answered\n{child.log_tail()}")

    def stop(self) -> None:
        """Ends the process in good order."""
        if self._child is not None:
            self._child.stop(grace=10)
            self._child = None

    def kill(self) -> None:
        """Ends the process as a power failure would; `start` may follow."""
        if self._child is not None:
            self._child.signal(signal.SIGKILL)
            self.stop()

    def log_tail(self) -> str:
        """The end of its log, for a failure's text."""
        return "\n".join((self._folder / "log").read_text(errors="replace").rstrip().splitlines()[-60:])

    def _command(self) -> List[Union[str, Path]]:
        raise NotImplementedError

    def _environment(self) -> Dict[str, Optional[str]]:
        raise NotImplementedError

    def _ask(self) -> object:
        """A signed request that only a ready server answers."""
        raise NotImplementedError

    def _answers(self) -> bool:
        try:
            self._ask()
        except HarnessError:
            return False
        return True

    def __enter__(self):  # the subclass's own type, which Python 3.9 cannot say
        self._folder = Path(tempfile.mkdtemp(prefix=f"roadstead-{self.name}-"))
        try:
            self.start()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)


class Versitygw(_StandIn):
    """S3 over a folder; what it has acknowledged outlives `kill`."""

    name = "versitygw"

    def _command(self) -> List[Union[str, Path]]:
        objects, sidecar = self._folder / "objects", self._folder / "sidecar"
        objects.mkdir(exist_ok=True)
        sidecar.mkdir(exist_ok=True)
        # It keeps an object's ETag and type in extended attributes, which not every temporary folder can hold.
        attributes = [] if _has_attributes(objects) else ["--sidecar", sidecar]
        # Without keep-alive a client's pool of connections would be tested by nothing.
        return [ensure("versitygw"), "--port", f"{STORE_ADDRESS}:{self.port}", "--quiet", "--keep-alive", "posix", *attributes, objects]

    def _environment(self) -> Dict[str, Optional[str]]:
        key, secret, region = self.credentials
        own = {"ROOT_ACCESS_KEY": key, "ROOT_SECRET_KEY": secret, "VGW_REGION": region}
        return {**_without("VGW_", "ROOT_", "AWS_", "LOGFILE", "WEBHOOK"), **own}

    def _ask(self) -> object:
        return S3(self.url, self.credentials).buckets()


class Ministack(_StandIn):
    """DynamoDB, and a lenient S3, in memory: everything is gone after `stop` or `kill`."""

    name = "ministack"

    def _command(self) -> List[Union[str, Path]]:
        return [ensure("ministack")]

    def _environment(self) -> Dict[str, Optional[str]]:
        key, secret, region = self.credentials
        temporary = self._folder / "tmp"
        temporary.mkdir(exist_ok=True)
        own = {
            "AUTH": "true",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "BIND_HOST": STORE_ADDRESS,
            "GATEWAY_PORT": str(self.port),
            # Left alone it would remove containers that it takes for its own from the machine's docker.
            "DOCKER_HOST": f"unix://{temporary}/no-docker",
            "IOT_MTLS_ENABLED": "0",
            "LAMBDA_EXECUTOR": "local",
            "LOG_LEVEL": "WARNING",
            "MINISTACK_HOST": "localhost",
            "MINISTACK_REGION": region,
            "SFTP_ENABLED": "0",
            "TMPDIR": str(temporary),
            **{name: None for name in ("EDGE_PORT", "HOSTNAME", "PERSIST_STATE", "S3_PERSIST", "SERVICES", "USE_SSL")},
        }
        return {**_without("AWS_", "LOCALSTACK_", "MINISTACK_", "LAMBDA_"), **own}

    def _ask(self) -> object:
        return DynamoDb(self.url, self.credentials).tables()


class Cloud:
    """Both stand-ins, with one pair of random credentials; a context manager.

        with Cloud() as cloud:
            with Server("--sparse", "allow", backend=cloud.backend("s3+dynamodb")) as server:
                ...

    One pair for both, because a process's SDK finds one pair for all services. Up in less than a second, once installed.
    """

    def __init__(self) -> None:
        self.credentials = Credentials.random()
        SEARCH.knows(self.credentials.secret_key)
        self.versitygw = Versitygw(self.credentials)
        self.ministack = Ministack(self.credentials)
        # Made on entering.
        self._folder = Path()
        self._stack = ExitStack()
        self._count = 0
        self._tables: List[str] = []

    def backend(
        self,
        stores: str = "s3+dynamodb",
        *,
        s3: Optional[_StandIn] = None,
        s3_proxy: Optional[str] = None,
        dynamodb_proxy: Optional[str] = None,
        prefix: str = "",
        local_table: bool = False,
        flags: Mapping[str, str] = {},
    ) -> Backend:
        """New stores for one registry: a fresh bucket, a fresh table, a fresh folder, as `stores` (one of `STORES`) asks.

        `s3` is the server that gets the bucket, versitygw by default. `s3_proxy` and `dynamodb_proxy` are the endpoints that the registry
        is given in place of the servers' own, such as a `FaultProxy`'s `url`; the bucket and the table are made past them. `prefix`
        is put before every object's key. `local_table` gives sessions, the deletion queue and keys a table of their own.
        `flags` are more of the store flags, `{"--s3-parts": "equal"}`.
        """
        blobs, metadata = stores.split("+") if stores in STORES else ("", "")
        if not blobs:
            raise HarnessError(f"{stores} is none of {', '.join(STORES)}")
        self._count += 1
        # Random too: no two runs, and no two registries of one run, can meet in one bucket or table by mistake.
        name = f"registry-{self._count}-{secrets.token_hex(4)}"
        made: Dict[str, object] = {}
        words: List[str] = []
        if blobs == "s3":
            server = s3 or self.versitygw
            client = S3(server.url, self.credentials)
            client.create_bucket(name)
            made.update(s3=client, bucket=name)
            words += ["--blobs", f"s3://{name}{'/' + prefix if prefix else ''}", "--s3-endpoint", s3_proxy or server.url]
        if metadata == "dynamodb":
            made.update(dynamodb=DynamoDb(self.ministack.url, self.credentials), table=name)
            self._tables += [name, *([f"{name}-local"] if local_table else [])]
            words += ["--metadata", f"dynamodb://{name}", *(["--local-table", f"{name}-local"] if local_table else [])]
        for flag, value in flags.items():
            words += [flag, value]
        # With both in the cloud a folder must not be needed, so there is none.
        data = None if stores == "s3+dynamodb" else self._folder / name
        env = self.credentials.environment() if stores != "disk+sqlite" else {}
        if metadata == "dynamodb":
            direct = [*words, "--dynamodb-endpoint", self.ministack.url]
            Backend(stores, data, tuple(direct), env).operate("metadata", "init", timeout=60)
            words += ["--dynamodb-endpoint", dynamodb_proxy or self.ministack.url]
        return Backend(stores, data, tuple(words), env, **made)  # type: ignore[arg-type]

    def direct(self, backend: Backend) -> Backend:
        """The same stores, past any proxy that the registry goes through."""
        words = list(backend.flags)
        for flag, server in (("--s3-endpoint", backend.s3), ("--dynamodb-endpoint", backend.dynamodb)):
            if server is not None:
                words[words.index(flag) + 1] = server.endpoint
        return replace(backend, flags=tuple(words))

    def __enter__(self) -> "Cloud":
        self._folder = Path(tempfile.mkdtemp(prefix="roadstead-cloud-"))
        try:
            self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._stack.enter_context(self.versitygw)
            self._stack.enter_context(self.ministack)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for table in self._tables:
                # A stand-in that was killed has taken its tables with it.
                with suppress(HarnessError):
                    SEARCH.items(table, DynamoDb(self.ministack.url, self.credentials).scan(table))
        finally:
            self._stack.close()


def _without(*prefixes: str) -> Dict[str, Optional[str]]:
    """Changes to the environment that remove what begins so: a person's settings for servers of their own."""
    return {name: None for name in os.environ if name.startswith(prefixes)}


def _has_attributes(folder: Path) -> bool:
    """Whether files there can carry extended attributes of users."""
    try:
        os.setxattr(folder, "user.roadstead", b"")
        os.removexattr(folder, "user.roadstead")
    except OSError:
        return False
    return True
