"""Circles between the modules of a Rust crate, found in its source text.

Only siblings count, that is, modules with the same parent: a module and its parent are one subject, and refer to each other. A module
stands for everything below it. A path is followed through `use` declarations to the module that defines the item, so that a re-export
by the parent is no way around the check; only a glob (`use a::*`) is not followed. Test code (`#[cfg(test)]`) is left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, FrozenSet, Iterator, List, Optional, Set, Tuple

ModulePath = Tuple[str, ...]

_IGNORED = re.compile(
    r"""
      //[^\n]* | /\*.*?\*/                                   # comments
    | b?r(?P<hashes>\#*)".*?"(?P=hashes) | b?"(?:\\.|[^"\\])*" # strings
    | b?'(?:\\.[^']*|[^'\\])'                                # characters
    """,
    re.DOTALL | re.VERBOSE,
)
_TEST = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[(?:[^\[\]]|\[[^\]]*\])*\]\s*)*")
_USE = re.compile(r"\buse\s+(?:::)?([^;]+);")
_PATH = re.compile(r"(?<![\w:])\$?((?:crate|self|super)(?:\s*::\s*\w+)+)")
_DECLARATION = re.compile(r"\bmod\s+(\w+)\s*([;{])")


class Module:
    """One module: the names that its `use` declarations bind, and all paths in its code."""

    def __init__(self) -> None:
        self.bindings: Dict[str, List[str]] = {}
        self.paths: List[List[str]] = []


def circles(crate: Path) -> List[str]:
    """One text for each set of sibling modules that depend on each other: the modules, and one path for each dependency."""
    modules: Dict[ModulePath, Module] = {}
    _read(crate / "src" / "lib.rs", (), modules)
    edges: Dict[ModulePath, Dict[str, Dict[str, str]]] = {}
    for name, module in modules.items():
        for path in module.paths:
            target = _target(path, name, modules)
            if target is None:
                continue
            shared = next((n for n, (a, b) in enumerate(zip(name, target)) if a != b), min(len(name), len(target)))
            if shared < min(len(name), len(target)):
                siblings = edges.setdefault(name[:shared], {})
                siblings.setdefault(name[shared], {}).setdefault(target[shared], f"{'::'.join(name)} uses {'::'.join(path)}")
    found = []
    for parent, siblings in edges.items():
        for members in _components(siblings):
            lines = [f"{crate.name}: {'::'.join(('crate', *parent))}: {', '.join(sorted(members))} depend on each other"]
            lines += [f"    {siblings[a][b]}" for a in sorted(members) for b in sorted(siblings.get(a, {})) if b in members]
            found.append("\n".join(lines))
    return found


def _read(file: Path, name: ModulePath, modules: Dict[ModulePath, Module]) -> None:
    text = _without_tests(_IGNORED.sub(" ", file.read_text()))
    folder = file.parent if file.name in ("lib.rs", "mod.rs") else file.with_suffix("")
    _add(text, folder, name, modules)


def _add(text: str, folder: Path, name: ModulePath, modules: Dict[ModulePath, Module]) -> None:
    module = modules[name] = Module()
    # Modules in braces are taken out first, since their paths are not this module's.
    while True:
        inline = next((found for found in _DECLARATION.finditer(text) if found.group(2) == "{"), None)
        if inline is None:
            break
        end = _end(text, inline.end() - 1)
        _add(text[inline.end() : end - 1], folder / inline.group(1), (*name, inline.group(1)), modules)
        text = text[: inline.start()] + text[end:]
    for declared in _DECLARATION.finditer(text):
        child = declared.group(1)
        files = [folder / f"{child}.rs", folder / child / "mod.rs"]
        _read(next(file for file in files if file.exists()), (*name, child), modules)
    for use in _USE.finditer(text):
        for path, bound in _use_tree(use.group(1)):
            module.paths.append(path)
            module.bindings[bound] = path
    text = _USE.sub(" ", re.sub(r"\bpub\s*\(in[^)]*\)", "pub", text))
    module.paths += [re.split(r"\s*::\s*", path) for path in _PATH.findall(text)]


def _without_tests(text: str) -> str:
    """The text without the items under `#[cfg(test)]`: each ends with its first block in braces or its first semicolon."""
    while True:
        test = _TEST.search(text)
        if test is None:
            return text
        end = re.compile(r"[;{]").search(text, test.end())
        assert end is not None, f"no end of the item after {test.group()}"
        after = end.end() if end.group() == ";" else _end(text, end.start())
        text = text[: test.start()] + text[after:]


def _end(text: str, start: int) -> int:
    """The position after the block whose opening brace is at `start`."""
    depth = 0
    for brace in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return brace.end()
    raise AssertionError("a block has no end")


def _use_tree(text: str, before: Tuple[str, ...] = ()) -> Iterator[Tuple[List[str], str]]:
    """The paths of a `use` declaration, each with the name that it binds."""
    head, brace, rest = text.strip().partition("{")
    if brace:
        above = (*before, *_segments(head))
        depth, start = 0, 0
        group = rest[: rest.rindex("}")]
        for position, character in enumerate(group + ","):
            depth += {"{": 1, "}": -1}.get(character, 0)
            if character == "," and depth == 0:
                if group[start:position].strip():
                    yield from _use_tree(group[start:position], above)
                start = position + 1
        return
    path, _, name = head.partition(" as ")
    segments = [*before, *_segments(path)]
    if len(segments) > 1 and segments[-1] == "self":
        segments.pop()
    yield segments, name.strip() or segments[-1]


def _segments(path: str) -> List[str]:
    return [segment.strip() for segment in path.split("::") if segment.strip()]


def _target(
    path: List[str], name: ModulePath, modules: Dict[ModulePath, Module], seen: FrozenSet[Tuple[ModulePath, str]] = frozenset()
) -> Optional[ModulePath]:
    """The module that defines the item of a path in the module `name`; `None` for an item of another crate.

    `seen` are the bindings that were followed, so that two that refer to each other come to an end.
    """
    at: ModulePath
    if path[0] == "crate":
        at, rest = (), path[1:]
    elif path[0] == "self":
        at, rest = name, path[1:]
    elif path[0] == "super":
        at, rest = name[:-1], path[1:]
    elif (*name, path[0]) in modules:
        at, rest = (*name, path[0]), path[1:]
    else:
        return None
    for position, segment in enumerate(rest):
        if segment == "super":
            at = at[:-1]
        elif (*at, segment) in modules:
            at = (*at, segment)
        elif segment in modules[at].bindings and (at, segment) not in seen:
            bound = modules[at].bindings[segment]
            return _target([*bound, *rest[position + 1 :]], at, modules, seen | {(at, segment)})
        else:
            break
    return at


def _components(edges: Dict[str, Dict[str, str]]) -> List[Set[str]]:
    """The sets of nodes that reach each other, of two nodes and more."""

    def reached(start: str) -> Set[str]:
        found: Set[str] = set()
        waiting = [start]
        while waiting:
            for node in edges.get(waiting.pop(), {}):
                if node not in found:
                    found.add(node)
                    waiting.append(node)
        return found

    reach = {node: reached(node) for node in edges}
    components: List[Set[str]] = []
    for node in sorted(edges):
        members = {other for other in reach[node] if node in reach.get(other, set())}
        if members and members not in components:
            components.append(members)
    return components
