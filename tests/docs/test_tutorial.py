"""What the tutorial and the guides for beginners say happens, when a reader does it in order.

The tutorial is one session from its first page to its last; each guide is one of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.terminal import ROOT, Terminal, blocks

TUTORIAL = ROOT / "docs/tutorial"
pytestmark = pytest.mark.timeout(900)

GUIDES = ("security", "listeners", "tls", "roles", "messages")
HOME = """\
```console
$ mkdir lesson && cd lesson
$ casemate up --home lab --host localhost
posture    …
```
"""


def pages() -> list[str]:
    """Gives the pages in the order in which they are read."""
    index = (TUTORIAL / "index.md").read_text(encoding="utf-8")
    found = re.search(r"```{toctree}\n:maxdepth: 1\n(.*?)```", index, re.DOTALL)
    assert found is not None
    return found[1].split()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    one = Terminal(tmp_path)
    try:
        yield one
    finally:
        one.close()


def test_the_tutorial_does_what_it_says(terminal: Terminal) -> None:
    """One reader goes through all of it: a page takes up where the one before has ended."""
    for page in pages():
        terminal.read(TUTORIAL / f"{page}.md")
    ended = terminal.close()
    assert [code for command, code in ended.items() if command.startswith("casemate up")] == [0]


@pytest.mark.parametrize("guide", GUIDES)
def test_each_guide_does_what_it_says(guide: str, terminal: Terminal, tmp_path: Path) -> None:
    """A reader has the broker of the tutorial, and opens one guide."""
    terminal.read(page(tmp_path, HOME))
    terminal.read(ROOT / f"docs/guides/{guide}.md")


def test_the_page_about_durability_does_what_it_says(terminal: Terminal, tmp_path: Path) -> None:
    """The same reader asks what is kept, restores a backup and gives the store a key."""
    terminal.read(page(tmp_path, HOME))
    terminal.read(ROOT / "docs/durability.md")


def test_the_readme_does_what_it_says(terminal: Terminal) -> None:
    if "<!-- elsewhere: " not in (ROOT / "README.md").read_text(encoding="utf-8"):
        pytest.skip("the README does not say yet which of its blocks a reader runs")
    terminal.read(ROOT / "README.md")


def test_every_page_is_in_the_tutorial_and_says_what_comes_next() -> None:
    names = [page.stem for page in TUTORIAL.glob("*.md")]
    assert sorted([*pages(), "index"]) == sorted(names)
    for number, (page, after) in enumerate(zip(pages(), [*pages()[1:], ""], strict=True), 1):
        text = (TUTORIAL / f"{page}.md").read_text(encoding="utf-8")
        assert text.startswith(f"# {number}. ")
        assert not after or re.search(rf"Next: \[[^\]]+\]\({after}\.md\)", text), page


def test_every_page_that_opens_a_door_names_its_risk_and_the_remedy() -> None:
    for page in pages()[1:-1]:
        if page == "test":
            continue
        text = (TUTORIAL / f"{page}.md").read_text(encoding="utf-8")
        assert "**risk**" in text, page
        assert re.search(r"\*\*remed(?:y|ies)\*\*", text), page


def page(folder: Path, text: str) -> Path:
    """Gives a page with this text."""
    file = folder / "page.md"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```console\n$ echo one\ntwo\n```\n", "did not print 'two'"),
        ("```console\n$ printf 'one\\ntwo\\n'\ntwo\none\n```\n", "did not print 'one'"),
        ("```console\n$ false\n```\n", "ended with 1"),
        ("<!-- exit: 1 -->\n```console\n$ true\n```\n", "ended with 0"),
        ("<!-- stays -->\n```console\n$ echo one\ntwo\n```\n", "ended without 'two'"),
        ("<!-- prints: nobody -->\n```text\none\n```\n", "nobody does not run"),
        ("```toml\na = 1\n```\n", "nobody says what this block is"),
        ("```python\nprint(1)  # 2\n```\n", "says '2' and prints '1'"),
        ("```python\nx = 1\n```\n", "says nothing"),
        ("```console\nno command\n```\n", "no command"),
    ],
)
def test_a_page_that_shows_what_does_not_happen_fails(
    text: str, said: str, terminal: Terminal, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=said):
        terminal.read(page(tmp_path, text))


def test_a_page_is_read_in_order_with_files_folders_and_what_runs_on(
    terminal: Terminal, tmp_path: Path
) -> None:
    terminal.read(
        page(
            tmp_path,
            "```console\n$ mkdir a && cd a\n$ pwd\n…/a\n```\n"
            "<!-- file: x.txt -->\n```text\none\n```\n"
            "<!-- append: x.txt -->\n```text\ntwo\n```\n"
            "<!-- replace: x.txt -->\n```text\nthree\n```\n"
            "```console\n$ cat x.txt\none\nthree\n```\n"
            "<!-- stays -->\n```console\n$ tail -f x.txt\none\n```\n"
            "<!-- prints: tail -->\n```text\nth…ee\n```\n"
            "<!-- elsewhere: it would hurt -->\n```console\n$ false\n```\n",
        )
    )
    assert (tmp_path / "a/x.txt").read_text() == "one\n\nthree\n"
    assert [*terminal.close()] == ["tail -f x.txt"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("<!-- exits: 1 -->\n```console\n```\n", "nobody knows"), ("```console\n$ x\n", "no end")],
)
def test_a_page_that_is_written_wrong_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        list(blocks(page(tmp_path, text)))
