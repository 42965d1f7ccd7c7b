"""A proxy in front of a stand-in for the cloud: counts requests by operation, and injects what the stand-ins never do.

Stand-ins neither conflict nor throttle nor lose an answer; a real cloud does all of it. What can be injected is listed in `faults.KINDS`.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Sequence

from .api import HarnessError
from .faults import KINDS, Settings
from .process import STORE_HOST, Child, wait_until
from .progress import say


class Count(NamedTuple):
    """What passed of one operation.

    `requests` came from the client; `answers` are the service's, by status. `sent` and `received` are bytes of the bodies of requests
    and answers, as on the wire.
    """

    requests: int
    sent: int
    received: int
    answers: Dict[int, int]


class FaultProxy:
    """A relay on a loopback port, in a process of its own; a context manager.

        with Cloud() as cloud, FaultProxy(cloud.versitygw.address, probability=0) as s3:
            backend = cloud.backend("s3+dynamodb", s3_proxy=s3.url)
            ...
            assert s3.counts()["PutObject"].requests == 1

    One request in twenty meets a fault unless `probability` says otherwise; with 0 it only counts. `kinds` and `operations` choose which
    faults, and which requests may meet them ("UploadPart", "TransactWriteItems"); none means all. The first `skip` that would happen do
    not; after `limit` there are no more. So `probability=1, kinds=["reset-after"], operations=["CompleteMultipartUpload"], limit=1` loses
    the answer of exactly one request.

    One seed serves a whole run and is printed; ROADSTEAD_FAULT_SEED sets it. The n-th request of an operation has the same fate under the
    same seed.
    """

    def __init__(
        self,
        address: str,
        probability: float = 0.05,
        kinds: Sequence[str] = (),
        operations: Sequence[str] = (),
        skip: int = 0,
        limit: Optional[int] = None,
        seed: Optional[int] = None,
    ) -> None:
        # A seed that the test itself gives needs not be printed.
        self._untold = seed is None
        if seed is None:
            seed = _run_seed()
        _known(kinds)
        self.settings = Settings(seed, probability, tuple(kinds), tuple(operations), skip, limit)
        self.port = 0
        self._address = address
        self._control = 0
        self._folder = Path(tempfile.mkdtemp(prefix="roadstead-faults-"))
        self._log = self._folder / "log"
        self._child: Optional[Child] = None

    @property
    def address(self) -> str:
        """Host and port to send requests to."""
        return f"{STORE_HOST}:{self.port}"

    @property
    def url(self) -> str:
        """The endpoint, without a slash at its end."""
        return f"http://{self.address}"

    def counts(self) -> Dict[str, Count]:
        """What passed since the start or the last `reset`, by operation. An operation that did not occur is absent."""
        counts = self._ask("GET")["counts"]
        return {
            name: Count(one["requests"], one["sent"], one["received"], {int(status): n for status, n in one["answers"].items()})
            for name, one in counts.items()
        }

    def requests(self) -> Dict[str, int]:
        """The number of requests by operation, for an assertion: `{"PutObject": 1}`."""
        return {name: count.requests for name, count in self.counts().items()}

    def schemes(self) -> Dict[str, int]:
        """How many requests came with which kind of credentials, by the first word of `Authorization`: "" for those without."""
        return self._ask("GET")["schemes"]

    def injected(self) -> Dict[str, Dict[str, int]]:
        """How many faults of each kind were injected, by operation."""
        return self._ask("GET")["injected"]

    def total_injected(self) -> Dict[str, int]:
        """How many faults of each kind were injected into all operations together."""
        total: Dict[str, int] = {}
        for kinds in self.injected().values():
            for kind, count in kinds.items():
                total[kind] = total.get(kind, 0) + count
        return total

    def reset(self) -> None:
        """Zeroes every counter."""
        self._ask("DELETE")

    def inject(
        self,
        probability: float,
        kinds: Sequence[str] = (),
        operations: Sequence[str] = (),
        skip: int = 0,
        limit: Optional[int] = None,
    ) -> None:
        """Other faults from now on; what was counted stays. A probability of 0 ends them."""
        _known(kinds)
        changes = {"probability": probability, "kinds": list(kinds), "operations": list(operations), "skip": skip, "limit": limit}
        self._ask("POST", changes)
        self.settings = self.settings._replace(**changes)
        self._tell_seed()

    def _tell_seed(self) -> None:
        if self._untold and self.settings.probability > 0:
            self._untold = False
            say(f"    faults in front of {self._address}: ROADSTEAD_FAULT_SEED={self.settings.seed}")

    def log_tail(self, lines: int = 60) -> str:
        """The last faults, one a line with the operation, its number and its path; for a failure's text."""
        text = self._log.read_text(errors="replace") if self._log.is_file() else ""
        return "\n".join([f"faults of seed {self.settings.seed}:", *text.rstrip().splitlines()[-lines:]])

    def _ask(self, method: str, changes: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._control, timeout=10)
        try:
            connection.request(method, "/", None if changes is None else json.dumps(changes))
            return json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException) as error:
            raise HarnessError(f"the fault proxy does not answer: {error!r}\n{self.log_tail()}") from error
        finally:
            connection.close()

    def __enter__(self) -> "FaultProxy":
        ready = self._folder / "ready"
        package = Path(__file__).resolve().parent
        settings = json.dumps(self.settings._asdict())
        command = [sys.executable, "-B", "-m", f"{package.name}.fault_relay", self._address, ready, settings]
        try:
            # A run leaves nothing in the checkout.
            self._child = child = Child(command, self._log, cwd=package.parent)
            wait_until(lambda: ready.is_file() or not child.alive(), 10, "the fault proxy listens")
            if not ready.is_file():
                raise HarnessError(f"the fault proxy ended with {child.returncode}\n{child.log_tail()}")
        except BaseException:
            self.__exit__()
            raise
        ports = json.loads(ready.read_text())
        self.port, self._control = ports["port"], ports["control"]
        self._tell_seed()
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.stop(grace=5)
            self._child = None
        shutil.rmtree(self._folder, ignore_errors=True)


@functools.lru_cache(maxsize=None)
def _run_seed() -> int:
    return int(os.environ.get("ROADSTEAD_FAULT_SEED") or random.getrandbits(32))


def _known(kinds: Sequence[str]) -> None:
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise HarnessError(f"no such fault: {', '.join(unknown)}; there are {', '.join(KINDS)}")
