"""The parts of the run, in their order: what is cheap and finds most comes first."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from functools import partial
from types import ModuleType
from typing import Dict, List

from .api import Context, HarnessError, Part, Result, check, skip
from .build import binary
from .cache import ROOT
from .process import at_once, run
from .progress import step
from .tools import ensure

_TESTS = ROOT / "tests"


def _module(part: str) -> ModuleType:
    """The module of a part: tests/PART.py."""
    if str(_TESTS) not in sys.path:
        sys.path.insert(0, str(_TESTS))
    if not (_TESTS / f"{part}.py").is_file():
        raise HarnessError(f"tests/{part}.py is missing")
    return importlib.import_module(part)


def _main_of(part: str):
    return lambda context: _module(part).main(context)


def _clients(context: Context) -> List[Result]:
    folder = _TESTS / "clients"
    if not (folder / "run.py").is_file():
        raise HarnessError("tests/clients/run.py is missing")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    # By its path: `run` is too common a name for a module to be looked up.
    spec = importlib.util.spec_from_file_location("clients_run", folder / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.main(context)


def _bench(context: Context) -> List[Result]:
    """The benchmark's own rows, small: that each runs and none answers an error, not how fast it is."""
    # Other registries take part with --full alone. distribution is installed then, which takes some minutes; a file that is none leaves
    # one out that is there.
    install = ["--install"] if context.full else []
    alone = [] if context.full else ["--distribution", os.devnull, "--docker-registry", os.devnull]

    def path() -> Dict[str, str]:
        # It finds roadstead beside itself, and Debian's registry in the PATH.
        return {"PATH": f"{ensure('docker-registry').parent}{os.pathsep}{os.environ['PATH']}"} if context.full else {}

    def smoke() -> None:
        program = binary("bench")
        with step("the benchmark, small"):
            run([program, "compare", "--smoke", *alone], timeout=900, env=path())

    def smoke_on_s3() -> None:
        python = ensure("ministack").parent / "bin" / "python"
        command = [binary("bench"), "compare", "--s3", "--smoke", "--versitygw", ensure("versitygw"), "--ministack-python", python]
        if install and shutil.which("go") is None:
            skip("Go is needed to install distribution")
        with step("the benchmark on S3, small"):
            printed = run([*command, *install, *alone], timeout=1800, env=path()).stdout
        assert not install or "not run: " not in printed, f"not every registry took part:\n{printed}"

    def smoke_of_tokens() -> None:
        with step("the benchmark of tokens, small"):
            run([binary("bench"), "tokens", "--smoke"], timeout=300)

    binary("bench")
    # Nothing is measured here, so that they may run at once.
    return at_once(
        partial(check, "every row of the benchmark runs", smoke),
        partial(check, "the benchmark runs on S3 and DynamoDB", smoke_on_s3),
        partial(check, "the benchmark of tokens runs", smoke_of_tokens),
    )


PARTS = (
    Part("lint", "formatting, clippy, rustdoc, dependency policy, scripts", _main_of("lint")),
    Part("unit", "the tests of every crate", _main_of("unit")),
    Part("wasm", "the core builds for wasm32-unknown-unknown", _main_of("wasm")),
    Part("conformance", "the official suite: one server and three, with a password, with a token, over every pair of stores", _main_of("conformance")),
    Part("clients", "docker, containerd, podman, buildah, skopeo, crane, oras push, pull and run images, by token too, and print why they are refused", _clients),
    Part("image", "the container image: its build, its bytes, and containers of it in docker and podman", _main_of("image")),
    Part("memory", "a larger blob in and out within 64 MiB of memory; uploads to S3 within what --upload-memory grants", _main_of("memory")),
    Part("kills", "servers die while images are pushed, on disk and in the cloud", _main_of("kills")),
    Part("samples", "every sample and every deployment of infra/ runs", _main_of("samples")),
    Part("bench", "the benchmark, small", _bench),
)
