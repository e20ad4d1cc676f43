"""Each option of mosquitto's programs works or is refused by name, and the guide says which."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from casemate.cli.app import execute, program
from casemate.cli.foreign import Foreign, foreign_to
from tests.unit.python.commands import ROOT

GUIDE = (ROOT / "docs/guides/command-line.md").read_text(encoding="utf-8")
COMMANDS = ("pub", "sub", "rr")

# What mosquitto 2.1 has; each option of Debian's 2.0 is among them.
SHARED = (
    "-A --cafile --capath --cert --ciphers -c --disable-clean-session -d --debug -D --property "
    "--help -h --host --insecure -i --id -I --id-prefix -k --keepalive --key --keyform -L --url -M "
    "--nodelay --no-tls -o -p --port -P --pw --proxy --psk --psk-identity -q --qos --quiet -S -t "
    "--topic --tls-alpn --tls-engine --tls-engine-kpass-sha1 --tls-use-os-certs --tls-version "
    "--tls-keylog -u --username --unix -V --protocol-version --version --will-payload --will-qos "
    "--will-retain --will-topic --ws -x"
)
OWN = {
    "pub": "-f --file -l --stdin-line -m --message -n --null-message -r --retain --repeat "
    "--repeat-delay -s --stdin-file",
    "sub": "-C -E -F --message-rate -N --pretty -R --random-filter --remove-retained "
    "--retain-as-published --retain-handling --retained-only -T --filter-out -U --unsubscribe "
    "-v --verbose -W -w --watch",
    "rr": "-e -f --file -F --latency -m --message -N -n --null-message --pretty -R "
    "--retain-as-published --retain-handling -s --stdin-file -v --verbose -W",
}


def parameters(command: str) -> list[Any]:
    return list(typer.main.get_command(program(command)).commands[command].params)


def known(command: str) -> Iterator[str]:
    """Yields the options that work."""
    yield "--help"
    for one in parameters(command):
        if one.param_type_name == "option" and not one.hidden:
            yield from one.opts


def refused(command: str) -> Iterator[str]:
    for one in foreign_to(command):
        yield from one.names


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_of_mosquittos_works_or_is_refused_by_name(command: str) -> None:
    theirs = {*SHARED.split(), *OWN[command].split()}
    assert theirs <= {*known(command), *refused(command)}
    assert not {*known(command)} & {*refused(command)}
    # Nothing is refused that nobody has.
    assert {*refused(command)} <= theirs


REFUSED = [(command, one) for command in COMMANDS for one in foreign_to(command)]


@pytest.mark.parametrize(("command", "one"), REFUSED, ids=lambda one: getattr(one, "names", one))
def test_what_is_refused_is_refused_in_one_line_that_says_what_to_use(
    command: str,
    one: Foreign,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in one.names:
        words = [name, "x"] if one.takes_value else [name]
        assert execute([command, "a", *words]) == 2
        said = capsys.readouterr()
        error, hint = said.err.splitlines()
        assert error == f"error: {one.names[-1]} is refused: {one.words}"
        assert hint == f"hint: {one.instead}"
        assert said.out == ""


def test_a_value_that_looks_like_an_option_is_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["pub", "a", "-m", "--psk", "-V", "7"]) == 2
    assert capsys.readouterr().err.startswith("error: -V is 5, 311 or 31")


def table() -> list[str]:
    """Gives the guide's table of options as the program has them."""
    found: dict[str, dict[str, str]] = {}
    for command in COMMANDS:
        for one in parameters(command):
            if one.param_type_name == "option" and not one.hidden:
                metavar = "" if one.is_flag else f" {one.metavar or ''}".rstrip()
                names = ", ".join(f"`{name}`" for name in one.opts) + metavar
                found.setdefault(names, {})[command] = one.help
    rows = []
    for names, help_of in sorted(found.items(), key=lambda row: row[0].strip("`-").lower()):
        marks = " | ".join("✓" if command in help_of else "" for command in COMMANDS)
        words = " / ".join(dict.fromkeys(help_of.values())).replace("|", "\\|")
        rows.append(f"| {names} | {marks} | {words} |")
    return rows


def test_the_guide_lists_each_option_with_what_the_program_says_of_it() -> None:
    (listed,) = re.findall(r"\| option \| `pub` .*\n\|[-|]+\n((?:\|.*\n)+)", GUIDE)
    assert listed.splitlines() == table()


def test_the_guide_lists_what_is_refused_and_what_to_use() -> None:
    rows = dict.fromkeys(
        f"| {', '.join(f'`{name}`' for name in one.names)} | {one.words} | {one.instead} |"
        for command in COMMANDS
        for one in foreign_to(command)
    )
    (listed,) = re.findall(r"\| refused \| .*\n\|[-|]+\n((?:\|.*\n)+)", GUIDE)
    assert listed.splitlines() == list(rows)
