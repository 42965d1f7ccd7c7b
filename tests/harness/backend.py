"""Where a registry keeps blobs and metadata: the flags and the environment that every command of `roadstead` gets alike."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

from .api import HarnessError
from .aws import DynamoDb, S3
from .build import roadstead
from .leaks import SEARCH
from .process import Finished, run


@dataclass(frozen=True)
class Backend:
    """One registry's stores; any number of processes may be started on them.

    `data` is what `--data` names, or None where nothing is kept in a folder. `s3` and `bucket`, `dynamodb` and `table` are there when the
    stores are: clients that look behind the registry's back, past any proxy that the registry itself goes through.
    """

    name: str
    data: Optional[Path] = None
    flags: Tuple[str, ...] = ()
    env: Mapping[str, Optional[str]] = field(default_factory=dict)
    s3: Optional[S3] = None
    bucket: str = ""
    dynamodb: Optional[DynamoDb] = None
    table: str = ""

    def words(self) -> List[str]:
        """The flags that choose these stores."""
        return [*(["--data", str(self.data)] if self.data is not None else []), *self.flags]

    def environment(self) -> Dict[str, Optional[str]]:
        """Changes to the environment: what the person who runs the tests has set for a registry of their own is not meant for this one."""
        return {**{name: None for name in os.environ if name.startswith(("ROADSTEAD_", "AWS_"))}, **self.env}

    def operate(
        self, *words: Union[str, Path], timeout: float = 120, ok: Optional[Sequence[int]] = (0,), input: Optional[str] = None
    ) -> Finished:
        """Runs an operator's command, `operate("collect", "--json")`, on these stores."""
        done = run([roadstead(), *words, *self.words()], timeout=timeout, env=self.environment(), ok=ok, input=input)
        if words[:2] == ("metadata", "export") and done.returncode == 0:
            SEARCH.export(Path(words[words.index("--output") + 1]).read_bytes() if "--output" in words else done.stdout.encode())
        return done

    def add_user(self, name: str, password: str) -> None:
        """Adds a user, and makes the registry if there is none yet. A server that runs already knows the user within 10 s."""
        SEARCH.knows(password, name)
        self.operate("user", "add", name, "--password-stdin", input=f"{password}\n")

    def set_policy(self, policy: str) -> None:
        """Puts a policy in TOML in force. A server that runs already follows within 10 s."""
        self.operate("policy", "set", "-", input=policy)

    def objects(self) -> Dict[str, int]:
        """Every object of the bucket by its key, with its size: what the store holds, whatever the table says."""
        if self.s3 is None:
            raise HarnessError(f"{self.name} has no bucket")
        return {found.key: found.size for found in self.s3.objects(self.bucket)}

    def items(self) -> List[Dict[str, object]]:
        """Every item of the table, as on the wire."""
        if self.dynamodb is None:
            raise HarnessError(f"{self.name} has no table")
        return list(self.dynamodb.scan(self.table))
