"""`casemate device`: adds, lists and removes devices, which prove themselves by certificate."""

from __future__ import annotations

from typing import Annotated

import typer

from casemate.cli import console
from casemate.cli.console import HomeOption, JsonOption, PassphraseFile

app: typer.Typer = typer.Typer(
    name="device",
    help="Devices and their certificates.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="1-128 letters, digits, '.', '_', '@' or '-'.")]


@app.command()
def add(
    name: Name,
    role: Annotated[str, typer.Option("--role", help="A role of policy.toml.")],
    days: Annotated[
        int, typer.Option("--days", min=1, max=397, help="Validity of the certificate.")
    ] = 365,
    passphrase_file: PassphraseFile = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a device: a certificate and key, ready to copy to it."""
    from casemate.pki import fingerprint

    opened = console.open_home(home)
    secret = console.passphrase(passphrase_file, opened)
    with console.undisturbed():
        files = opened.add_device(name, role, secret, lifetime_days=days)
        digest = fingerprint(files.certificate.read_bytes())
        console.answer(
            {
                "name": name,
                "role": role,
                "certificate": str(files.certificate),
                "key": str(files.key),
                "ca": str(files.ca),
                "fingerprint_sha256": digest,
            },
            [
                f"device       {name} ({role}), for {days} days",
                f"certificate  {files.certificate}",
                f"key          {files.key}",
                f"ca           {files.ca}",
                f"fingerprint  {digest}",
                "Copy the three files to the device; the key belongs to it alone.",
            ],
            as_json=as_json,
        )


@app.command("list", short_help="List the devices and their certificates.")
def list_devices(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the devices, their roles and the end of their certificates."""
    with console.open_home(home).accounts() as store:
        rows = [
            {
                "name": account.name,
                "roles": list(account.roles),
                "disabled": account.disabled,
                "certificate ends": max(
                    (console.day(end_s) for _, end_s in account.certificates), default=None
                ),
                "fingerprints": [digest.hex(":").upper() for digest, _ in account.certificates],
            }
            for account in store.list()
            if account.kind == "device"
        ]
    console.answer_table(("name", "roles", "disabled", "certificate ends"), rows, as_json=as_json)


@app.command(short_help="Remove a device and close its connections.")
def remove(name: Name, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Remove a device; a running broker closes its connection within a second."""
    with console.undisturbed():
        console.open_home(home).remove_device(name)
        console.answer({"removed": name}, [f"removed {name}"], as_json=as_json)
