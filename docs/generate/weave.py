"""The Sphinx extension: puts what is generated into its pages, and makes links lead on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from docutils import nodes
from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

from docs.generate import commands, configuration, events, fixtures, reasons, stub, topics

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

GENERATED: dict[str, Callable[[], str]] = {
    "commands": commands.text,
    "configuration": configuration.text,
    "events": events.text,
    "fixtures": fixtures.text,
    "reasons": reasons.text,
    "stub": stub.text,
    "topics": topics.text,
}

PAPERS = {
    "ARCHITECTURE.md": "architecture",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "README.md": "readme",
    "SECURITY.md": "security",
}
"""Papers at the top of the tree, and the page of `project/` that shows each."""

_DECISIONS = """
```{toctree}
:hidden:
:glob:
0*
```
"""
"""What the index of decisions has on the site alone, so that the sidebar opens them."""

_REST = re.compile(r"^\*\n", re.MULTILINE)
"""A line of a list of pages that stands for those of its folder which the list does not name."""

_GENERATED = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
_PAPER = re.compile(r"^<!-- paper: ([\w.]+) -->$", re.MULTILINE)
_LINK = re.compile(r"(\[[^\]\n]*(?:\n[^\]\n]*)?\])\(([^)\s]+)\)")
_GROWN = re.compile(r"((?<!`)`[^`\n]+`)(\w)")
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def setup(app: Sphinx) -> dict[str, bool]:
    """Names what is done when."""
    app.connect("source-read", _weave)
    app.connect("autodoc-process-docstring", _as_it_is_parsed)
    app.connect("autodoc-process-signature", _options_for_models)
    app.connect("missing-reference", _to_where_it_is_offered)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _weave(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replaces the lines that ask for something, and then the links that leave the pages."""
    del app
    text = _GENERATED.sub(lambda found: GENERATED[found[1]](), source[0])
    folder = (DOCS / docname).parent
    paper = _PAPER.search(text)
    if paper:
        # The page's own sentence is for who reads it in the tree.
        text, home = (ROOT / paper[1]).read_text(encoding="utf-8"), ROOT
    else:
        home = folder
    if docname == "decisions/README":
        text += _DECISIONS
    text = _REST.sub(lambda _: _others(folder, text), text)
    source[0] = _LINK.sub(lambda found: _link(found[1], found[2], home, folder), text)


def _others(folder: Path, text: str) -> str:
    """Gives the pages of a folder that a list does not name, a line each."""
    named = {*text.splitlines(), "index"}
    names = sorted(page.stem for page in folder.glob("*.md"))
    return "".join(f"{name}\n" for name in names if name not in named)


def _link(words: str, target: str, home: Path, folder: Path) -> str:
    """Gives a link as it must stand on a page in `folder`.

    Args:
        words: In brackets.
        target: As it was written.
        home: Where it was written.
        folder: Where the page is.
    """
    file, mark, anchor = target.partition("#")
    if not file or re.match(r"[a-z]+:", target):
        return f"{words}({target})"
    there = (home / file).resolve()
    if there.parent == ROOT and there.name in PAPERS:
        there = DOCS / "project" / f"{PAPERS[there.name]}.md"
    elif there.is_dir():
        there = there / "README.md"
        if not there.exists():
            # A folder without a page of its own has nothing to show on a site.
            return words[1:-1]
    return f"{words}({os.path.relpath(there, folder)}{mark}{anchor})"


def _as_it_is_parsed(
    app: Sphinx, what: str, name: str, subject: object, options: object, lines: list[str]
) -> None:
    """Turns fenced blocks, and words grown onto code, into what the parser of docstrings knows."""
    del app, what, name, subject, options

    def directive(found: re.Match[str]) -> str:
        margin, language, code = found[1], found[2] or "text", found[3]
        inner = "".join(f"    {line}" if line.strip() else line for line in code.splitlines(True))
        return f"{margin}.. code-block:: {language}\n\n{inner}"

    text = _GROWN.sub(r"\1\\ \2", "\n".join(lines) + "\n")
    lines[:] = _FENCE.sub(directive, text).splitlines()


def _options_for_models(
    app: Sphinx, what: str, name: str, subject: object, options: object, said: str, returns: str
) -> tuple[str, str] | None:
    """Leaves the arguments of a model to its attributes, which say more than its signature."""
    del app, what, name, options, said, returns
    is_model = isinstance(subject, type) and issubclass(subject, BaseModel)
    return ("(**options)", "") if is_model else None


def _to_where_it_is_offered(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, contnode: nodes.Element
) -> nodes.Element | None:
    """Leads from where a class is written to where it is offered, as `casemate.Client`."""
    wanted = node.get("reftarget", "")
    domain = env.domains["py"]
    if node.get("refdomain") != "py" or not wanted.startswith("casemate."):
        return None
    parts = wanted.split(".")
    for depth in range(1, len(parts)):
        for tail in (parts[-1:], parts[-2:]):
            name = ".".join([*parts[:depth], *tail])
            if name in domain.objects:
                found = domain.objects[name]
                return make_refnode(
                    app.builder, node["refdoc"], found.docname, found.node_id, contnode, name
                )
    return None
