"""Holds the crate graph, each crate's bans and the list of what may be depended on.

`python tools/crates.py` reads `tools/crates.toml`, where every rule stands with its reason, the
manifests, the sources and cargo's tree; it names each breach and exits 1 where there is one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rust_text import RustText, test_files

ROOT = Path(__file__).resolve().parent.parent
OURS = "casemate-"

# A parsed TOML table, whose shape the checks below establish.
Table = dict[str, Any]


def graph_faults(root: Path, rules: Table) -> Iterator[str]:
    """Yields each edge between our crates that the graph does not allow.

    Args:
        root: The tree, with `crates/*/Cargo.toml`.
        rules: `graph` maps a crate to those of ours that it may depend on.
    """
    graph: dict[str, list[str]] = rules["graph"]
    for manifest in sorted(root.glob("crates/*/Cargo.toml")):
        name = manifest.parent.name
        if name not in graph:
            yield f"crates/{name}: is no part of the graph in tools/crates.toml"
            continue
        for dependency in _dependencies(_read(manifest)):
            crate = dependency.removeprefix(OURS)
            if dependency.startswith(OURS) and crate not in graph[name]:
                yield f"crates/{name}/Cargo.toml: {name} must not know {crate}"


def source_faults(root: Path, rules: Table) -> Iterator[str]:
    """Yields each line of shipped source that names what its crate must not use.

    Args:
        root: The tree, with `crates/*/src`.
        rules: `ban` is a list of `crates`, `pattern` (a regular expression) and `reason`.
    """
    for ban in rules["ban"]:
        pattern = re.compile(ban["pattern"])
        for crate in ban["crates"]:
            folder = root / "crates" / crate / "src"
            skipped = test_files(folder)
            for path in sorted(folder.rglob("*.rs")):
                if path.resolve() in skipped:
                    continue
                source = RustText(path.read_text(encoding="utf-8"))
                spans = source.test_spans()
                for number, line in enumerate(source.code_lines, 1):
                    found = pattern.search(line)
                    if found and not any(first <= number <= last for first, last in spans):
                        place = f"{path.relative_to(root).as_posix()}:{number}"
                        yield f'{place}: "{found[0]}" is banned here: {ban["reason"]}'


def dependency_faults(root: Path, rules: Table) -> Iterator[str]:
    """Yields each crate from outside that is used without its reason, or listed without use.

    Args:
        root: The tree, with `crates/*/Cargo.toml`.
        rules: `dependency` maps a crate to why we have it.
    """
    known: dict[str, str] = rules["dependency"]
    used: set[str] = set()
    for manifest in sorted(root.glob("crates/*/Cargo.toml")):
        for dependency in _dependencies(_read(manifest)) | _development(_read(manifest)):
            used.add(dependency)
            if not dependency.startswith(OURS) and dependency not in known:
                place = manifest.relative_to(root).as_posix()
                yield f"{place}: {dependency} has no line in tools/crates.toml that says why"
    for name in sorted(set(known) - used):
        yield f"tools/crates.toml: {name} is listed, but no crate of ours depends on it"


def tree_faults(listing: str, rules: Table) -> Iterator[str]:
    """Yields each crate that would be built although we refuse it or its licence.

    The lock file is no witness: it also names crates that no build of ours touches.

    Args:
        listing: Lines of name, version and licence, separated by tabs, as `built` returns them.
        rules: `refused` maps a crate to why we do not have it; `licences.allowed` is a list.
    """
    refused: dict[str, str] = rules["refused"]
    allowed = set(rules["licences"]["allowed"])
    for line in sorted(set(listing.splitlines())):
        name, _, rest = line.partition("\t")
        licence = rest.partition("\t")[2].strip()
        if name in refused:
            yield f"{name} is refused: {refused[name]}"
        if not name.startswith(OURS) and not licence_allowed(licence, allowed):
            yield f'{name} has the licence "{licence}", which tools/crates.toml does not allow'


def licence_allowed(expression: str, allowed: set[str]) -> bool:
    """Says whether an SPDX expression can be met by licences of a set.

    Args:
        expression: Names joined by AND, OR (or the old `/`) and parentheses; empty is refused.
        allowed: Names of licences; an exception (`WITH`) belongs to its name.
    """
    text = re.sub(r"\s+WITH\s+", "+", expression.replace("/", " OR "))
    words = re.findall(r"[()]|[\w.+-]+", text)
    position = 0

    def either() -> bool:
        nonlocal position
        value = both()
        while position < len(words) and words[position] == "OR":
            position += 1
            value = both() or value
        return value

    def both() -> bool:
        nonlocal position
        value = one()
        while position < len(words) and words[position] == "AND":
            position += 1
            value = one() and value
        return value

    def one() -> bool:
        nonlocal position
        if position >= len(words):
            return False
        word = words[position]
        position += 1
        if word != "(":
            return word in allowed
        value = either()
        position += 1
        return value

    return either() and position == len(words)


def built(root: Path) -> str:
    """Asks cargo which crates any target of ours builds on this machine.

    Raises:
        CalledProcessError: Cargo could not resolve the workspace; its reason is on stderr.
    """
    command = ["cargo", "tree", "--workspace", "--edges", "normal,build,dev"]
    command += ["--prefix", "none", "--no-dedupe", "--format", "{p}\t{l}"]
    said = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    lines = (line for line in said.stdout.splitlines() if line.strip())
    return "\n".join(re.sub(r"^(\S+) (v\S+)[^\t]*\t", r"\1\t\2\t", line) for line in lines)


def clippy_faults(root: Path, rules: Table) -> Iterator[str]:
    """Yields each crate that must keep bans of its own for clippy and has no such file."""
    for crate in rules["clippy"]["crates"]:
        if not (root / "crates" / crate / "clippy.toml").exists():
            yield f"crates/{crate}/clippy.toml: is missing; it bans what a line cannot show"


def _dependencies(manifest: Table) -> set[str]:
    names = set(manifest.get("dependencies", {})) | set(manifest.get("build-dependencies", {}))
    for target in manifest.get("target", {}).values():
        names |= set(target.get("dependencies", {}))
    return names


def _development(manifest: Table) -> set[str]:
    names = set(manifest.get("dev-dependencies", {}))
    for target in manifest.get("target", {}).values():
        names |= set(target.get("dev-dependencies", {}))
    return names


def _read(path: Path) -> Table:
    with path.open("rb") as file:
        return tomllib.load(file)


def main(arguments: list[str] | None = None) -> int:
    """Checks the tree and prints each fault; the exit status is 1 when there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree to examine")
    root = parser.parse_args(arguments).root.resolve()
    rules = _read(root / "tools" / "crates.toml")
    checks = (graph_faults, source_faults, dependency_faults, clippy_faults)
    faults = [fault for check in checks for fault in check(root, rules)]
    faults += tree_faults(built(root), rules)
    for fault in faults:
        print(fault)
    print(f"crates: {len(rules['graph'])} crates of ours, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
