"""Checks of the search for circles between the modules of a crate."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

from .api import Result, check
from .modules import circles
from .process import scratch


def main() -> List[Result]:
    return [
        check("modules: circles are found in every spelling of a path", _finds_circles),
        check("modules: what is no circle is not reported", _finds_nothing_else),
    ]


def _circles(files: Dict[str, str]) -> List[str]:
    with scratch("modules") as work:
        for name, text in files.items():
            (work / "src" / name).parent.mkdir(parents=True, exist_ok=True)
            (work / "src" / name).write_text(text, encoding="utf-8")
        return circles(Path(work))


def _finds_circles() -> None:
    # Each is the text of the module `b`, while `a` uses `b`.
    for text in (
        "use crate::a::Item;",
        "use super::a;",
        "use super::Item;",
        "use crate::{\n    a::{self as other},\n    c,\n};",
        "fn f() -> crate::a::Item { todo!() }",
        "mod inner { use super::super::a::Item; }",
        "#[cfg(test)]\nmod tests { const BRACE: char = '}'; }\nuse super::a::Item;",
    ):
        found = _circles({"lib.rs": "mod a; mod b; mod c; use a::Item;", "a.rs": "pub struct Item(crate::b::X);", "b.rs": text, "c.rs": ""})
        assert len(found) == 1 and "crate: a, b depend" in found[0], f"{text}: {found}"
    # By way of a third module, and of modules below.
    long = {"lib.rs": "mod a; mod b; mod c;", "a.rs": "use crate::b::B;", "b.rs": "mod d;", "b/d.rs": "use crate::c;", "c/mod.rs": "mod e;"}
    assert _circles({**long, "c/e.rs": ""}) == []
    found = _circles({**long, "c/e.rs": "use crate::a::A;"})
    assert len(found) == 1 and "crate: a, b, c depend" in found[0] and "b::d uses crate::c" in found[0], found


def _finds_nothing_else() -> None:
    for text in (
        "//! See `crate::a`.\n/* use crate::a; */ const TEXT: &str = \"use crate::a;\";",
        "#[cfg(test)]\n#[expect(unused, reason = \"a[0]\")]\nmod tests {\n    use crate::a::Item;\n}",
        "#[cfg(test)]\nuse crate::a::Item;",
        "use other::a::Item; pub(in crate::a) fn f() {}",
        "use super::Own; mod c { use super::f; } fn f() { c::g() }",
    ):
        found = _circles({"lib.rs": "mod a; mod b; struct Own; use a::Item;", "a.rs": "pub struct Item(crate::b::X);", "b.rs": text})
        assert found == [], f"{text}: {found}"
