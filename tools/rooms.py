"""Writes the list of rooms into ARCHITECTURE.md, from the headings of the files themselves.

Each room's line is the first sentence of its file, so the map cannot say what the file does not.
`--check` changes nothing and exits 1 where the list names a room too many or too few.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAP = "ARCHITECTURE.md"
LIST = re.compile(r"(<!-- rooms: .*? -->\n).*?(<!-- end of rooms -->)", re.DOTALL)


def heading(path: Path) -> str:
    """Returns the first sentence of a file's heading, without a paragraph's line breaks."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".rs":
        lines = re.match(r"(?://! ?.*\n?)+", text)
        paragraph = re.sub(r"^//! ?", "", lines[0] if lines else "", flags=re.MULTILINE)
    else:
        docstring = re.match(r'"""(.*?)"""', text, re.DOTALL)
        paragraph = docstring[1] if docstring else ""
    first = " ".join(paragraph.split("\n\n")[0].split())
    # A link inside Rust's documentation is no link here.
    return re.sub(r"\[(`[^`]+`)\](?:\([^)]*\))?", r"\1", first)


def rooms(root: Path) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Yields each crate and package: its path, what it is, and its rooms with their headings."""
    for crate in sorted((root / "crates").iterdir()):
        manifest = tomllib.loads((crate / "Cargo.toml").read_text(encoding="utf-8"))
        found = []
        for path in sorted((crate / "src").iterdir()):
            module = path / "mod.rs" if path.is_dir() else path
            if not module.exists() or module.suffix != ".rs":
                continue
            if path.stem not in ("lib", "main") and not path.stem.endswith("tests"):
                found.append((path.stem, heading(module)))
        yield f"crates/{crate.name}", manifest["package"]["description"], found
    package = root / "python" / "casemate"
    for folder in [package, *sorted(path for path in package.iterdir() if path.is_dir())]:
        if not (folder / "__init__.py").exists():
            continue
        files = sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))
        about = heading(folder / "__init__.py").removesuffix(".")
        yield (
            folder.relative_to(root).as_posix(),
            about,
            [(path.stem, heading(path)) for path in files],
        )


def listing(root: Path) -> str:
    """Writes the list as Markdown: a heading for each crate or package, a line for each room."""
    parts = []
    for path, about, found in rooms(root):
        lines = [f"**`{path}`**: {about}.\n"] if about else [f"**`{path}`**\n"]
        lines += [f"- `{name}`: {says}" for name, says in found]
        parts.append("\n".join(lines))
    return "\n" + "\n\n".join(parts) + "\n\n"


def main(arguments: list[str] | None = None) -> int:
    """Writes the list, or checks it; the exit status is 1 where the check fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree")
    options = parser.parse_args(arguments)
    path = options.root / MAP
    text = path.read_text(encoding="utf-8")
    fresh = LIST.sub(lambda found: found[1] + listing(options.root) + found[2], text)
    if not options.check:
        path.write_text(fresh, encoding="utf-8")
        return 0
    names = re.compile(r"^(?:- |\*\*)`([\w/]+)`", re.MULTILINE)
    there, wanted = set(names.findall(text)), set(names.findall(fresh))
    for name in sorted(wanted - there):
        print(f"{MAP}: has no line for {name}; python tools/rooms.py writes it")
    for name in sorted(there - wanted):
        print(f"{MAP}: names {name}, which is not there; python tools/rooms.py removes it")
    return 1 if there != wanted else 0


if __name__ == "__main__":
    sys.exit(main())
