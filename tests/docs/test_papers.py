"""What the papers say is checked against the tree: commands, options, links, rooms.

A command in a paper must exist with each of its options; the runs themselves belong to the tests of
interoperability. A paper that names a file, a room or a make target that is not there is wrong.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.docs import example

ROOT = Path(__file__).resolve().parents[2]
PAPERS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = [path.relative_to(ROOT).as_posix() for path in PAPERS]

BLOCK = re.compile(r"```(?:console|sh|shell|bash)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE_PATH = re.compile(
    r"`((?:crates|python|tests|tools|docs|fuzz|bench|examples|\.ci)/[\w./-]*|[A-Z]\w+\.md)`"
)
# Programs that a reader has from elsewhere; what they are given is checked by running them there.
FOREIGN = {"cd", "curl", "export", "git", "head", "mkdir", "mosquitto_pub", "mosquitto_sub"}
FOREIGN |= {"chmod", "cp", "mv", "sed"}
FOREIGN |= {"base64", "openssl", "pip", "pytest", "python", "python3", "rustup", "umask", "uvicorn"}


def commands(path: Path) -> Iterator[str]:
    """Yields each command of a paper's console blocks, without prompt, comment and output."""
    for block in BLOCK.findall(path.read_text(encoding="utf-8")):
        joined = re.sub(r"\\\n\s*", "", block)
        for line in joined.splitlines():
            if line.startswith("$ "):
                for part in re.split(r"\s(?:&&|\||&)\s", line[2:]):
                    command = re.sub(r"\s+#.*$|\s*&$", "", part).strip()
                    if command:
                        yield command


COMMANDS = [
    pytest.param(command, id=f"{path.name}: {command[:60]}")
    for path in PAPERS
    for command in dict.fromkeys(commands(path))
]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_in_a_paper_exists_with_its_options(command: str) -> None:
    words = shlex.split(command)
    program = words[0]
    if program == "make":
        for word in words[1:]:
            assert "=" in word or word in make_targets(), f"make knows no {word}"
    elif program == "casemate":
        _casemate(words[1:])
    elif program == ".ci/run":
        assert os.access(ROOT / program, os.X_OK)
    else:
        assert Path(program).name in FOREIGN, f"{program} is nobody's"


def _casemate(words: list[str]) -> None:
    path: list[str] = []
    text = casemate_help()
    # Groups have commands of their own: "device add" is two words, "pub" is one.
    while words and re.search(rf"^\W*{re.escape(words[0])}\s", text, re.MULTILINE):
        path.append(words.pop(0))
        text = casemate_help(*path)
        if "Commands" not in text:
            break
    assert path, f"casemate knows no {words[:1]}"
    for word in words:
        if re.match(r"--?[A-Za-z]", word):
            option = word.split("=")[0]
            found = re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text)
            assert found, f"casemate {' '.join(path)} has no {option}"


@cache
def casemate_help(*path: str) -> str:
    """Returns the help of a command, wide and without colour."""
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    said = subprocess.run(
        [Path(sys.executable).with_name("casemate"), *path, "--help"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    return said.stdout


@cache
def make_targets() -> frozenset[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z]+):", text, re.MULTILINE))


@pytest.mark.parametrize("paper", ["README.md", "docs/index.md"])
def test_the_first_program_of_a_front_page_runs(paper: str, tmp_path: Path) -> None:
    text = (ROOT / paper).read_text(encoding="utf-8")
    program = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    subscribed = 'await client.subscribe("lab/+/temp")\n'
    if paper == "README.md" and "asyncio.run" not in program:
        # The reader's loop waits for ever; here somebody publishes, and the first message ends it.
        program = program.replace(
            subscribed, f'{subscribed}        await client.publish("lab/1/temp", b"21")\n'
        )
        shown = "print(message.topic, message.payload)"
        assert shown in program
        program = program.replace(shown, "print(message.payload)  # b'21'\n            break")
    example.run(program, paper, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_each_link_to_a_file_of_the_tree_leads_there(name: str) -> None:
    path = ROOT / name
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in anchors(there), f"{name} links to {target}"


def anchors(path: Path) -> set[str]:
    """Returns the anchors of a paper's headings, as repository hosts make them."""
    found = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = re.sub(r"[^\w\s-]", "", line.lstrip("#").strip().lower())
            found.add(re.sub(r"\s", "-", heading))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_each_path_that_a_paper_names_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for named in CODE_PATH.findall(text):
        assert (ROOT / named).exists(), f"{name} names {named}"


def test_each_public_make_target_is_explained_and_each_explained_one_exists() -> None:
    said = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    explained = set(re.findall(r"^  make (\w+)", said, re.MULTILINE))
    assert explained <= make_targets()
    wanted = {"run", "test", "setup", "fmt", "lint", "sim", "fuzz", "bench", "soak", "docs"}
    assert wanted | {"check", "clean"} <= explained


def test_the_index_of_decisions_lists_each_page() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    pages = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert re.findall(r"\((\d{4}-[^)]+\.md)\)", index) == pages
    assert [page[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]


@pytest.mark.parametrize(
    "page", [path.name for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))]
)
def test_each_decision_has_its_four_parts_on_one_page(page: str) -> None:
    text = (ROOT / "docs" / "decisions" / page).read_text(encoding="utf-8")
    found = re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE)
    assert found == ["Context", "Choice", "Alternatives", "Consequence"]
    assert len(text.splitlines()) <= 60


def test_the_map_names_each_room_of_the_tree_and_no_other() -> None:
    said = subprocess.run(
        [sys.executable, "tools/rooms.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout
