"""`casemate init`: makes a home and prints every path of it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from casemate.cli import console
from casemate.cli.console import HomeOption, JsonOption, WrongUsage

if TYPE_CHECKING:
    from casemate.home import Report


def init(
    home: HomeOption = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--name", help="A host name or address that devices use; may be repeated."),
    ] = None,
    operator: Annotated[
        str, typer.Option("--operator", metavar="NAME", help="Name of the first account.")
    ] = "operator",
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Ask for a passphrase that encrypts the CA's keys.")
    ] = False,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--passphrase-file",
            envvar="CASEMATE_PASSPHRASE_FILE",
            metavar="FILE",
            help="Encrypt the CA's keys with this passphrase.",
        ),
    ] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Give the operator a password too; printed once.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a home: an authority, a server certificate, an operator, a policy.

    Nothing is overwritten, and what fails leaves nothing behind.
    """
    if encrypt and passphrase_file is not None:
        raise WrongUsage("give --encrypt or --passphrase-file, not both")
    from casemate.home import Home
    from casemate.passwords import generate_password

    passphrase = None
    if passphrase_file is not None:
        passphrase = console.read_secret(passphrase_file)
    elif encrypt:
        if not console.can_ask():
            raise WrongUsage("nobody can be asked for a passphrase; give --passphrase-file")
        passphrase = str(
            typer.prompt("Passphrase of the authority", hide_input=True, confirmation_prompt=True)
        )
    password = generate_password(operator) if generate else None
    with console.undisturbed():
        report = Home.init(
            console.home_folder(home), names or (), passphrase, operator=operator, password=password
        )
        print_report(report, password=password, as_json=as_json)


def print_report(report: Report, *, password: str | None = None, as_json: bool = False) -> None:
    """Prints what was made, and the lines to paste next.

    Args:
        report: From `Home.init`.
        password: The operator's generated password, printed this once.
        as_json: One JSON object in place of lines.
    """
    values: dict[str, object] = {
        "home": str(report.home),
        "paths": [str(path) for path in report.paths],
        "fingerprint_sha256": report.fingerprint,
        "operator": report.operator,
        "server_names": list(report.server_names),
        "keys_encrypted": report.keys_encrypted,
    }
    if password is not None:
        values["password"] = password
    console.answer(values, _lines(report, password), as_json=as_json)


def _lines(report: Report, password: str | None) -> list[str]:
    at = "" if report.home == Path.cwd() else f" --home {shlex.quote(str(report.home))}"
    lines = [f"made      {path}" for path in report.paths]
    lines += [
        f"names     {', '.join(report.server_names)}",
        f"operator  {report.operator} (its certificate is in identities/{report.operator})",
    ]
    if password is not None:
        lines.append(f"password  {password}   (shown this once)")
    lines += ["authority SHA-256 fingerprint:", f"  {report.fingerprint}"]
    if not report.keys_encrypted:
        lines.append(
            "note      the authority's keys are not encrypted; keep a copy of pki/root.key offline,"
            " then remove it here"
        )
    return [
        *lines,
        "",
        "Next:",
        f"  casemate run{at}",
        f"  casemate device add thermostat-7 --role sensor{at}",
    ]
