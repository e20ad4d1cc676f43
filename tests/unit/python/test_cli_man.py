"""The manual pages: written off the program, rendered without a warning, saying what it says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from casemate.cli.app import ENTRIES, execute
from casemate.cli.manual import EXITS, Page, _said, pages
from tests.unit.python.commands import PATIENCE_S
from tests.unit.python.test_cli_every_command import COMMANDS, parameters

PAGES = pages()


def need(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def rendered(text: str) -> str:
    """Gives what groff makes of a page, plain; every warning of it is a failure."""
    done = subprocess.run(
        [need("groff"), "-man", "-Tutf8", "-ww", "-P-cbou", "-rLL=400n"],
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_there_is_a_page_for_each_command_for_each_group_and_for_all() -> None:
    groups = {(entry.name,) for entry in ENTRIES}
    assert {page.words for page in PAGES} == {(), *groups, *COMMANDS.values()}
    assert len({page.file for page in PAGES}) == len(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_page_renders_without_a_warning_and_names_each_option(page: Page) -> None:
    text = rendered(page.text)
    assert page.text.isascii()
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "SEE ALSO"):
        assert re.search(rf"^{heading}$", text, re.MULTILINE), heading
    shown = {" ".join(line.split()) for line in text.splitlines()}
    if page.words in COMMANDS.values():
        for one in parameters(page.words):
            if one.param_type_name == "option" and not one.hidden:
                names = ", ".join(one.opts)
                assert [line for line in shown if line.startswith(names)], names
                # A short name stands in one line with its help.
                words = " ".join(one.help.split())
                assert [line for line in shown if words in line], words
    if page.words != ("doctor",):
        for code, words in EXITS.items():
            assert f"{code} {words}." in shown


def test_no_text_is_taken_for_a_request_or_changed() -> None:
    hostile = ".so /etc/passwd 'x' \"y\" \\fB -- ~^` … é \\n(.$ %"
    text = rendered(f".TH x 1\n.SH NAME\n{_said(hostile)}\n")
    assert hostile in " ".join(text.split())
    assert "root:" not in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_whatis_understands_the_heading(page: Page, tmp_path: Path) -> None:
    file = tmp_path / page.file
    file.write_text(page.text)
    done = subprocess.run(
        [need("lexgrog"), str(file)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert f'"{page.name} - ' in done.stdout


def test_all_pages_are_written_where_man_looks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # The second time over those of the first.
        assert execute(["man", "--to", str(tmp_path), "--json"]) == 0
        written = json.loads(capsys.readouterr().out)["written"]
        assert sorted(map(str, (tmp_path / "man1").iterdir())) == sorted(written)
    assert {Path(one).name for one in written} == {page.file for page in PAGES}
    for page in PAGES:
        file = tmp_path / "man1" / page.file
        assert file.read_text() == page.text
        assert file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("words", [[], ["pub"], ["config", "show"]])
def test_a_page_is_printed_as_it_would_be_written(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (page,) = [one for one in PAGES if list(one.words) == words]
    assert execute(["man", *words]) == 0
    assert capsys.readouterr().out == page.text
    assert execute(["man", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": page.name, "text": page.text}


def test_what_has_no_page_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["man", "nonsense"]) == 2
    assert capsys.readouterr().err.startswith('error: there is no command "nonsense"')
    assert execute(["man", "pub", "--to", str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    capsys.readouterr()
    assert execute(["man", "--to", str(tmp_path / "file")]) == 3
    assert "the pages cannot be written" in capsys.readouterr().err
