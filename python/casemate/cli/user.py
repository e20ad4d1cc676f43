"""`casemate user`: adds, lists and removes users, who prove themselves by password.

A password is never an argument: every account of the machine could read it there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from casemate.cli import console
from casemate.cli.console import HomeOption, JsonOption, WrongUsage

app: typer.Typer = typer.Typer(
    name="user", help="Users and their passwords.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(help="1-128 letters, digits, '.', '_', '@' or '-'.")]
PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", metavar="FILE", help="File with the password.")
]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from stdin.")
]
Generate = Annotated[bool, typer.Option("--generate", help="Choose a password; printed once.")]


@app.command(short_help="Add a user with a password.")
def add(
    name: Name,
    roles: Annotated[list[str], typer.Option("--role", help="A role; may be repeated.")],
    password_file: PasswordFile = None,
    password_stdin: PasswordStdin = False,
    generate: Generate = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a user; the password is asked for twice unless an option says where it is."""
    opened = console.open_home(home)
    password = _password(name, password_file, password_stdin, generate)
    with console.undisturbed():
        account = opened.add_user(name, roles, password)
        _answer(
            {"name": name, "roles": list(account.roles)},
            f"user      {name} ({', '.join(account.roles)})",
            password if generate else None,
            as_json,
        )


@app.command("list")
def list_users(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the users, their roles and what can prove them."""
    with console.open_home(home).accounts() as store:
        rows = [
            {
                "name": account.name,
                "roles": list(account.roles),
                "disabled": account.disabled,
                "password": account.has_password,
                "certificates": len(account.certificates),
            }
            for account in store.list()
            if account.kind == "user"
        ]
    columns = ("name", "roles", "disabled", "password", "certificates")
    console.answer_table(columns, rows, as_json=as_json)


@app.command()
def passwd(
    name: Name,
    password_file: PasswordFile = None,
    password_stdin: PasswordStdin = False,
    generate: Generate = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a user a new password."""
    with console.open_home(home).accounts() as store:
        # Before anybody is asked for a password that nobody could have.
        store.get(name)
        password = _password(name, password_file, password_stdin, generate)
        shown = password if generate else None
        with console.undisturbed():
            store.set_password(name, password)
            _answer({"name": name}, f"user      {name} has a new password", shown, as_json)


@app.command(short_help="Remove a user and close their connections.")
def remove(name: Name, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Remove a user; a running broker closes their connections within a second."""
    with console.undisturbed():
        console.open_home(home).remove_user(name)
        console.answer({"removed": name}, [f"removed {name}"], as_json=as_json)


def _password(name: str, file: Path | None, from_stdin: bool, generate: bool) -> str:
    """Finds the new password in the one place that was named, or asks for it twice."""
    if sum((file is not None, from_stdin, generate)) > 1:
        raise WrongUsage("give at most one of --password-file, --password-stdin and --generate")
    if file is not None:
        return console.read_secret(file)
    if from_stdin:
        return console.read_secret_from_stdin()
    if generate:
        from casemate.passwords import generate_password

        return generate_password(name)
    if not console.can_ask():
        raise WrongUsage(
            "nobody can be asked; give --password-file, --password-stdin or --generate"
        )
    return str(typer.prompt("New password", hide_input=True, confirmation_prompt=True))


def _answer(values: dict[str, object], line: str, generated: str | None, as_json: bool) -> None:
    lines = [line]
    if generated is not None:
        values["password"] = generated
        lines.append(f"password  {generated}   (shown this once)")
    console.answer(values, lines, as_json=as_json)
