"""What holds for the whole command line: exit codes, completion, what its start loads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer.main

from casemate import broker as broker_room
from casemate.cli import app
from casemate.cli.manual import EXITS
from casemate.errors import DeadlinePassed
from casemate.home import Home
from casemate.testing import ThrowAwayBroker
from tests.unit.python.commands import PATIENCE_S, ROOT, environment


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("role") / "home"
    Home.init(folder)
    Home.open(folder).add_device("t7", "sensor")
    return folder


def ending(error: BaseException) -> Callable[..., NoReturn]:
    def end(*_: object, **__: object) -> NoReturn:
        raise error

    return end


ENDS: dict[int, Callable[[Path, pytest.MonkeyPatch], int]] = {
    0: lambda _home, _: app.execute(["--version"]),
    1: lambda home, _: app.execute(["status", "--home", str(home)]),
    2: lambda _home, _: app.execute(["status", "--no-such-option"]),
    3: lambda home, _: app.execute(["status", "--home", str(home / "nowhere")]),
    27: lambda _home, patch: ended_by(patch, DeadlinePassed("no answer came")),
    130: lambda _home, patch: ended_by(patch, KeyboardInterrupt()),
    141: lambda _home, patch: ended_by(patch, BrokenPipeError()),
}


def ended_by(patch: pytest.MonkeyPatch, error: BaseException) -> int:
    patch.setattr(app, "program", lambda _wanted: ending(error))
    # What nobody reads must not be written at the end of the process; the test's own is kept.
    patch.setattr(app, "_leave_stdout", lambda: None)
    return app.execute(["status"])


@pytest.mark.parametrize("code", ENDS)
def test_each_end_has_its_exit_code(code: int, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ENDS[code](home, monkeypatch) == code


def test_the_guide_and_the_manual_list_these_exit_codes_and_no_other() -> None:
    guide = (ROOT / "docs/guides/command-line.md").read_text(encoding="utf-8")
    listed = {
        int(code): words.replace("`", "").replace("\\|", "|")
        for code, words in re.findall(r"^\| (\d+) \| (.*) \|$", guide, re.MULTILINE)
    }
    assert listed == EXITS
    assert list(listed) == sorted(ENDS)


def test_the_list_of_commands_is_that_of_the_commands_themselves() -> None:
    named = typer.main.get_command(app.program("--help"))
    loaded = typer.main.get_command(app.program())
    assert listed(named) == listed(loaded)


def listed(group: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - a group of typer's.
    return [(name, one.get_short_help_str(200)) for name, one in group.commands.items()]


@pytest.mark.parametrize("words", [[], ["config"], ["device"], ["user"], ["role"]])
def test_no_help_of_a_command_is_cut_short(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.execute([*words, "--help"]) == 0
    said = capsys.readouterr().out
    assert "..." not in said.partition("Commands:")[2]


@pytest.mark.parametrize("words", [[], ["device"], ["config"]])
def test_a_group_alone_shows_its_help_as_it_stands(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.execute([*words, "--help"]) == 0
    help_text = capsys.readouterr().out
    assert app.execute(words) == 2
    said = capsys.readouterr()
    assert said.err.strip() == help_text.strip()
    assert said.out == ""


def test_a_role_is_listed_with_who_holds_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.execute(["role", "list", "--home", str(home), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["sensor"] == {"name": "sensor", "rules": 2, "held by": ["t7"]}
    # One line allows both to publish and to subscribe.
    assert rows["operator"]["rules"] == 3
    assert rows["console"]["held by"] == []


def test_a_role_is_shown_with_the_line_of_each_rule(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.execute(["role", "show", "sensor", "--home", str(home)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"publish +devices/%u/#  \(QoS up to 1, may retain; policy\.toml:\d+\)", said[0]
    )
    assert said[-1] == "held by    t7"
    assert app.execute(["role", "show", "console", "--home", str(home), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["held_by"] == []
    assert {rule["operation"] for rule in shown["rules"]} == {"publish", "subscribe"}


def test_an_unknown_role_is_refused_with_the_nearest_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.execute(["role", "show", "senser", "--home", str(home)]) == 3
    assert 'did you mean "sensor"?' in capsys.readouterr().err


def shell(script: str, home: Path, *variables: tuple[str, str]) -> str:
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**environment(), "HOME": str(home), **dict(variables)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    said = shell(
        'eval "$(casemate --show-completion; true)"\n'
        "try() { COMP_WORDS=(casemate $1 $2); COMP_CWORD=$3; COMPREPLY=()\n"
        '  _casemate_completion casemate; echo "${COMPREPLY[*]}"; }\n'
        'try doc "" 1; try role "" 2; try doctor --j 2; try pub --will-q 2; try sub --retain-h 2',
        tmp_path,
    )
    wanted = ["doctor", "list show", "--json", "--will-qos", "--retain-handling"]
    assert said.splitlines() == wanted


def test_completion_is_installed_for_the_shell_that_asks(tmp_path: Path) -> None:
    shell("casemate --install-completion; true", tmp_path)
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert "_CASEMATE_COMPLETE=complete_bash" in script.read_text()
    assert f"source '{script}'" in (tmp_path / ".bashrc").read_text()


def test_zsh_gets_its_script_and_its_answers(tmp_path: Path) -> None:
    script = shell("casemate", tmp_path, ("_CASEMATE_COMPLETE", "source_zsh"))
    assert "#compdef casemate" in script
    answer = shell(
        "casemate",
        tmp_path,
        ("_CASEMATE_COMPLETE", "complete_zsh"),
        ("_TYPER_COMPLETE_ARGS", "casemate dev"),
    )
    assert '"device":"Devices and their certificates."' in answer


def test_fish_gets_its_script_and_its_answers(tmp_path: Path) -> None:
    script = shell("casemate", tmp_path, ("_CASEMATE_COMPLETE", "source_fish"))
    assert "complete --command casemate" in script
    asked = ("_CASEMATE_COMPLETE", "complete_fish"), ("_TYPER_COMPLETE_ARGS", "casemate role ")
    answer = shell("casemate", tmp_path, *asked, ("_TYPER_COMPLETE_FISH_ACTION", "get-args"))
    assert [line.split("\t")[0] for line in answer.splitlines()] == ["list", "show"]


def test_no_completion_offers_what_is_refused(tmp_path: Path) -> None:
    asked = ("_CASEMATE_COMPLETE", "complete_zsh"), ("_TYPER_COMPLETE_ARGS", "casemate pub --")
    answer = shell("casemate", tmp_path, *asked)
    assert '"--insecure-plaintext"' in answer
    assert '"--insecure"' not in answer
    assert "--psk" not in answer


# What costs time at a start, or opens what a look at the version has no business with.
HEAVY = ("argon2", "asyncio", "cryptography", "pydantic", "rich", "sqlite3", "ssl", "tomllib")
HEAVY += ("websockets", "zxcvbn", "casemate._engine", "casemate.home", "casemate.config")

FRAME = {
    "casemate", "casemate.cli", "casemate.cli.app", "casemate.cli.console", "casemate.cli.words",
    "casemate.errors",
}  # fmt: skip
REACHING = {
    f"casemate.cli.{name}" for name in ("connection", "foreign", "options", "payload", "target")
}

STARTS = {
    "--version": FRAME,
    "--help": FRAME,
    "nonsense": FRAME,
    "pub --help": FRAME | REACHING | {"casemate.cli.pub"},
    "status --help": FRAME | {"casemate.cli.status"},
}


def loaded_by(*words: str) -> set[str]:
    """Gives the modules that a process has loaded when a command has run in it."""
    script = (
        f"import sys\nfrom casemate.cli.app import execute\nexecute({list(words)!r})\n"
        "print('\\n' + ' '.join(sys.modules))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    ).stdout
    return set(said.splitlines()[-1].split())


@pytest.mark.parametrize("words", STARTS)
def test_a_start_loads_its_command_and_nothing_that_it_runs_with(words: str) -> None:
    loaded = loaded_by(*words.split())
    ours = {one for one in loaded if one.split(".")[0] == "casemate"}
    assert ours == STARTS[words]
    assert [one for one in HEAVY if one in loaded] == []


# What a message needs: an event loop, TLS, the codec, and of the client what connects and sends.
SENDING = {
    f"casemate.cli.{name}" for name in ("encryption", "looping", "property", "pub")
} | {
    f"casemate.client.{name}"
    for name in (
        "address", "client", "delivery", "exchange", "explain", "greeting", "inbox", "keeper",
        "link", "message", "request", "session", "stream", "subscriber", "topic", "trust",
    )
}  # fmt: skip
SENDING |= {"casemate.client", "casemate.native", "casemate._engine"}
NEEDED = {"asyncio", "ssl", "casemate._engine"}


def test_a_message_is_sent_by_what_that_needs_and_nothing_more() -> None:
    with ThrowAwayBroker() as broker:
        proof = broker.identity("desk")
        at = ["-h", "localhost", "-p", str(broker.listening().port), "--cafile", str(proof.ca)]
        at += ["--cert", str(proof.certificate), "--key", str(proof.key)]
        loaded = loaded_by("pub", "lab/1", "x", "-q", "1", *at)
        assert broker.counters()["publishes_received"] == 1
    ours = {one for one in loaded if one.split(".")[0] == "casemate"}
    assert ours == FRAME | REACHING | SENDING
    assert [one for one in HEAVY if one in loaded and one not in NEEDED] == []


# What a home's own client needs beside a client: where its files are, and where the broker listens.
OF_A_HOME = {
    f"casemate.{name}"
    for name in (
        "_engine", "broker", "broker.status", "errors", "files", "layout", "names", "native",
    )
}  # fmt: skip


@pytest.mark.parametrize("words", ["pub lab/1 x -q 1", "sub lab/1 -C 1", "rr lab/2 x -W 1"])
def test_a_local_identity_costs_neither_authority_nor_accounts_nor_configuration(
    words: str,
) -> None:
    with ThrowAwayBroker() as broker:
        broker.identity("desk")
        with broker.publisher() as publisher:
            publisher.publish_now([("lab/1", b"x", 1, True)])
        loaded = loaded_by(*words.split(), "--home", str(broker.home), "--as", "desk")
        assert broker.counters()["handshakes"] == 1
    ours = {one for one in loaded if one.split(".")[0] == "casemate"}
    of_client = {one for one in ours if one.startswith(("casemate.cli", "casemate.client"))}
    assert ours - of_client == {"casemate"} | OF_A_HOME
    assert [one for one in HEAVY if one in loaded and one not in NEEDED] == []


def test_the_names_of_the_broker_are_there_when_they_are_asked_for() -> None:
    for name in broker_room.__all__:
        assert getattr(broker_room, name) is not None
    assert dir(broker_room) == sorted(broker_room.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Borker'"):
        _ = broker_room.Borker
