"""The library that `tests/run` and every part of it are written with; standard library only, Python 3.9 or newer.

Read in this order: `api` (results and checks), `process` (commands, ports, children), `cache`, `tools`, `debian`, `venv` and
`wasm_toolchain` (what is installed, and where), `build` (cargo), `nextest` (the tests of the crates), `long_tests` (which of
them are long), `backend` (a registry's stores),
`server` (a roadstead of one's own), `leaks` (the search for secrets in what servers write), `http1`, `round_robin` and `fleet`
(several of them behind one address), `aws` and
`cloud` (the stand-ins for S3 and DynamoDB), `dns` (a name server), `fault_proxy` (their faults; `fault_relay`, `faults` and `operations` are its process), `parts` (what `tests/run`
runs), `progress` and `report` (what it prints), `selftest` (checks of all this).

    from harness import Server, check, ensure, run, skip

Names that other folders may use:

`Result(name, ok, seconds, detail)`, `check(name, function)`, `skip(reason)`, `HarnessError`
    One leaf check and its outcome.
`run(command, timeout, env=None, cwd=None, input=None, ok=(0,))` -> `Finished(returncode, stdout, stderr)`
    A command with captured output; raises `CommandFailed` with the whole story.
`Child(command, log, env=None, cwd=None)`
    A background process in a group of its own; a context manager; `.pid`, `.alive()`, `.stop(grace)`, `.log_tail()`.
`at_once(*functions, at_most=None)`
    Calls each in a thread of its own and returns what they return.
`free_port()`, `wait_until(predicate, seconds, what)`, `scratch(prefix)`
    A loopback port; a bounded wait; a context manager for a temporary folder (unmounts what lies under it, then removes it).
`cache_dir()`
    The folder that outlives a run.
`ensure(name)` -> `Path`
    Installs one tool if needed and returns its executable; `tools.TABLE` lists the names. `tools.search_path(*names)` is a PATH.
`Server(*flags, data=None, port=None, env=None, backend=None)`
    A context manager: `.url`, `.address` ("127.0.0.1:PORT"), `.pid`, `.data`, `.log`, `.peak_memory()`.
`RoundRobinProxy(addresses)`
    A context manager: `.address`; forwards each request to the next server in turn.
"""

from .api import Context, HarnessError, Part, Result, Skipped, check, in_ci, not_run, skip
from .cache import cache_dir
from .cloud import Cloud
from .fault_proxy import FaultProxy
from .fleet import Fleet
from .process import Child, CommandFailed, Finished, at_once, free_port, run, scratch, wait_until
from .round_robin import RoundRobinProxy
from .server import Server
from .tools import ensure

__all__ = [
    "Child",
    "Cloud",
    "CommandFailed",
    "Context",
    "FaultProxy",
    "Finished",
    "Fleet",
    "HarnessError",
    "Part",
    "Result",
    "RoundRobinProxy",
    "Server",
    "Skipped",
    "at_once",
    "cache_dir",
    "check",
    "ensure",
    "free_port",
    "in_ci",
    "not_run",
    "run",
    "scratch",
    "skip",
    "wait_until",
]
