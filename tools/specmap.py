"""Maps each normative statement to the line that enforces it and to the tests that prove it.

`python tools/specmap.py` prints the table and exits 1 where a statement that binds the server has
no enforcing line or no test. `--prove` runs the tests one at a time under instrumentation and
writes down which of them runs through its enforcing line; the plain run then says where that proof
is missing or older than the line. `tools/ratchet.json` holds how many of each may be open.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import spec_proof
from spec_tags import Statement, Tags, collect, statements

ROOT = Path(__file__).resolve().parent.parent
RATCHET = ROOT / "tools" / "ratchet.json"
PROVEN = ROOT / "tools" / "spec" / "proven.json"


def gaps(statement: Statement, tags: Tags) -> list[str]:
    """Names what a statement lacks: `line`, `test`, both, or nothing.

    A row of a table counts as a test only when some test runs the table.
    """
    lacks = []
    if statement.kind == "server":
        if not tags.places.get(statement.identifier):
            lacks.append("line")
        if not any(proof.tests for proof in tags.proofs.get(statement.identifier, [])):
            lacks.append("test")
    return lacks


def unknown_tags(known: list[Statement], tags: Tags) -> list[str]:
    """Returns a sentence for each tag that names no statement of the specifications."""
    names = {statement.identifier for statement in known}
    found = []
    for identifier in sorted((set(tags.places) | set(tags.proofs)) - names):
        where = [f"{place.path}:{place.tag_line}" for place in tags.places.get(identifier, [])]
        where += [f"{proof.path}:{proof.line}" for proof in tags.proofs.get(identifier, [])]
        found.append(f"{where[0]}: [{identifier}] is in no specification")
    return found


def table(known: list[Statement], tags: Tags, only_missing: bool) -> list[str]:
    """Writes one line for each statement: identifier, enforcing lines, tests or the reason."""
    lines = []
    for statement in known:
        lacks = gaps(statement, tags)
        if only_missing and not lacks:
            continue
        places = tags.places.get(statement.identifier, [])
        proofs = tags.proofs.get(statement.identifier, [])
        where = ", ".join(f"{place.path}:{place.code_line}" for place in places[:3])
        tests = ", ".join(proof.name or f"{proof.path}:{proof.line}" for proof in proofs[:3])
        more = f" (+{len(proofs) - 3})" if len(proofs) > 3 else ""
        if statement.kind == "server":
            says = f"{where or 'NO LINE'} | {tests or 'NO TEST'}{more}"
        else:
            says = f"{statement.kind}: {statement.reason}".rstrip(": ")
        lines.append(f"{statement.identifier:<22} {says}")
    return lines


def as_json(known: list[Statement], tags: Tags) -> str:
    """Writes the whole map for other programs."""
    rows = []
    for statement in known:
        row: dict[str, Any] = asdict(statement)
        places = tags.places.get(statement.identifier, [])
        proofs = tags.proofs.get(statement.identifier, [])
        row["lacks"] = gaps(statement, tags)
        row["lines"] = [f"{place.path}:{place.code_line}" for place in places]
        row["tests"] = [f"{proof.path}::{proof.name or proof.line}" for proof in proofs]
        rows.append(row)
    return json.dumps(rows, indent=2)


def settle(counts: dict[str, int], tighten: bool, strict: bool) -> list[str]:
    """Compares how many statements are open with how many may be.

    Args:
        counts: `missing` and `unproven`, in statements.
        tighten: Write smaller numbers down; larger ones never are.
        strict: Nothing may be missing, whatever the ratchet allows.

    Returns:
        A sentence for each number that is too large.
    """
    book = json.loads(RATCHET.read_text(encoding="utf-8")) if RATCHET.exists() else {}
    allowed: dict[str, int] = book.get("statements", {})
    faults = []
    for name, count in counts.items():
        limit = allowed.get(name, 0)
        if count > (0 if strict and name == "missing" else limit):
            hint = ": run make prove" if name == "unproven" else ""
            faults.append(f"{count} statements are {name}, {limit} may be{hint}")
        if tighten and count < limit:
            book.setdefault("statements", {})[name] = count
    if tighten:
        RATCHET.write_text(json.dumps(book, indent=2) + "\n", encoding="utf-8")
    return faults


def main(arguments: list[str] | None = None) -> int:
    """Prints the map; the exit status is 1 where a statement is open that may not be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--missing", action="store_true", help="only what lacks a line or a test")
    parser.add_argument("--json", action="store_true", help="the whole map as JSON")
    parser.add_argument("--quiet", action="store_true", help="only faults and the summary")
    parser.add_argument("--strict", action="store_true", help="nothing may be missing")
    parser.add_argument("--tighten", action="store_true", help="lower the ratchet to what is open")
    parser.add_argument("--prove", action="store_true", help="run what is unproven, instrumented")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree to read")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    has_websocket = any((root / "crates" / "server" / "src").rglob("websocket*"))
    known, faults = statements(root / "tools" / "spec", has_websocket)
    tags = collect(root)
    faults += tags.faults + unknown_tags(known, tags)
    bound = [statement for statement in known if statement.kind == "server"]
    whole = [statement for statement in bound if not gaps(statement, tags)]
    if options.prove:
        try:
            spec_proof.prove(root, [statement.identifier for statement in whole], tags, PROVEN)
        except (FileNotFoundError, subprocess.CalledProcessError) as cause:
            print(f"error: nothing can be proven: {cause}", file=sys.stderr)
            return 1
    if options.json:
        print(as_json(known, tags))
        return 1 if faults or len(whole) < len(bound) else 0
    if not options.quiet:
        print("\n".join(table(known, tags, options.missing)))
    book = spec_proof.read(PROVEN)
    unproven = [item for item in bound if not spec_proof.holds(item.identifier, tags, book)]
    counts = {"missing": len(bound) - len(whole), "unproven": len(unproven)}
    faults += settle(counts, options.tighten, options.strict)
    if options.prove:
        faults += [f"[{item.identifier}] is proven by no test of its own" for item in unproven]
    for fault in faults:
        print(fault)
    print(
        f"specmap: {len(known)} statements, {len(bound)} bind the server, "
        f"{counts['missing']} without line or test, {counts['unproven']} unproven"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
