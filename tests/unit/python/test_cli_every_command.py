"""What holds for each command, walked off the program itself: --json, one line, nothing in half."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from casemate.cli.app import ENTRIES, execute, program
from casemate.home import Home
from tests.unit.python.commands import PATIENCE_S, environment


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:  # noqa: ANN401
    """Yields the words of each command."""
    if not hasattr(command, "commands"):
        yield path
        return
    for name, one in command.commands.items():
        yield from leaves(one, (*path, name))


COMMANDS = {" ".join(path): path for path in leaves(typer.main.get_command(program()))}

# What a command needs to get beyond its own line.
NEEDS = {
    "simulate": ["fleet.toml"],
    "pub": ["a", "b", "--as", "desk"],
    "sub": ["a", "--as", "desk"],
    "rr": ["a", "b", "--as", "desk"],
    "bench": ["pairs", "--as", "desk"],
    "device add": ["t7", "--role", "sensor"],
    "device remove": ["t7"],
    "user add": ["ada", "--role", "operator", "--generate"],
    "user passwd": ["ada", "--generate"],
    "user remove": ["ada"],
    "role show": ["sensor"],
    "store backup": ["copy"],
    "store export": ["lines"],
    "store import": ["fleet.toml"],
}
HOMELESS = {"lab", "config schema", "man"}
MAKES_A_HOME = {"init", "up"}


def parameters(path: tuple[str, ...]) -> list[Any]:
    command: Any = typer.main.get_command(program(path[0]))
    for word in path:
        command = command.commands[word]
    return list(command.params)


def test_each_command_of_the_frame_is_walked() -> None:
    assert {path[0] for path in COMMANDS.values()} == {entry.name for entry in ENTRIES}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_answers_in_json_if_asked(name: str) -> None:
    options = [option for one in parameters(COMMANDS[name]) for option in one.opts]
    assert "--json" in options


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_and_each_command_explains_itself(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = COMMANDS[name]
    assert execute([*path, "--help"]) == 0
    assert f"Usage: casemate {name} " in capsys.readouterr().out
    for one in parameters(path):
        if one.param_type_name == "option" and not one.hidden:
            assert one.help, one.opts
            assert one.help.endswith((".", "…")), one.opts


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_a_usage_error_in_both_forms(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*COMMANDS[name], *NEEDS.get(name, ()), "--nonsense"]
    assert execute(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0].startswith("error: No such option: --nonsense")
    assert err.splitlines()[1:] == [f'hint: run "casemate {name} --help"']
    assert execute([*words, "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["error"]["code"] == "usage"


def test_what_the_parser_says_stands_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["bench"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == (
        "error: Missing argument 'shape'. Choose from: "
        "fan-in, fan-out, pairs, shared, connects, idle"
    )
    assert hint == 'hint: run "casemate bench --help"'


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - HOMELESS - MAKES_A_HOME))
def test_without_a_home_nothing_is_done_and_one_line_is_said(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fleet.toml").write_text('[[devices]]\nname = "t{n}"\n')
    words = [*COMMANDS[name], *NEEDS.get(name, ()), "--home", str(tmp_path / "nowhere")]
    said = failed(words, 3, capsys)
    assert str(tmp_path / "nowhere") in said
    assert sorted(tmp_path.iterdir()) == [tmp_path / "fleet.toml"]


def failed(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a line in both forms; gives the message, which is the same in both."""
    assert execute(words) == code
    out, err = capsys.readouterr()
    assert out == ""
    error, *hints = err.splitlines()
    assert error.startswith("error: ")
    assert len(hints) <= 1
    assert execute([*words, "--json"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    message: str = json.loads(err)["error"]["message"]
    assert error == f"error: {message}"
    return message


@pytest.mark.parametrize("name", ["up", "run", "config check", "config show", "config diff"])
def test_a_configuration_that_is_wrong_is_named_with_its_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    Home.init(home)
    file = home / "casemate.toml"
    file.write_text(f'# A line more.\nnonsense = "x"\n{file.read_text()}')
    said = failed([*COMMANDS[name], "--home", str(home)], 3, capsys)
    assert f"{home}/casemate.toml:2: " in said


@pytest.mark.parametrize("name", ["role list", "role show", "device add", "user add"])
def test_a_policy_that_is_wrong_is_named_and_nobody_is_added(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    Home.init(home)
    (home / "policy.toml").write_text("nonsense\n")
    before = sorted((home / "identities").iterdir())
    words = [*COMMANDS[name], *NEEDS.get(name, ()), "--home", str(home)]
    said = failed(words, 3, capsys)
    assert f"{home}/policy.toml" in said
    assert sorted((home / "identities").iterdir()) == before


@pytest.mark.parametrize("name", sorted(MAKES_A_HOME))
def test_where_no_home_can_be_made_nothing_remains(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    failed([name, "--home", str(tmp_path / "file" / "home")], 3, capsys)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize(
    "words",
    [
        ["init", "--encrypt"],
        ["user", "passwd", "operator"],
        ["user", "add", "ada", "--role", "operator"],
    ],
)
def test_what_would_ask_somebody_says_so_where_nobody_is(words: list[str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    if words[0] == "user":
        Home.init(home)
    for closed in (False, True):
        done = subprocess.run(
            ["bash", "-c", f'"$@" {"<&-" if closed else "</dev/null"}', "-", sys.executable, "-c",
             "from casemate.cli.__main__ import main; main()", *words, "--home", str(home)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )  # fmt: skip
        assert done.returncode in (1, 2)
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
    if words[0] == "init":
        assert not home.exists()
