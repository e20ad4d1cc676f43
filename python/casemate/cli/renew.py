"""`casemate renew`: gives the home's broker a new certificate for the names that it has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from casemate.cli import console
from casemate.cli.console import HomeOption, JsonOption, PassphraseFile


def renew(
    names: Annotated[
        list[str] | None,
        typer.Option("--name", help="A host name or address to add; may be repeated."),
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=397, help="Its validity.")] = 365,
    passphrase_file: PassphraseFile = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Renew the certificate of the home's own broker, with a new key and the names of the old one.

    Devices need nothing new. A running broker takes it with "casemate reload".
    """
    from casemate import config, files
    from casemate.pki import fingerprint

    opened = console.open_home(home)
    known = server_names(opened.path / config.SERVER_CERTIFICATE)
    authority = opened.authority(console.passphrase(passphrase_file, opened))
    with console.undisturbed():
        issued = authority.issue_server([*known, *(names or ())], lifetime_days=days)
        files.write_whole(opened.path / config.SERVER_KEY, issued.key_pem, files.PRIVATE_MODE)
        certificate = opened.path / config.SERVER_CERTIFICATE
        files.write_whole(certificate, issued.chain_pem, files.PUBLIC_MODE)
        digest, end = fingerprint(issued.certificate_pem), console.day(issued.not_after_s)
        console.answer(
            {
                "certificate": str(certificate),
                "names": list(issued.names),
                "ends": end,
                "fingerprint_sha256": digest,
            },
            [
                f"certificate  {certificate}, until {end}",
                f"names        {', '.join(issued.names)}",
                f"fingerprint  {digest}",
                'A running broker takes it with "casemate reload".',
            ],
            as_json=as_json,
        )


def server_names(certificate: Path) -> list[str]:
    """Reads the names of a certificate; those of this machine where it cannot be read."""
    from cryptography import x509

    from casemate import files, pki
    from casemate.errors import CasemateError

    try:
        read = x509.load_pem_x509_certificate(files.read_bounded(certificate))
        named = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, CasemateError, x509.ExtensionNotFound):
        return list(pki.machine_names())
    names = named.get_values_for_type(x509.DNSName)
    return names + [str(one) for one in named.get_values_for_type(x509.IPAddress)]
